"""Scores by slice: what they are, which are called worse, and where they are shown."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from tests.runs.test_report import read_page, write_run, write_scores
from toolkit.api.errors import DataError
from toolkit.cli.main import main
from toolkit.runs.directory import RunDirectory
from toolkit.runs.estimates import Estimate
from toolkit.runs.files import read_run
from toolkit.runs.predictions import Prediction
from toolkit.runs.report import write_report
from toolkit.runs.significance import Interval, wilson_interval
from toolkit.runs.slices import FEWEST, PARTS, Columns, Slice, read_slices, slices_of, write_slices

TRIALS = int(os.environ.get("SLICE_TRIALS", "80"))
"""Simulated runs without any slice that is worse."""


def answers(right: Sequence[bool]) -> list[Prediction]:
    return [
        Prediction(f"{place}", "cat", "cat" if one else "dog", 0.9, {"cat": 0.9}) for place, one in enumerate(right)
    ]


def found(right: Sequence[bool], columns: Columns, sources: dict[str, str] | None = None) -> list[Slice]:
    return slices_of(answers(right), "index", sources or {}, columns)


def by_place(values: Sequence[str]) -> dict[str, str]:
    return {f"{place}": value for place, value in enumerate(values) if value}


NIGHT = [place < 40 for place in range(200)]
LIGHT = by_place(["night" if dark else "day" for dark in NIGHT])


def test_the_score_of_a_slice_is_that_of_its_items() -> None:
    right = [not dark or place % 4 == 0 for place, dark in enumerate(NIGHT)]
    worst, best = found(right, {"light": LIGHT})
    assert (worst.name, worst.items, worst.measure, worst.score, worst.rest) == ("light night", 40, "accuracy", 0.25, 1)
    assert worst.interval == wilson_interval(0.25, 40)
    assert (best.name, best.items, best.score, best.rest) == ("light day", 160, 1, 0.25)
    assert (worst.worse, best.worse) == (True, False)
    assert worst.sentence == "light night: accuracy 25.0 % of 40 items, 75 points below the rest"


def test_of_numbers_the_largest_errors_are_worst() -> None:
    rows = [
        Estimate(f"{place}", {"age": 10.0}, {"age": 10.0 + (5 if dark else 1) + place % 3})
        for place, dark in enumerate(NIGHT)
    ]
    worst, best = slices_of(rows, "number", {}, {"light": LIGHT})
    assert (worst.name, worst.measure, worst.worse, best.worse) == ("light night", "mae", True, False)
    assert worst.score == pytest.approx(np.mean([5 + place % 3 for place in range(40)]))
    assert worst.interval.low < worst.score < worst.interval.high
    assert worst.sentence == "light night: mae 5.9750 of 40 items, 3.975 above the rest"


def test_an_error_that_is_not_finite_judges_nothing() -> None:
    rows = [Estimate(f"{place}", {"age": 1.0}, {"age": math.nan if place == 3 else 2.0}) for place in range(200)]
    assert not any(one.worse for one in slices_of(rows, "number", {}, {"light": LIGHT}))


def test_items_without_a_value_have_no_slice() -> None:
    some = {name: value for name, value in LIGHT.items() if int(name) < 100}
    assert {one.name: one.items for one in found([True] * 200, {"light": some})} == {"light night": 40, "light day": 60}


def test_few_items_inside_or_outside_are_no_slice() -> None:
    values = ["rare"] * (FEWEST - 1) + ["often"] * 50
    assert found([True] * len(values), {"camera": by_place(values)}) == []
    values = ["rare"] * FEWEST + ["often"] * 50
    assert len(found([True] * len(values), {"camera": by_place(values)})) == 2


@pytest.mark.parametrize("as_text", [False, True])
def test_many_numbers_are_cut_into_parts_of_as_many_items(as_text: bool) -> None:
    values = {f"{place}": float(place * place) for place in range(100)}
    column = {name: str(value) for name, value in values.items()} if as_text else values
    parts = found([place >= 20 for place in range(100)], {"age": column})
    assert [one.items for one in parts] == [20] * PARTS
    assert (parts[0].value, parts[0].score, parts[0].worse) == ("0 to 361", 0, True)
    assert not any(one.worse for one in parts[1:])


def test_few_numbers_are_values() -> None:
    column = {f"{place}": float(place % 3) for place in range(60)}
    assert {one.value for one in found([True] * 60, {"size": column})} == {"0", "1", "2"}


def test_text_stays_as_it_was_written() -> None:
    column = by_place([f"00{place % 3}" for place in range(60)])
    assert {one.value for one in found([True] * 60, {"camera": column})} == {"000", "001", "002"}


def test_a_source_is_judged_by_its_own_items() -> None:
    """The other sources agree, so the first one is worse: that others would be is another question."""
    sources = by_place([f"video {place // 40}" for place in range(200)])
    worst, *others = found([place >= 40 or place % 4 == 0 for place in range(200)], {}, sources)
    assert (worst.name, worst.worse, worst.score) == ("source video 0", True, 0.25)
    assert not any(one.worse for one in others)


def test_one_source_says_nothing_about_what_its_items_share() -> None:
    """All night items are of one video: the video may be hard, not the night."""
    right = [not dark or place % 4 == 0 for place, dark in enumerate(NIGHT)]
    videos = by_place([f"video {place // 40}" for place in range(200)])
    (night,) = [one for one in found(right, {"light": LIGHT}, videos) if one.name == "light night"]
    assert not night.worse
    assert math.isnan(night.interval.low)
    many = by_place([f"video {place // 2}" for place in range(200)])
    (night,) = [one for one in found(right, {"light": LIGHT}, many) if one.name == "light night"]
    assert night.worse


def false_alarm(trial: int, videos: int) -> bool:
    """Whether a slice is called worse where slices differ by chance. Items of one video share how hard they are."""
    draw = np.random.default_rng(trial)
    each = 300 // videos
    hard = np.repeat(draw.normal(0, 1, videos), each)
    right = draw.random(300) < 1 / (1 + np.exp(-1 - (hard if videos < 300 else 0)))
    per_video = np.repeat(draw.integers(0, 4, videos), each)
    columns = {
        "light": by_place([f"light {value}" for value in per_video]),
        "camera": by_place([f"camera {value}" for value in draw.integers(0, 8, 300)]),
        "bright": {f"{place}": float(value) for place, value in enumerate(draw.normal(size=300))},
    }
    sources = by_place([f"video {place // each}" for place in range(300)])
    rows = slices_of(answers(right.tolist()), "index", sources, columns)
    return any(one.worse for one in rows if one.column != "source")


@pytest.mark.parametrize("videos", [300, 60])
def test_a_slice_is_called_worse_by_chance_in_at_most_5_percent(videos: int) -> None:
    alarms = sum(false_alarm(trial, videos) for trial in range(TRIALS))
    assert alarms <= 0.05 * TRIALS + 2 * math.sqrt(0.05 * 0.95 * TRIALS)


ROWS = [
    Slice("light", "night, rain", 63, "accuracy", 0.41, Interval(0.3, 0.5), 0.61, 0.001),
    Slice("camera", "=roof", 9, "accuracy", 0.5, Interval(math.nan, math.nan), 0.6, 1.0),
]


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    write_slices(directory, ROWS)
    assert list(map(repr, read_slices(directory))) == list(map(repr, ROWS))
    with directory.slices.open(encoding="utf-8", newline="") as file:
        assert [row["worse"] for row in csv.DictReader(file)] == ["yes", "no"]
    write_slices(directory, [])
    assert not directory.slices.exists()
    assert read_slices(directory) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("column,value\na,b\n", "column score is missing"),
        ("column,value,items,measure,score,low,high,rest,p_value\na,b,1,c,x,0,0,0,0\n", "line 2: could not convert"),
    ],
)
def test_damage_is_located(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "slices.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        read_slices(RunDirectory(tmp_path))


def test_the_report_has_the_worst_ten_and_then_the_others(tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine" / "2026-11-22_13-05-11")
    write_scores(run)
    others = [Slice("lens", f"<{n}>", 9, "accuracy", 0.6, Interval(0.5, 0.7), 0.6, 1.0) for n in range(300)]
    write_slices(RunDirectory(run), [*ROWS, *others])
    page = read_page(write_report(run))
    assert "light night, rain 63 41.0 % 30.0 to 50.0 % -20.0 points" in page.text
    assert "camera =roof 9 50.0 % — -10.0 points" in page.text
    assert "292 more" in page.text
    assert "102 more are in slices.csv" in page.text
    assert "lens <197>" in page.text
    assert "lens <198>" not in page.text
    verdict = (
        "1 slice is worse than the rest of the test split: light night, rain: accuracy 41.0 % of 63 items, 20 points"
    )
    assert verdict in page.text


def written(path: Path, names: Sequence[str]) -> Path:
    lines = [f"{name},{'even' if place % 2 else 'odd'}" for place, name in enumerate(names)]
    path.write_text("\n".join(["item,parity", *lines]), encoding="utf-8")
    return path


def columns_of(run: Path) -> dict[str, int]:
    """How many items the slices of each column hold."""
    counts: dict[str, int] = {}
    for one in read_slices(RunDirectory(run)):
        counts[one.column] = counts.get(one.column, 0) + one.items
    return counts


def test_a_run_gets_slices_by_a_table_that_changes_no_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tiny.write_recipe(tmp_path, tiny.write_images(tmp_path / "images"))
    assert tiny.run(recipe, tmp_path / "runs", "train.epochs=1") == 0
    run = tiny.only_run(tmp_path / "runs")
    items = [row.id for row in read_run(run).rows]
    assert columns_of(run) == {}  # 12 items, whose brightness differs: no part of them has 5
    table = written(tmp_path / "table.csv", items)
    assert main(["evaluate", str(run), "--set", f"data.metadata={table}"]) == 0
    (again,) = (run / "evaluations").iterdir()
    assert columns_of(again) == {"parity": 12}
    assert read_run(again).scores["protocol"] == read_run(run).scores["protocol"]
    table.write_text("item,parity\nno.png,odd\n", encoding="utf-8")
    capsys.readouterr()
    assert main(["evaluate", str(run), "--set", f"data.metadata={table}"]) == 3
    assert "line 2: names 1 item that the data does not have: no.png" in capsys.readouterr().err
