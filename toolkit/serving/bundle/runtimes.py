"""What computes a bundle: onnxruntime, whose answers the export proved, or OpenVINO, which may be faster.

OpenVINO is offered for a bundle on a machine only if it passes a gate there: see `toolkit.serving.bundle.agreement`.
`auto` also measures both, side by side. What was found is kept in the cache directory, below `runtimes`, for as long as
the model, the versions and the processor are the same.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from toolkit.api.errors import ParityError, ToolkitError, UsageError, unknown_name
from toolkit.api.files import cache_directory, read_regular, write_atomically
from toolkit.serving.bundle.inspection import Findings
from toolkit.serving.bundle.manifest import Manifest
from toolkit.serving.bundle.providers import usual_batch
from toolkit.system.choices import BUNDLE_RUNTIMES, BundleDevice, BundleRuntime
from toolkit.system.machine import processor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from toolkit.serving.bundle.session import Session

Name = TypeVar("Name", bound=str)
FORMAT = 1
"""Of what is kept, and of how it is found: raised when either changes."""
ROUNDS = 4
"""Timings of each runtime, at least."""
SECONDS = 2.0
"""How long both are timed, at least, in all."""
FASTER = 1.03
"""How many times as fast as onnxruntime another runtime must be to take its place: less is noise."""


@dataclass(frozen=True)
class Model:
    """A model of a bundle that was checked, and where it is to run."""

    bundle: Path
    manifest: Manifest
    precision: str
    device: BundleDevice
    findings: Findings
    threads: int
    """That it computes with on the CPU."""

    @property
    def path(self) -> Path:
        return self.bundle / self.manifest.models[self.precision]

    def opened(self, runtime: BundleRuntime) -> Session:
        """Raises BundleError where the runtime cannot open it, UsageError where it does not load."""
        if runtime == "openvino":
            from toolkit.serving.bundle.openvino_session import OpenVinoSession

            return OpenVinoSession(self.path, self.manifest, self.threads)
        from toolkit.serving.bundle.session import ModelSession

        return ModelSession(self.path, self.device, self.findings, self.manifest, self.threads)


@dataclass(frozen=True)
class Opened:
    """A model in use."""

    session: Session
    runtime: BundleRuntime
    reason: str = ""
    """Why the runtime is the one; empty where it was asked for."""


@dataclass(frozen=True)
class Comparison:
    """What was found of OpenVINO, next to onnxruntime, for one model on one machine."""

    problem: str
    """Why it is not offered; empty where it passes the gate."""
    rates: Mapping[BundleRuntime, float] | None = None
    """Inputs a second of each, in batches of the usual size; None: not measured."""

    @property
    def fastest(self) -> BundleRuntime:
        if self.problem or self.rates is None:
            return "onnxruntime"
        return "openvino" if self.rates["openvino"] > FASTER * self.rates["onnxruntime"] else "onnxruntime"

    @property
    def reason(self) -> str:
        if self.problem or self.rates is None:
            return f"openvino: {self.problem}"
        other: BundleRuntime = "onnxruntime" if self.fastest == "openvino" else "openvino"
        first, second = (f"{name} {self.rates[name]:,.1f}" for name in (self.fastest, other))
        return f"{first} inputs/s, {second}, measured on this machine"


def check_runtime(asked: str, device: str) -> None:
    """Raise UsageError for an unknown runtime, and for OpenVINO on another device than the CPU."""
    if asked not in ("auto", *BUNDLE_RUNTIMES):
        message = unknown_name(f'--runtime: no runtime is called "{asked}"', asked, ("auto", *BUNDLE_RUNTIMES))
        raise UsageError(message, next_step=f"use auto, {', '.join(BUNDLE_RUNTIMES)}")
    if asked == "openvino" and device not in ("auto", "cpu"):
        raise UsageError(
            f"--runtime openvino: runs on the CPU, not on {device}", next_step="use --device cpu, or remove --runtime"
        )


def open_session(asked: str, model: Model) -> Opened:
    """The model, computed by the runtime `asked` for, or of "auto" by the faster one that passes the gate. Raises
    ParityError for one that was asked for and does not pass."""
    if asked == "onnxruntime":
        return Opened(model.opened("onnxruntime"), "onnxruntime")
    from toolkit.serving.bundle.openvino_session import installed_version, is_installed, library

    if asked == "openvino":
        library()
        found, sessions = _compared(model, timed=False)
        if found.problem:
            raise ParityError(
                f"{model.path}: openvino {installed_version()} does not pass the gate on this machine",
                details=[found.problem],
                next_step="use --runtime onnxruntime",
            )
        return Opened(sessions.get("openvino") or model.opened("openvino"), "openvino")
    if model.device != "cpu":
        return Opened(model.opened("onnxruntime"), "onnxruntime", "openvino: runs on the CPU alone")
    if not is_installed():
        return Opened(model.opened("onnxruntime"), "onnxruntime", "openvino: not installed")
    found, sessions = _compared(model, timed=True)
    return Opened(sessions.get(found.fastest) or model.opened(found.fastest), found.fastest, found.reason)


def _compared(model: Model, *, timed: bool) -> tuple[Comparison, Mapping[BundleRuntime, Session]]:
    """What is known of the model, and the sessions that were opened to learn it."""
    place = cache_directory() / "runtimes" / f"{_key(model)}.json"
    known = _read(place)
    if known is not None and (known.problem or known.rates or not timed):
        return known, {}
    sessions: dict[BundleRuntime, Session] = {"onnxruntime": model.opened("onnxruntime")}
    try:
        sessions["openvino"] = model.opened("openvino")
        problem = known.problem if known is not None else _disagreement(model, sessions)
    except ToolkitError as error:  # one that fails on a bundle is not offered for it, whatever the reason
        problem = error.message
    found = Comparison(problem, _rates(model, sessions) if timed and not problem else None)
    with suppress(OSError):  # a cache that cannot be written costs time only
        write_atomically(place, json.dumps(asdict(found)).encode())
    return found, sessions


def _disagreement(model: Model, sessions: Mapping[BundleRuntime, Session]) -> str:
    from toolkit.serving.bundle.agreement import agreement

    found = agreement(model.manifest, model.precision, sessions["onnxruntime"].run, sessions["openvino"].run)
    return "" if found.passes else str(found)


def _rates(model: Model, sessions: Mapping[BundleRuntime, Session]) -> dict[BundleRuntime, float]:
    from toolkit.serving.bundle.agreement import probes

    count = usual_batch(model.device, model.manifest.input.frames)
    one = next(probes(model.manifest.input))
    return rates({name: session.run for name, session in sessions.items()}, one.repeat(count, 0))


def rates(
    asks: Mapping[Name, Callable[[NDArray[np.uint8]], object]],
    batch: NDArray[np.uint8],
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Name, float]:
    """Inputs a second of each, at best: what else the machine does can only slow them down. They take turns, each first
    as often as the other, for `ROUNDS` rounds and `SECONDS` at least."""
    order = [*asks]
    best: dict[Name, float] = {}
    for name in order:  # the first call takes memory and tunes kernels
        asks[name](batch)
    begun, done = clock(), 0
    while done < ROUNDS or clock() - begun < SECONDS:
        for name in order:
            started = clock()
            asks[name](batch)
            best[name] = max(best.get(name, 0.0), len(batch) / max(clock() - started, 1e-9))
        order.reverse()
        done += 1
    return best


def _key(model: Model) -> str:
    """A digest of all that the result depends on."""
    manifest = model.manifest
    name = model.path.name
    known: dict[str, Any] = {
        "format": FORMAT,
        "files": {one: manifest.files[one] for one in (name, f"{name}.data") if one in manifest.files},
        "precision": model.precision,
        "input": asdict(manifest.input),
        "recipe": manifest.recipe,
        "versions": {package: version(package) for package in ("numpy", "openvino")} | {"onnxruntime": _onnxruntime()},
        "processor": processor(),
        "threads": model.threads,
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]


def _onnxruntime() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


def _read(place: Path) -> Comparison | None:
    """None where nothing is known, or what is known cannot be read."""
    try:
        kept = json.loads(read_regular(place, largest=1 << 16))
        rates = kept["rates"]
        if rates is not None:
            rates = {name: float(rates[name]) for name in BUNDLE_RUNTIMES}
        return Comparison(str(kept["problem"]), rates)
    except (OSError, ValueError, LookupError, TypeError):
        return None
