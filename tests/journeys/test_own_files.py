"""From a folder of one's own files to predictions: each command but the first is one that was printed."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.journeys.user import User, latest_run
from tests.plugins.data_files import write_image, write_video

SHORT = "--set train.epochs=1 --set input.size=16 --set input.stored=16"
SMALL = f"""{SHORT} --set 'model={{name="cnn", widths=[8]}}'"""
"""The model that `init` chooses for photos starts from downloaded weights."""


def photos(root: Path) -> Path:
    for target, name in enumerate(("daisy", "rose")):
        for number in range(8):
            write_image(root / name / f"{number}.jpg", 100 * target + number, height=60, width=80)
    return root


def test_photos(user: User) -> None:
    photos(Path("My Flowers"))
    user.types("python -m toolkit run 'My Flowers'", code=2)
    user.follows("init images")
    check, train, predict = user.steps()
    assert "valid" in user.types(check)
    user.types(f"{train} {SMALL}")
    assert "Nothing was scored" not in user.seen
    export, again = user.step("export"), user.step("predict")
    user.types(predict)
    user.types(again)
    assert "daisy" in user.seen
    user.follows("predict", "--save annotated")
    assert len(list(Path("annotated").iterdir())) == 1
    assert "it has passed the gate" in user.types(export)
    assert "rose" in user.follows("predict exports/my_flowers")


def test_init_again_names_the_command_that_works(user: User) -> None:
    photos(Path("flowers"))
    user.types("python -m toolkit init images flowers")
    user.types("python -m toolkit init images flowers", code=2)
    user.follows("--force")
    assert "wrote flowers.toml" in user.seen


def test_videos(user: User) -> None:
    for shade, name in ((0, "run"), (40, "sit")):
        for number in range(5):
            write_video(Path("clips") / name / f"{number}.mp4", shade=shade + number)
    user.types("python -m toolkit init images clips", code=3)
    user.follows("init videos")
    check, train, predict = user.steps()
    assert "valid" in user.types(check)
    assert "epoch 1/1" in user.types(f"{train} {SHORT} --set clip.frames=2")
    user.types(f"{train} {SMALL} --set clip.frames=2")
    user.types(predict)
    user.follows("predict", "--save")
    assert len(list(Path("annotated").iterdir())) == 1


LABELS = ("sun|sea", "sea", "sun|dog", "", "dog")


def scenes(rows: list[str], separator: str = "|") -> None:
    """Images whose labels are in a table, below these other rows of it."""
    for number in range(30):
        write_image(Path("scenes/images") / f"{number}.jpg", number, height=40, width=40)
        rows.append(f"images/{number}.jpg,{LABELS[number % 5].replace('|', separator)}")
    Path("scenes/train.csv").write_text("\n".join(["path,labels", *rows, ""]), "utf-8")


@pytest.mark.slow  # trains three runs and exports one
def test_several_labels_per_image(user: User) -> None:
    scenes([])
    user.types("python -m toolkit init images scenes")
    check, train, predict = user.steps()
    assert "note     6 items without a label" in user.types(check)
    user.types(f"{train} {SMALL}")
    assert "mean_average_precision" in user.seen
    assert "sea" in user.types(predict)
    user.types("python -m toolkit export runs/latest")
    assert "it has passed the gate" in user.seen
    user.types("python -m toolkit predict exports/scenes scenes/images --output answers.csv")
    rows = list(csv.DictReader(Path("answers.csv").read_text("utf-8").splitlines()))
    assert {name for row in rows for name in row["prediction"].split("|")} <= {"sun", "sea", "dog", ""}
    user.types("python -m toolkit evaluate exports/scenes --set data.root=scenes")
    user.types(f"python -m toolkit tune scenes.toml {SMALL}", code=2)
    user.follows("tune scenes.toml", "tune.space=", less="--set tune.trials=1")
    assert "study.html" in user.seen


WRONG_LISTS = {
    "one label twice": (
        ["images/0.jpg,dog"],
        "1 image in more than one set of labels: images/0.jpg",
        "Keep one line of each image, with all its labels.",
    ),
    "no such file": (["gone.jpg,dog"], "1 image named there not found: gone.jpg", "Correct the paths: "),
    "an empty row": ([","], "line 2: path is empty", "Fill it in, or remove the line."),
    "too many values": (["images/0.jpg,dog,sea"], "line 2: has 3 values, the header names 2 columns", "Put values "),
}


@pytest.mark.parametrize("case", WRONG_LISTS)
def test_what_is_wrong_with_a_list_of_labels(user: User, case: str) -> None:
    rows, message, step = WRONG_LISTS[case]
    scenes([])
    user.types("python -m toolkit init images scenes")
    scenes(list(rows))
    user.types("python -m toolkit check scenes.toml", code=3)
    assert message in user.seen
    assert f"next:  {step}" in user.seen
    scenes([])
    user.types("python -m toolkit check scenes.toml")


def test_labels_that_only_the_validation_list_has(user: User) -> None:
    scenes([])
    user.types("python -m toolkit init images scenes")
    write_image(Path("scenes/images/new.jpg"), 1000, height=40, width=40)
    Path("scenes/valid.csv").write_text("path,labels\nimages/new.jpg,cow\n", "utf-8")
    user.types("python -m toolkit check scenes.toml --set data.valid=valid.csv", code=3)
    assert "1 label not among those to train on: cow" in user.seen
    assert "next:  Correct these labels, or add images with them to those to train on." in user.seen


def test_another_separator_is_found_or_named(user: User) -> None:
    scenes([], ";")
    user.types("python -m toolkit init images scenes")
    assert 'separator = ";"' in Path("scenes.toml").read_text("utf-8")
    user.types("python -m toolkit check scenes.toml")
    Path("scenes.toml").write_text(re.sub("(?m)^separator.*\n", "", Path("scenes.toml").read_text("utf-8")), "utf-8")
    user.types("python -m toolkit check scenes.toml", code=3)
    assert 'next:  Set data.separator = ";".' in user.seen
    user.types("python -m toolkit check scenes.toml --set 'data.separator=;'")


def test_labels_for_a_task_of_one_class(user: User) -> None:
    scenes([])
    user.types("python -m toolkit init images scenes")
    user.types("python -m toolkit check scenes.toml --set task=classification", code=2)
    assert 'did you mean "multi_label"?' in user.seen


def test_numbers_in_a_table(user: User) -> None:
    Path("meter").mkdir()
    rows = []
    for number in range(30):
        Image.fromarray(np.full((32, 32, 3), 8 * number, np.uint8)).save(f"meter/{number}.png")
        rows.append(f"{number}.png,{number / 2}")
    Path("meter/train.csv").write_text("\n".join(["path,bar", *rows, ""]), "utf-8")
    user.types("python -m toolkit init images meter")
    check, train, predict = user.steps()
    assert "numbers  bar: " in user.types(check)
    user.types(f"{train} --set train.epochs=1 --set model.widths=[8]")
    assert "bar" in user.types(predict)


def test_nothing_to_score_is_a_sentence_and_every_step_that_is_offered_works(user: User) -> None:
    photos(Path("flowers"))
    user.types("python -m toolkit init images flowers")
    train = user.step("run flowers.toml")
    alone = f"{SMALL} --set data.valid_share=0 --set data.test_share=0"
    user.types(f"{train} {alone}")
    assert "Nothing was scored" in user.seen
    assert "┃" not in user.seen
    assert not [step for step in user.steps() if " export " in step], "the gate has nothing to compare on"
    for step in user.steps():
        user.types(step)
    assert "Nothing was scored" in (latest_run() / "report.html").read_text("utf-8")
