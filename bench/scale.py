"""Epochs on several ranks, against one process, and against two other engines on the same model and data.

Each timing is a job of its own, started as a user starts it: `python -m toolkit run`, `torchrun`, or `torchrun` of
`bench.engines`. It counts the training part of the fastest epoch, since other work on the machine only slows epochs. Of
several GPUs, a line shows how much of their number is gained.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from bench.data import Options
from bench.engines import ENGINES
from bench.pairs import Effort, Figure, Skipped, compare
from toolkit.api.errors import RunFailed

PAIRS = 3
EPOCHS = 6
ONE_RANK, TWO_RANKS, GPUS = 1 / 1.02, 0.9, 0.95
"""Least speeds, as shares: of one rank under torchrun, of two on half the threads each, of N GPUs per GPU."""
RECIPE = "cifar10_cnn"
BATCH = 256
OVERRIDES = (
    *("augment=[]", "trackers=[]", "train.precision=fp32", f"train.epochs={EPOCHS}"),
    *("data.valid_share=0.02", "data.sample_images=300"),
)
"""Without augmentations, which the other engines do not have. They take batch norm's statistics of each rank alone, so
ours does too where it is compared with them."""
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


def figures(options: Options) -> Iterator[Figure | Skipped]:
    effort, root = options.effort(PAIRS), options.cifar10()
    given = [*OVERRIDES, *([f"data.root={root}"] if root else [])]
    plain = partial(run_seconds, [*given, f"train.batch={BATCH}", "train.threads=2"])
    launched = partial(plain, launcher=(*TORCHRUN, "1"))
    yield Figure("scale/one_rank_of_torchrun", compare(launched, plain, effort, ONE_RANK), ONE_RANK)
    two = partial(run_seconds, [*given, f"train.batch={BATCH}", "train.threads=1"], ranks=2)
    yield Figure("scale/two_ranks_of_one_thread", compare(two, plain, effort, TWO_RANKS), TWO_RANKS)
    alike = partial(run_seconds, [*given, f"train.batch={BATCH}", "train.threads=1", "train.batch_norm=local"], ranks=2)
    for engine in ENGINES:
        name = f"scale/two_ranks_against_{engine}"
        if find_spec(engine) is None:
            yield Skipped(name, f"{engine} is not installed: pip install -e '.[bench]'")
            continue
        theirs = partial(engine_seconds, engine, [*given, f"train.batch={BATCH}", "train.threads=1"])
        yield Figure(name, compare(alike, theirs, effort))
    yield from _on_gpus(given, effort)


def _on_gpus(given: Sequence[str], effort: Effort) -> Iterator[Figure]:
    """N GPUs on batches N times as large, against an N-th of the time of one."""
    import torch

    count = torch.cuda.device_count()
    if count < 2:
        return
    many = partial(run_seconds, [*given, f"train.batch={count * BATCH}"], ranks=count)
    one = partial(run_seconds, [*given, f"train.batch={BATCH}"])
    paired = compare(many, lambda: one() / count, effort, GPUS)
    yield Figure(f"scale/efficiency_of_{count}_gpus", paired, GPUS)


def run_seconds(overrides: Sequence[str], *, ranks: int = 1, launcher: Sequence[str] = (sys.executable,)) -> float:
    """Seconds that a run of the recipe trains in its fastest epoch; the first one does not count."""
    with tempfile.TemporaryDirectory() as runs:
        words = [RECIPE, "--runs", runs, *(["--ranks", str(ranks)] if ranks > 1 else [])]
        sets = [word for override in overrides for word in ("--set", override)]
        _finished([*launcher, "-m", "toolkit", "run", *words, *sets])
        (records,) = Path(runs).glob(f"{RECIPE}/2*/records.jsonl")
        lines = records.read_text(encoding="utf-8").splitlines()
    seconds: list[float] = [json.loads(line)["seconds"] for line in lines[1:]]
    return min(seconds)


def engine_seconds(engine: str, overrides: Sequence[str]) -> float:
    """As `run_seconds`, of another engine that trains the same network on the same items on two ranks."""
    printed = _finished([*TORCHRUN, "2", "-m", "bench.engines", engine, RECIPE, *overrides])
    seconds: list[float] = json.loads(printed.splitlines()[-1])
    return min(seconds[1:])


def _finished(command: Sequence[str]) -> str:
    """What a command prints. Raises RunFailed where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunFailed(
            f"{' '.join(command)}: exit code {done.returncode}",
            details=done.stderr.splitlines()[-10:],
            next_step="fix this, then run the same command again",
        )
    return done.stdout
