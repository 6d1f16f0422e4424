"""Several processes on one study, killed and stopped in the middle of it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState
from rich.console import Console

from bench import postgres
from tests.tiny import RECIPE, only_run, run, write_images, write_recipe
from tests.tune.test_trial import records
from toolkit.api.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_STOPPED, EXIT_USAGE, RunFailed, Stopped
from toolkit.recipe.tables import Recipe
from toolkit.system.signals import how_ended
from toolkit.tune.storage import opened_storage
from toolkit.tune.worker.trial import StudyLocation
from toolkit.tune.worker.workers import Resources, WorkerError, WorkerProcess, Workers, resources

TRIALS, EPOCHS = 4, 20
TUNE = f"""
[tune]
trials = {TRIALS}
sampler = {{name = "random", seed = 1}}
pruner = "none"
[tune.space]
train.optimizer.lr = {{low = 0.01, high = 0.1}}
"""
DEADLINE = 300.0
"""Seconds in which what is waited for must come: far beyond what it takes."""


def recipe_file(tmp_path: Path, tune: str = TUNE) -> Path:
    write_images(tmp_path / "images")
    text = RECIPE.replace("epochs = 2", f"epochs = {EPOCHS}") + tune
    return write_recipe(tmp_path, tmp_path / "images", text=text)


def wait_for(what: Callable[[], Any], *, alongside: subprocess.Popen[str] | None = None) -> Any:
    """What `what` gives, once it gives anything; the process `alongside` must run until then."""
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        if found := what():
            return found
        assert alongside is None or alongside.poll() is None, alongside.communicate()
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come")


@contextmanager
def tuning(recipe: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m toolkit tune` in a process of its own, which is gone after the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkit", "tune", str(recipe), *words],
        cwd=recipe.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    printed, _ = process.communicate(timeout=DEADLINE)
    return process.returncode, printed


def children(process: subprocess.Popen[str]) -> list[int]:
    task = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in task.read_text().split()] if task.exists() else []


def caught(folder: Path, *workers: int) -> tuple[int, int]:
    """Hold the first of these processes that trains: it, and the trial's number. It holds no lock that others need."""
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        for worker in workers:
            time.sleep(0.02)
            os.kill(worker, signal.SIGSTOP)
            held = [lock for lock in locks_of(folder) if lock.stat().st_ino in locks(worker)]
            if len(held) == 1 and held[0].parent != folder and 3 <= epochs(held[0].parent) < EPOCHS - 1:
                return worker, int(held[0].parent.name.removeprefix("trial-"))
            os.kill(worker, signal.SIGCONT)
    raise AssertionError(f"processes {workers} trained nothing")


def locks_of(folder: Path) -> list[Path]:
    return [*folder.glob("*.lock"), *folder.glob("*/.lock")]


def locks(process: int) -> set[int]:
    """The inodes of the files that a process holds locked."""
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return {int(words[5].rpartition(":")[2]) for words in lines if words[1] == "FLOCK" and words[4] == str(process)}


def epochs(trial: Path) -> int:
    done = trial / "records.jsonl"
    return done.read_text().count("\n") if done.exists() else 0


@pytest.fixture
def postgresql() -> Iterator[str]:
    """The URL of an empty database on a server of its own."""
    pytest.importorskip("psycopg", reason="the extra postgresql is not installed")
    binaries = postgres.programs()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres.server(binaries) as url:
        yield url


@pytest.fixture(params=["journal", pytest.param("postgresql", marks=pytest.mark.long)])
def storage(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "journal" else request.getfixturevalue("postgresql")


@pytest.mark.slow  # four processes load torch
@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="needs /proc/locks to see who trains what")
def test_a_study_loses_and_doubles_nothing_when_workers_are_killed_and_stopped(
    tmp_path: Path, storage: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = recipe_file(tmp_path), tmp_path / "runs" / "tiny"
    given = ["--storage", storage] if storage else []
    with ExitStack() as stack:
        parent = stack.enter_context(tuning(path, *given, "--workers", "2"))
        workers = wait_for(lambda: children(parent)[1:] and children(parent), alongside=parent)
        held, left_waiting = caught(folder, *workers)
        (other,) = set(workers) - {held}
        killed, left_dead = caught(folder, other)
        os.kill(killed, signal.SIGKILL)
        by_hand = stack.enter_context(tuning(path, *given))
        _, left_stopped = caught(folder, by_hand.pid)
        by_hand.send_signal(signal.SIGTERM)
        by_hand.send_signal(signal.SIGCONT)
        code, printed = ended(by_hand)
        assert (code, "stopped by a signal" in printed) == (EXIT_STOPPED, True), printed
        os.kill(held, signal.SIGCONT)
        code, printed = ended(parent)
    assert code == EXIT_DONE, printed
    assert f"worker {workers.index(killed) + 1} was killed by SIGKILL; the other workers continue its trial" in printed
    assert f"trials: {TRIALS} finished, 0 pruned, 0 failed" in printed
    with opened_storage(folder, storage) as opened:
        trials = optuna.load_study(study_name="tiny", storage=opened).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * TRIALS
    assert len({trial.params["train.optimizer.lr"] for trial in trials}) == TRIALS
    monkeypatch.setattr("toolkit.runs.session.draw_pictures", lambda *arguments: {})
    monkeypatch.setattr("toolkit.runs.evaluation.write_report", lambda path: path)
    for number in {left_waiting, left_dead, left_stopped}:
        made = folder / f"trial-{number:04}"
        assert run(made / "recipe.toml", tmp_path / f"fresh-{number}") == EXIT_DONE
        assert records(made) == records(only_run(tmp_path / f"fresh-{number}", made.parent.name))


@pytest.mark.slow  # processes of their own load torch
def test_workers_stop_and_go_with_who_started_them(tmp_path: Path) -> None:
    """When a process dies, the system closes its end of the pipe to a worker."""
    path, folder = recipe_file(tmp_path), tmp_path / "runs" / "tiny"

    def trained() -> list[int]:
        return [epochs(trial) for trial in sorted(folder.glob("trial-*"))]

    with tuning(path, "--workers", "2") as parent:
        wait_for(lambda: any(trained()), alongside=parent)
        started = children(parent)
        parent.send_signal(signal.SIGINT)
        code, printed = ended(parent)
    assert (code, len(started)) == (EXIT_INTERRUPTED, 2), printed
    assert f"next:  python -m toolkit tune {path} --workers 2" in printed
    assert not any(map(is_alive, started))
    before = trained()
    recipe = Recipe.model_validate({**tomllib.loads(path.read_text()), "name": "tiny"})
    workers = Workers(recipe, str(path), StudyLocation(folder.parent, None, "again"), 1, Console(file=io.StringIO()))
    process = workers._start(1, Resources({}, 1)).process
    with process:
        wait_for(lambda: trained() != before, alongside=process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(DEADLINE) == EXIT_STOPPED


def is_alive(process: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


@pytest.mark.long  # small programs end so in test_an_error_of_one_worker_stops_the_others
def test_a_workers_error_is_that_of_the_command(tmp_path: Path) -> None:
    path = recipe_file(
        tmp_path, TUNE.replace('pruner = "none"', 'pruner = "none"\nmetric = "acuracy"\ndirection = "maximize"')
    )
    with tuning(path, "--workers", "2") as parent:
        code, printed = ended(parent)
    assert code == EXIT_USAGE, printed
    assert f'error: {path}: tune.metric: no score "acuracy" is computed per epoch' in printed
    assert "next:  name one of them" in printed


# What the process that starts workers makes of their ends, with small programs in their place

DONE, CRASHED, KILLED = "pass", "import sys; sys.exit(9)", "import os; os.kill(os.getpid(), 9)"
STOPPED, WAITING = f"import sys; sys.exit({EXIT_STOPPED})", "import time; time.sleep(60)"
TELLING = """
import json, sys
print("a library says this")
print(json.dumps({"lines": ["a.toml: first", "a.toml: second"], "exit_code": 2, "next_step": "correct it"}))
sys.exit(2)
"""


def ending(folder: Path, monkeypatch: pytest.MonkeyPatch, *programs: str) -> tuple[Workers, io.StringIO]:
    (folder / "tiny").mkdir()

    def start(self: Workers, number: int, share: Resources) -> WorkerProcess:
        log = folder / f"worker-{number}.log"
        log.touch()
        words = [sys.executable, "-c", programs[number - 1]]
        return WorkerProcess(number, subprocess.Popen(words, stdout=subprocess.PIPE, text=True), log)

    monkeypatch.setattr(Workers, "_start", start)
    printed = io.StringIO()
    recipe = Recipe.model_validate({**tomllib.loads(RECIPE), "name": "tiny"})
    console = Console(file=printed, width=200)
    return Workers(recipe, "tiny.toml", StudyLocation(folder, None, "again"), len(programs), console), printed


def test_one_worker_that_ends_well_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers, printed = ending(tmp_path, monkeypatch, KILLED, CRASHED, STOPPED, "import time; time.sleep(1)")
    workers.work()
    lines = printed.getvalue()
    assert "worker 1 was killed by SIGKILL; the other workers continue its trial" in lines
    assert f"worker 2 ended with exit code 9, see {tmp_path}/worker-2.log" in lines
    assert "worker 3 was stopped by a signal" in lines
    assert "worker 4" not in lines
    assert list(tmp_path.glob("*.log")) == []


def test_without_a_worker_left_the_error_shows_how_to_continue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers, _ = ending(tmp_path, monkeypatch, KILLED, CRASHED)
    with pytest.raises(RunFailed, match="no worker is left, and the study is not finished: worker") as caught:
        workers.work()
    assert "worker 1 was killed by SIGKILL" in caught.value.message
    assert caught.value.next_step == "go on: again"


def test_all_workers_stopped_is_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers, _ = ending(tmp_path, monkeypatch, STOPPED, STOPPED)
    with pytest.raises(Stopped, match="all workers were stopped by signals") as caught:
        workers.work()
    assert (caught.value.exit_code, caught.value.next_step) == (EXIT_STOPPED, "again")


def test_an_error_of_one_worker_stops_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers, _ = ending(tmp_path, monkeypatch, WAITING, TELLING)
    with pytest.raises(WorkerError) as caught:
        workers.work()
    assert caught.value.lines() == ["a.toml: first", "a.toml: second"]
    assert (caught.value.exit_code, caught.value.next_step) == (EXIT_USAGE, "correct it")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, EXIT_INTERRUPTED), (signal.SIGTERM, EXIT_STOPPED)])
def test_a_signal_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    passing = f"import time, sys\ntry: time.sleep(60)\nexcept KeyboardInterrupt: sys.exit({EXIT_INTERRUPTED})"
    workers, _ = ending(tmp_path, monkeypatch, passing, passing)
    killer = threading.Timer(1.0, os.kill, (os.getpid(), number))
    killer.start()
    with pytest.raises(Stopped, match=rf"{how_ended(code)}; the study in .*tiny keeps all trials") as caught:
        workers.work()
    assert (caught.value.exit_code, caught.value.next_step) == (code, "again")


# Who computes on what


def recipe_on(device: str) -> Recipe:
    recipe = Recipe.model_validate({**tomllib.loads(RECIPE), "name": "tiny"})
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"device": device})})


@pytest.mark.parametrize(("cores", "count", "share"), [(8, 3, 2), (2, 2, 1), (2, 5, 1)])
def test_workers_on_the_cpu_share_its_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, count: int, share: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    assert resources(recipe_on("cpu"), count) == [Resources({}, share)] * count


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_each_worker_has_a_gpu_of_its_own_while_there_are_enough(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [share.variables["CUDA_VISIBLE_DEVICES"] for share in resources(recipe_on(device), 4)]
    assert seen == ["0", "1", "2", "0"]
    decoding = {(share.variables["OMP_NUM_THREADS"], share.threads) for share in resources(recipe_on(device), 4)}
    assert decoding == {("2", None)}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    seen = [share.variables["CUDA_VISIBLE_DEVICES"] for share in resources(recipe_on(device), 2)]
    assert seen == ["GPU-a", "GPU-b"]


@pytest.mark.usefixtures("three_gpus")
def test_each_rank_of_a_trial_has_a_gpu_of_its_own_while_there_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = resources(recipe_on("cuda"), 2, 2)
    assert [share.variables["CUDA_VISIBLE_DEVICES"] for share in shares] == ["0,1", "2,0"]
    assert {share.variables["OMP_NUM_THREADS"] for share in shares} == {"2"}
    assert resources(recipe_on("cpu"), 2, 2) == [Resources({}, 2)] * 2
    workers, printed = ending(tmp_path, monkeypatch, DONE, DONE)
    replace(workers, recipe=recipe_on("cuda"), ranks=2).work()
    assert "note: 2 workers share 3 GPUs: each trial is slower" in printed.getvalue()


@pytest.mark.usefixtures("three_gpus")
def test_a_gpu_that_the_recipe_names_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resources(recipe_on("cuda:1"), 2) == [Resources({"OMP_NUM_THREADS": "4"}, None)] * 2
    workers, printed = ending(tmp_path, monkeypatch, DONE, DONE)
    replace(workers, recipe=recipe_on("cuda:1")).work()
    assert "note: 2 workers share 1 GPU: each trial is slower" in printed.getvalue()


@pytest.mark.usefixtures("three_gpus")
def test_enough_gpus_need_no_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers, printed = ending(tmp_path, monkeypatch, DONE, DONE)
    replace(workers, recipe=recipe_on("cuda")).work()
    assert printed.getvalue() == ""
