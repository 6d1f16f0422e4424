"""Run directories: the names of a run's files, what is not a run, and numbers that JSON lacks."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

import toolkit
from toolkit.api.errors import UsageError
from toolkit.runs.directory import RunDirectory, existing, nan_for_null, null_for_nan

CORE = Path(toolkit.__file__).parent
NAMES = {
    *("recipe.toml", "environment.json", "summary.txt", "facts.json", "records.jsonl", "last.pt", "best.pt"),
    *("scores.json", "predictions.csv", "sources.csv", "slices.csv", "embedding.csv", "files.csv", "report.html"),
}
ELSEWHERE = {
    "runs/directory.py": NAMES - {"last.pt", "best.pt"},
    "system/checkpoints.py": {"last.pt", "best.pt"},  # models start from them too
    "host/scaffold/__init__.py": {"recipe.toml"},  # a template of that name
}


def texts(tree: ast.Module) -> Iterator[str]:
    """All text of a module but its docstrings."""
    strings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in strings:
            yield node.value


def test_a_file_of_a_run_is_named_in_one_module_of_the_core() -> None:
    found: dict[str, set[str]] = {}
    for path in sorted(CORE.rglob("*.py")):
        said = {name for text in texts(ast.parse(path.read_bytes())) for name in NAMES if name in text}
        if said:
            found[str(path.relative_to(CORE))] = said
    assert found == ELSEWHERE


def test_every_name_is_that_of_a_file_in_the_run() -> None:
    run = RunDirectory(Path("runs/har/now"))
    folders = ("path", "figures", "bundles")
    attributes = [name for name in vars(RunDirectory) if not name.startswith("_") and name not in folders]
    paths = [value for name in attributes if isinstance(value := getattr(run, name), Path)]
    assert {path.name for path in paths} == NAMES
    assert {path.parent for path in paths} == {run.path}


@pytest.mark.parametrize(("place", "cause"), [("absent", "no such directory"), (".", "not a run directory")])
def test_what_is_not_a_run_is_refused(tmp_path: Path, place: str, cause: str) -> None:
    with pytest.raises(UsageError, match=f": {cause}") as caught:
        existing(tmp_path / place)
    assert caught.value.next_step == "train a model first: python -m toolkit demo"


def test_numbers_that_json_has_not_come_back_as_nan() -> None:
    written = null_for_nan({"a": (1.0, math.inf), "b": {"c": math.nan}, "d": Path("e")})
    assert written == {"a": [1.0, None], "b": {"c": None}, "d": "e"}
    read = nan_for_null(written)
    assert [math.isnan(value) for value in (read["a"][1], read["b"]["c"])] == [True, True]
