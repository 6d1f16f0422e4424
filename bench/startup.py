"""What a command costs that does no work: CPU seconds and modules loaded, beside an empty interpreter; and what hostile
plugins add to it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from bench.data import Options
from bench.pairs import Figure, interleave
from tests.hostile.zoo import ZOO, release

PAIRS = 15
CPU_SECONDS = 0.2
HOSTILE = 1.3
"""Most that `--help` may take with hostile plugins installed, as a multiple of its time without them."""
HEAVY = frozenset({"matplotlib", "numpy", "onnxruntime", "optuna", "sklearn", "torch"})
COMMANDS = {"help": ("--help",), "plugins": ("plugins", "list")}
_ROOT = Path(__file__).parents[1]


def figures(options: Options) -> Iterator[Figure]:
    for name, words in COMMANDS.items():
        yield _figure(f"startup/{name}", ("-m", "toolkit", *words), options.pairs or PAIRS)
    with tempfile.TemporaryDirectory() as site:
        release(Path(site))
        yield _hostile(site, options.pairs or PAIRS)


def _hostile(site: str, pairs: int) -> Figure:
    """`--help` with the zoo on the path, beside `--help` with an empty folder in its place."""
    with tempfile.TemporaryDirectory() as empty:
        paired = interleave(partial(_seconds_of_help, site), partial(_seconds_of_help, empty), pairs)
    return Figure("startup/hostile", paired, 1 / HOSTILE, (f"plugins={len(ZOO)}",))


def _seconds_of_help(site: str) -> float:
    """Wall time, for one of the plugins sleeps."""
    started = time.perf_counter()
    words = [sys.executable, "-m", "toolkit", "--help"]
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True, cwd=_ROOT, env=_with_bytecode() | {"PYTHONPATH": site})
    return time.perf_counter() - started


def _figure(name: str, command: Sequence[str], pairs: int) -> Figure:
    loaded = heavy_modules(_import_times(command))
    paired = interleave(partial(cpu_seconds, command), partial(cpu_seconds, ("-c", "pass")), pairs)
    seconds = median(paired.ours)
    faults = [f"loads {module}" for module in loaded]
    if seconds > CPU_SECONDS:
        faults.append(f"takes more than {CPU_SECONDS:g} s of CPU")
    facts = (f"cpu={seconds:.3f}s target<={CPU_SECONDS:g}s", f"heavy={','.join(loaded) or 'none'}")
    return Figure(name, paired, facts=facts, faults=tuple(faults))


def cpu_seconds(command: Sequence[str]) -> float:
    """User and system time of `python command`, its own children included."""
    child = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=_ROOT,
        env=_with_bytecode(),
    )
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
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


def _import_times(command: Sequence[str]) -> str:
    words = [sys.executable, "-X", "importtime", *command]
    return subprocess.run(words, capture_output=True, text=True, check=True, cwd=_ROOT).stderr
