"""Commands that only read: what they import, with a cache that knows the components and with an empty one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from bench.startup import HEAVY, heavy_modules, modules
from tests.recipes import RECIPES, acceptance

ROOT = Path(__file__).parents[1]
RECIPE = "recipes/cifar10_cnn.toml"


def run(cache: Path, *words: str, code: int = 0) -> tuple[list[str], str]:
    """The heavy packages that a command imports, and what it prints."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "toolkit", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TOOLKIT_CACHE": str(cache)},
    )
    errors = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == code, errors[-20:]
    return heavy_modules(done.stderr), "\n".join([done.stdout, *errors])


IN_ONE = """
import json, sys
from contextlib import redirect_stdout
from io import StringIO
from bench.startup import HEAVY
from toolkit.cli.main import main
ended = []
for words in json.loads(sys.argv[1]):
    with redirect_stdout(StringIO()):
        code = main(words)
    ended.append([code, *sorted(HEAVY & set(sys.modules))])
print(json.dumps(ended))
"""


def run_in_one(cache: Path, commands: Sequence[Sequence[str]]) -> list[list[int | str]]:
    """The exit codes of commands that one process runs, and the heavy packages that it has imported by then."""
    words = [sys.executable, "-c", IN_ONE, json.dumps(commands)]
    environment = {**os.environ, "TOOLKIT_CACHE": str(cache)}
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    ended: list[list[int | str]] = json.loads(done.stdout)
    return ended


def checks(recipes: Iterable[Path]) -> list[list[str]]:
    return [["check", str(recipe), "--recipe-only", *acceptance(recipe)] for recipe in recipes]


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that knows all components, and the studies of all recipes."""
    cache = tmp_path_factory.mktemp("warm")
    assert {code for code, *_ in run_in_one(cache, [["schema"], *checks(RECIPES)])} == {0}
    return cache


def test_every_recipe_is_checked_without_importing_a_component(warm: Path) -> None:
    assert dict(zip(RECIPES, run_in_one(warm, checks(RECIPES)), strict=True)) == {recipe: [0] for recipe in RECIPES}


@pytest.mark.parametrize("words", [("schema",), ("plugins", "list"), ("plugins", "show", "resnet50")], ids=" ".join)
def test_what_is_installed_is_shown_without_importing_it(warm: Path, words: tuple[str, ...]) -> None:
    assert run(warm, *words)[0] == []


@pytest.mark.parametrize("words", [("--help",), ("plugins", "list")], ids=" ".join)
def test_what_looks_at_no_recipe_pays_for_no_other_command(
    warm: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dataclasses` alone, which imports `inspect`, takes half as long as argparse. See `bench/startup.py`."""
    monkeypatch.setenv("TOOLKIT_CACHE", str(warm))
    loaded = modules(("-m", "toolkit", *words))
    assert "toolkit" in loaded
    assert loaded & {"dataclasses", "email", "hashlib", "inspect", "secrets", "tomllib"} == set()


@pytest.mark.parametrize("command", ["check", "run"])
def test_all_that_is_wrong_is_shown_at_once_without_importing_a_component(warm: Path, command: str) -> None:
    wrong = ("epochs=5", "model.dropout=x", "augment.cutout=3", "task.name=clasification")
    sets = [word for one in wrong for word in ("--set", one)]
    loaded, shown = run(warm, command, RECIPE, *sets, code=2)
    assert loaded == []
    for key in ("epochs=5: unknown key", "model.dropout=x: must be a number", "task.name=clasification: unknown task"):
        assert key in shown


COLD = {
    "TOML": ("bad.toml",),
    "top-level key": (RECIPE, "--set", "epochs=5"),
    "override": (RECIPE, "--set", "nonsense"),
    "component": (RECIPE, "--set", "model.name=resnet5000"),
    "key of a table": (RECIPE, "--set", "train.epochs=0"),
}


@pytest.mark.parametrize("wrong", COLD)
def test_what_needs_no_component_imports_none_even_the_first_time(tmp_path: Path, wrong: str) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[data\n")
    words = [str(bad) if word == bad.name else word for word in COLD[wrong]]
    loaded, shown = run(tmp_path / "cache", "check", *words, code=2)
    assert loaded == []
    assert "error: " in shown


def test_what_is_left_to_check_is_said_the_first_time(tmp_path: Path) -> None:
    _, shown = run(tmp_path / "cache", "check", RECIPE, "--set", "epochs=5", code=2)
    assert "epochs=5: unknown key" in shown
    assert 'the arguments of dataset "cifar10", model "cnn"' in shown
    assert "are not checked until this is correct" in shown


def test_heavy_packages_are_those_that_components_need() -> None:
    assert {"numpy", "pytorchvideo", "torch", "torchvision"} <= HEAVY
