"""A server of a ResNet-50 in int8 under load: against the bare session at the same batch, once with tensors and once
with files that it decodes; and against LitServe with the same session, files, batch and delay.

The clients are a process of their own, on the same cores. Each figure has the share of the CPU time that they took, and
the ratio of CPU times: other processes have little influence on that."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
from PIL import Image
from rich.console import Console

from bench.clients import post, uploading
from bench.data import Options
from bench.load import cpu_seconds_of
from bench.pairs import Effort, Figure, Skipped, compare
from bench.predict import resnet50
from toolkit.api.errors import DataError
from toolkit.export.write import write_models
from toolkit.serving.bundle import Bundle
from toolkit.serving.bundle.manifest import INPUT
from toolkit.system.machine import physical_cores

NAME = "bench"
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
        manifest = write_models(assembly, NAME, bundle, Console(quiet=True))
        picture = _picture(manifest.input.square)
        pixels = np.asarray(Image.open(io.BytesIO(picture)))
        session = BareSession(Bundle.load(bundle, device="cpu", precision="int8"), np.stack([pixels] * BATCH))
        with started(_ours(bundle), "/v2/health/ready") as server:
            tensors, files = Path(folder) / "tensors", Path(folder) / "files"
            tensors.write_bytes(_inferring(pixels))
            files.write_bytes(_uploading("/v1/predict", picture))
            yield _beside_session("tensors", Load(server, tensors), session, effort)
            yield _beside_session("files", Load(server, files), session, effort)
            yield _beside_litserve(Load(server, files), bundle / manifest.models["int8"], picture, effort)


def _picture(side: int) -> bytes:
    """A JPEG of this side, of blocks in drawn colours."""
    pixels = np.random.default_rng(0).integers(0, 255, (side // 8, side // 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((side, side)).save(file, "JPEG")
    return file.getvalue()


def _inferring(pixels: Any) -> bytes:
    """A request of the Open Inference Protocol with one image as bytes, answered in bytes."""
    tensor = {
        "name": INPUT,
        "datatype": "UINT8",
        "shape": [1, *pixels.shape],
        "parameters": {"binary_data_size": pixels.nbytes},
    }
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": len(head)}
    return post(f"/v2/models/{NAME}/infer", head + pixels.tobytes(), headers)


def _uploading(path: str, picture: bytes) -> bytes:
    return uploading(path, "square.jpg", "image/jpeg", picture)


@dataclass
class BareSession:
    """One timing of the session alone, on decoded images."""

    bundle: Bundle
    squares: Any
    cpu: list[float] = field(default_factory=list)
    """CPU seconds of each timing."""

    def __call__(self) -> float:
        begun, worked = time.perf_counter(), time.process_time()
        for _ in range(REQUESTS // BATCH):
            self.bundle.session.run(self.squares)
        self.cpu.append(time.process_time() - worked)
        return time.perf_counter() - begun


@dataclass(frozen=True)
class Server:
    """One that answers."""

    port: int
    process: int
    """It leads a group of its own."""

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It computes nothing inside the block. One that has nothing to do may look for work all the time."""
        os.killpg(self.process, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.process, signal.SIGCONT)


class Load:
    """The clients of one server, who all send what a file holds."""

    def __init__(self, server: Server, request: Path) -> None:
        self.server = server
        self._words = [sys.executable, "-m", "bench.clients", str(server.port), str(request)]
        self.slowest: list[float] = []
        self.cpu: list[float] = []
        """CPU seconds of each timing, of the server."""
        self.asking: list[float] = []
        """The same of the clients."""
        self.statuses: set[str] = set()

    def __call__(self) -> float:
        before = cpu_seconds_of(self.server.process)
        words = [*self._words, str(CLIENTS), str(REQUESTS)]
        done = subprocess.run(words, capture_output=True, check=True, text=True)
        found = json.loads(done.stdout)
        self.cpu.append(cpu_seconds_of(self.server.process) - before)
        self.asking.append(found["cpu"])
        self.slowest.append(found["p99"])
        self.statuses |= set(found["statuses"])
        return float(found["seconds"])

    @property
    def memory(self) -> int:
        """Bytes that the server holds."""
        return memory(self.server.process)

    @property
    def whole_cpu(self) -> float:
        """CPU seconds of a timing, of server and clients."""
        return median(map(sum, zip(self.cpu, self.asking, strict=True)))

    @property
    def clients_share(self) -> float:
        """Of the CPU time of server and clients."""
        return median(self.asking) / self.whole_cpu


def _beside_session(what: str, ours: Load, session: BareSession, effort: Effort) -> Figure:
    ours()
    before = ours.memory
    paired = compare(ours, session, effort, OF_SESSION)
    grown = ours.memory - before
    least = CLIENTS / BATCH * median(paired.theirs) / (REQUESTS // BATCH) + DELAY
    times = median(ours.slowest) / least
    facts = (
        f"rate={REQUESTS / median(paired.ours):.1f}/s",
        f"cpu={median(session.cpu) / ours.whole_cpu:.3f}",
        f"clients={ours.clients_share:.1%}",
        f"p99={times:.2f}x target<={SLOWEST:g}",
        f"memory={grown / 2**20:+.0f}MiB",
    )
    faults = (f"statuses {sorted(ours.statuses)}",) * (ours.statuses != {"200"})
    late = (f"p99 {times:.2f}",) * (times > SLOWEST)
    return Figure(f"serve/{what}_beside_session", paired, OF_SESSION, facts, faults, late)


def _beside_litserve(ours: Load, model: Path, picture: bytes, effort: Effort) -> Figure | Skipped:
    if find_spec("litserve") is None:
        return Skipped("serve/files_beside_litserve", "litserve is not installed (pip install -e '.[bench]')")
    words = ["-m", "bench.litserve_side", str(model), "PORT", str(BATCH), str(DELAY), str(physical_cores())]
    with started(words, "/health") as server, tempfile.NamedTemporaryFile() as request:
        request.write(_uploading("/predict", picture))
        request.flush()
        theirs = Load(server, Path(request.name))
        theirs()
        paired = compare(_alone(ours, theirs), _alone(theirs, ours), effort, OF_LITSERVE)
    facts = [f"cpu={theirs.whole_cpu / ours.whole_cpu:.3f}", f"clients={ours.clients_share:.1%}"]
    for name, times, load in (("ours", paired.ours, ours), ("litserve", paired.theirs, theirs)):
        facts.append(f"{name}={REQUESTS / median(times):.1f}/s,p99={median(load.slowest):.2f}s")
    faults = [f"LitServe answers with {sorted(theirs.statuses)}"] * (theirs.statuses != {"200"})
    return Figure("serve/files_beside_litserve", paired, OF_LITSERVE, tuple(facts), tuple(faults))


def _alone(load: Load, other: Load) -> Callable[[], float]:
    """A timing of one server while the other stands still."""

    def timing() -> float:
        with other.server.paused():
            return load()

    return timing


def _ours(bundle: Path) -> list[str]:
    flags = ["--port", "PORT", "--batch", str(BATCH), "--delay-ms", f"{1000 * DELAY:g}"]
    return ["-m", "toolkit", "serve", str(bundle), "--device", "cpu", "--precision", "int8", *flags]


@contextmanager
def started(words: Sequence[str], ready: str) -> Iterator[Server]:
    """A server that answers at `ready`; the word PORT stands for its port. It ends with the block."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    line = [sys.executable, *(str(port) if word == "PORT" else word for word in words)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(line, stdout=quiet, stderr=quiet, start_new_session=True) as process:
        try:
            _wait(f"http://127.0.0.1:{port}{ready}", process)
            yield Server(port, process.pid)
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
