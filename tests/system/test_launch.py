"""`run --ranks N`, with the real launcher: what a person sees when ranks train, die, are stopped and go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.ranks import launched
from toolkit.api.errors import EXIT_FAILED, EXIT_STOPPED, EXIT_USAGE, RunFailed
from toolkit.cli.main import main
from toolkit.system import launch

SMALL = (
    *("data.sample_images=20", "model.widths=[8]", "train.batch=64", "train.precision=fp32"),
    *("train.rank_timeout=60", "trackers=[]"),
)


def words(*more: str, epochs: int = 3) -> list[str]:
    overrides = [word for value in (*SMALL, f"train.epochs={epochs}") for word in ("--set", value)]
    return [sys.executable, "-m", "toolkit", "run", *more, *overrides]


@contextmanager
def started(command: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def first_epoch(process: subprocess.Popen[str]) -> str:
    """What is printed until the first epoch has ended."""
    return until(process, "epoch")


def until(process: subprocess.Popen[str], start: str) -> str:
    """What is printed up to the first line that begins so."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith(start):
            return "".join(seen)
    raise AssertionError("".join(seen))


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """Process numbers of the ranks, in their order."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            said = dict(one.partition("=")[::2] for one in (folder / "environ").read_text().split("\0"))
        except (OSError, ProcessLookupError):
            continue
        if parent == process.pid and "RANK" in said:
            found[int(said["RANK"])] = int(folder.name)
    return [found[rank] for rank in sorted(found)]


def rest(process: subprocess.Popen[str]) -> tuple[str, int]:
    text, _ = process.communicate(timeout=120)
    return text, process.returncode


def last(run: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(run / "last.pt", weights_only=True)["state"]["network"]
    return weights


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_rank_is_killed_all_are_stopped_and_the_run_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = tmp_path / "printed.txt"
    assert launched(partial(main, words("cifar10_cnn")[3:]), 2, printed) == [0, 0], printed.read_text()
    text = printed.read_text()
    assert "on 2 ranks, each on 1 CPU thread, fp32" in text
    assert text.count("epoch 3/3") == 1
    wanted = last(tmp_path / "runs" / "latest")

    with started(words("cifar10_cnn", "--ranks", "2", "--runs", "killed", epochs=3), tmp_path) as killed:
        first_epoch(killed)
        os.kill(ranks_of(killed)[1], signal.SIGKILL)
        text, code = rest(killed)
    assert code == EXIT_FAILED, text
    assert text.count("rank 0 of 2 lost the others: ") == 1
    assert "error: rank 1 was ended by SIGKILL" in text
    run = next((tmp_path / "killed" / "cifar10_cnn").glob("2*"))
    assert f"next:  python -m toolkit run --resume killed/cifar10_cnn/{run.name} --ranks 2\n" in text

    with started([sys.executable, "-m", "toolkit", "run", "--ranks", "2", "--resume", str(run)], tmp_path) as resumed:
        first_epoch(resumed)
        resumed.terminate()
        text, code = rest(resumed)
    assert code == EXIT_STOPPED, text
    assert text.count("stopped by a signal in epoch") == 1

    assert launched(partial(main, ["run", "--resume", str(run)]), 2, printed) == [0, 0], printed.read_text()
    found = last(run)
    assert all(torch.equal(found[name], weight) for name, weight in wanted.items())


def test_what_is_wrong_is_printed_before_any_rank_starts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "launch", lambda *_: pytest.fail("started"))
    assert main(["run", "cifar10_cnn", "--ranks", "2", "--set", "train.epochz=1"]) == EXIT_USAGE
    assert "train.epochz=1: unknown key" in capsys.readouterr().err
    assert main(["run", "cifar10_cnn", "--ranks", "2", "--find-lr"]) == EXIT_USAGE
    assert "next:  python -m toolkit run cifar10_cnn --find-lr\n" in capsys.readouterr().err
    assert main(["run", "cifar10_cnn", "--ranks", "0"]) == EXIT_USAGE


def test_what_all_ranks_meet_is_printed_by_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, number in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, number)
    assert main(["run", "cifar10_cnn", "--set", "train.epochz=1"]) == EXIT_USAGE
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert main(["run", "cifar10_cnn", "--set", "train.epochz=1"]) == EXIT_USAGE
    assert "unknown key" in capsys.readouterr().err
    assert main(["check", "cifar10_cnn"]) == EXIT_USAGE
    assert "check: runs in one process; only `run` runs on several ranks" in capsys.readouterr().err


class Failed:
    """What the launcher knows of a rank that failed."""

    def __init__(self, exitcode: int, timestamp: int, error_file: Path) -> None:
        self.exitcode, self.timestamp, self.error_file = exitcode, timestamp, str(error_file)


def test_the_exit_code_is_that_of_the_rank_that_reported_its_error(tmp_path: Path) -> None:
    (tmp_path / "error.json").touch()
    unreported, reported = Failed(1, 0, tmp_path / "none"), Failed(3, 1, tmp_path / "error.json")
    assert launch._ended({0: unreported, 1: reported}) == 3  # type: ignore[dict-item]
    assert launch._ended({0: unreported}) == 1  # type: ignore[dict-item]
    killed = Failed(-signal.SIGSEGV, 2, tmp_path / "none")
    with pytest.raises(RunFailed, match=r"^rank 2 was ended by SIGSEGV$"):
        launch._ended({0: reported, 2: killed})  # type: ignore[dict-item]
    left = Failed(-signal.SIGTERM, 2, tmp_path / "none")
    with pytest.raises(RunFailed, match=r"^rank 2 was ended by SIGSEGV$"):
        launch._ended({0: left, 2: killed})  # type: ignore[dict-item]
    with pytest.raises(RunFailed, match=r"^rank 0 was ended by SIGTERM$"):
        launch._ended({0: left})  # type: ignore[dict-item]
    stopped = Failed(EXIT_STOPPED, 3, tmp_path / "none")
    assert launch._ended({0: stopped, 1: left}) == EXIT_STOPPED, "rank 1 was still leaving"  # type: ignore[dict-item]
    assert launch._ended({0: left, 1: stopped, 2: reported}) == 3  # type: ignore[dict-item]
