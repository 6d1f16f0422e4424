"""A server of a ResNet-50 in int8 under load: against the bare session at the same batch, and against LitServe with the
same session, files, batch and delay. The clients are a process of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
from PIL import Image
from rich.console import Console

from bench.data import Options
from bench.pairs import Effort, Figure, Skipped, compare
from bench.predict import resnet50
from toolkit.api.errors import DataError
from toolkit.export.write import write_models
from toolkit.serving.bundle import Bundle
from toolkit.system.machine import physical_cores

PAIRS = 5
CLIENTS = 64
BATCH = 16
DELAY = 0.002
"""Seconds."""
REQUESTS = 640
"""Of one timing."""
OF_SESSION, OF_LITSERVE = 0.9, 1.2
"""Least share of the session's throughput, and least multiple of LitServe's."""
SLOWEST = 3.0
"""The 99th percentile of a request, as a multiple of the least that it can be: the batches of all clients, and the
delay."""
STARTING = 120.0
"""Seconds that a server may take to answer."""


def figures(options: Options) -> Iterator[Figure | Skipped]:
    root = options.har()
    if root is None:
        raise DataError(
            "bench serve makes its model of real image files and was given none",
            next_step="name the folder that holds har-subset: python -m bench serve --data DIR",
        )
    effort, assembly = options.effort(PAIRS), resnet50(options.run, root)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        bundle.mkdir()
        manifest = write_models(assembly, "bench", bundle, Console(quiet=True))
        opened = Bundle.load(bundle, device="cpu", precision="int8")
        side = manifest.input.square
        file = Path(folder) / "square.jpg"
        pixels = np.random.default_rng(0).integers(0, 255, (side // 8, side // 8, 3), np.uint8)
        Image.fromarray(pixels).resize((side, side)).save(file)
        with started(_ours(bundle), "/v2/health/ready") as (port, process):
            ours = Load(f"http://127.0.0.1:{port}/v1/predict", file)
            squares = np.stack([np.asarray(Image.open(file))] * BATCH)
            yield _beside_session(ours, opened, squares, effort, process)
            yield _beside_litserve(ours, bundle / manifest.models["int8"], file, effort)


class Load:
    """The clients of one server."""

    def __init__(self, url: str, file: Path) -> None:
        self._words = [sys.executable, "-m", "bench.clients", url, str(file), str(CLIENTS), str(REQUESTS)]
        self.slowest: list[float] = []
        self.statuses: set[str] = set()

    def __call__(self) -> float:
        done = subprocess.run(self._words, capture_output=True, check=True, text=True)
        found = json.loads(done.stdout)
        self.slowest.append(found["p99"])
        self.statuses |= set(found["statuses"])
        return float(found["seconds"])


def _beside_session(
    ours: Load, bundle: Bundle, squares: Any, effort: Effort, process: subprocess.Popen[bytes]
) -> Figure:
    def session() -> float:
        begun = time.perf_counter()
        for _ in range(REQUESTS // BATCH):
            bundle.session.run(squares)
        return time.perf_counter() - begun

    ours()
    before = memory(process.pid)
    paired = compare(ours, session, effort, OF_SESSION)
    grown = memory(process.pid) - before
    least = CLIENTS / BATCH * median(paired.theirs) / (REQUESTS // BATCH) + DELAY
    times = median(ours.slowest) / least
    rate = REQUESTS / median(paired.ours)
    facts = (f"rate={rate:.1f}/s", f"p99={times:.2f}x target<={SLOWEST:g}", f"memory=+{grown / 2**20:.0f}MiB")
    faults = (f"statuses {sorted(ours.statuses)}",) * (ours.statuses != {"200"})
    late = (f"p99 {times:.2f}",) * (times > SLOWEST)
    return Figure("serve/beside_session", paired, OF_SESSION, facts, faults, late)


def _beside_litserve(ours: Load, model: Path, file: Path, effort: Effort) -> Figure | Skipped:
    if find_spec("litserve") is None:
        return Skipped("serve/beside_litserve", "litserve is not installed (pip install -e '.[bench]')")
    words = ["-m", "bench.litserve_side", str(model), "PORT", str(BATCH), str(DELAY), str(physical_cores())]
    with started(words, "/health") as (port, _):
        theirs = Load(f"http://127.0.0.1:{port}/predict", file)
        theirs()
        paired = compare(ours, theirs, effort, OF_LITSERVE)
    sides = (("ours", paired.ours, ours), ("litserve", paired.theirs, theirs))
    facts = [f"{name}={REQUESTS / median(times):.1f}/s,p99={median(load.slowest):.2f}s" for name, times, load in sides]
    faults = [f"LitServe answers with {sorted(theirs.statuses)}"] * (theirs.statuses != {"200"})
    return Figure("serve/beside_litserve", paired, OF_LITSERVE, tuple(facts), tuple(faults))


def _ours(bundle: Path) -> list[str]:
    flags = ["--port", "PORT", "--batch", str(BATCH), "--delay-ms", f"{1000 * DELAY:g}"]
    return ["-m", "toolkit", "serve", str(bundle), "--device", "cpu", "--precision", "int8", *flags]


@contextmanager
def started(words: Sequence[str], ready: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server that answers at `ready`, and its port, which stands for the word PORT. It ends with the block."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    line = [sys.executable, *(str(port) if word == "PORT" else word for word in words)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(line, stdout=quiet, stderr=quiet, start_new_session=True) as process:
        try:
            _wait(f"http://127.0.0.1:{port}{ready}", process)
            yield port, process
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # the workers of LitServe outlive it


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + STARTING
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(url).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise DataError(f"{url}: no server answers", next_step="see what it prints: run its command by hand")


def memory(process: int) -> int:
    """Bytes of memory that a process holds."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
