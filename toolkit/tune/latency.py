"""How long the exported model takes to answer one item: the one metric of a study that is not a score."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, gettempdir

import numpy as np
from rich.console import Console

from toolkit.api.files import naming
from toolkit.build.assemble import Assembly, assemble
from toolkit.build.kept import Kept
from toolkit.build.plan import Plan
from toolkit.recipe.tables import ExportTable
from toolkit.serving.bundle import Bundle

WARM_UP = 5
"""Answers before the first that counts: the first ones tune kernels and take memory."""
ANSWERS = 30
"""Answers that count, at least."""
SECONDS = 1.0
"""How long answers are counted, at least."""


@dataclass(frozen=True)
class Latencies:
    """Latencies that this process has measured, by what decides them."""

    measured: dict[str, float] = field(default_factory=dict)

    def of(self, plan: Plan, kept: Kept) -> float:
        """Milliseconds that the recipe's model takes for one image or clip, exported in fp32, by ONNX Runtime on its
        best device: the median. Measured once for each architecture, with weights as they are before training: they
        change no time."""
        fp32 = plan.resolved.model_copy(update={"export": ExportTable(precision="fp32")})
        assembly = assemble(replace(plan, resolved=fp32), kept, notes=())
        spec = assembly.spec
        decided = [fp32.model.model_dump(mode="json"), spec.size, spec.stored_size, spec.frames, len(spec.classes)]
        key = json.dumps([*decided, spec.fit], sort_keys=True)
        if key not in self.measured:
            self.measured[key] = measure(assembly)
        return self.measured[key]


def measure(assembly: Assembly) -> float:
    """Milliseconds for one item: see `Latencies.of`."""
    from toolkit.export.write import write_models

    with TemporaryDirectory(prefix="latency-") as folder, naming(Path(gettempdir())):
        write_models(assembly, "latency", Path(folder), Console(quiet=True))
        bundle = Bundle.load(folder)
        clip = () if assembly.spec.frames is None else (assembly.spec.frames,)
        item = np.zeros((1, *clip, assembly.spec.stored_size, assembly.spec.stored_size, 3), np.uint8)
        for _ in range(WARM_UP):
            bundle.session.run(item)
        seconds: list[float] = []
        while len(seconds) < ANSWERS or sum(seconds) < SECONDS:
            started = time.perf_counter()
            bundle.session.run(item)
            seconds.append(time.perf_counter() - started)
        return 1000 * median(seconds)
