"""Jobs of ranks that die at random moments: none outlives its launcher by a minute, and each run goes on to its end.

`TOOLKIT_LONG=1 TOOLKIT_KILLS=20 pytest -s tests/hostile/test_kills.py` is the full number.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ranks import launched
from tests.system.test_launch import ranks_of, started, until, words
from toolkit.api.errors import EXIT_FAILED, EXIT_STOPPED
from toolkit.cli.main import main

KILLS = int(os.environ.get("TOOLKIT_KILLS", "1"))
EPOCHS = 12
OUTLIVED = 60
"""Seconds that a process may live on after its job was ended."""
WAYS = ("kill a rank", "stop all", "stop the launcher", "kill the launcher")


@dataclass(frozen=True)
class Kill:
    """One job of `before` ranks that ends early, and the number of ranks that it is resumed on."""

    way: str
    before: int
    after: int
    rank: int
    share: float
    """Of the time that training takes, after which it is ended."""

    @classmethod
    def drawn(cls, number: int) -> Kill:
        draw = random.Random(f"kill {number}")
        before = draw.choice((2, 4))
        after = draw.choice((before, draw.choice((1, 2, 4))))
        return cls(WAYS[number % len(WAYS)], before, after, draw.randrange(before), draw.random())

    def strike(self, launcher: int, ranks: list[int]) -> None:
        match self.way:
            case "kill a rank":
                os.kill(ranks[self.rank], signal.SIGKILL)
            case "stop all":
                for number in (*ranks, launcher):
                    os.kill(number, signal.SIGTERM)
            case "stop the launcher":
                os.kill(launcher, signal.SIGTERM)
            case _:
                os.kill(launcher, signal.SIGKILL)


@dataclass(frozen=True)
class Ended:
    """What a run has come to."""

    weights: dict[str, torch.Tensor]
    losses: list[float]
    scores: dict[str, Any]
    valid_items: int

    @classmethod
    def of(cls, run: Path) -> Ended:
        weights = torch.load(run / "last.pt", weights_only=True)["state"]["network"]
        records = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
        scores, facts = (json.loads((run / name).read_text()) for name in ("scores.json", "facts.json"))
        return cls(weights, [record["train_loss"] for record in records], scores, facts["items"]["valid"])

    def require(self, other: Ended, *, same_ranks: bool) -> None:
        """That this is the end which the uninterrupted run `other` has."""
        assert len(self.losses) == len(other.losses) == EPOCHS
        if same_ranks:
            assert self.losses == other.losses
            assert self.scores == other.scores
            assert all(torch.equal(self.weights[name], weight) for name, weight in other.weights.items())
            return
        assert self.losses[0] == pytest.approx(other.losses[0], rel=1e-5)
        accuracies = [one.scores["valid"]["accuracy"] * self.valid_items for one in (self, other)]
        assert accuracies[0] == pytest.approx(accuracies[1], abs=2.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kills")


@cache
def uninterrupted(folder: Path, count: int) -> tuple[Ended, float]:
    """The end of the run that nothing stops, and the seconds that its training took."""
    runs = f"whole-{count}"
    printed = folder / f"{runs}.txt"
    work = partial(main, [*words("cifar10_cnn", "--runs", runs, epochs=EPOCHS)[3:]])
    assert set(launched(work, count, printed)) == {0}, printed.read_text()
    run = only_run(folder / runs)
    records = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    return Ended.of(run), sum(record["seconds"] + record["valid_seconds"] for record in records)


def only_run(runs: Path) -> Path:
    return next((runs / "cifar10_cnn").glob("2*"))


def alive(number: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, ProcessLookupError):
        return False


def survivors(numbers: list[int]) -> list[int]:
    """Those of these processes that are still there when their time is over."""
    deadline = time.monotonic() + OUTLIVED
    while (left := [number for number in numbers if alive(number)]) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def until_run(process: subprocess.Popen[str]) -> str:
    """What is printed until the run has its directory."""
    return until(process, "run ")


@pytest.mark.long  # starts and ends jobs of several processes
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("number", range(KILLS))
def test_a_job_that_dies_leaves_no_process_and_its_run_goes_on(
    number: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    kill = Kill.drawn(number)
    print(kill)
    expected, seconds = uninterrupted(folder, kill.after)
    runs = f"killed-{number}"
    command = words("cifar10_cnn", "--ranks", str(kill.before), "--runs", runs, epochs=EPOCHS)
    with started(command, folder) as process:
        seen = until_run(process)
        ranks = ranks_of(process)
        assert len(ranks) == kill.before
        time.sleep(kill.share * seconds)
        kill.strike(process.pid, ranks)
        struck = time.monotonic()
        assert survivors([process.pid, *ranks]) == []
        text, _ = process.communicate(timeout=OUTLIVED)
        print(f"all ended after {time.monotonic() - struck:.1f} s, exit code {process.returncode}")
    text = seen + text
    assert "Traceback" not in text, text
    run = only_run(folder / runs)
    if process.returncode == 0:
        pytest.fail(f"the run was over before the kill: {text}")
    codes = {"kill a rank": EXIT_FAILED, "kill the launcher": -signal.SIGKILL}
    assert process.returncode == codes.get(kill.way, EXIT_STOPPED), text
    assert f"next:  python -m toolkit run --resume {runs}/cifar10_cnn/{run.name}" in text

    printed = folder / f"{runs}.txt"
    assert set(launched(partial(main, ["run", "--resume", str(run)]), kill.after, printed)) == {0}, printed.read_text()
    Ended.of(run).require(expected, same_ranks=kill.before == kill.after)
