"""How long the exported model takes to answer one item: the one metric of a study that is not a score."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from rich.console import Console

from toolkit.api.files import naming
from toolkit.build.assemble import Assembly, assemble
from toolkit.build.kept import Kept
from toolkit.build.plan import Plan
from toolkit.recipe.tables import ExportTable
from toolkit.serving.bundle import Bundle
from toolkit.serving.bundle.latency import latency

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
        return latency(Bundle.load(folder), seconds=SECONDS)
