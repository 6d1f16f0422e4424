"""What commands cost that do no work: CPU seconds next to those of importing argparse, once the cache knows the
components, and modules loaded; and what hostile plugins add."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from bench.data import Options
from bench.pairs import Effort, Figure, Skipped, compare, unwatched
from tests.hostile.zoo import ZOO, release
from tests.recipes import RECIPES, acceptance
from toolkit.api.errors import RunFailed

PAIRS = 15
LIGHT = 3
"""Most that a command may take which looks at no recipe, as a multiple of what importing argparse takes."""
CHECK = 15
"""Most that a check of a recipe may take, as the same multiple."""
HOSTILE = 1.3
"""Most that `--help` may take with hostile plugins installed, as a multiple of its time without them."""
HEAVY = frozenset({"matplotlib", "numpy", "onnxruntime", "optuna", "pytorchvideo", "sklearn", "torch", "torchvision"})
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Command:
    """What a user types after `python -m toolkit`, its exit code, and how often the time of argparse it may take."""

    name: str
    words: tuple[str, ...]
    at_most: float = CHECK
    code: int = 0

    @property
    def line(self) -> tuple[str, ...]:
        return ("-m", "toolkit", *self.words)


def commands() -> Iterator[Command]:
    """All that must be instant once the cache knows the components."""
    yield Command("help", ("--help",), LIGHT)
    yield Command("plugins", ("plugins", "list"), LIGHT)
    wrong = ("check", str(RECIPES[0]), "--set")
    yield Command("unknown-key", (*wrong, "epochs=5"), code=2)
    yield Command("wrong-argument", (*wrong, "model.dropout=x"), code=2)
    for recipe in RECIPES:
        yield Command(f"check-{recipe.stem}", ("check", str(recipe), "--recipe-only", *acceptance(recipe)))


def figures(options: Options) -> Iterator[Figure | Skipped]:
    with tempfile.TemporaryDirectory() as cache, _cached_in(cache):
        refused = _warm_up()
        for command in commands():
            if command in refused:
                yield Skipped(f"startup/{command.name}", refused[command])
            else:
                yield _figure(command, options.effort(PAIRS))
    with tempfile.TemporaryDirectory() as site:
        release(Path(site))
        yield _hostile(site, options.effort(PAIRS))


@contextmanager
def _cached_in(folder: str) -> Iterator[None]:
    before = os.environ.get("TOOLKIT_CACHE")
    os.environ["TOOLKIT_CACHE"] = folder
    try:
        yield
    finally:
        del os.environ["TOOLKIT_CACHE"]
        if before is not None:
            os.environ["TOOLKIT_CACHE"] = before


def _warm_up() -> dict[Command, str]:
    """Let the cache know every component and every recipe. Returns the commands that need a package which is not
    installed, with what they answer."""
    refused = {}
    for command in (Command("schema", ("schema",)), *commands()):
        try:
            cpu_seconds(command.line, command.code)
        except subprocess.CalledProcessError as error:
            refused[command] = _lacks(error.cmd)
    return refused


def _lacks(command: Sequence[str]) -> str:
    """What a failed command answers about a package that is not installed. Raises RunFailed for another failure."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=_ROOT)
    lines = done.stderr.splitlines()
    for line in lines:
        if line.endswith("which is not installed"):
            return line.removeprefix("error: ")
    raise RunFailed(f"{shlex.join(command)}: exit code {done.returncode}", details=lines[-10:])


def _hostile(site: str, effort: Effort) -> Figure:
    """`--help` with the zoo on the path, compared with `--help` with an empty folder instead."""
    with tempfile.TemporaryDirectory() as empty:
        sides = partial(_seconds_of_help, site), partial(_seconds_of_help, empty)
        paired = compare(*sides, effort, 1 / HOSTILE)
    return Figure("startup/hostile", paired, 1 / HOSTILE, (f"plugins={len(ZOO)}",))


def _seconds_of_help(site: str) -> float:
    """Wall time, for one of the plugins sleeps."""
    started = time.perf_counter()
    words = [sys.executable, "-m", "toolkit", "--help"]
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True, cwd=_ROOT, env=_with_bytecode() | {"PYTHONPATH": site})
    return time.perf_counter() - started


def _figure(command: Command, effort: Effort) -> Figure:
    loaded = heavy_modules(_import_times(command.line, command.code))
    ours, theirs = partial(cpu_seconds, command.line, command.code), partial(cpu_seconds, ("-c", "import argparse"))
    paired = compare(ours, theirs, effort, 1 / command.at_most, watch=unwatched)
    facts = (
        f"times={1 / paired.ratio:.1f} target<={command.at_most:g}",
        f"cpu={median(paired.ours):.3f}s",
        f"heavy={','.join(loaded) or 'none'}",
    )
    faults = tuple(f"loads {module}" for module in loaded)
    return Figure(f"startup/{command.name}", paired, 1 / command.at_most, facts, faults)


def cpu_seconds(command: Sequence[str], code: int = 0) -> float:
    """User and system time of `python command`, its own children included. Raises CalledProcessError where it ends with
    another exit code."""
    child = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=_ROOT,
        env=_with_bytecode(),
    )
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != code:
        raise subprocess.CalledProcessError(child.returncode, child.args)
    return used.ru_utime + used.ru_stime


def _with_bytecode() -> dict[str, str]:
    """The environment in which Python keeps what it compiled, as it is kept for an installed package."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def modules(command: Sequence[str]) -> set[str]:
    """Names of the packages that `python command` loads."""
    lines = _import_times(command).splitlines()
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def heavy_modules(import_times: str) -> list[str]:
    """Which of `HEAVY` the output of `python -X importtime` names."""
    names = {line.rpartition("|")[2].strip().partition(".")[0] for line in import_times.splitlines()}
    return sorted(names & HEAVY)


def _import_times(command: Sequence[str], code: int = 0) -> str:
    words = [sys.executable, "-X", "importtime", *command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=_ROOT)
    if done.returncode != code:
        raise subprocess.CalledProcessError(done.returncode, words, stderr=done.stderr)
    return done.stderr
