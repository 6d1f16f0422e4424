"""What computes a bundle: onnxruntime, whose answers the export proved, or another runtime, which may be faster.

OpenVINO and Core ML take the CPU's place, TensorRT that of CUDA. Each is offered for a bundle on a machine only if it
loads and passes a gate there: see `toolkit.serving.bundle.agreement`. `auto` also measures it next to onnxruntime. What
was found is kept in the cache directory, below `runtimes`, for as long as the model, the versions and the processor
are the same.
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
from toolkit.serving.bundle.providers import missing_for, usual_batch
from toolkit.system.choices import BUNDLE_RUNTIMES, BundleDevice, BundleRuntime
from toolkit.system.machine import processor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from toolkit.serving.bundle.session import Session

Name = TypeVar("Name", bound=str)
HOMES: Mapping[BundleRuntime, BundleDevice] = {"openvino": "cpu", "coreml": "cpu", "tensorrt": "cuda"}
"""The device of onnxruntime's that another runtime takes the place of."""
FORMAT = 2
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
        device = provider_of(runtime) or self.device
        from toolkit.serving.bundle.session import ModelSession

        return ModelSession(self.path, device, self.findings, self.manifest, self.threads)


@dataclass(frozen=True)
class Opened:
    """A model in use."""

    session: Session
    runtime: BundleRuntime
    reason: str = ""
    """Why the runtime is the one; empty where it was asked for."""


@dataclass(frozen=True)
class Comparison:
    """What was found of a runtime, next to onnxruntime, for one model on one machine."""

    problem: str
    """Why it is not offered; empty where it passes the gate."""
    rates: Mapping[BundleRuntime, float] | None = None
    """Inputs a second of each, in batches of the usual size; None: not measured."""
    other: BundleRuntime = "openvino"
    """The runtime."""

    @property
    def gain(self) -> float:
        """Its speed as a multiple of onnxruntime's; 0 where it is not offered."""
        return 0.0 if self.problem or self.rates is None else self.rates[self.other] / self.rates["onnxruntime"]

    @property
    def fastest(self) -> BundleRuntime:
        return self.other if self.gain > FASTER else "onnxruntime"

    @property
    def reason(self) -> str:
        if self.problem or self.rates is None:
            return f"{self.other}: {self.problem}"
        slower: BundleRuntime = "onnxruntime" if self.fastest == self.other else self.other
        first, second = (f"{name} {self.rates[name]:,.1f}" for name in (self.fastest, slower))
        return f"{first} inputs/s, {second}, measured on this machine"


def check_runtime(asked: str, device: str) -> None:
    """Raise UsageError for an unknown runtime, one on a device that it does not run on, and one of onnxruntime's that
    does not load."""
    if asked not in ("auto", *BUNDLE_RUNTIMES):
        message = unknown_name(f'--runtime: no runtime is called "{asked}"', asked, ("auto", *BUNDLE_RUNTIMES))
        raise UsageError(message, next_step=f"use auto, {', '.join(BUNDLE_RUNTIMES)}")
    home = home_of(asked)
    if home is not None and device not in ("auto", home):
        where = "the CPU" if home == "cpu" else home
        raise UsageError(
            f"--runtime {asked}: runs on {where}, not on {device}",
            next_step=f"use --device {home}, or remove --runtime",
        )
    provider = provider_of(asked)
    if provider is not None and (missing := missing_for(provider)):
        raise UsageError(
            f"--runtime {asked}: does not load: {missing}", next_step="install what is missing, or use --runtime auto"
        )


def home_of(asked: str) -> BundleDevice | None:
    """The device that a runtime, if it is not onnxruntime, takes the place of."""
    return next((home for name, home in HOMES.items() if name == asked), None)


def provider_of(runtime: str) -> BundleDevice | None:
    """The device whose provider of onnxruntime a runtime is; None for those that are not."""
    devices: tuple[BundleDevice, ...] = ("tensorrt", "coreml")
    return next((device for device in devices if device == runtime), None)


def open_session(asked: str, model: Model) -> Opened:
    """The model, computed by the runtime `asked` for, or of "auto" by the fastest that passes the gate. Raises
    ParityError for one that was asked for and does not pass."""
    other = next((name for name in HOMES if name == asked), None)
    if other is not None:
        return _asked_for(other, model)
    if asked == "onnxruntime":
        return Opened(model.opened("onnxruntime"), "onnxruntime")
    candidates = [name for name, home in HOMES.items() if home == model.device and not _missing(name)]
    if not candidates:
        reason = _missing("openvino") if model.device == "cpu" else "runs on the CPU alone"
        return Opened(model.opened("onnxruntime"), "onnxruntime", f"openvino: {reason}")
    compared = [_compared(model, name, timed=True) for name in candidates]
    found, sessions = max(compared, key=lambda one: one[0].gain)
    reason = "; ".join(one.reason for one, _ in compared)
    return Opened(sessions.get(found.fastest) or model.opened(found.fastest), found.fastest, reason)


def _asked_for(other: BundleRuntime, model: Model) -> Opened:
    shown = f"{other} of onnxruntime {_onnxruntime()}"
    if other == "openvino":
        from toolkit.serving.bundle.openvino_session import installed_version, library

        library()
        shown = f"{other} {installed_version()}"
    found, sessions = _compared(model, other, timed=False)
    if found.problem:
        raise ParityError(
            f"{model.path}: {shown} does not pass the gate on this machine",
            details=[found.problem],
            next_step="use --runtime onnxruntime",
        )
    return Opened(sessions.get(other) or model.opened(other), other)


def _missing(name: BundleRuntime) -> str:
    """Why a runtime does not load; empty where it does."""
    if name == "openvino":
        from toolkit.serving.bundle.openvino_session import is_installed

        return "" if is_installed() else "not installed"
    provider = provider_of(name)
    return "" if provider is None else missing_for(provider) or ""


def _compared(model: Model, other: BundleRuntime, *, timed: bool) -> tuple[Comparison, Mapping[BundleRuntime, Session]]:
    """What is known of the model, and the sessions that were opened to learn it."""
    place = cache_directory() / "runtimes" / f"{_key(model, other)}.json"
    known = _read(place, other)
    if known is not None and (known.problem or known.rates or not timed):
        return known, {}
    sessions: dict[BundleRuntime, Session] = {"onnxruntime": model.opened("onnxruntime")}
    try:
        sessions[other] = model.opened(other)
        problem = known.problem if known is not None else _disagreement(model, sessions, other)
    except ToolkitError as error:  # one that fails on a bundle is not offered for it, whatever the reason
        problem = error.message
    found = Comparison(problem, _rates(model, sessions) if timed and not problem else None, other)
    with suppress(OSError):  # a cache that cannot be written costs time only
        write_atomically(place, json.dumps(asdict(found)).encode())
    return found, sessions


def _disagreement(model: Model, sessions: Mapping[BundleRuntime, Session], other: BundleRuntime) -> str:
    from toolkit.serving.bundle.agreement import agreement

    found = agreement(model.manifest, model.precision, sessions["onnxruntime"].run, sessions[other].run)
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


def _key(model: Model, other: BundleRuntime) -> str:
    """A digest of all that the result depends on."""
    manifest = model.manifest
    name = model.path.name
    packages = ("numpy", "openvino") if other == "openvino" else ("numpy",)
    known: dict[str, Any] = {
        "format": FORMAT,
        "other": other,
        "files": {one: manifest.files[one] for one in (name, f"{name}.data") if one in manifest.files},
        "precision": model.precision,
        "input": asdict(manifest.input),
        "recipe": manifest.recipe,
        "versions": {package: version(package) for package in packages} | {"onnxruntime": _onnxruntime()},
        "processor": processor(),
        "threads": model.threads,
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]


def _onnxruntime() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


def _read(place: Path, other: BundleRuntime) -> Comparison | None:
    """None where nothing is known, or what is known cannot be read."""
    try:
        kept = json.loads(read_regular(place, largest=1 << 16))
        rates = kept["rates"]
        if rates is not None:
            rates = {name: float(rates[name]) for name in ("onnxruntime", other)}
        return Comparison(str(kept["problem"]), rates, other)
    except (OSError, ValueError, LookupError, TypeError):
        return None
