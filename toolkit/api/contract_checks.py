"""What components do when they are used, with the plugin named that is to blame for what goes wrong.

These are the checks that cost a run nothing. The rules of `toolkit.kit.testing` check far more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from toolkit.api.contracts import (
    Augmentation,
    Batch,
    DataSpec,
    Draws,
    Headed,
    Metric,
    Mirroring,
    Multiview,
    Objective,
    Scores,
    Split,
    VideoSplit,
)
from toolkit.api.errors import PluginError, ToolkitError
from toolkit.api.memory import lacks_memory

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Failed: TypeAlias = "Callable[[str, BaseException | None], ToolkitError]"
"""Makes an error of what a component did, and of the exception behind it."""


@contextmanager
def blaming(failed: Failed, what: str) -> Iterator[None]:
    """Let an exception in the block be the component's, which could not do `what`; expected failures pass, and those of
    memory that all components take together."""
    try:
        yield
    except ToolkitError:
        raise
    except (Exception, SystemExit) as error:
        if lacks_memory(error):
            raise
        raise failed(f"cannot {what}", error) from error


class Blamed:
    """A component that is called again and again."""

    def __init__(self, component: Any, failed: Failed) -> None:
        self._component, self._failed = component, failed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._component, name)


class BlamedAugmentation(Blamed):
    """An augmentation whose every batch is looked at, without waiting for the device."""

    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        with blaming(self._failed, f"change a batch {shape_of(batch.pixels)}"):
            changed: Batch = self._component(batch, draws)
        wrong = _unlike(batch, changed)
        if wrong:
            raise self._failed(f"gave {wrong}", None)
        return changed


class BlamedMirroring(BlamedAugmentation):
    """An augmentation that only mirrors items."""

    def mirrored(self, draws: Draws) -> Tensor:
        with blaming(self._failed, f"say which of {len(draws)} items it mirrors"):
            found: Tensor = self._component.mirrored(draws)
        return found


class BlamedMetric(Blamed):
    """A metric whose scores are looked at."""

    def update(self, logits: Tensor, targets: Tensor) -> None:
        with blaming(self._failed, f"take logits {shape_of(logits)}"):
            self._component.update(logits, targets)

    def compute(self) -> Scores:
        with blaming(self._failed, "compute its scores"):
            scores: Scores = self._component.compute()
        if not isinstance(scores, Mapping) or not all(isinstance(name, str) for name in scores):
            raise self._failed(f"gave {type(scores).__name__}, not names mapped to scores", None)
        return scores


def blamed_augmentation(augmentation: Augmentation, failed: Failed) -> Augmentation:
    """`augmentation`, each of whose batches is checked; what it does wrong raises what `failed` makes."""
    blamed = BlamedMirroring if isinstance(augmentation, Mirroring) else BlamedAugmentation
    return blamed(augmentation, failed)


def blamed_metric(metric: Metric, failed: Failed) -> Metric:
    """`metric`, whose scores are checked; what it does wrong raises what `failed` makes."""
    return BlamedMetric(metric, failed)


def shape_of(tensor: Tensor) -> str:
    """dtype and shape as text: `uint8 [3, 32, 32]`."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _unlike(batch: Batch, changed: Any) -> str | None:
    """What is wrong with a batch that an augmentation gave."""
    if not isinstance(changed, Batch):
        return f"{type(changed).__name__}, not a Batch"
    pixels, before = changed.pixels, batch.pixels
    if pixels.dtype != before.dtype or pixels.shape[:-2] != before.shape[:-2] or pixels.device != before.device:
        return f"{shape_of(pixels)} on {pixels.device} for {shape_of(before)} on {before.device}"
    if len(changed.targets) != len(batch.targets) or len(changed.index) != len(batch.index):
        return f"{len(changed.targets)} targets and {len(changed.index)} places for {len(batch.index)} items"
    return None


def check_answers(network: nn.Module, spec: DataSpec, device: torch.device, failed: Failed) -> None:
    """Ask a network, uint8 pixels in, for its answers to two black items, and look at them.

    Raises what `failed` makes where it cannot answer, or gives something else than finite logits `[2, C]`. On the meta
    device, which computes shapes alone, any values pass.
    """
    import torch

    pixels = torch.zeros((2, *spec.item_shape), dtype=torch.uint8, device=device)
    training = network.training
    with torch.inference_mode(), blaming(failed, f"answer a batch {list(pixels.shape)}"):
        logits = network.eval()(pixels)
    network.train(training)
    wanted = [2, len(spec.classes)]
    if not isinstance(logits, torch.Tensor):
        raise failed(f"answered {type(logits).__name__}, not logits {wanted}", None)
    if list(logits.shape) != wanted or not logits.is_floating_point():
        raise failed(f"answered {shape_of(logits)}, not logits {wanted}", None)
    if logits.device.type != "meta" and not logits.isfinite().all():
        raise failed("answered two black items with logits that are not finite", None)


def check_objective(
    objective: Objective, network: nn.Module, spec: DataSpec, device: torch.device, failed: Failed
) -> None:
    """Ask an objective on `device` for its loss on two items for which `network` puts out 0, and for its logits, and
    check them. Only shapes are asked of `network`, so it may be on the meta device.

    Raises what `failed` makes where it fails, or gives something else than finite scalars and finite logits `[2, C]`.
    """
    import torch

    logits = torch.zeros(2, len(spec.classes), device=device, requires_grad=True)
    one_hot = torch.eye(len(spec.classes), device=device)[torch.tensor([0, 0], device=device)]
    targets = one_hot.argmax(1) if spec.targets == "index" else one_hot
    views = (objective.views,) if isinstance(objective, Multiview) else ()
    pixels = torch.zeros((2, *views, *spec.item_shape), dtype=torch.uint8, device=device)

    with blaming(failed, "compute its loss"):
        loss = objective.loss(_Silent(logits, network), pixels, targets) / objective.weight(targets)
        scored = objective.score(logits, targets)
        given = objective.logits(logits.detach())
    for name, value in (("loss", loss), ("score", scored)):
        if not isinstance(value, torch.Tensor) or value.ndim or not value.isfinite():
            raise failed(f"gave {value!r} as its {name}, not a finite scalar", None)
    if not isinstance(given, torch.Tensor) or given.shape != logits.shape or not given.isfinite().all():
        raise failed(f"gave {given!r} as its logits, not finite numbers {list(logits.shape)}", None)


class _Silent:
    """The network in training, which puts out `logits` and features of 0; others answer themselves."""

    def __init__(self, logits: Tensor, network: nn.Module) -> None:
        self._logits, self._network = logits, network

    def __call__(self, pixels: Tensor, network: nn.Module | None = None) -> Tensor:
        return self._logits[: len(pixels)] if network is None else network(pixels).float()

    def features(self, pixels: Tensor, network: nn.Module | None = None) -> Tensor:
        import torch

        asked = cast(Headed, self._network if network is None else network)
        if network is not None:
            return asked.features(pixels).float()
        weight = next(self._network.parameters())
        training = self._network.training
        self._network.eval()
        with torch.no_grad():
            shape = asked.features(pixels.to(weight.device)).shape
        self._network.train(training)
        return torch.zeros(shape, device=pixels.device, requires_grad=True)


def read_image_of(split: Split, index: int) -> Tensor:
    """An item of a split, uint8 `[3, H, W]`. Raises DataError where it cannot be decoded, PluginError where the split
    itself fails or gives something else."""
    failed = _failed_at(split, index)
    with blaming(failed, "be read"):
        image = split.read(index)
    _check_image(image, failed)
    return image


def read_frames_of(split: VideoSplit, index: int, frames: Sequence[int]) -> Iterator[Tensor]:
    """Frames of an item of a split of videos, as `read_image_of` reads an image."""
    failed = _failed_at(split, index)
    with blaming(failed, "be read"):
        for frame in split.read(index, frames):
            _check_image(frame, failed)
            yield frame


def _check_image(image: Any, failed: Failed) -> None:
    import torch

    if not isinstance(image, torch.Tensor):
        raise failed(f"is {type(image).__name__}, not uint8 [3, H, W]", None)
    if image.dtype != torch.uint8 or image.ndim != 3 or len(image) != 3:
        raise failed(f"is {shape_of(image)}, not uint8 [3, H, W]", None)


def _failed_at(split: Split | VideoSplit, index: int) -> Failed:
    def failed(what: str, error: BaseException | None) -> PluginError:
        of = type(split)
        cause = f": {type(error).__name__}: {error}" if error else ""
        return PluginError(
            f"item {split.ids[index]} of a split of {of.__module__}.{of.__qualname__} {what}{cause}",
            next_step="examine the dataset: python -m toolkit plugins doctor",
        )

    return failed
