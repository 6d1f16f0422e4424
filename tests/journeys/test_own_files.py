"""From a folder of one's own files to predictions: each command but the first is one that was printed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.journeys.user import User, latest_run
from tests.plugins.data_files import write_image, write_video

SMALL = "--set train.epochs=1 --set input.size=32 --set input.stored=32 --set model.stem=imagenet"
NO_NETWORK = "--set model.weights=none"
"""The recipe that `init` writes starts from downloaded weights."""


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
    user.types(f"{train} {SMALL} {NO_NETWORK}")
    assert "Nothing was scored" not in user.seen
    export, again = user.step("export"), user.step("predict")
    user.types(predict)
    user.types(again)
    assert "daisy" in user.seen
    user.follows("predict", "--save annotated")
    assert len(list(Path("annotated").iterdir())) == 1
    assert "gate fp32: passed" in user.types(export)
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
    user.types(f"{train} {SMALL} {NO_NETWORK} --set clip.frames=2")
    user.types(predict)
    user.follows("predict", "--save")
    assert len(list(Path("annotated").iterdir())) == 1


@pytest.mark.slow
def test_several_labels_per_image(user: User) -> None:
    """Slow: trains and exports."""
    rows = []
    for number in range(15):
        write_image(Path("scenes/images") / f"{number}.jpg", number, height=40, width=40)
        rows.append(f"images/{number}.jpg,{('sun|sea', 'sea', 'sun|dog')[number % 3]}")
    Path("scenes/train.csv").write_text("\n".join(["path,labels", *rows, ""]), "utf-8")
    user.types("python -m toolkit init images scenes")
    _, train, predict = user.steps()
    user.types(f"{train} --set train.epochs=1 --set input.size=32 --set input.stored=32")
    assert "sea" in user.types(predict)


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
    alone = f"{SMALL} {NO_NETWORK} --set data.valid_share=0 --set data.test_share=0"
    user.types(f"{train} {alone}")
    assert "Nothing was scored" in user.seen
    assert "┃" not in user.seen
    assert not [step for step in user.steps() if " export " in step], "the gate has nothing to compare on"
    for step in user.steps():
        user.types(step)
    assert "Nothing was scored" in (latest_run() / "report.html").read_text("utf-8")
