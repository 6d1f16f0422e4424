"""Errors as data: their parts, their text, their exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.api.errors import (
    CheckpointError,
    DataError,
    PluginError,
    Problem,
    RecipeError,
    RunFailed,
    Stopped,
    ToolkitError,
    UsageError,
    WeightsError,
    counted,
    nearest,
    unknown_name,
)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("optimiser", "optimizer"), ("epoch", "epochs"), ("lr", None), ("", None), ("epochs", "epochs")],
)
def test_the_nearest_name(name: str, meant: str | None) -> None:
    assert nearest(name, ["optimizer", "epochs", "batch"]) == meant
    assert nearest(name, []) is None


def test_an_unknown_name_comes_with_the_nearest_one() -> None:
    assert unknown_name('no kind "modle"', "modle", ["model", "metric"]) == 'no kind "modle"; did you mean "model"?'
    assert unknown_name('no kind "x"', "x", ["model", "metric"]) == 'no kind "x"'
    assert unknown_name("none", "x", ["model"], otherwise="; there is model") == "none; there is model"


def test_counts_have_plurals_and_separators() -> None:
    assert [counted(count, "item") for count in (0, 1, 2, 1000)] == ["0 items", "1 item", "2 items", "1,000 items"]


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("train.epochs", "must be at least 1, got 0"), "train.epochs: must be at least 1, got 0"),
        (Problem("", "no such file"), "no such file"),
        (Problem("trian", "unknown key", "train"), 'trian: unknown key; did you mean "train"?'),
    ],
)
def test_a_problem_as_text(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_a_recipe_error_has_a_line_a_problem() -> None:
    problems = [Problem("a", "unknown key"), Problem("", "no table")]
    error = RecipeError("x.toml", problems, next_step="look")
    assert error.lines() == ["x.toml: a: unknown key", "x.toml: no table"]
    assert (str(error), error.problems) == ("x.toml: 2 problems", tuple(problems))
    assert str(RecipeError("x.toml", problems[:1])) == "x.toml: 1 problem"


def test_a_data_error_names_its_file() -> None:
    error = DataError("is empty", path=Path("a/b.png"), next_step="remove it")
    assert (error.message, error.path, error.next_step) == ("a/b.png: is empty", Path("a/b.png"), "remove it")
    assert DataError("is empty").message == "is empty"


def test_a_weights_error_lists_the_first_keys_of_each_kind() -> None:
    error = WeightsError("does not fit", missing=["a"], mis_shaped=[f"k{number}" for number in range(10)])
    assert error.lines() == [
        "does not fit",
        "  1 missing: a",
        "  10 mis-shaped: k0, k1, k2, k3, k4, k5, k6, k7 and 2 more",
    ]
    assert error.unexpected == ()
    assert len(error.mis_shaped) == 10


def test_exit_codes_are_those_of_the_design() -> None:
    codes = {
        ToolkitError: 1,
        RunFailed: 1,
        UsageError: 2,
        CheckpointError: 2,
        DataError: 3,
        WeightsError: 3,
        PluginError: 4,
    }
    assert {kind: kind("wrong").exit_code for kind in codes} == codes
    assert RecipeError("x.toml", []).exit_code == 2
    assert Stopped("stopped", exit_code=75, next_step="resume").exit_code == 75


def test_any_error_is_one_line_and_what_to_do() -> None:
    error = UsageError("a command is missing", next_step="toolkit --help")
    assert (error.lines(), str(error)) == (["a command is missing"], "a command is missing")
    assert (error.next_step, UsageError("x").next_step) == ("toolkit --help", None)
