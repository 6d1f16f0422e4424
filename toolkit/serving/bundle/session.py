"""An ONNX model opened for inference: batches of pixels in, probabilities or numbers out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import onnxruntime

from toolkit.api.errors import BundleError
from toolkit.serving.bundle.inspection import Findings
from toolkit.serving.bundle.manifest import INPUT, MAPS, SIDES, Manifest
from toolkit.serving.bundle.providers import PROVIDERS, not_loaded, provider_options
from toolkit.serving.bundle.wire import AGAIN
from toolkit.system.choices import BundleDevice
from toolkit.system.machine import memory_available, physical_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray

Providers: TypeAlias = Callable[..., list[tuple[str, dict[str, Any]]]]
"""`provider_options` of one model, to which only `graphs` has still to be given."""
Open: TypeAlias = Callable[..., Any]
"""Opens the model of a bundle, given `fixed`: the side of the squares that it is for, None for frames of any size."""

BUCKETS = (1, 8, 32, 128)
"""Batch sizes on a GPU: each is tuned (and captured) once, what lies between is padded."""
LARGEST = {"cpu": 32, "cuda": BUCKETS[-1], "tensorrt": BUCKETS[-1], "coreml": 32}
"""Frames of one call at most, by device: more gain no speed and take more memory."""
FEWEST = 4
"""Clips of one call at most, where they have so many frames that `LARGEST` would give fewer."""
LARGEST_BYTES = 256 << 20
"""Pixels of one call at most, in bytes, where a single input is not larger; the graph makes them four times as wide."""
MEMORY_SHARE = 0.75
"""Share of the memory that is free when the first model is opened: all sessions on the CPU take at most this."""
_OUT_OF_MEMORY = ("Available memory of", "bad_alloc", "Failed to allocate memory")
"""What onnxruntime says where a limit of memory is met."""


def split(count: int, largest: int) -> Iterator[slice]:
    """`count` items in slices of at most `largest`."""
    return (slice(start, min(start + largest, count)) for start in range(0, count, largest))


def bucket(count: int, largest: int = BUCKETS[-1]) -> int:
    """The smallest bucket that holds `count` items, of those below `largest` and `largest` itself."""
    return next((size for size in BUCKETS if count <= size < largest), largest)


def padded(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """`pixels` with zeros behind, `size` items in all; itself where it has as many."""
    if len(pixels) == size:
        return np.ascontiguousarray(pixels)
    whole = np.zeros((size, *pixels.shape[1:]), np.uint8)
    whole[: len(pixels)] = pixels
    return whole


def largest_call(device: BundleDevice, shape: Sequence[int], frames: int | None) -> int:
    """Items of this `shape`, which have so many `frames`, that one call takes at most."""
    by_bytes = LARGEST_BYTES // int(np.prod(shape))
    by_frames = LARGEST[device] // (frames or 1)
    return max(1, min(max(FEWEST, by_frames), by_bytes))


def answered_in_parts(
    pixels: NDArray[np.uint8],
    largest: int,
    columns: int,
    path: Path,
    answer: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """`[N, columns]`: the answers to N inputs, at most `largest` a call. Raises BundleError that names the model at
    `path` where one call answers in another shape."""
    answers = np.empty((len(pixels), columns), np.float32)
    for part in split(len(pixels), largest):
        answered = answer(pixels[part])
        if answered.shape != answers[part].shape:
            raise BundleError(
                f"{path}: the output has shape {list(answered.shape)}, expected {list(answers[part].shape)}",
                next_step="export the run again",
            )
        answers[part] = answered
    return answers


def read_outputs(manifest: Manifest) -> tuple[str, ...]:
    """Names of the outputs that make a row: the answers, and the score that the model declines by, if the graph gives
    it."""
    return (manifest.output,) if manifest.trust.scored is None else (manifest.output, manifest.trust.scored)


class Session(Protocol):
    """What computes a model. Calls from several threads are safe."""

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 `[N, ..., H, W, 3]` to float32 `[N, C]`, or `[N, C + 1]` with a score last where the graph gives one.
        Raises BundleError where it cannot be computed."""

    def maps(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The heat maps that the graph gives to as many inputs as one call takes, `[N, C, h, w]` or `[N, C, t, h, w]`:
        above 0 where something speaks for the class. Raises BundleError where they cannot be computed."""

    def largest(self, shape: Sequence[int]) -> int:
        """Items of this `shape` that one call takes at most."""


class ModelSession:
    """One model on one device. Calls from several threads are safe; on a GPU they take turns, all on one thread of the
    session: onnxruntime captures a separate CUDA graph for each thread, and keeps it."""

    def __init__(
        self,
        path: Path,
        device: BundleDevice,
        findings: Findings,
        manifest: Manifest,
        threads: int | None = None,
    ) -> None:
        self.path = path
        self.device = device
        self._square = manifest.input.square
        self._columns = manifest.columns
        self._outputs = read_outputs(manifest)
        self._frames = manifest.input.frames
        precision = next(precision for precision, name in manifest.models.items() if name == path.name)
        providers = partial(provider_options, device, precision, manifest.files[path.name])
        self._open: Open = partial(_opened, path, device, findings, providers, threads or physical_cores())
        self._of_squares: Any = _captured(self._open, self._square) if device == "cuda" else None
        self._of_any: Any = None if self._of_squares else self._open()
        self._turns = ThreadPoolExecutor(1, "gpu")
        self._captured: dict[tuple[int, ...], _Captured] = {}

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 `[N, ..., H, W, 3]` to float32 `[N, C]`, or `[N, C + 1]` with a score last where the graph gives one.
        Raises BundleError where it cannot be computed."""
        largest = self.largest(pixels.shape[1:])
        return answered_in_parts(pixels, largest, self._columns, self.path, partial(self._answered, largest=largest))

    def maps(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The heat maps that the graph gives to as many inputs as one call takes, `[N, C, h, w]` or `[N, C, t, h, w]`:
        above 0 where something speaks for the class. Raises BundleError where they cannot be computed."""

        def run() -> NDArray[np.float32]:
            self._of_any = self._of_any or self._open()
            (found,) = self._of_any.run([MAPS], {INPUT: np.ascontiguousarray(pixels)})
            maps: NDArray[np.float32] = found
            return maps

        with self._explained(pixels):
            return run() if self.device == "cpu" else self._turns.submit(run).result()

    def largest(self, shape: Sequence[int]) -> int:
        """Items of this `shape` that one call takes at most."""
        return largest_call(self.device, shape, self._frames)

    def _answered(self, pixels: NDArray[np.uint8], *, largest: int) -> NDArray[np.float32]:
        with self._explained(pixels):
            if self.device == "cpu":
                given = {INPUT: np.ascontiguousarray(pixels)}
                return joined(self._of_any.run(list(self._outputs), given))
            whole = padded(pixels, bucket(len(pixels), largest))
            return self._turns.submit(self._on_gpu, whole).result()[: len(pixels)]

    @contextmanager
    def _explained(self, pixels: NDArray[np.uint8]) -> Iterator[None]:
        """Raises BundleError for what onnxruntime raises about these inputs."""
        try:
            yield
        except Exception as error:  # onnxruntime's own errors have no other class in common
            raise BundleError(
                f"{self.path}: onnxruntime cannot compute it for {list(pixels.shape)}: {_cause(error)}",
                next_step="try smaller frames; if it fails for any, export the run again",
            ) from error

    def _on_gpu(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self._of_squares and pixels.shape[-3:-1] == (self._square, self._square):
            return self._replayed(self._of_squares, pixels)
        self._of_any = self._of_any or self._open()  # on this thread alone
        binding = self._of_any.io_binding()
        binding.bind_cpu_input(INPUT, pixels)
        for output in self._outputs:
            binding.bind_output(output, "cpu")
        self._of_any.run_with_iobinding(binding)
        return joined(binding.copy_outputs_to_cpu())

    def _replayed(self, session: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        captured = self._captured.get(pixels.shape)
        if captured is None:
            graph_id = str(len(self._captured) + 1)
            gives = _shapes(len(pixels), self._columns, self._outputs)
            captured = _Captured.bound(session, pixels.shape, gives, graph_id)
            self._captured[pixels.shape] = captured
        return captured.run(session, pixels)


@dataclass(frozen=True)
class _Captured:
    """A CUDA graph of one batch size: it reads and writes the same memory every time."""

    source: Any
    targets: tuple[Any, ...]
    binding: Any
    options: Any

    @classmethod
    def bound(
        cls, session: Any, takes: tuple[int, ...], gives: Mapping[str, tuple[int, ...]], graph_id: str
    ) -> _Captured:
        """`gives` has the shape of each output that is read."""
        source = onnxruntime.OrtValue.ortvalue_from_shape_and_type(takes, np.uint8, "cuda", 0)
        binding = session.io_binding()
        binding.bind_ortvalue_input(INPUT, source)
        targets = []
        for output, shape in gives.items():
            targets.append(onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, "cuda", 0))
            binding.bind_ortvalue_output(output, targets[-1])
        return cls(source, tuple(targets), binding, _run_options(graph_id))

    def run(self, session: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.source.update_inplace(pixels)
        session.run_with_iobinding(self.binding, self.options)
        return joined([target.numpy() for target in self.targets])


def _shapes(count: int, columns: int, outputs: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Of the outputs that are read, for so many inputs: the answers, and what has one number for each."""
    classes = columns - len(outputs) + 1
    return {name: (count,) if place else (count, classes) for place, name in enumerate(outputs)}


def joined(outputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The answers, `[N, C]`, with what has one number for each behind them."""
    answers, *scores = outputs
    return np.column_stack([answers, *scores]) if scores else answers


def _run_options(graph_id: str) -> Any:
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", graph_id)
    return options


class _NotCapturedError(Exception):
    """A part of the model cannot be in a CUDA graph."""


def _captured(open_: Open, square: int) -> Any | None:
    """The session for squares of this side that captures CUDA graphs; None where onnxruntime cannot capture all of
    the model. Of squares nothing is resampled, so what resamples is gone from it, and with it what runs on the CPU."""
    with suppress(_NotCapturedError):
        return open_(fixed=square)
    return None


def _opened(
    path: Path,
    device: BundleDevice,
    findings: Findings,
    providers: Providers,
    threads: int,
    *,
    fixed: int | None = None,
) -> Any:
    options, wanted = session_options(device, findings.folded, fixed, threads), providers(graphs=fixed is not None)
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=wanted, enable_fallback=0)
    except Exception as error:
        if fixed and "graph capture" in str(error):
            raise _NotCapturedError from error
        raise BundleError(
            f"{path}: onnxruntime {onnxruntime.__version__} cannot open it: {_cause(error)}", next_step=AGAIN
        ) from error
    if session.get_providers()[0] != PROVIDERS[device]:
        raise not_loaded(device, f"onnxruntime opened the model with {session.get_providers()[0]} instead")
    return session


def session_options(device: BundleDevice, folded: int, fixed: int | None = None, threads: int | None = None) -> Any:
    """Options of a session that computes at most `folded` bytes of one constant while loading, for squares of the side
    `fixed`, or None for frames of any size, with so many `threads` (None: one for each core)."""
    options = onnxruntime.SessionOptions()
    for side in SIDES if fixed else ():
        options.add_free_dimension_override_by_name(side, fixed)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads or physical_cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # decoding threads need the cores
    options.log_severity_level = 4  # failures are raised as errors of our own
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(folded))
    if device == "cpu" and limit_memory():
        options.add_session_config_entry("session.use_env_allocators", "1")
    return options


@cache
def limit_memory() -> int:
    """Give all of this process's sessions that ask for it one arena, limited to a share of free memory: a model that
    wants more fails alone, and the machine goes on. The limit in bytes; 0: the system does not report its memory."""
    limit = int(memory_available() * MEMORY_SHARE)
    if not limit:
        return 0
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg({"max_mem": limit}))
    return limit


def _cause(error: Exception) -> str:
    """The first line of what onnxruntime said, without its own name and the number and name of the error."""
    said = str(error).strip().partition("\n")[0]
    if any(sign in said for sign in _OUT_OF_MEMORY):
        limit = limit_memory() / (1 << 30)
        return f"it needs more memory than the {limit:.1f} GiB it may take ({100 * MEMORY_SHARE:g} % of what was free)"
    return said.split(" : ", 3)[-1] if said.startswith("[ONNXRuntimeError]") else said
