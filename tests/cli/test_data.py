"""The command data: its check, from planted faults to a run without them, and its page of pictures."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from tests.data.quality.test_similar import pictures
from tests.odd_images import READ, REFUSED
from toolkit.api.errors import EXIT_DATA, EXIT_DONE, EXIT_USAGE
from toolkit.cli.main import main
from toolkit.runs.data_check import check
from toolkit.runs.data_check.features import Features
from toolkit.runs.data_check.items import Items

METHODS = ("thumbnail", "features")
RECIPE = tiny.RECIPE.replace('name = "cifar10"\nvalid_share = 0.2', 'name = "image_folder"\n[input]\nsize = 32')


def checked(*words: object, code: int = EXIT_DONE) -> list[dict[str, str]]:
    """`data check`; the rows of its issues.csv."""
    assert main(["data", "check", *map(str, words)]) == code
    if code != EXIT_DONE:
        return []
    (file,) = Path("checks").glob("*/*/issues.csv")
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def of_kind(rows: list[dict[str, str]], kind: str) -> set[tuple[str, str]]:
    return {(row["item"], row["other"]) for row in rows if row["kind"] == kind}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def photos(root: Path, *, splits: tuple[str, ...] = ("train", "valid", "test")) -> Path:
    """Ten unlike pictures of two classes in each split."""
    made = iter(pictures(20 * len(splits)))
    for split in splits:
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(10):
                next(made).save(root / split / name / f"{number}.png")
    return root


def test_planted_faults_are_found_and_excluded(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photos(here / "photos")
    train, test = root / "train", root / "test"
    shutil.copy(test / "cat" / "1.png", train / "cat" / "leak.png")
    shutil.copy(train / "cat" / "2.png", train / "dog" / "conflict.png")
    shutil.copy(train / "cat" / "3.png", train / "cat" / "copy.png")
    Image.open(test / "dog" / "4.png").resize((40, 40)).save(train / "dog" / "small.png")
    Image.open(train / "dog" / "5.png").save(train / "dog" / "again.jpg", quality=80)
    Image.open(train / "dog" / "6.png").save(train / "dog" / "same.bmp")
    (train / "dog" / "broken.png").write_bytes(b"no image")
    (train / "dog" / "notes.txt").write_text("notes", encoding="utf-8")
    Image.new("RGB", (64, 64), (9, 9, 9)).save(train / "cat" / "black.png")
    recipe = tiny.write_recipe(here, root, text=RECIPE)
    rows = checked(recipe)
    assert of_kind(rows, "leak") == {
        ("train/cat/leak.png", "test/cat/1.png"),
        ("train/dog/small.png", "test/dog/4.png"),
    }
    assert of_kind(rows, "label conflict") in (
        {("train/dog/conflict.png", "train/cat/2.png")},
        {("train/cat/2.png", "train/dog/conflict.png")},
    )
    assert of_kind(rows, "duplicate") == {
        ("train/cat/copy.png", "train/cat/3.png"),
        ("train/dog/same.bmp", "train/dog/6.png"),
    }
    assert of_kind(rows, "near duplicate") == {("train/dog/again.jpg", "train/dog/5.png")}
    assert of_kind(rows, "unreadable") == {("train/dog/broken.png", "")}
    assert of_kind(rows, "skipped") == {("train/dog/notes.txt", "")}
    assert of_kind(rows, "flat") == {("train/cat/black.png", "")}
    details = {row["item"]: row["detail"] for row in rows}
    assert details["train/cat/leak.png"] == "the same bytes, in another split"
    assert details["train/dog/same.bmp"] == "the same pixels"
    assert details["train/dog/broken.png"].startswith("cannot be decoded: it is not a JPEG, ")
    (page,) = Path("checks").glob("*/*/check.html")
    assert str(root) not in page.read_text(encoding="utf-8")
    safe = {row["item"] for row in rows if row["decision"] == "exclude"}
    assert safe == {"train/cat/leak.png", "train/cat/copy.png", "train/dog/same.bmp", "train/dog/broken.png"}

    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("checked  68 images: train 28, valid 20, test 20")
    command = shlex.split(printed[-1].removeprefix("next:  python -m toolkit "))
    assert command[:2] == ["run", str(recipe)]
    assert main([*command, "--set", "train.epochs=1"]) == EXIT_DONE
    (run,) = Path("runs/tiny").glob("2*")
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    assert len(scores["protocol"]["exclude"]) == 12
    facts = json.loads((run / "facts.json").read_text(encoding="utf-8"))
    assert any("excluded 4 items" in note for note in facts["notes"])


def test_a_folder_is_checked_by_the_recipe_that_init_would_write(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos(here / "photos")
    assert checked("photos") == []
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "checked  60 images: train 20, valid 20, test 20",
        "issues   nothing was found",
        *(line for line in printed if line.startswith("report   checks/photos/")),
        "next:  python -m toolkit init images photos",
    ]
    assert main(shlex.split(printed[-1].removeprefix("next:  python -m toolkit "))) == EXIT_DONE


def test_a_run_is_checked_by_its_recipe(here: Path) -> None:
    recipe = tiny.write_recipe(here, photos(here / "photos"), text=RECIPE)
    assert tiny.run(recipe, here / "runs", "train.epochs=1") == EXIT_DONE
    assert checked(tiny.only_run(here / "runs")) == []


def test_labels_are_judged_by_a_run_and_come_back(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Planted wrong labels are found by the features of a run that was trained on them, and corrected."""
    root = here / "shades"
    draw, wrong = np.random.default_rng(0), {}
    for split, count in (("train", 40), ("valid", 10), ("test", 10)):
        for name, channel in (("blue", 2), ("green", 1), ("red", 0)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 180, (32, 32, 3), dtype=np.uint8)
                shown = channel
                if split == "train" and number == 7:
                    shown = (channel + 1) % 3
                    wrong[f"train/{name}/{number}.png"] = ("red", "green", "blue")[shown]
                pixels[..., shown] += 75
                Image.fromarray(pixels).save(folder / f"{number}.png")
    recipe = tiny.write_recipe(here, root, text=RECIPE.replace("epochs = 2", "epochs = 4"))
    assert tiny.run(recipe, here / "runs") == EXIT_DONE
    capsys.readouterr()
    run = tiny.only_run(here / "runs")
    rows = checked(recipe, "--weights", run)
    assert {item for item, _ in of_kind(rows, "likely label error")} == set(wrong)
    printed = capsys.readouterr().out
    assert f"features cnn of {run}" in printed
    (labels,) = Path("checks").glob("*/*/labels.csv")
    with labels.open(encoding="utf-8", newline="") as opened:
        suggested = list(csv.DictReader(opened))
    assert {row["item"]: row["suggested"] for row in suggested} == wrong
    assert {row["label"] for row in suggested} == {""}
    labels.write_text("item,label\n" + "".join(f"{item},{name}\n" for item, name in wrong.items()), encoding="utf-8")
    kept = Path("labels.csv")
    kept.write_bytes(labels.read_bytes())
    shutil.rmtree("checks")
    again = checked(recipe, "--weights", run, "--set", f"data.relabel={kept}")
    assert of_kind(again, "likely label error") == set()


def test_copies_that_only_a_model_sees_carry_how_they_were_found(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A crop is unlike its original pixel by pixel, and like it in features; a smaller copy is reported once."""
    root = photos(here / "photos")
    original = Image.open(root / "test" / "cat" / "1.png")
    original.crop((0, 0, 48, 44)).save(root / "train" / "cat" / "crop.png")
    Image.open(root / "test" / "dog" / "4.png").resize((40, 40)).save(root / "train" / "dog" / "small.png")
    shutil.copy(root / "train" / "cat" / "3.png", root / "train" / "cat" / "copy.png")
    names = [f"train/{name}" for name in ("cat/copy.png", "cat/crop.png", "dog/small.png")]
    shown = dict(zip(names, ("train/cat/3.png", "test/cat/1.png", "test/dog/4.png"), strict=True))

    def seen(made: Items, **_: object) -> Features:
        draw = np.random.default_rng(0)
        values = {name: draw.normal(size=32) for name in made.ids}
        return Features(np.stack([values[shown.get(name, name)] for name in made.ids]).astype(np.float32), "eyes")

    monkeypatch.setattr(check, "extractor", lambda planned, *_: Items.of(planned.data()))
    monkeypatch.setattr(check, "features", seen)
    rows = checked(tiny.write_recipe(here, root, text=RECIPE), "--model", "eyes")
    found = {row["item"]: (row["kind"], row["other"], row["method"], row["decision"]) for row in rows if row["method"]}
    assert found == {
        "train/cat/copy.png": ("duplicate", "train/cat/3.png", "bytes", "exclude"),
        "train/cat/crop.png": ("leak", "test/cat/1.png", "features", ""),
        "train/dog/small.png": ("leak", "test/dog/4.png", "thumbnail", ""),
    }
    (crop,) = (row for row in rows if row["item"] == "train/cat/crop.png")
    assert crop["detail"] == "nearly the same to a model, in another split"
    assert float(crop["score"]) == 1
    (page,) = Path("checks").glob("*/*/check.html")
    assert "nearly the same to a model, in another split · by features" in page.read_text(encoding="utf-8")
    assert "2 leak: " in capsys.readouterr().out


@pytest.mark.long  # the features of a real network take 12 s; those that are drawn prove the same path above
@pytest.mark.real
def test_a_network_shows_crops_and_colours_that_thumbnails_do_not(here: Path, real_data: Path) -> None:
    """Every tenth picture has a crop in the test split, every tenth one of other colours."""
    root, originals = here / "people", sorted(real_data.glob("har-subset/train/*.jpg"))[:200]
    planted = {"crop": set[tuple[str, str]](), "hue": set[tuple[str, str]]()}
    for number, path in enumerate(originals):
        whole = Image.open(path).convert("RGB")
        kept = root / "train" / "ab"[number % 2] / path.name
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, kept)
        if number % 10 > 1:
            continue
        how = ("crop", "hue")[number % 10]
        changed = root / "test" / "ab"[number % 2] / f"{how}-{path.name}"
        changed.parent.mkdir(parents=True, exist_ok=True)
        turned = np.asarray(whole.convert("HSV")) + np.array([85, 0, 0], np.uint8)
        made = {
            "crop": whole.crop((0, whole.height // 10, whole.width * 9 // 10, whole.height)),
            "hue": Image.fromarray(turned, "HSV").convert("RGB"),
        }
        made[how].save(changed, quality=90)
        planted[how].add((str(kept.relative_to(root)), str(changed.relative_to(root))))
    weights = real_data / "densenet121-imagenet-fp16.safetensors"
    rows = checked(root, "--model", "densenet121", "--weights", weights, "--set", "input.size=96")
    by = {method: {(row["item"], row["other"]) for row in rows if row["method"] == method} for method in METHODS}
    assert not by["thumbnail"] & planted["crop"]
    assert len(by["features"] & planted["crop"]) >= 17
    assert len((by["features"] | by["thumbnail"]) & planted["hue"]) > len(by["thumbnail"] & planted["hue"])
    assert len(by["features"] - planted["crop"] - planted["hue"]) <= 5


def test_odd_files_are_all_found_among_plain_ones(here: Path) -> None:
    """A zoo: files that cannot be read, and files that reading changes."""
    root = photos(here / "zoo")
    changed = {
        name: READ[name]
        for name in (
            *(f"turned-{number}.jpg" for number in range(2, 9)),
            *("CMYK.jpg", "L.jpg", "cmyk-with-exif.jpg", "xmp-first.jpg", "long.jpg", "xmp-alone.jpg", "one-pixel.jpg"),
            *("1.png", "L.png", "LA.png", "P.png", "RGBA.png", "two-bits.png", "transparent-palette.png"),
            *("transparent-grey.png", "turned.png", "late-exif.png", "animated.png", "deep-0.png", "deep-4.png"),
            *("LA.tif", "turned.webp", "animated.webp", "CMYK.tif", "lab.tif", "deep.tif", "pages.tif"),
            *("png.jpg", "webp.png", "bmp.webp", "jpeg.tif"),
        )
    }
    refused = {name: content for name, (content, _) in list(REFUSED.items())[: 60 - len(changed)]}
    for name, content in {**changed, **refused}.items():
        (root / "train" / "cat" / "zoo").mkdir(exist_ok=True)
        (root / "train" / "cat" / "zoo" / name).write_bytes(content)
    rows = checked(tiny.write_recipe(here, root, text=RECIPE))
    found = {row["item"] for row in rows if row["kind"] in ("unreadable", "odd file", "flat")}
    assert len(changed) + len(refused) == 60
    assert {f"train/cat/zoo/{name}" for name in (*changed, *refused)} - found == set()
    unreadable = {row["item"] for row in rows if row["kind"] == "unreadable"}
    assert unreadable == {f"train/cat/zoo/{name}" for name in refused}
    assert all("/zoo/" in row["item"] for row in rows)


MISTAKES = {
    "no action": (["data"], "error: data: expected an action"),
    "an empty folder": (["data", "check", "empty"], "error: empty: no images or videos found"),
    "no such recipe": (["data", "check", "gone.toml"], "error: gone.toml"),
    "random weights": (
        ["data", "check", "RECIPE", "--model", "wide_resnet"],
        "error: model wide_resnet: takes no weights, so its features",
    ),
    "no weights at all": (
        ["data", "check", "RECIPE", "--model", "resnet18", "--set", 'model={name="resnet18",weights="none"}'],
        "error: model resnet18: has no weights, so its features mean nothing",
    ),
    "an unknown model": (
        ["data", "check", "RECIPE", "--model", "resnet1"],
        'error: --model: unknown model "resnet1" (there are resnet101',
    ),
    "no run": (
        ["data", "check", "RECIPE", "--weights", "runs/none"],
        "error: --weights: runs/none: no such run or file",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_named_with_a_next_step(here: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    (here / "empty").mkdir()
    recipe = tiny.write_recipe(here, photos(here / "photos"), text=RECIPE)
    words, message = MISTAKES[case]
    code = main([str(recipe) if word == "RECIPE" else word for word in words])
    printed = capsys.readouterr().err
    assert code in (EXIT_USAGE, EXIT_DATA)
    assert message in printed
    assert "\nnext:  " in printed
    assert not Path("checks").exists()


def test_a_model_other_than_that_of_the_run_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tiny.write_recipe(here, photos(here / "photos"), text=RECIPE)
    assert tiny.run(recipe, here / "runs", "train.epochs=1") == EXIT_DONE
    run = tiny.only_run(here / "runs")
    checked(recipe, "--weights", run, "--model", "resnet18", code=EXIT_USAGE)
    assert f"{run}: a run of cnn, not of resnet18" in capsys.readouterr().err


def test_a_page_shows_pictures_of_each_class(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photos(here / "photos")
    (root / "train" / "cat" / "5.png").write_bytes(b"no image")
    assert main(["data", "show", "photos", "--items", "30"]) == EXIT_DONE
    page = Path(capsys.readouterr().out.split()[1])
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/webp") == 59
    assert text.count("cannot be decoded") == 1
    assert "train/dog/9.png" in text
    assert "<script src" not in text
