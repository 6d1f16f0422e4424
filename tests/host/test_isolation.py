"""What code of others leaves behind: nothing, and what it did is known."""

from __future__ import annotations

import builtins
import io
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from toolkit.host.isolation import STATES, isolated, quiet

STANDARD_OUTPUT_CLOSED = """
import os
os.close(1)
import sys
sys.stdout = None  # as Python has it that is started so
from toolkit.host.isolation import isolated
with isolated() as seen:
    print("into nothing")
    os.write(1, b"beneath")
sys.stderr.write(seen.printed)
"""


def unchanged() -> tuple[Any, ...]:
    return tuple(state.read() for state in STATES)


def ignore_warnings() -> None:
    warnings.simplefilter("ignore")


def hook(*arguments: Any) -> None: ...


class Finder:
    """Takes the place of no module."""

    @staticmethod
    def find_spec(*_: object) -> None: ...


def lower_a_limit() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))


CHANGES: dict[str, Callable[[], object]] = {
    "sys.stdin or sys.stderr": lambda: setattr(sys, "stderr", io.StringIO()),
    "the alarm": lambda: signal.alarm(10_000),
    "resource limits": lower_a_limit,
    "sys.meta_path": lambda: sys.meta_path.insert(0, Finder),  # type: ignore[arg-type]
    "builtins": lambda: setattr(builtins, "zoo", "open"),
    "the working directory": lambda: os.chdir("/"),
    "the environment": lambda: os.environ.update(ZOO="open"),
    "signal handlers": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "warnings filters": ignore_warnings,
    "sys.excepthook": lambda: setattr(sys, "excepthook", hook),
    "the recursion limit": lambda: sys.setrecursionlimit(10**6),
    "random's global state": lambda: random.seed(0),
    "numpy's global random state": lambda: np.random.seed(0),
    "torch's global random state": lambda: torch.manual_seed(0),
}


def test_every_state_has_a_test() -> None:
    assert set(CHANGES) == {state.name for state in STATES}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_changed_is_put_back_and_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random.seed(), np.random.seed(), torch.seed()
    before = unchanged()
    with isolated() as seen:
        CHANGES[name]()
    assert seen.changed == (name,)
    assert unchanged() == before


def test_what_is_removed_from_the_environment_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO", "closed")
    with isolated() as seen:
        del os.environ["ZOO"]
    assert os.environ["ZOO"] == "closed"
    assert seen.changed == ("the environment",)


def test_a_thread_that_is_left_running_is_named() -> None:
    ends = threading.Event()
    with isolated() as seen:
        thread = threading.Thread(target=ends.wait, name="burrow")
        thread.start()
    ends.set()
    thread.join()
    assert seen.changed == ("thread burrow",)


def test_in_another_thread_handlers_are_left_alone() -> None:
    found: list[tuple[str, ...]] = []

    def work() -> None:
        with isolated() as seen:
            os.environ["ZOO"] = "open"
        found.append(seen.changed)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [("the environment",)]


def test_a_working_directory_that_is_gone_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with isolated() as seen:
        pass
    assert seen.changed == ()


def test_what_is_printed_is_kept_by_python_and_beneath_it(capfd: pytest.CaptureFixture[str]) -> None:
    kept = sys.stdout
    with isolated() as seen:
        print("above")
        os.write(1, b"beneath \xff")
    assert seen.printed == "above\nbeneath \ufffd"
    assert sys.stdout is kept
    print("after")
    os.write(1, b"after\n")
    sys.stdout.flush()
    assert capfd.readouterr().out.splitlines() == ["after"] * 2


def test_closing_standard_output_closes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet() as printed:
        print("last words")
        sys.stdout.close()
        os.close(1)
    assert "".join(printed) == "last words\n"
    os.write(1, b"open")
    assert capfd.readouterr().out == "open"


def test_code_is_isolated_where_there_is_no_room_for_temporary_files(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full() -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with quiet() as printed:
        print("by Python")
        os.write(1, b"beneath it")
    assert "".join(printed) == "by Python\n"
    assert capfd.readouterr().out == ""


def test_what_is_printed_is_kept_where_there_is_no_standard_output() -> None:
    done = subprocess.run([sys.executable, "-c", STANDARD_OUTPUT_CLOSED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "into nothing\nbeneath")


def test_an_error_passes_and_the_rest_is_seen() -> None:
    def fall() -> None:
        print("before the fall")
        os.environ["ZOO"] = "open"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), isolated() as seen:
        fall()
    assert seen.printed == "before the fall\n"
    assert seen.changed == ("the environment",)
    assert "ZOO" not in os.environ
    assert seen.seconds > 0


def test_builtins_that_are_replaced_or_removed_are_put_back() -> None:
    before = dict(vars(builtins))
    with isolated() as seen:
        builtins.print = hook  # type: ignore[assignment]
        del builtins.copyright
    assert {**vars(builtins), "_": None} == {**before, "_": None}
    assert seen.changed == ("builtins",)


@pytest.mark.parametrize("change", [list.pop, list.reverse, list.clear], ids=lambda change: change.__name__)
def test_finders_that_are_removed_or_moved_are_put_back(change: Callable[[list[Any]], object]) -> None:
    before = list(sys.meta_path)
    with isolated() as seen:
        change(sys.meta_path)
    assert sys.meta_path == before
    assert seen.changed == ("sys.meta_path",)


def test_a_finder_behind_all_others_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    with isolated() as seen:
        sys.meta_path.append(Finder)  # type: ignore[arg-type]
    assert sys.meta_path[-1] is Finder
    assert seen.changed == ()
