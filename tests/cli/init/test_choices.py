"""What `init` chooses for which files, and that each recipe which it may write is valid."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from toolkit.api.contracts import Data, DataSpec, TargetForm
from toolkit.build.plan import plan
from toolkit.cli.init.choices import Survey, choose, described
from toolkit.cli.init.layout import Layout
from toolkit.cli.init.media import Media, Seen
from toolkit.cli.init.text import compose
from toolkit.data.folders import Found, Listing
from toolkit.data.images import ImageFiles
from toolkit.host.registry import discover
from toolkit.recipe.read import parse_text


def survey(
    *,
    short: int = 500,
    gpu: bool = False,
    videos: bool = False,
    classes: tuple[str, ...] = ("cat", "dog"),
    counts: tuple[int, ...] = (40, 40),
    several: bool = False,
    numbers: bool = False,
    damaged: tuple[tuple[str, str], ...] = (),
) -> Survey:
    ones = [target for target, count in enumerate(counts) for _ in range(count)]
    form: TargetForm = "number" if numbers else "set" if several else "index"
    said = {"number": tuple((1.5 * one,) * len(classes) for one in ones), "set": tuple((one,) for one in ones)}
    targets: Any = said.get(form, tuple(ones))
    ids = tuple(f"{position}.jpg" for position in range(len(targets)))
    listing = Listing(Path("/data"), ids, targets, classes, form)
    split = ImageFiles(ids, targets, ids, listing.paths)
    spec = DataSpec(classes, size=224, targets=form)
    data = Data(spec, split, split.select(range(4)), split.select(()), {}, ())
    media = Media((Seen(short, 2.0, 30.0),) * 8, damaged)
    return Survey(Layout(listing.root, Found(listing, videos)), data, media, gpu)


def keys(of: Survey) -> dict[str, Any]:
    return {f"{table.header}{choice.key}": choice.value for table in choose(of) for choice in table.choices}


@pytest.mark.parametrize(
    ("short", "gpu", "videos", "name", "size"),
    [
        (500, False, False, "resnet18", 160),
        (500, True, False, "resnet50", 224),
        (100, False, False, "resnet18", 128),
        (60, True, False, "resnet50", 96),
        (32, False, False, "cnn", 32),
        (32, True, False, "resnet18", 32),
        (240, False, True, "resnet18", 112),
        (240, True, True, "x3d_s", None),
        (40, False, True, "resnet18", 40),
    ],
)
def test_the_model_and_its_input(*, short: int, gpu: bool, videos: bool, name: str, size: int | None) -> None:
    chosen = keys(survey(short=short, gpu=gpu, videos=videos))
    assert (chosen["[model]name"], chosen.get("[input]size")) == (name, size)
    assert ("[clip]frames" in chosen) == (videos and name != "x3d_s")
    assert ("[model]weights" in chosen) == (short > 48)


@pytest.mark.parametrize(
    ("count", "epochs", "batch"), [(5, 20, 4), (64, 20, 16), (400, 12, 32), (4_000, 8, 32), (40_000, 5, 32)]
)
def test_epochs_and_batch_follow_the_number_of_items(count: int, epochs: int, batch: int) -> None:
    chosen = keys(survey(counts=(count, count)))
    assert (chosen["[train]epochs"], chosen["[train]batch"]) == (epochs, batch)


def test_several_labels_make_it_a_task_of_several_labels() -> None:
    chosen = keys(survey(several=True, counts=(40, 10)))
    assert chosen["[task]name"] == "multi_label"
    assert chosen["[task]positive_weights"] == "balanced"
    assert "[train]metric" not in chosen


def test_numbers_make_it_a_regression() -> None:
    chosen = keys(survey(numbers=True, classes=("price",), counts=(40, 5)))
    assert chosen["[task]name"] == "regression"
    assert {"[task]label_smoothing", "[task]class_weights", "[train]metric"}.isdisjoint(chosen)
    assert "horizontal_flip" in chosen.values()


@pytest.mark.parametrize("columns", [("x", "y"), ("steering angle",), ("yaw",)])
def test_numbers_that_a_mirror_changes_are_not_flipped(columns: tuple[str, ...]) -> None:
    assert "horizontal_flip" not in keys(survey(numbers=True, classes=columns)).values()


def test_unbalanced_classes_are_weighed_and_scored_alike() -> None:
    chosen = keys(survey(counts=(40, 10)))
    assert (chosen["[task]class_weights"], chosen["[train]metric"]) == ("balanced", "recall_macro")
    assert "[task]class_weights" not in keys(survey(counts=(40, 20)))


@pytest.mark.parametrize("classes", [("turn left", "turn_right"), ("left", "ahead"), ("6", "9"), ("b", "d")])
def test_classes_that_a_mirror_changes_are_not_flipped(classes: tuple[str, ...]) -> None:
    assert "horizontal_flip" not in keys(survey(classes=classes)).values()


@pytest.mark.parametrize("classes", [("cat", "dog"), ("leftover", "bright"), ("a", "dog")])
def test_others_are_flipped(classes: tuple[str, ...]) -> None:
    assert "horizontal_flip" in keys(survey(classes=classes)).values()


def test_damaged_files_are_skipped_within_a_limit_that_covers_them() -> None:
    chosen = keys(survey(damaged=(("0.jpg", "empty"),)))
    assert chosen["[input]on_corrupt"] == "skip"
    assert chosen["[input]corrupt_limit"] == 0.3  # one of the four items for validation, and a margin
    assert "[input]on_corrupt" not in keys(survey())


def test_the_summary_names_what_matters() -> None:
    assert described(choose(survey())) == "resnet18 at 160 px, imagenet weights, 20 epochs of batches of 8"
    assert described(choose(survey(short=28))) == "cnn at 28 px, random weights, 40 epochs of batches of 8"


FORMS: list[dict[str, bool]] = [{}, {"several": True}, {"numbers": True}]


@pytest.mark.parametrize(
    ("short", "gpu", "videos", "form"), list(product((16, 32, 70, 300), *[(False, True)] * 2, FORMS))
)
def test_every_recipe_is_valid_and_says_why(*, short: int, gpu: bool, videos: bool, form: dict[str, bool]) -> None:
    damaged = (("0.jpg", "empty"),)
    tables = choose(survey(short=short, gpu=gpu, videos=videos, counts=(40, 10), damaged=damaged, **form))
    text = compose(["A title."], tables)
    plan(parse_text(text, "made.toml", name="made"), discover())
    assert text.startswith("# A title.\n\n[data]\n")
    assert max(map(len, text.splitlines())) <= 120
    assert text.count("#") > 12
