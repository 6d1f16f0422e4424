"""A ResNet-50 at 224 px, an X3D-S and a Slow R50: the exported int8 model against the exported fp32 one and the trained
one in torch; and of the ResNet-50 the whole `predict` command against the bare session. Of these, a DenseNet-121 and
the CIFAR-10 CNN, OpenVINO against onnxruntime where it passes the gate, and what `auto` takes against the faster.

All sides see the same stored squares in the same batches. A trained run given with `--run` is what is measured, with
its accuracy; without one the weights are random, which changes no speed, and no accuracy is shown. Those of the models
of clips always are, and their clips are the built-in sample.
"""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from bench.data import Options
from bench.instructions import Instructions, instructions
from bench.pairs import Effort, Figure, Paired, Skipped, compare, unwatched
from bench.startup import cpu_seconds, modules
from toolkit.api.errors import DataError, ParityError
from toolkit.build.assemble import Assembly, assemble
from toolkit.build.plan import plan
from toolkit.data.images import ImageFiles
from toolkit.data.store.resampling import centre_crop
from toolkit.export.write import write_models
from toolkit.host.registry import discover
from toolkit.recipe.read import parse, parse_text
from toolkit.runs.reopen import open_trained
from toolkit.serving.bundle import Bundle, read_manifest
from toolkit.serving.bundle.agreement import probes
from toolkit.serving.bundle.openvino_session import is_installed
from toolkit.serving.bundle.providers import usual_batch
from toolkit.serving.predict import predict_files
from toolkit.system import device as devices
from toolkit.system.choices import Precision
from toolkit.system.machine import physical_cores

PAIRS = 5
BATCH = 16
BATCHES = 4
"""Batches of one timing."""
SINGLES = 40
"""Calls with one image, from which the latencies are taken."""
FILES = 320
RECIPE = Path(__file__).parents[1] / "recipes" / "har_resnet50.toml"
PRECISIONS = 'export.precision=["int8", "fp32"]'
Targets: TypeAlias = Mapping[str, Mapping[Instructions, float]]
TARGETS: Targets = {
    "onnx_fp32": {"AVX2": 2.0, "VNNI": 3.0, "AMX": 3.0},
    "torch_eager_fp32": {"AVX2": 3.0, "VNNI": 5.0, "AMX": 8.0},
    "torch_bf16": {"VNNI": 1.8, "AMX": 1.8},
}
"""How many times as fast as each of these int8 is to be, by what the processor has for integers. `torch_eager_fp32` is
torch without any choice of ours, the memory layout included; `torch_fp32`, with channels last as this toolkit runs it,
is only shown. With AVX2 alone torch computes bf16 in float, so there is no target for it."""
CLIPS = """
[data]
name = "har"
sample_clips = 3
[input]
size = {size}
stored = {stored}
[model]
name = "{name}"
weights = "none"
[train]
epochs = 1
batch = 1
device = "cpu"
[train.optimizer]
name = "sgd"
lr = 0.1
[export]
precision = ["int8", "fp32"]
calibration = 8
"""
"""A recipe for random weights; `har` without a root is its sample."""
CLIP_MODELS = {"x3d_s": (160, 182), "slow_r50": (224, 256)}
"""Models of clips, with the sizes they were designed for, which the sample replaces by its own otherwise."""
CLIP_BATCH = 2
CLIP_TARGETS: Mapping[str, Targets] = {
    "x3d_s": {"onnx_fp32": {"AVX2": 1.5, "VNNI": 2.0, "AMX": 2.0}},
    "slow_r50": {"onnx_fp32": {"AVX2": 2.0, "VNNI": 3.0, "AMX": 3.0}},
}
"""As `TARGETS`; what is not named is only shown."""

GATED = {
    "densenet121": ("har_resnet50", ["model.name=densenet121", "model.weights=none"]),
    "cifar10_cnn": ("cifar10_cnn_demo", []),
}
"""Further models whose runtimes are compared: their recipe, and what is changed in it."""
COMMAND = 0.85
"""Share of the bare session's speed that the whole command has on files."""
AUTO = 0.95
"""Share of the speed of the faster runtime that the one which `auto` takes must have."""
STARTUP = 1.3
"""How many times the CPU of the bare session's program `predict` may take to answer one picture."""
BARE = """
import sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[3])
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
session.run(None, {"frames": numpy.zeros((1, int(sys.argv[2]), int(sys.argv[2]), 3), numpy.uint8)})
"""

Ask = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Squares, uint8 `[N, S, S, 3]`, or clips of them, `[N, T, S, S, 3]`, to probabilities `[N, C]`."""


@dataclass(frozen=True)
class Side:
    name: str
    ask: Ask
    accuracy: float | None

    def seconds(self, batches: list[NDArray[np.uint8]]) -> float:
        started = time.perf_counter()
        for batch in batches:
            self.ask(batch)
        return time.perf_counter() - started

    def facts(self, batches: list[NDArray[np.uint8]]) -> str:
        """Items/s in batches; 50th and 99th percentile, in ms, of the latency of one; accuracy where it is known."""
        rate = sum(map(len, batches)) / self.seconds(batches)
        singles = [1e3 * self.seconds([batches[0][:1]]) for _ in range(SINGLES)]
        median, slow = np.percentile(singles, [50, 99])
        accuracy = "" if self.accuracy is None else f",accuracy={self.accuracy:.4f}"
        return f"{self.name}:{rate:.1f}/s,p50={median:.1f}ms,p99={slow:.1f}ms{accuracy}"


def figures(options: Options) -> Iterator[Figure | Skipped]:
    root = options.har()
    if root is None:
        raise DataError(
            "bench predict measures on real image files and was given none",
            next_step="name the folder that holds har-subset: python -m bench predict --data DIR",
        )
    effort, assembly = options.effort(PAIRS), resnet50(options.run, root)
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_models(assembly, "bench", Path(folder), Console(quiet=True))
        opened = {name: Bundle.load(folder, device="cpu", precision=name) for name in manifest.models}
        yield from _models(assembly, opened, effort, known=options.run is not None)
        yield from _runtimes("predict", Path(folder), effort)
        yield _command(assembly, Path(folder), opened["int8"], effort)
        yield _startup(assembly, Path(folder), effort)
    for name in CLIP_MODELS:
        yield from _clips(name, effort)
    for name, (recipe, overrides) in GATED.items():
        with tempfile.TemporaryDirectory() as folder:
            data = [f"data.root={root}"] if recipe.startswith("har") else []
            path = RECIPE.with_name(f"{recipe}.toml")
            planned = plan(parse(path, [*data, *overrides, "train.device=cpu", PRECISIONS]), discover())
            write_models(assemble(planned), "bench", Path(folder), Console(quiet=True))
            yield from _runtimes(f"predict/{name}", Path(folder), effort)


def resnet50(run: Path | None, root: Path) -> Assembly:
    """The trained run at `run`; without one, random weights."""
    overrides = [f"data.root={root}", "train.device=cpu", PRECISIONS]
    if run is not None:
        return open_trained(run, overrides).assembly
    planned = plan(parse(RECIPE, [*overrides, "model.weights=none"]), discover())
    return assemble(planned)


def _models(assembly: Assembly, opened: dict[str, Bundle], effort: Effort, *, known: bool) -> Iterator[Figure]:
    eager = replace(assembly, network=copy.deepcopy(assembly.network).to(memory_format=torch.contiguous_format))
    assembly.network.to(memory_format=torch.channels_last)
    asks: dict[str, Ask] = {
        "torch_eager_fp32": partial(in_torch, eager, "fp32", layout=torch.contiguous_format),
        "torch_fp32": partial(in_torch, assembly, "fp32"),
        "torch_bf16": partial(in_torch, assembly, "bf16"),
        "onnx_fp32": opened["fp32"].session.run,
        "onnx_int8": opened["int8"].session.run,
    }
    squares, targets = _validation(assembly)
    sides = {name: Side(name, ask, _accuracy(ask, squares, targets) if known else None) for name, ask in asks.items()}
    batches = [squares[start : start + BATCH] for start in range(0, BATCH * BATCHES, BATCH)]
    yield from _beside("predict", sides, batches, TARGETS, effort)


def _beside(
    where: str, sides: Mapping[str, Side], batches: list[NDArray[np.uint8]], targets: Targets, effort: Effort
) -> Iterator[Figure]:
    """int8 against each of the others."""
    ours, here = sides["onnx_int8"], instructions()
    for name, side in sides.items():
        if side is not ours:
            target = here and targets.get(name, {}).get(here)
            paired = paired_sides(ours, side, batches, effort, target)
            facts = (ours.facts(batches), side.facts(batches))
            yield Figure(f"{where}/int8_beside_{name}", paired, target, facts, instructions=here if target else None)


def _clips(name: str, effort: Effort) -> Iterator[Figure | Skipped]:
    size, stored = CLIP_MODELS[name]
    planned = plan(parse_text(CLIPS.format(name=name, size=size, stored=stored), "bench", [], name="bench"), discover())
    assembly = assemble(planned)
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_models(assembly, "bench", Path(folder), Console(quiet=True))
        opened = {name: Bundle.load(folder, device="cpu", precision=name) for name in manifest.models}
        asks: dict[str, Ask] = {
            "torch_fp32": partial(in_torch, assembly, "fp32"),
            "onnx_fp32": opened["fp32"].session.run,
            "onnx_int8": opened["int8"].session.run,
        }
        pixels = assembly.train.at(range(CLIP_BATCH)).pixels.movedim(-3, -1)
        batches = [np.ascontiguousarray(pixels.numpy())]
        sides = {each: Side(each, ask, None) for each, ask in asks.items()}
        yield from _beside(f"predict/{name}", sides, batches, CLIP_TARGETS[name], effort)
        yield from _runtimes(f"predict/{name}", Path(folder), effort)


def _runtimes(where: str, folder: Path, effort: Effort) -> Iterator[Figure | Skipped]:
    """OpenVINO against onnxruntime in each precision, and the runtime that `auto` takes against the faster of both."""
    manifest = read_manifest(folder)
    one = next(probes(manifest.input))
    batches = [one.repeat(usual_batch("cpu", manifest.input.frames), 0)] * BATCHES
    for precision in manifest.models:
        name = f"{where}/openvino_beside_onnxruntime_{precision}"
        if not is_installed():
            yield Skipped(name, "openvino is not installed")
            continue
        proved = Side("onnxruntime", _opened(folder, precision, "onnxruntime").session.run, None)
        try:
            other = Side("openvino", _opened(folder, precision, "openvino").session.run, None)
        except ParityError as error:
            yield Skipped(name, "; ".join(error.details))
            continue
        paired = paired_sides(other, proved, batches, effort)
        yield Figure(name, paired, None, (other.facts(batches), proved.facts(batches)))
        auto = _opened(folder, precision, "auto")
        taken = Side(f"auto={auto.runtime}", auto.session.run, None)
        faster = other if paired.ratio > 1 else proved
        paired = paired_sides(taken, faster, batches, effort, AUTO)
        yield Figure(f"{where}/auto_beside_faster_{precision}", paired, AUTO, (taken.name,))


def _opened(folder: Path, precision: str, runtime: str) -> Bundle:
    return Bundle.load(folder, device="cpu", precision=precision, runtime=runtime)


def paired_sides(
    ours: Side, theirs: Side, batches: list[NDArray[np.uint8]], effort: Effort, target: float | None = None
) -> Paired:
    return compare(partial(ours.seconds, batches), partial(theirs.seconds, batches), effort, target)


def _validation(assembly: Assembly) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    loader = assembly.valid
    pixels = loader.at(range(len(loader.store))).pixels.movedim(-3, -1)
    return np.ascontiguousarray(pixels.numpy()), np.asarray(loader.store.split.targets)


def _accuracy(ask: Ask, squares: NDArray[np.uint8], targets: NDArray[np.int64]) -> float:
    parts = [ask(squares[start : start + BATCH]) for start in range(0, len(squares), BATCH)]
    return float((np.concatenate(parts).argmax(1) == targets).mean())


def in_torch(
    assembly: Assembly,
    precision: Precision,
    squares: NDArray[np.uint8],
    *,
    layout: torch.memory_format = torch.preserve_format,
) -> NDArray[np.float32]:
    """As evaluation does: the centre cut out, the network with its normalisation; channels last unless another layout
    is asked for."""
    network = assembly.network.eval()
    stored = torch.from_numpy(squares).to(assembly.device).movedim(-1, -3)
    pixels = centre_crop(stored, assembly.spec.size).to(memory_format=layout)
    with torch.inference_mode(), devices.autocast(assembly.device, precision):
        answers: NDArray[np.float32] = network(pixels).float().softmax(1).cpu().numpy()
    return answers


def _command(assembly: Assembly, folder: Path, bundle: Bundle, effort: Effort) -> Figure:
    """The whole command on files, against the session on their squares in the same batches."""
    split = assembly.train.store.split
    assert isinstance(split, ImageFiles)
    count = min(FILES, len(split))
    names = [str(path) for path in split.paths[:count]]
    squares = assembly.train.at(range(count)).pixels.movedim(-3, -1).contiguous().numpy()
    session = Side("session", bundle.session.run, None)
    batches = [squares[start : start + BATCH] for start in range(0, count, BATCH)]

    def command() -> float:
        started = time.perf_counter()
        with contextlib.redirect_stderr(io.StringIO()):
            predict_files(folder, names, device="cpu", batch=BATCH, output=folder / "answers.csv")
        return time.perf_counter() - started

    paired = compare(command, partial(session.seconds, batches), effort, COMMAND)
    return Figure("predict/command_beside_session", paired, COMMAND, (f"files={count}",))


def _startup(assembly: Assembly, folder: Path, effort: Effort) -> Figure:
    """CPU of the command that answers one picture, against a program that imports numpy and onnxruntime, loads the same
    model and answers one square of zeros."""
    split = assembly.train.store.split
    assert isinstance(split, ImageFiles)
    command = ("-m", "toolkit", "predict", str(folder), str(split.paths[0]), "--device", "cpu", "--precision", "fp32")
    bare = ("-c", BARE, str(folder / "model.fp32.onnx"), str(assembly.spec.stored_size), str(physical_cores()))
    loaded = [name for name in ("torch", "pydantic") if name in modules(command)]
    sides = partial(cpu_seconds, command), partial(cpu_seconds, bare)
    paired = compare(*sides, replace(effort, pairs=2 * effort.pairs + 1), 1 / STARTUP, watch=unwatched)
    fact = f"cpu={median(paired.ours):.3f}s bare={median(paired.theirs):.3f}s"
    return Figure("predict/startup", paired, 1 / STARTUP, (fact,), tuple(f"loads {name}" for name in loaded))
