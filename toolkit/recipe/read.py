"""From a TOML file to a draft or a recipe, with every problem of the core's own tables reported at once."""

from __future__ import annotations

import copy
import re
import shlex
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from toolkit.api.errors import Problem, RecipeError, nearest
from toolkit.api.files import read_regular
from toolkit.recipe.complaints import problems
from toolkit.recipe.draft import Draft, Source
from toolkit.recipe.foreign import SPELLED, key_of
from toolkit.recipe.overrides import DEPTH, override
from toolkit.recipe.shipped import file_of, shipped
from toolkit.recipe.tables import (
    ClipTable,
    ConformalTable,
    ExportTable,
    FixresTable,
    InputTable,
    Limits,
    OptimizerTable,
    PartRates,
    Recipe,
    RejectTable,
    ScheduleTable,
    SegmentsTable,
    TrainTable,
    TuneTable,
)

_TABLES: Mapping[str, type[BaseModel]] = {
    "": Recipe,
    "input": InputTable,
    "clip": ClipTable,
    "train": TrainTable,
    "train.optimizer": OptimizerTable,
    "train.schedule": ScheduleTable,
    "export": ExportTable,
    "export.conformal": ConformalTable,
    "export.reject": RejectTable,
    "tune": TuneTable,
}
"""The core's own tables by their dotted names."""
_INNER: Mapping[str, type[BaseModel]] = {"train.fixres": FixresTable, "export.segments": SegmentsTable}
"""Tables whose keys mean something in them alone: elsewhere they are no sign of what was meant."""


def load(path: Path, overrides: Sequence[str] = (), *, name: str | None = None) -> Recipe:
    """The recipe in the file at `path`, with overrides `a.b=value` applied; named `name`, else after the file.

    Raises RecipeError with every problem of the core's own tables. Components are not looked at: `components.plan`.
    """
    draft = parse(path, overrides, name=name)
    if draft.recipe is None:
        raise invalid(draft.source, draft.problems)
    return draft.recipe


def invalid(source: str, found: Sequence[Problem]) -> RecipeError:
    """The error of all that is wrong. A key that `--set` gave is reported as that argument."""
    flag = source.flag if isinstance(source, Source) else lambda _: ""
    placed = [_homed(problem)._replace(flag=flag(problem.key)) for problem in found]
    again = _again(source)
    wrong = [problem for problem in placed if problem.fault != "unread"]
    if wrong and all(problem.flag for problem in wrong):
        several = "these arguments" if len(wrong) > 1 else "this argument"
        named = f"--set {shlex.quote(wrong[0].flag)}" if len(wrong) == 1 and len(wrong[0].flag) <= 200 else several
        again = f"fix {named}, then run the same command again"
    return RecipeError(source, placed, next_step=wrong[0].command or again if len(wrong) == 1 else again)


def _again(source: str) -> str:
    """What to do about a fault of the recipe: its file can be checked alone, unless `--set` or a program changes it."""
    if getattr(source, "overrides", ()) or file_of(Path(source)).suffix != ".toml":
        return "fix this, then run the same command again"
    return f"fix this, then run: python -m toolkit check {shlex.quote(source)}"


def _homed(problem: Problem) -> Problem:
    """An unknown key that one table has, by this name or by that of another tool, is suggested there."""
    if problem.fault != "unknown key":
        return problem
    key = problem.key.rpartition(".")[2]
    homes = [table for table in _TABLES if key in keys_of(table)]
    if len(homes) == 1:
        return problem._replace(suggestion=".".join(filter(None, (homes[0], key))))
    foreign = key_of(key)
    if foreign is None or foreign == problem.key:
        return problem
    spelled = SPELLED.get(foreign)
    if spelled:
        return problem._replace(message=f"{problem.message}; write {spelled}", suggestion=None)
    return problem._replace(suggestion=foreign)


def parse(path: Path, overrides: Sequence[str] = (), *, name: str | None = None) -> Draft:
    """Read and check, keeping problems instead of raising them; RecipeError only if the file cannot be read."""
    return _drafted(_read(path), str(path), overrides, name or path.stem, flags=True)


def parse_text(text: str, source: str, overrides: Sequence[str] = (), *, name: str) -> Draft:
    """As `parse`, for a recipe without a file of its own; `source` names its place."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise invalid(source, [_not_toml(error, text)]) from error
    return _drafted(tables, source, overrides, name, flags=True)


def overridden(recipe: Recipe, source: str, overrides: Sequence[str]) -> Draft:
    """The draft that overrides make of a recipe; `source` is where its problems are reported."""
    return _drafted(recipe.tables(), source, overrides, recipe.name)


def _drafted(tables: dict[str, Any], source: str, overrides: Sequence[str], name: str, *, flags: bool = False) -> Draft:
    """`flags` is whether the overrides are arguments of `--set`, so that problems name them."""
    found, changed = [], dict[str, str]()
    if _too_deep(tables):
        raise invalid(source, [Problem("", f"has values in values, more than {DEPTH} deep")])
    for text in overrides:
        before = copy.deepcopy(tables)
        if problem := override(tables, text):
            found.append(problem)
        elif _too_deep(tables):
            tables = before
            key = text.partition("=")[0].strip()
            found.append(Problem(key, f"has values in values, more than {DEPTH} deep"))
        elif tables != before:
            key, _, value = text.partition("=")
            changed[key.strip()] = value.strip()
    source = Source(source, overrides, tables) if flags else source
    if "name" in tables:
        found.append(Problem("name", "unknown key: a recipe is named after its file"))
    tables.pop("name", None)
    named, recipe = {**tables, "name": name}, None
    try:
        recipe = Recipe.model_validate(named)
    except ValidationError as error:
        found += problems(error, named, "", keys_of)
    return Draft(source, tables, tuple(found), None if found else recipe, changed)


def _too_deep(tables: Any) -> bool:
    """Whether values stand deeper in values than any recipe needs: what walks through them would not end well."""
    level = [tables]
    for _ in range(DEPTH):
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            return False
    return True


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _read(path: Path) -> dict[str, Any]:
    try:
        text = read_regular(file_of(path)).decode("utf-8-sig")
        return tomllib.loads(text)
    except FileNotFoundError:
        problem = Problem("", "no such file", _nearest_file(path), command="python -m toolkit recipes")
    except IsADirectoryError:
        problem = Problem("", "is a folder, not a recipe file", _nearest_file(path / "x.toml"))
    except UnicodeDecodeError as error:
        problem = Problem("", f"is not UTF-8 text (byte {error.start})")
    except tomllib.TOMLDecodeError as error:
        problem = _not_toml(error, text)
    except OSError as error:
        problem = Problem("", f"cannot be read: {error.strerror}")
    except (ValueError, RecursionError) as error:
        problem = Problem("", f"cannot be read: {error}")
    raise invalid(str(path), [problem])


def keys_of(table: str) -> list[str]:
    """The keys that the table with this dotted name may have."""
    model = {**_TABLES, **_INNER}.get(table, Limits if table.startswith("export.") else PartRates)
    return [key for key in model.model_fields if (table, key) != ("", "name")]


def _nearest_file(path: Path) -> str | None:
    known = {str(file) for folder in (path.parent, Path("recipes")) for file in folder.glob("*.toml")}
    by_name = {name: name for name in shipped()} | {Path(file).stem: file for file in sorted(known)}
    found = nearest(path.stem, by_name)
    return by_name[found] if found else None


def _not_toml(error: tomllib.TOMLDecodeError, text: str) -> Problem:
    found = re.search(r"^(.*) \(at line (\d+), column (\d+)\)$", str(error))
    lines = text.splitlines() or [""]
    line, column = (int(found[2]), int(found[3])) if found else (len(lines), len(lines[-1]) + 1)
    reason = (found[1] if found else re.sub(r" \(at end of document\)$", "", str(error))).lower()
    excerpt = lines[min(line, len(lines)) - 1].strip()[:60]
    return Problem(f"line {line}, column {column}", f"not valid TOML ({reason}): {excerpt}")
