"""Pages of runs, comparisons, series and checks in a real browser: on a phone and on a desk, of 2 to 1,000 classes."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, TypedDict

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, ViewportSize, sync_playwright

from tests.conftest import painted
from tests.runs.test_compare import write_csv
from tests.runs.test_report import pixels, with_items, write_run, write_scores
from toolkit.api.errors import EXIT_DONE
from toolkit.cli.main import main
from toolkit.runs.compare.comparison import compare
from toolkit.runs.compare.contender import contenders
from toolkit.runs.compare.page import write_page
from toolkit.runs.files import read_run
from toolkit.runs.report import draw_maps, write_report
from toolkit.runs.report.pictures import item_pictures


class Screen(TypedDict):
    """Where a page is looked at; colours change no box of a page."""

    viewport: ViewportSize
    color_scheme: Literal["light", "dark"]


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,  # draws figures, starts a browser
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]
PHONE: Screen = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}
DESK: Screen = {"viewport": {"width": 1400, "height": 900}, "color_scheme": "light"}
OVERLAPS = (Path(__file__).parent / "overlaps.js").read_text(encoding="utf-8")
KINDS = ("greater spotted", "northern", "long-tailed", "dwarf")
THINGS = ("woodpecker", "suspension bridge, of steel", "salamander", "kingfisher (young)", "fire truck")


def class_names(count: int) -> list[str]:
    """Names of several words, and one without a place to break a line."""
    made = [f"{KINDS[place % 4]} {THINGS[place % 5]} {place}" for place in range(count)]
    return ["Mischfutterproduktionsanlagenbetreiber", *made][:count]


def scored(run: Path, classes: Sequence[str], seed: int) -> Path:
    """A finished run that answers two items of each class, and at least sixty, each as the seed draws."""
    items = max(60, 2 * len(classes))
    write_run(run, [*classes], test=items)
    write_scores(run)
    (run / "recipe.toml").write_text(f'seed = {seed}\n\n[data]\nname = "image_folder"\n', encoding="utf-8")
    draw = random.Random(seed)
    rows = [["id", "target", "prediction", "confidence", "class_1", "probability_1", "class_2", "probability_2"]]
    for item in range(items):
        target = classes[item % len(classes)]
        said = target if draw.random() < 0.6 else draw.choice(classes)
        other = next(name for name in classes if name != said)
        sure = f"{draw.uniform(0.5, 1):.4f}"
        rows.append([f"test/{target}/n02119789_{item:08}.JPEG", target, said, sure, said, sure, other, "0.1"])
    write_csv(run / "predictions.csv", rows)
    return run


def report(folder: Path, classes: Sequence[str]) -> Path:
    """With maps of where answers come from, and a map of the items."""
    run = scored(folder / "runs" / "mine" / "2026-11-22_13-05-11", classes, 0)
    with_items(run)
    places = sorted(item_pictures(run / "figures"))
    draw_maps(run / "figures", pixels(len(places), 3, 24, 24), torch.rand(len(places), 4, 4), places)
    draw = random.Random(0)
    ids = [row.id for row in read_run(run).rows[:600]]
    write_csv(
        run / "embedding.csv", [["id", "x", "y"], *([name, f"{draw.random()}", f"{draw.random()}"] for name in ids)]
    )
    return write_report(run)


def comparison(folder: Path, classes: Sequence[str]) -> Path:
    runs = [scored(folder / f"a-recipe-with-a-long-name-{seed}" / "1", classes, seed) for seed in range(2)]
    return write_page(compare(contenders(runs, runs=folder)), folder / "compare.html")


def series(folder: Path, classes: Sequence[str]) -> Path:
    for seed in range(3):
        scored(folder / "runs" / f"seed-{seed}", classes, seed)
    return write_page(compare(contenders([folder / "runs"], runs=folder)), folder / "series.html")


def check(folder: Path, classes: Sequence[str]) -> Path:
    """Of noise, in which each tenth class has a copy of one of its pictures."""
    draw = np.random.default_rng(0)
    for split in ("train", "valid", "test"):
        for place, name in enumerate(classes):
            below = folder / "photos" / split / name
            below.mkdir(parents=True)
            image = Image.fromarray(draw.integers(0, 256, (12, 12, 3), dtype=np.uint8))
            image.save(below / "n02119789_00000000.png")
            if split == "test" and place % 10 == 0:
                shutil.copy(folder / "photos" / "train" / name / "n02119789_00000000.png", below / "copy.png")
    assert main(["data", "check", str(folder / "photos"), "--output", str(folder / "checks")]) == EXIT_DONE
    (page,) = (folder / "checks").glob("*/*/check.html")
    return page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


Write: TypeAlias = Callable[[Path, Sequence[str]], Path]


@pytest.mark.parametrize("count", [2, 15, 100, 1000])
@pytest.mark.parametrize("write", [report, comparison, series, check])
def test_no_text_overlaps_and_nothing_scrolls_sideways(
    browser: Browser, tmp_path: Path, write: Write, count: int
) -> None:
    with painted():
        page = write(tmp_path, class_names(count))
    for screen in (PHONE, DESK):
        with browser.new_context(**screen) as context:
            shown = context.new_page()
            shown.goto(page.as_uri())
            assert shown.evaluate("document.documentElement.scrollWidth") <= screen["viewport"]["width"], screen
            assert shown.evaluate(OVERLAPS) == [], screen


@pytest.mark.parametrize("write", [report, check])
def test_a_long_class_name_leaves_the_other_columns_on_a_phone(browser: Browser, tmp_path: Path, write: Write) -> None:
    page = write(tmp_path, class_names(2))
    with browser.new_context(**PHONE) as context:
        shown = context.new_page()
        shown.goto(page.as_uri())
        second = shown.locator("#classes tbody tr").first.locator(":nth-child(2)").first.bounding_box()
        assert second
        assert second["x"] < PHONE["viewport"]["width"] / 2
