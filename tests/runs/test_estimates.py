"""predictions.csv where targets are numbers, and what a report says of them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from toolkit.api.contracts import DataSpec
from toolkit.api.errors import DataError
from toolkit.runs.directory import RunDirectory
from toolkit.runs.estimates import Estimate, largest_errors, read_estimates, spreads, write_estimates
from toolkit.runs.report.figures import LIGHT
from toolkit.runs.report.number_figures import answers_by_target, errors, errors_by_target
from toolkit.runs.report.numbers import Numbers, output_scores

SPEC = DataSpec(("age", "a,b"), 8, targets="number")


def estimate(name: str, *pairs: tuple[float, float]) -> Estimate:
    columns = zip(SPEC.classes, pairs, strict=False)
    target, prediction = {}, {}
    for output, (shown, said) in columns:
        target[output], prediction[output] = shown, said
    return Estimate(name, target, prediction)


ROWS = [
    estimate("a.jpg", (1.0, 2.0), (100.0, 100.0)),
    estimate("b,c.jpg", (3.0, 3.5), (-1e-9, 400.0)),
    estimate("d.jpg", (5.0, 5.0), (1e12, math.inf)),
]


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    write_estimates(directory, ROWS, SPEC)
    assert read_estimates(directory) == ROWS
    head = directory.predictions.read_text(encoding="utf-8").splitlines()[0]
    assert head == '"id","target_age","prediction_age","target_a,b","prediction_a,b"'


def test_no_file_has_no_rows(tmp_path: Path) -> None:
    assert read_estimates(RunDirectory(tmp_path)) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,target_age\na,1\n", "column prediction_age is missing"),
        ("target_age,prediction_age\n1,2\n", "column id is missing"),
        ("id,target_age,prediction_age\na,1,many\n", "line 2: could not convert"),
    ],
)
def test_damage_is_located(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "predictions.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        read_estimates(RunDirectory(tmp_path))


def test_the_largest_errors_count_in_spreads_of_each_output() -> None:
    rows = [
        estimate("small", (0.0, 0.1), (0.0, 0.0)),
        estimate("of the second", (10.0, 10.0), (1000.0, 4000.0)),
        estimate("of the first", (20.0, 60.0), (2000.0, 2000.0)),
        estimate("not a number", (10.0, math.nan), (1000.0, 1000.0)),
    ]
    assert [rows[place].id for place in largest_errors(rows, 3)] == ["not a number", "of the first", "of the second"]
    assert spreads([rows[0]]) == {"age": 1.0, "a,b": 1.0}
    assert spreads([]) == {}


def test_captions_name_outputs_where_there_are_several() -> None:
    assert estimate("x", (1.0, 12345.678)).captions == ("12346", "is 1")
    assert ROWS[0].captions == ("age 2, a,b 100", "is age 1, a,b 100")


def test_scores_of_an_output() -> None:
    rows = [estimate("x", pair) for pair in ((0.0, 1.0), (2.0, 2.0), (4.0, 2.0), (6.0, 6.0))]
    found = output_scores("age", rows)
    assert (found.mae, found.median, found.bias, found.mean) == (0.75, 0.5, -0.25, 3.0)
    assert found.rmse == pytest.approx(math.sqrt(5 / 4))
    assert found.r2 == pytest.approx(1 - 5 / 20)
    assert (found.spread, found.baseline) == (pytest.approx(math.sqrt(5)), 2.0)
    assert Numbers([found], rows, []).gain == pytest.approx(1 - 0.75 / 2)
    same = output_scores("age", [estimate("x", (3.0, 4.0))] * 2)
    assert math.isnan(same.r2)
    assert math.isnan(Numbers([same], rows, []).gain)


@pytest.mark.parametrize("drawing", [answers_by_target, errors_by_target, errors])
def test_charts_have_a_panel_for_each_output(drawing) -> None:
    assert [len(drawing(rows)(LIGHT).axes) for rows in (ROWS, [estimate("x", (1.0, math.nan))])] == [2, 1]
