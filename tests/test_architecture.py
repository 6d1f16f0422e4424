"""Who may import whom, what a command may load, and what things may not be called."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

import toolkit

CORE = Path(toolkit.__file__).parent
PLUGINS = CORE.parent / "plugins"

ROOMS = (
    *("api", "system", "recipe", "host", "data", "transfer", "training", "build", "runs", "serving", "export", "tune"),
    *("kit", "cli"),
)
"""The folders of the core from bottom to top. An import between two points down; imports for type checkers and inside
functions count. `__main__` and `notebook` stand above all, and `toolkit/__init__.py` gives names of both ends."""

PUBLIC = (
    *("api", "data.division", "data.folders", "data.groups", "data.images", "data.kinds", "data.labelled"),
    *("data.labels", "data.lists", "data.names", "data.sequences", "data.shards", "data.splits", "data.tables"),
    *("data.unlabelled", "data.videos", "transfer"),
)
"""What a plugin may import, besides `from toolkit import hookimpl`: rooms and modules, a promise."""

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


def room(module: str) -> str:
    """The folder that a module of the core stands in."""
    return module.split(".")[1] if "." in module else module


def arrows() -> set[tuple[str, str]]:
    """Imports between modules of the core, by full name."""
    known = frozenset(sources(CORE))
    return {
        (module, other) for module, tree in sources(CORE).items() for other in imports(tree, known) if other in known
    }


def is_public(module: str) -> bool:
    return any(f"{module}.".startswith(f"toolkit.{public}.") for public in PUBLIC)


def public_modules() -> list[str]:
    return [module for module in sources(CORE) if is_public(module)]


def test_the_core_is_rooms_and_a_door() -> None:
    """At most 14 folders and 4 files, so that `ls toolkit` shows the structure."""
    found = [path for path in CORE.iterdir() if path.name != "__pycache__"]
    assert sorted(path.name for path in found if path.is_dir()) == sorted(ROOMS)
    assert len(ROOMS) <= 14
    assert {path.name for path in found if path.is_file()} == {"__init__.py", "__main__.py", "notebook.py", "py.typed"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_in_a_sentence_what_belongs_there(room: str) -> None:
    (sentence,) = sources(CORE)[f"toolkit.{room}"].body
    assert isinstance(sentence, ast.Expr)
    text = ast.get_docstring(sources(CORE)[f"toolkit.{room}"])
    assert text
    assert "\n" not in text


def test_imports_between_rooms_point_down() -> None:
    between = [(a, b) for a, b in arrows() if room(a) != room(b) and {room(a), room(b)} <= {*ROOMS}]
    assert len(between) > 50
    up = [f"{a} -> {b}" for a, b in sorted(between) if ROOMS.index(room(a)) <= ROOMS.index(room(b))]
    assert up == []


def test_nothing_imports_the_door_but_for_its_version() -> None:
    """The files in `toolkit/` stand above the rooms, so nothing may need them to be loaded first."""
    for module, tree in sources(CORE).items():
        assert "toolkit.notebook" not in imports(tree) or module == "toolkit", module
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "toolkit" and module != "toolkit":
                assert [alias.name for alias in node.names] == ["__version__"], module


def test_there_is_no_circle_between_modules() -> None:
    graph: dict[str, set[str]] = {}
    for module, other in arrows():
        if "toolkit" not in (module, other):
            graph.setdefault(module, set()).add(other)
    graphlib.TopologicalSorter(graph).prepare()


def test_the_core_knows_no_plugin() -> None:
    packages = {module.split(".")[0] for module in sources(PLUGINS)}
    assert len(packages) >= 6
    for module, tree in sources(CORE).items():
        assert packages.isdisjoint(other.split(".")[0] for other in imports(tree)), module


def test_plugins_stand_on_the_public_modules_alone() -> None:
    known = frozenset(sources(CORE))
    for module, tree in sources(PLUGINS).items():
        used = {other for other in imports(tree, known) if other.split(".")[0] == "toolkit"}
        wrong = {other for other in used if other != "toolkit" and not is_public(other)}
        assert wrong == set(), f"{module} imports {wrong}"


def test_no_plugin_imports_another() -> None:
    packages = {module.split(".")[0] for module in sources(PLUGINS)}
    for module, tree in sources(PLUGINS).items():
        others = packages - {module.split(".")[0]}
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
        for module in public_modules()
        for node in sources(CORE)[module].body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_")
        if not ast.get_docstring(node)
    ]
    assert silent == []


def loaded_by(*words: str, code: int = 0) -> set[str]:
    """Top-level packages that `python WORDS` loads, as the interpreter itself reports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    found = {line.rpartition("|")[2].strip().split(".")[0] for line in lines}
    assert "toolkit" in found
    return found


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["init", "--help"],
        ["demo", "--help"],
        ["recipes"],
        ["plugins"],
        ["plugins", "list"],
    ],
)
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
        ["init", "images"],
        ["recipes", "no_such_recipe"],
        ["plugins", "lst"],
        ["plugins", "show", "no_such_component"],
    ],
)
def test_usage_errors_load_nothing_heavy(words: list[str]) -> None:
    assert loaded_by("-m", "toolkit", *words, code=2) & HEAVY == set()


def test_what_plugins_may_use_loads_nothing_heavy() -> None:
    modules = ", ".join(module for module in public_modules() if room(module) != "transfer")
    assert loaded_by("-c", f"import {modules}") & HEAVY == set()


def test_types_are_checked_of_the_core_the_plugins_and_the_benches() -> None:
    project = tomllib.loads((CORE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {module.split(".")[0] for module in sources(PLUGINS)}
    assert set(project["tool"]["mypy"]["packages"]) == {"toolkit", "bench", *packages}


def test_pytest_enters_every_folder_of_tests(pytestconfig: pytest.Config) -> None:
    """By default it skips folders called build or dist, as those of packages are."""
    folders = {path.parent.name for path in Path(__file__).parent.rglob("test_*.py")}
    skipped = [name for name in folders for pattern in pytestconfig.getini("norecursedirs") if fnmatch(name, pattern)]
    assert "build" in folders
    assert skipped == []
