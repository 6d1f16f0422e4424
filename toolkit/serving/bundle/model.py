"""A bundle in use: frames in, the probabilities of its classes or its numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from toolkit.api.answers import label, named_classes
from toolkit.api.errors import UsageError
from toolkit.serving.bundle.inputs import check_frames, rank, to_squares
from toolkit.serving.bundle.inspection import check_interface, inspect_model
from toolkit.serving.bundle.integrity import verify_files
from toolkit.serving.bundle.manifest import Manifest, read_manifest
from toolkit.serving.bundle.providers import choose_device
from toolkit.serving.bundle.runtimes import Model, check_runtime, home_of, open_session
from toolkit.serving.bundle.signature import check_signature
from toolkit.serving.bundle.trust import UNTOUCHED, Trust
from toolkit.system.choices import BundleDevice, BundleRuntime
from toolkit.system.machine import physical_cores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from toolkit.serving.bundle.session import Session


MAPS_NEXT = "export the run again with: --set export.maps=true"


@dataclass(frozen=True)
class Answers:
    """What a model says of N inputs."""

    probabilities: NDArray[np.float32]
    """`[N, C]`: each row sums to 1, or where there are thresholds, each probability is independent."""
    classes: tuple[str, ...]
    thresholds: tuple[float, ...] | None = None
    """The probability of each class from which it counts as present, in a model that answers with sets of classes."""
    trust: Trust = UNTOUCHED
    scores: NDArray[np.float32] | None = None
    """`[N]`: the energies, or the similarities, of a model that declines by them."""

    @property
    def declined(self) -> list[bool]:
        """Whether each answer is declined, so that its input counts as unknown; of a model that never declines, no."""
        scores = [None] * len(self.probabilities) if self.scores is None else self.scores.tolist()
        return list(map(self.trust.declines, self.probabilities.tolist(), scores))

    @property
    def plausible(self) -> list[tuple[str, ...]] | None:
        """The classes of each answer that hold the truth as often as the export was asked for, in the order of
        `classes`, perhaps none; None where a bundle has no such sets."""
        if self.trust.conformal is None:
            return None
        found = map(self.trust.plausible, self.probabilities.tolist())
        return [tuple(self.classes[number] for number in numbers or ()) for numbers in found]

    @property
    def sets(self) -> list[tuple[str, ...]]:
        """The classes that each answer names: the likeliest one, or where there are thresholds, all that reach their
        own, in the order of `classes`, perhaps none."""
        return [tuple(self.classes[number] for number in numbers) for numbers in self._named()]

    @property
    def labels(self) -> list[str]:
        """Each answer as one text: the names in `sets`, joined by `|`; empty for an empty set."""
        return [label(self.classes, numbers) for numbers in self._named()]

    def _named(self) -> list[list[int]]:
        return [named_classes(row, self.thresholds) for row in self.probabilities.tolist()]

    def top(self, k: int) -> list[list[tuple[str, float]]]:
        """The `k` likeliest classes of each input with their probabilities, likeliest first; of equally likely ones
        first the class that the model names first."""
        order = (-self.probabilities).argsort(1, kind="stable")[:, :k]
        return [
            [(self.classes[index], float(row[index])) for index in best]
            for row, best in zip(self.probabilities, order, strict=True)
        ]


@dataclass(frozen=True)
class Numbers:
    """What a model that answers with numbers says of N inputs."""

    values: NDArray[np.float32]
    """`[N, C]`, in the unit of the targets."""
    outputs: tuple[str, ...]
    """The names of the C numbers."""


@dataclass(frozen=True)
class Bundle:
    """A bundle that was checked, opened on a device. Its methods may be called from several threads."""

    path: Path
    manifest: Manifest
    precision: str
    device: BundleDevice
    reason: str
    """Why `device` is the one; empty where a user has nothing to learn from it."""
    session: Session
    runtime: BundleRuntime | Literal["litert"] = "onnxruntime"
    """What computes the model. LiteRT does so in an export alone."""
    runtime_reason: str = ""
    """Why `runtime` is the one; empty where it was asked for."""

    @property
    def setting(self) -> str:
        """The precision, the device and the runtime, in words."""
        by = "" if self.runtime == "onnxruntime" else f" by {self.runtime}"
        reasons = "; ".join(filter(None, (self.reason, self.runtime_reason)))
        return f"{self.precision} on {self.device}{by}" + (f" ({reasons})" if reasons else "")

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        device: str = "auto",
        precision: str | None = None,
        signed_by: Path | None = None,
        runtime: str = "onnxruntime",
        threads: int | None = None,
    ) -> Bundle:
        """Open the bundle at `path`: on `device` ("auto", "cpu", "cuda", "tensorrt" or "coreml"; auto is CUDA where it
        loads, else the CPU) and in `precision` (None: the one that the bundle prefers). The owner of the public key
        `signed_by` must have signed it; see `toolkit.serving.bundle.signature`.

        On the CPU it computes with so many `threads`; None: one for each core.

        It is computed by `runtime`: "onnxruntime"; "openvino" or "coreml", on the CPU's data; "tensorrt", on CUDA; or
        "auto", the fastest of them on this machine: see `toolkit.serving.bundle.runtimes`.

        Raises BundleError for a bundle that is damaged or asks for what none may, UsageError for a precision that it
        does not have and for a device or a runtime that does not load, ParityError for a runtime that does not answer
        as onnxruntime does."""
        path = Path(path)
        if signed_by is not None:
            check_signature(path, signed_by)
        manifest = read_manifest(path)
        chosen = _precision(manifest, precision, path)
        verify_files(manifest, path, precision=chosen)
        model = path / manifest.models[chosen]
        findings = inspect_model(model, allowed=manifest.files)
        check_interface(findings, manifest, model)
        check_runtime(runtime, device)
        choice = choose_device(home_of(runtime) or device)
        opened = open_session(
            runtime, Model(path, manifest, chosen, choice.device, findings, threads or physical_cores())
        )
        return cls(path, manifest, chosen, choice.device, choice.reason, opened.session, opened.runtime, opened.reason)

    def predict(self, frames: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> Answers:
        """Answers to uint8 RGB frames of any size: one `[H, W, 3]`, a batch `[N, H, W, 3]` (of clips `[T, H, W, 3]`
        and `[N, T, H, W, 3]`), or a sequence of single ones of mixed sizes, answered in its order.

        Raises UsageError for another dtype or shape and where answers are numbers, BundleError where the model cannot
        compute them."""
        self._require(numbers=False)
        return self.answers(self.rows(frames))

    def estimate(self, frames: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> Numbers:
        """As `predict`, of a model that answers with numbers."""
        self._require(numbers=True)
        return Numbers(self.rows(frames), self.manifest.classes)

    def rows(self, frames: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """What the graph answers to frames as `predict` takes them: `[N, C]` probabilities or numbers, and behind them
        the score that the model declines by, where the graph gives one."""
        if isinstance(frames, Sequence):
            return self._mixed(frames)
        many = getattr(frames, "ndim", 0) > rank(self.manifest.input)
        check_frames(frames, self.manifest.input, "frames", many=many)
        return self.session.run(frames if many else frames[None])

    def maps(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Where in the frames the answer of each class, or each number, comes from: float32 `[N, C, h, w]`, of clips
        `[N, C, t, h, w]`, of uint8 `[N, H, W, 3]` or `[N, T, H, W, 3]`. From 0 to 1, the largest of each map 1; all 0
        where nothing speaks for the class. A map covers what the model sees: see `Bundle.seen`.

        Raises UsageError for another dtype or shape and where the graph gives no maps, BundleError where the model
        cannot compute them."""
        import numpy as np

        from toolkit.serving.bundle.session import split

        about = self.manifest.maps
        if about is None:
            raise UsageError(f"{self.path}: has no heat maps", next_step=MAPS_NEXT)
        check_frames(frames, self.manifest.input, "frames", many=True)
        found = np.empty((len(frames), len(self.manifest.classes), *about.extent), np.float32)
        for part in split(len(frames), self.session.largest(frames.shape[1:])):
            found[part] = self.session.maps(frames[part])
        found = found.clip(0)
        largest = found.max(tuple(range(2, found.ndim)), keepdims=True)
        scaled: NDArray[np.float32] = np.divide(found, largest, out=np.zeros_like(found), where=largest > 0)
        return scaled

    def seen(self, height: int, width: int) -> tuple[float, float, float, float]:
        """The part of a picture of this size that the model sees: left, top, width and height, as shares of the
        picture."""
        shape = self.manifest.input
        share, short = shape.size / shape.square, min(height, width)
        wide, tall = (share * short / width, share * short / height) if shape.fit == "crop" else (share, share)
        return (1 - wide) / 2, (1 - tall) / 2, wide, tall

    def _require(self, *, numbers: bool) -> None:
        if numbers != (self.manifest.form == "number"):
            what, method = ("classes", "predict") if numbers else ("numbers", "estimate")
            raise UsageError(f"{self.path}: answers with {what}", next_step=f"call Bundle.{method}(frames)")

    def answers(self, rows: NDArray[np.float32]) -> Answers:
        """What probabilities `[N, C]` of this model say, with the score behind them, `[N, C + 1]`, where it declines
        by that: means over the views of a video, for example."""
        manifest, count = self.manifest, len(self.manifest.classes)
        scores = rows[:, count] if manifest.trust.scored else None
        return Answers(rows[:, :count], manifest.classes, manifest.thresholds, manifest.trust, scores)

    def square(self, image: NDArray[np.uint8] | Image.Image) -> NDArray[np.uint8]:
        """uint8 `[S, S, 3]` of an image or uint8 `[H, W, 3]`: to the bit what the graph makes of it, and what training
        saw. The graph takes such a square as it is, so images of any sizes become batches of one."""
        (square,) = self.squares(image)
        return square

    def squares(self, image: NDArray[np.uint8] | Image.Image, crops: int = 1) -> list[NDArray[np.uint8]]:
        """As `square`, one for each of the `crops` of a frame: 1 is the centre; 3 are the left end (of a tall one the
        top), the centre and the right end (the bottom)."""
        if not hasattr(image, "convert"):
            check_frames(image, replace(self.manifest.input, frames=None), "image")
        return to_squares(image, self.manifest.input, crops)

    def _mixed(self, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        import numpy as np

        sizes: dict[tuple[int, ...], list[int]] = {}
        for index, item in enumerate(frames):
            check_frames(item, self.manifest.input, f"frames[{index}]")
            sizes.setdefault(item.shape, []).append(index)
        answers = np.empty((len(frames), self.manifest.columns), np.float32)
        for indices in sizes.values():
            answers[indices] = self.session.run(np.stack([frames[index] for index in indices]))
        return answers


def _precision(manifest: Manifest, asked: str | None, path: Path) -> str:
    chosen = asked or next(iter(manifest.models))
    if chosen not in manifest.models:
        raise UsageError(
            f'{path}: has no model in precision "{chosen}"',
            next_step=f"use one that it has: {', '.join(manifest.models)}",
        )
    return chosen
