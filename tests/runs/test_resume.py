"""Nothing is lost: a run that was stopped or killed, wherever, ends as if nothing had happened, bit for bit."""

from __future__ import annotations

import itertools
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from toolkit.api.contracts import EpochRecord
from toolkit.cli.main import main
from toolkit.system.signals import how_ended
from toolkit.training.checkpoint import LastCheckpoint
from toolkit.training.fit import Event, StepDone, Validating, fit
from toolkit.training.state import Setup, State

TIMES = {"seconds", "valid_seconds", "waiting", "waited"}
AVERAGED = tiny.RECIPE.replace("maximize", "minimize").replace(
    "batch = 8", "batch = 8\nema = 0.9\ncheckpoint_minutes = 1e-9\neval_batch = 4"
)
"""Saves at every event, which makes each of them a moment to be killed at."""


def timeless(value: Any) -> Any:
    """`value` without times, with tensors as text that compares bit for bit."""
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {tuple(value.shape)} {value.numpy().tobytes().hex()}"
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in TIMES}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def outcome(run: Path) -> dict[str, Any]:
    """All that a run has computed: weights, optimizer, averages, records, scores."""
    checkpoints = {name: timeless(torch.load(run / name, weights_only=True)) for name in ("last.pt", "best.pt")}
    return checkpoints | {name: (run / name).read_text() for name in ("scores.json", "predictions.csv")}


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.runs.session.draw_pictures", lambda *arguments: {})
    monkeypatch.setattr("toolkit.runs.evaluation.write_report", lambda path: path)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture
def recipe(tmp_path: Path, images: Path) -> Path:
    return tiny.write_recipe(tmp_path, images, text=AVERAGED)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, images: Path) -> dict[str, Any]:
    """What the uninterrupted run computes."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toolkit.runs.session.draw_pictures", lambda *arguments: {})
        patch.setattr("toolkit.runs.evaluation.write_report", lambda path: path)
        assert tiny.run(tiny.write_recipe(folder, images, text=AVERAGED), folder / "runs") == 0
    return outcome(tiny.only_run(folder / "runs"))


def resumed(capsys: pytest.CaptureFixture[str], message: str = "error: ") -> int:
    """The exit code of exactly the command that the stopped run printed, below a message that begins so."""
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2].startswith(message)
    assert lines[-1].startswith("next:  python -m toolkit run --resume ")
    return main(shlex.split(lines[-1])[4:])


def leftovers(run: Path) -> set[str]:
    return {path.name for path in run.rglob(".*")} - {".lock"}


def test_layers_that_join_later_and_a_last_epoch_at_another_size_resume_exactly(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("train.epochs=3", "train.trained_layers=0", "train.thaw_every=1", "train.fixres={size=24, lr=0.01}")
    recipe = tiny.write_recipe(tmp_path, images)
    assert tiny.run(recipe, tmp_path / "whole", *asked) == 0
    with monkeypatch.context() as patch:
        patch.setattr("toolkit.runs.loop.fit", signalling(StepDone, 5, signal.SIGTERM))
        assert tiny.run(recipe, tmp_path / "stopped", *asked) == 75
    assert resumed(capsys) == 0
    whole, stopped = (outcome(tiny.only_run(tmp_path / folder)) for folder in ("whole", "stopped"))
    assert whole == stopped


# Signals, sent by the process to itself at chosen moments

EVENTS: dict[str, tuple[type[Event], int]] = {
    "at the first step": (StepDone, 1),
    "within an epoch": (StepDone, 5),
    "after the first validation batch": (Validating, 1),
    "after the last validation batch": (Validating, 4),
    "between two epochs": (EpochRecord, 1),
    "after the last epoch": (EpochRecord, 2),
}


def signalling(kind: type[Event], count: int, *numbers: int) -> Callable[[State, Setup], Iterator[Event]]:
    """`fit`, with signals as its `count`th event of a kind is handed out."""

    def fitting(state: State, setup: Setup) -> Iterator[Event]:
        left = count
        for event in fit(state, setup):
            left -= isinstance(event, kind)
            if isinstance(event, kind) and left == 0:
                for number in numbers:
                    os.kill(os.getpid(), number)
            yield event

    return fitting


@pytest.mark.parametrize(
    ("number", "code", "moment"),
    [
        *((signal.SIGTERM, 75, moment) for moment in EVENTS),
        (signal.SIGINT, 130, "within an epoch"),
        (signal.SIGINT, 130, "between two epochs"),
    ],
)
def test_a_signal_in_training_saves_and_shows_how_to_resume(
    recipe: Path,
    tmp_path: Path,
    whole: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    code: int,
    moment: str,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("toolkit.runs.loop.fit", signalling(*EVENTS[moment], number))
        assert tiny.run(recipe, tmp_path / "my runs", "train.checkpoint_minutes=99") == code
    run = tiny.only_run(tmp_path / "my runs")
    state = LastCheckpoint.load(run / "last.pt").state
    assert (state["epoch"], state["step"]) != (0, 0)
    assert not (run / "scores.json").exists()
    assert resumed(capsys, f"error: {how_ended(code)} in epoch ") == 0
    assert without_minutes(outcome(run)) == without_minutes(whole)


def without_minutes(found: dict[str, Any]) -> dict[str, Any]:
    """`found` without the text of the recipe, which may ask for other checkpoints."""
    bare = dict(found)
    for name in ("last.pt", "best.pt"):
        origin = {key: value for key, value in found[name]["origin"].items() if key != "recipe"}
        bare[name] = {**found[name], "origin": origin}
    return bare


@pytest.mark.parametrize("moment", ["within an epoch", "after the first validation batch"])
def test_a_second_signal_does_not_wait(
    recipe: Path,
    tmp_path: Path,
    whole: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    moment: str,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("toolkit.runs.loop.fit", signalling(*EVENTS[moment], signal.SIGTERM, signal.SIGINT))
        assert tiny.run(recipe, tmp_path / "runs") == 75
    assert resumed(capsys) == 0
    assert outcome(tiny.only_run(tmp_path / "runs")) == whole


@pytest.mark.parametrize(
    "moment",
    [
        "session.Assembly.environment",
        "session.Trackers",
        "session.score_splits",
        "session.draw_pictures",
        "evaluation.write_report",
    ],
)
def test_a_signal_before_or_after_training_ends_at_once(
    recipe: Path,
    tmp_path: Path,
    whole: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    moment: str,
) -> None:
    """The moment is the call of a function: before the first step (two of them) or in the finish."""
    with monkeypatch.context() as patch:
        patch.setattr(f"toolkit.runs.{moment}", lambda *arguments, **more: os.kill(os.getpid(), signal.SIGTERM))
        assert tiny.run(recipe, tmp_path / "runs") == 75
    assert resumed(capsys) == 0
    run = tiny.only_run(tmp_path / "runs")
    assert outcome(run) == whole
    assert leftovers(run) == set()


def test_a_signal_as_training_ends_is_not_lost(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fitting(state: State, setup: Setup) -> Iterator[Event]:
        yield from fit(state, setup)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr("toolkit.runs.loop.fit", fitting)
        assert tiny.run(recipe, tmp_path / "runs") == 75
    assert not (tiny.only_run(tmp_path / "runs") / "scores.json").exists()
    assert resumed(capsys) == 0


# Death at every file that is put in place


class Killed(BaseException):
    """Stands for the end of the process."""


def dying(fatal: int) -> Callable[[Path, Path], Path]:
    """A `Path.replace` that dies at its `fatal`th call: to die after it would leave what dying at the next one does."""
    replace, calls = Path.replace, itertools.count(1)

    def replacing(path: Path, target: Path) -> Path:
        if next(calls) == fatal:
            raise Killed
        return replace(path, target)

    return replacing


@pytest.mark.slow
def test_death_at_any_file_costs_nothing(
    recipe: Path, tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for fatal in itertools.count(1, 1 if os.environ.get("TOOLKIT_LONG") else 4):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", dying(fatal))
            try:
                tiny.run(recipe, tmp_path / f"{fatal}")
            except Killed:
                pass
            else:
                break
        if not (tmp_path / f"{fatal}").exists():  # the file was of a cache, before the run
            continue
        run = tiny.only_run(tmp_path / f"{fatal}")
        if (run / "recipe.toml").exists():
            assert main(["run", "--resume", str(run)]) == 0
            assert outcome(run) == whole
    assert fatal > 20


def test_what_a_killed_writer_left_is_cleared(recipe: Path, tmp_path: Path) -> None:
    assert tiny.run(recipe, tmp_path / "runs") == 0
    run = tiny.only_run(tmp_path / "runs")
    (run / "figures").mkdir()
    for left in (run / ".last.pt.unfinished-abcd1234.pt", run / "figures" / ".loss.png.unfinished-x.png"):
        left.write_bytes(b"half of it")
    assert main(["run", "--resume", str(run)]) == 0
    assert leftovers(run) == set()


# Real processes at random moments

LONG = AVERAGED.replace("epochs = 2", "epochs = 30").replace("1e-9", "0.001")
MARGIN = 10
"""Epochs that are left when the last signal is sent."""


class Process:
    """`python -m toolkit WORDS` in a process of its own, on one thread."""

    def __init__(self, words: list[str], folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "toolkit", *words],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run_directory(self) -> Path:
        """Where it works; waits until it says so."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("run "), self.process.communicate()
        return Path(line.removeprefix("run ").strip())

    def interrupted(self, number: int) -> tuple[int, str]:
        """Exit code and error text after a signal."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> tuple[int, str]:
        _, text = self.process.communicate(timeout=300)
        return self.process.returncode, text


def epochs_done(run: Path) -> int:
    file = run / "records.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.mark.long  # trains six times
def test_signals_at_random_moments(tmp_path: Path, images: Path) -> None:
    recipe = tiny.write_recipe(tmp_path, images, text=LONG)
    assert tiny.run(recipe, tmp_path / "whole") == 0
    draw = random.Random(2)
    signals = [signal.SIGTERM, signal.SIGINT, signal.SIGKILL]
    draw.shuffle(signals)
    words = ["run", str(recipe)]
    for number, epoch in zip(signals, sorted(draw.sample(range(30 - MARGIN), len(signals))), strict=True):
        process = Process(words, tmp_path)
        run = tmp_path / process.run_directory()
        while epochs_done(run) < epoch and process.process.poll() is None:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.2))
        code, text = process.interrupted(number)
        assert code == {signal.SIGTERM: 75, signal.SIGINT: 130, signal.SIGKILL: -9}[number], text
        command = f"python -m toolkit run --resume {run.relative_to(tmp_path)}"
        assert number == signal.SIGKILL or text.splitlines()[-1] == f"next:  {command}"
        words = shlex.split(command)[3:]
    code, text = Process(words, tmp_path).ended()
    assert (code, text) == (0, "")
    assert outcome(run) == outcome(tiny.only_run(tmp_path / "whole"))
    assert leftovers(run) == set()
