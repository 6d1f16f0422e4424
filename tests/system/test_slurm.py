"""The scripts for Slurm on a real Slurm of this machine: jobs that are stopped are queued again, and go on."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

SCRIPTS = Path(__file__).parents[2] / "examples" / "cluster"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "sinfo")
DEADLINE = 400
"""Seconds in which something must have happened: far beyond what it takes."""
EPOCHS, TRIALS = 40, 4

COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)

pytestmark = [
    pytest.mark.long,  # starts a queue, which lets a job that was stopped wait
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="starts Slurm's daemons, as root"),
]

SLURM = """
ClusterName=rehearsal
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
GresTypes=gpu
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 Gres=gpu:2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
"""One node of two processors, and of two GPUs that are only counted. `cred_expire` is also how long a job waits before
it starts again."""

RECIPE = """
[data]
name = "cifar10"
sample_images = 20

[model]
name = "cnn"
widths = [8]

[train]
epochs = {epochs}
batch = 64
device = "cpu"
precision = "fp32"
rank_timeout = 60

[train.optimizer]
name = "sgd"
lr = 0.05
"""
STUDY = """
[tune]
trials = {trials}
sampler = "random"

[tune.space]
train.optimizer.lr = {{low = 0.01, high = 0.1, log = true}}
"""


@dataclass(frozen=True)
class Queue:
    """A Slurm of this machine, and the folder that jobs work in."""

    folder: Path
    environment: dict[str, str]

    def run(self, *words: str) -> str:
        done = subprocess.run(words, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout

    def submit(self, script: str, *words: str, options: tuple[str, ...] = ()) -> str:
        """The number of a job of one of the scripts."""
        return self.run("sbatch", "--parsable", *options, str(SCRIPTS / script), *words).strip()

    def facts(self, job: str) -> dict[str, str]:
        """What Slurm knows of a job."""
        return dict(word.partition("=")[::2] for word in self.run("scontrol", "show", "job", "-o", job).split())

    def text(self, name: str) -> str:
        path = self.folder / f"slurm-{name}.out"
        return path.read_text() if path.exists() else ""

    def ended(self, job: str) -> bool:
        return self.facts(job)["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


def until(happened: Callable[[], bool], seen: Callable[[], str], seconds: float = DEADLINE) -> None:
    """Wait for what only Slurm's commands and files show."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, seen()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queue]:
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        pytest.skip(f"{missing[0]} is not installed: apt-get install slurm-wlm munge")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool", "work"):
        (folder / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    config = folder / "slurm.conf"
    config.write_text(SLURM.format(host=host, folder=folder, controller=free_port(), node=free_port()))
    # a GPU needs a file of its own to be counted; that of no other device is opened
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    environment = {**os.environ, "SLURM_CONF": str(config), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    found = Queue(folder / "work", environment)
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    with ExitStack() as started:
        for words in (
            ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge],
            ["slurmctld", "-D"],
            ["slurmd", "-D", "-N", host],
        ):
            started.enter_context(daemon(words, folder / f"{words[0]}.txt", environment))
            if words[0] == "munged":
                until((folder / "munge.socket").exists, (folder / "munged.txt").read_text)
        until(lambda: is_idle(environment), lambda: "".join(file.read_text() for file in folder.glob("*.txt")), 60)
        yield found
        subprocess.run(["scancel", "--user=root"], env=environment, check=False)


def is_idle(environment: dict[str, str]) -> bool:
    asked = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True, check=False)
    return asked.stdout.strip() == "idle"


@contextmanager
def daemon(words: list[str], output: Path, environment: dict[str, str], folder: Path | None = None) -> Iterator[None]:
    with (
        output.open("w") as file,
        subprocess.Popen(words, cwd=folder, env=environment, stdout=file, stderr=file) as process,
    ):
        try:
            yield
        finally:
            process.terminate()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port: int = free.getsockname()[1]
        return port


def test_a_job_that_is_stopped_is_queued_again_and_its_run_ends(queue: Queue) -> None:
    (queue.folder / "small.toml").write_text(RECIPE.format(epochs=EPOCHS))
    options = ("--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=2")
    job = queue.submit("train.sbatch", "small.toml", options=options)
    until(lambda: "\nepoch" in queue.text(job), lambda: queue.text(job))
    queue.run("scancel", "--signal=TERM", job)  # what --signal sends before the limit
    until(lambda: queue.ended(job), lambda: f"{queue.facts(job)}\n{queue.text(job)}")
    facts, text = queue.facts(job), queue.text(job)
    assert (facts["JobState"], facts["Restarts"], facts["ExitCode"]) == ("COMPLETED", "1", "0:0"), text
    assert text.count("stopped by a signal in epoch") == 1
    (run,) = (queue.folder / f"runs/job-{job}/small").glob("2*")
    epochs = [json.loads(line)["epoch"] for line in (run / "records.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, EPOCHS + 1))
    assert len(json.loads((run / "environment.json").read_text())["ranks"]) == 2


def test_an_array_works_on_one_study_though_one_of_its_workers_is_stopped(queue: Queue) -> None:
    pytest.importorskip("grpc", reason="the extra grpc is not installed")
    (queue.folder / "study.toml").write_text(RECIPE.format(epochs=20) + STUDY.format(trials=TRIALS))
    address = f"127.0.0.1:{free_port()}"
    serve = [sys.executable, "-m", "toolkit", "tune", "study.toml", "--serve-storage", address]
    served = queue.folder / "served.txt"
    with daemon(serve, served, queue.environment, queue.folder):
        until(lambda: address in served.read_text(), served.read_text)
        job = queue.submit("study.sbatch", "study.toml", f"grpc://{address}", options=("--array=1-2",))
        tasks = [f"{job}_{number}" for number in (1, 2)]
        until(lambda: "epoch" in queue.text(tasks[0]), lambda: queue.text(tasks[0]))
        queue.run("scancel", "--signal=TERM", tasks[0])
        until(lambda: all(map(queue.ended, tasks)), lambda: "\n".join(map(queue.text, tasks)))
    texts = [queue.text(task) for task in tasks]
    assert [queue.facts(task)["JobState"] for task in tasks] == ["COMPLETED"] * 2, texts
    assert queue.facts(tasks[0])["Restarts"] == "1", texts
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{queue.folder}/runs/study/study.db")
    assert all(trial.state.is_finished() for trial in study.trials)
    assert len(study.get_trials(states=COUNTED)) == TRIALS
