"""A run's model as files of LiteRT (TensorFlow Lite): for phones and small boards.

litert-torch converts the trained network itself, so the model is in float32 whatever the bundle's precisions are. It
takes one square at a time. It leaves only if it answers as the trained model does: the gate of `toolkit.export.gate`
asks LiteRT about the file that was written.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from toolkit.api.errors import BundleError, UsageError
from toolkit.api.files import as_utf8
from toolkit.build.assemble import Assembly
from toolkit.data.store.resampling import centre_crop
from toolkit.export.folders import meaning, require_replaceable, write_labels, write_proved
from toolkit.export.gate import Reference, Verdict
from toolkit.export.graph import Deployed, folded, quiet
from toolkit.serving.bundle import Bundle, Manifest
from toolkit.serving.bundle.inputs import square_batch
from toolkit.serving.bundle.manifest import INPUT
from toolkit.serving.bundle.session import answered_in_parts, joined, read_outputs
from toolkit.system.machine import physical_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "--format litert"
MODEL = "model.tflite"
ABOUT = "about.json"
"""What the numbers mean."""
CONVERTER, INTERPRETER = "litert_torch", "ai_edge_litert"
INSTALL = "pip install 'vision-toolkit[litert]'"
_LINES = 3
"""Of what the converter printed last, the lines that an error shows."""


def check_litert(place: Path) -> None:
    """Raise UsageError where LiteRT's converter is missing, and where something else than such files is at `place`."""
    missing = [name for name in (CONVERTER, INTERPRETER) if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{FORMAT}: needs {' and '.join(map(_named, missing))}: not installed "
            "(the extras litert and sign need different versions of pydantic)",
            next_step=INSTALL,
        )
    require_replaceable(place, kind="a model of LiteRT", mark=MODEL)


def write_litert(
    bundle: Path, manifest: Manifest, expected: Reference, place: Path, gate: Callable[[Bundle], Verdict]
) -> Path:
    """Write the trained model that `expected` has to the folder `place`, over earlier files of this kind: model.tflite,
    labels.txt and about.json. `gate` holds it against the trained model; `bundle` is what was exported of it.

    Raises UsageError as `check_litert` does, BundleError where LiteRT cannot convert or open the model, ParityError
    where it answers otherwise, RunFailed when the file system refuses."""
    check_litert(place)
    opened = Bundle.load(bundle, device="cpu")

    def write(folder: Path) -> Bundle:
        _convert(expected, manifest, folder / MODEL)
        write_labels(folder, manifest)
        about = json.dumps(meaning(manifest), indent=2, ensure_ascii=False) + "\n"
        (folder / ABOUT).write_bytes(as_utf8(about))
        session = LiteRtSession(folder / MODEL, manifest, physical_cores())
        return replace(opened, session=session, precision="fp32", runtime="litert")

    return write_proved(place, bundle, f"LiteRT {version(_named(INTERPRETER))}", write, gate)


class OfSquares(nn.Module):
    """One uint8 square of the stored size, channels last, to the named outputs of the exported graph."""

    def __init__(self, deployed: Deployed, names: Sequence[str], size: int) -> None:
        super().__init__()
        self.deployed = deployed
        self.names = tuple(names)
        self.size = size

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        seen = centre_crop(frames.movedim(-1, -3), self.size)
        return dict(zip(self.names, self.deployed(seen), strict=True))


class LiteRtSession:
    """A model file that takes one input at a time. Calls from several threads are safe: they take turns."""

    def __init__(self, path: Path, manifest: Manifest, threads: int) -> None:
        """Raises BundleError where LiteRT cannot open the model."""
        from ai_edge_litert.interpreter import Interpreter

        self.path = path
        self._input = manifest.input
        self._columns = manifest.columns
        self._outputs = read_outputs(manifest)
        self._turn = threading.Lock()
        try:
            with _unheard():
                self._model = Interpreter(str(path), num_threads=threads)
                self._model.allocate_tensors()
                self._run = self._model.get_signature_runner()
        except Exception as error:  # LiteRT's own errors have no other class in common
            raise BundleError(
                f"{path}: LiteRT {version(_named(INTERPRETER))} cannot open it: {_cause(str(error))}",
                next_step=f"export without {FORMAT}",
            ) from error

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 `[N, ..., H, W, 3]` to float32 `[N, C]`, or `[N, C + 1]` with a score last where the graph gives one.
        Raises BundleError where the model answers in another shape."""
        return answered_in_parts(pixels, self.largest(pixels.shape[1:]), self._columns, self.path, self._answered)

    def maps(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:  # noqa: ARG002 - nothing to map
        """Raises BundleError: the model has no output of maps."""
        raise BundleError(f"{self.path}: has no heat maps", next_step="ask the bundle for them: Bundle.maps")

    def largest(self, shape: Sequence[int]) -> int:  # noqa: ARG002 - of any shape
        """1: of a larger batch, LiteRT would answer the first input alone."""
        return 1

    def _answered(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._turn:
            found = self._run(**{INPUT: square_batch(pixels, self._input)})
        return joined([found[name] for name in self._outputs])


def _convert(expected: Reference, manifest: Manifest, target: Path) -> None:
    """In a process of its own: the converter brings libraries that a session need not load, changes torch, and may end
    its process."""
    with TemporaryDirectory(prefix="litert-") as folder:
        program = Path(folder) / "program.pt2"
        _save_program(expected.assembly, manifest, program)
        words = [sys.executable, "-m", "toolkit.export.litert_conversion", str(program), str(target)]
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603 - ours
    if done.returncode or not target.is_file():
        raise BundleError(
            f"{target.name}: litert-torch {version(_named(CONVERTER))} cannot convert the model: {_cause(done.stderr)}",
            next_step=f"export without {FORMAT}",
        )


def _save_program(assembly: Assembly, manifest: Manifest, path: Path) -> None:
    spec = assembly.spec
    deployed = Deployed(folded(assembly.network), assembly.objective.logits, spec, manifest.trust)
    module = OfSquares(deployed, manifest.outputs, spec.size).cpu().eval()
    frames = torch.zeros((1, *spec.clip_shape, spec.stored_size, spec.stored_size, 3), dtype=torch.uint8)
    try:
        with quiet(), torch.no_grad():
            torch.export.save(torch.export.export(module, (), {INPUT: frames}), path)
    finally:
        assembly.network.to(assembly.device)


def _named(package: str) -> str:
    return package.replace("_", "-")


def _cause(printed: str) -> str:
    """The last lines that say something, in one."""
    lines = [" ".join(line.split()) for line in printed.splitlines() if line.strip()]
    return " ".join(lines[-_LINES:]) or "it ended without a word"


@contextmanager
def _unheard() -> Iterator[None]:
    """Without what LiteRT's C++ prints to standard error while it opens a model."""
    held = os.dup(2)
    try:
        with TemporaryFile() as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(held, 2)
        os.close(held)
