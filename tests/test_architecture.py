"""Who may import whom, what a command may load, and what things may not be called."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import toolkit

CORE = Path(toolkit.__file__).parent
PLUGINS = CORE.parent / "plugins"

ROWS = (
    ("__main__",),
    ("cli",),
    ("doctor",),
    ("testing", "tune"),
    ("export", "predict", "run"),
    ("schema", "screen", "trained"),
    ("assembly",),
    ("components", "disabling", "listing", "predictions", "scaffold", "train"),
    ("arguments", "loader", "recipe", "registry", "toolkit", "videos"),
    (
        *("bundle", "checkpoint", "device", "directory", "environment", "evaluate", "frames", "hookspecs", "images"),
        *("isolation", "messages", "network", "optimize", "pixels", "project", "report", "signals", "splits"),
        "weights",
    ),
    ("blame",),
    ("contracts", "errors", "files", "randomness"),
    ("clips",),
)
"""Modules of the core from top to bottom; a package is one module, `toolkit` is its `__init__`.

An import points down: to a lower row, never to its own. Imports for type checkers and inside functions count.
"""

FOR_PLUGINS = (
    *("clips", "contracts", "errors", "files", "hookspecs", "images", "randomness", "splits", "videos", "weights"),
)
"""Modules that a plugin may import, besides `from toolkit import hookimpl`: a promise. All but `weights` are light."""

LEANS = {"toolkit_video": {"toolkit_vision"}}
"""Plugins of ours that share code: models of clips freeze and load weights as those of images do. Any other plugin
stands by itself."""

HEAVY = frozenset({"torch", "numpy", "optuna", "sklearn", "matplotlib", "onnxruntime", "pydantic", "torchvision"})
TELL_NOTHING = {"base", "common", "config", "engine", "helper", "helpers", "manager", "misc", "util", "utils"}


@cache
def sources(folder: Path) -> dict[str, ast.Module]:
    """The syntax trees of all modules below `folder`, by dotted name, counted from the folder above its packages."""
    above = folder.parent if (folder / "__init__.py").exists() else folder
    return {name(path.relative_to(above)): ast.parse(path.read_bytes()) for path in sorted(folder.rglob("*.py"))}


def name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imports(tree: ast.Module, known: frozenset[str] = frozenset()) -> Iterator[str]:
    """Dotted names of the modules imported anywhere in `tree`; `from a import b` is a.b where that is a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: imports here are absolute"
            module = node.module or ""
            yield from (f"{module}.{a.name}" if f"{module}.{a.name}" in known else module for a in node.names)


def unit(module: str) -> str:
    """The name in `ROWS` that a module of the core belongs to."""
    return module.split(".")[1] if "." in module else module


def arrows() -> set[tuple[str, str]]:
    """Imports between modules of the core, by full name."""
    known = frozenset(sources(CORE))
    return {
        (module, other) for module, tree in sources(CORE).items() for other in imports(tree, known) if other in known
    }


def row(module: str) -> int:
    """How far up `module` stands."""
    return next(height for height, names in enumerate(reversed(ROWS)) if unit(module) in names)


def test_every_module_has_one_place() -> None:
    places = [place for names in ROWS for place in names]
    assert sorted(places) == sorted({unit(module) for module in sources(CORE)})


def test_imports_point_down() -> None:
    between = [(module, other) for module, other in arrows() if unit(module) != unit(other)]
    assert len(between) > 50
    assert [f"{module} -> {other}" for module, other in sorted(between) if row(module) <= row(other)] == []


@pytest.mark.parametrize(
    "package",
    [
        *("assembly", "bundle", "doctor", "export", "pixels", "predict", "recipe", "report", "run", "scaffold"),
        *("testing", "tune"),
    ],
)
def test_there_is_no_circle_within_a_package(package: str) -> None:
    inside: dict[str, set[str]] = {}
    for module, other in arrows():
        if unit(module) == unit(other) == package:
            inside.setdefault(module, set()).add(other)
    assert inside
    graphlib.TopologicalSorter(inside).prepare()


def test_the_core_knows_no_plugin() -> None:
    packages = {module.split(".")[0] for module in sources(PLUGINS)}
    assert len(packages) >= 6
    for module, tree in sources(CORE).items():
        assert packages.isdisjoint(other.split(".")[0] for other in imports(tree)), module


def test_plugins_stand_on_the_public_modules_alone() -> None:
    allowed = {"toolkit", *(f"toolkit.{module}" for module in FOR_PLUGINS)}
    known = frozenset(sources(CORE))
    for module, tree in sources(PLUGINS).items():
        used = {other for other in imports(tree, known) if other.split(".")[0] == "toolkit"}
        assert used <= allowed, f"{module} imports {used - allowed}"


def test_plugins_lean_on_each_other_only_where_it_is_said() -> None:
    packages = {module.split(".")[0] for module in sources(PLUGINS)}
    for module, tree in sources(PLUGINS).items():
        own = module.split(".")[0]
        others = packages - {own} - LEANS.get(own, set())
        assert others.isdisjoint(other.split(".")[0] for other in imports(tree)), module


def test_what_is_private_stays_at_home() -> None:
    taken = [
        f"{module}: {alias.name} of {node.module}"
        for module, tree in (sources(CORE) | sources(PLUGINS)).items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("toolkit")
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]
    assert taken == []


def test_names_say_something() -> None:
    parts = {part for module in (*sources(CORE), *sources(PLUGINS)) for part in module.split(".")}
    assert TELL_NOTHING.isdisjoint(parts)
    assert TELL_NOTHING.isdisjoint(word for part in parts for word in part.split("_"))


def test_every_module_says_what_it_is() -> None:
    assert [module for module, tree in (sources(CORE) | sources(PLUGINS)).items() if not ast.get_docstring(tree)] == []


def test_what_plugins_may_use_is_documented() -> None:
    silent = [
        f"{module}.{node.name}"
        for module in FOR_PLUGINS
        for node in sources(CORE)[f"toolkit.{module}"].body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_")
        if not ast.get_docstring(node)
    ]
    assert silent == []


def loaded_by(*words: str, code: int = 0) -> set[str]:
    """Top-level packages that `python WORDS` loads, as the interpreter itself tells."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    found = {line.rpartition("|")[2].strip().split(".")[0] for line in lines}
    assert "toolkit" in found
    return found


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["run", "--help"], ["plugins"], ["plugins", "list"]])
def test_commands_that_only_tell_load_nothing_heavy(words: list[str]) -> None:
    assert loaded_by("-m", "toolkit", *words) & HEAVY == set()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["rnu"],
        ["run"],
        ["run", "a.toml", "--epochs", "3"],
        ["run", "--resume", "a", "--runs", "b"],
        ["check"],
        ["plugins", "lst"],
        ["plugins", "show", "no_such_component"],
    ],
)
def test_usage_errors_load_nothing_heavy(words: list[str]) -> None:
    assert loaded_by("-m", "toolkit", *words, code=2) & HEAVY == set()


def test_what_plugins_may_use_loads_nothing_heavy() -> None:
    modules = ", ".join(f"toolkit.{module}" for module in FOR_PLUGINS if module != "weights")
    assert loaded_by("-c", f"import {modules}") & HEAVY == set()
