"""An exported ResNet-50 by CUDA and by TensorRT, against the same network in torch: as it comes, and compiled by
`max-autotune`.

All sides take the same uint8 squares from the CPU and give probabilities back to it. In torch, fp16 is a network of
half-precision weights with channels last. Weights are random, which changes no speed.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from bench.gpu.generated import generated
from bench.gpu.rows import Row
from bench.gpu.schedule import Setting
from bench.gpu.training import SIZES, TINY_IMAGES, Chosen
from bench.pairs import Effort, Paired
from bench.predict import BATCHES, Side, in_torch, paired_sides
from toolkit.api.errors import ToolkitError
from toolkit.build.assemble import Assembly, assemble
from toolkit.export.write import write_models
from toolkit.serving.bundle import Bundle
from toolkit.system.choices import Precision

PAIRS = 7
BATCH = 128
SINGLES = 50
"""Calls of one image in a timing."""
RESNET50 = Chosen("har_resnet50", (*SIZES, "train.precision=fp32"))
GOALS = {"compiled": 1.0, "eager": 2.0}


@dataclass(frozen=True)
class Sizes:
    devices: tuple[str, ...]
    batch: int
    singles: int


FULL, SMALL = Sizes(("cuda", "tensorrt"), BATCH, SINGLES), Sizes(("cpu",), 4, 2)


def measured(precision: str, setting: Setting, *, compiled: bool = True) -> Iterator[Row]:
    sizes = SMALL if setting.rehearsal else FULL
    effort = setting.effort(PAIRS)
    assembly = _assembly(precision, setting, sizes)
    squares = assembly.train.at(range(sizes.batch)).pixels.movedim(-3, -1).contiguous().cpu().numpy()
    theirs = _theirs(assembly, half=precision != "fp32", compiled=compiled, rehearsal=setting.rehearsal)
    with tempfile.TemporaryDirectory() as folder:
        write_models(assembly, "bench", Path(folder), Console(quiet=True))
        for device in sizes.devices:
            try:
                bundle = Bundle.load(folder, device=device, precision=precision)
                bundle.session.run(squares)
            except ToolkitError as error:
                yield Row(f"{device}", skipped=error.message)
                continue
            ours = Side(device, bundle.session.run, None)
            for side in theirs:
                yield from _against(ours, side, squares, effort, sizes, goals=not setting.rehearsal)


def _against(
    ours: Side, theirs: Side, squares: NDArray[np.uint8], effort: Effort, sizes: Sizes, *, goals: bool
) -> Iterator[Row]:
    """In batches, then one image at a time."""
    timings = {
        f"batches of {len(squares)}": ([squares] * BATCHES, len(squares) * BATCHES),
        "one image": ([squares[:1]] * sizes.singles, sizes.singles),
    }
    goal = GOALS[theirs.name.partition(" ")[0]] if goals else None
    for how, (batches, count) in timings.items():
        for side in (ours, theirs):
            side.seconds(batches[:1])
        paired = paired_sides(ours, theirs, batches, effort, goal)
        yield Row.of_ratio(
            f"{ours.name} against {theirs.name}, {how}",
            paired,
            at_least=goal,
            peak_gib=_used_gib(),
            facts=_facts(paired, count, single=how == "one image"),
        )


def _facts(paired: Paired, count: int, *, single: bool) -> tuple[str, str]:
    ours, theirs = median(paired.ours) / count, median(paired.theirs) / count
    if single:
        return f"{1e3 * ours:.3g} ms", f"theirs {1e3 * theirs:.3g} ms"
    return f"{1 / ours:,.0f} images/s", f"theirs {1 / theirs:,.0f}"


def _used_gib() -> float | None:
    """What all libraries of this process have taken of the device, and keep; None without one."""
    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**30


def _assembly(precision: str, setting: Setting, sizes: Sizes) -> Assembly:
    chosen = RESNET50.planned(f"export.precision={precision}")
    tiny = TINY_IMAGES.planned(f"export.precision={precision}", "export.calibration=8")
    return assemble(generated(tiny if setting.rehearsal else chosen, sizes.batch))


def _theirs(assembly: Assembly, *, half: bool, compiled: bool, rehearsal: bool) -> list[Side]:
    network = copy.deepcopy(assembly.network).to(memory_format=torch.channels_last).eval()
    network = network.half() if half else network
    word: Precision = "fp32"  # no autocast: the weights are in the precision
    said = "fp16" if half else "fp32"
    sides = [Side(f"eager {said}", partial(in_torch, replace(assembly, network=network), word), None)]
    if compiled:
        how = {"backend": "eager"} if rehearsal else {"mode": "max-autotune"}
        faster = copy.deepcopy(network)
        faster.compile(dynamic=False, **how)
        sides.insert(0, Side(f"compiled {said}", partial(in_torch, replace(assembly, network=faster), word), None))
    return sides


fp16 = partial(measured, "fp16")
fp32 = partial(measured, "fp32")
int8 = partial(measured, "int8", compiled=False)
