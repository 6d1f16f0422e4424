"""Faults of components that show only in use are reported with their plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from toolkit.api.clips import Clip
from toolkit.api.contract_checks import (
    blamed_augmentation,
    blamed_metric,
    blaming,
    check_answers,
    read_frames_of,
    read_image_of,
)
from toolkit.api.contracts import Batch, DataSpec, Draws
from toolkit.api.errors import DataError, PluginError, ToolkitError
from toolkit.kit.testing import draws

SPEC = DataSpec(("a", "b", "c"), size=4)
CPU = torch.device("cpu")


def failed(what: str, error: BaseException | None = None) -> ToolkitError:
    return PluginError(f"it {what}{f': {error!r}' if error else ''}")


def batch(items: int = 2) -> Batch:
    return Batch(
        torch.zeros(items, 3, 4, 4, dtype=torch.uint8), torch.zeros(items, dtype=torch.int64), torch.arange(items)
    )


def raising(error: BaseException) -> Callable[..., Any]:
    def act(*arguments: Any) -> Any:
        raise error

    return act


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_memory_that_ran_out_is_no_fault_of_a_component(error: Exception) -> None:
    with pytest.raises(type(error)), blaming(failed, "act"):
        raise error


def test_an_expected_failure_passes_and_any_other_is_the_components() -> None:
    with pytest.raises(DataError, match="as it is"), blaming(failed, "act"):
        raise DataError("as it is")
    with pytest.raises(PluginError, match=r"^it cannot act: SystemExit\(3\)$"), blaming(failed, "act"):
        raise SystemExit(3)
    with pytest.raises(KeyboardInterrupt), blaming(failed, "act"):
        raise KeyboardInterrupt


# Augmentations

AUGMENTED: dict[str, Callable[..., Any]] = {
    r"it cannot change a batch uint8 \[2, 3, 4, 4\]: ZeroDivisionError\('x'\)": raising(ZeroDivisionError("x")),
    "it gave tuple, not a Batch": lambda batch, _: (batch.pixels, batch.targets),
    r"it gave float32 \[2, 3, 4, 4\] on cpu for uint8 \[2, 3, 4, 4\] on cpu": lambda batch, _: replace(
        batch, pixels=batch.pixels / 255
    ),
    r"it gave uint8 \[2, 1, 4, 4\] on cpu for": lambda batch, _: replace(batch, pixels=batch.pixels[:, :1]),
    r"it gave uint8 \[2, 3, 4, 4\] on meta for": lambda batch, _: replace(batch, pixels=batch.pixels.to("meta")),
    "it gave 1 targets and 2 places for 2 items": lambda batch, _: replace(batch, targets=batch.targets[:1]),
    "it gave 2 targets and 1 places for 2 items": lambda batch, _: replace(batch, index=batch.index[:1]),
}


@pytest.mark.parametrize("message", AUGMENTED)
def test_an_augmentation_is_blamed(message: str) -> None:
    augmentation = blamed_augmentation(AUGMENTED[message], failed)
    with pytest.raises(PluginError, match=f"^{message}"):
        augmentation(batch(), draws(range(2)))


def test_an_augmentation_may_crop_and_keeps_its_attributes() -> None:
    def act(batch: Batch, draws: Draws) -> Batch:
        return replace(batch, pixels=batch.pixels[..., :2, :2])

    act.p = 0.5  # type: ignore[attr-defined]
    augmentation = blamed_augmentation(act, failed)
    assert augmentation(batch(), draws(range(2))).pixels.shape == (2, 3, 2, 2)
    assert augmentation.p == 0.5  # type: ignore[attr-defined]


# Metrics


class Score:
    def __init__(self, update: Callable[..., None], compute: Callable[[], Any]) -> None:
        self.update, self.compute = update, compute


def test_a_metric_is_blamed() -> None:
    broken = blamed_metric(Score(raising(KeyError("x")), raising(KeyError("y"))), failed)
    with pytest.raises(PluginError, match=r"^it cannot take logits float32 \[2, 3\]: KeyError\('x'\)$"):
        broken.update(torch.zeros(2, 3), torch.zeros(2))
    with pytest.raises(PluginError, match=r"^it cannot compute its scores: KeyError\('y'\)$"):
        broken.compute()
    for scores, kind in ((None, "NoneType"), ([1.0], "list"), ({1: 1.0}, "dict")):
        with pytest.raises(PluginError, match=f"^it gave {kind}, not names mapped to scores$"):
            blamed_metric(Score(lambda *_: None, lambda scores=scores: scores), failed).compute()
    assert blamed_metric(Score(lambda *_: None, lambda: {"a": 1.0}), failed).compute() == {"a": 1.0}


# Networks


class Net(nn.Module):
    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.answer = answer
        self.modes: list[bool] = []

    def forward(self, pixels: Tensor) -> Any:
        self.modes.append(self.training)
        return self.answer(pixels)


ANSWERS: dict[str, Callable[[Tensor], Any]] = {
    r"it cannot answer a batch \[2, 3, 4, 4\]: ZeroDivisionError\('x'\)": raising(ZeroDivisionError("x")),
    r"it answered dict, not logits \[2, 3\]": lambda pixels: {"logits": pixels},
    r"it answered float32 \[2, 6\], not logits \[2, 3\]": lambda pixels: torch.zeros(2, 6),
    r"it answered float32 \[3\], not logits \[2, 3\]": lambda pixels: torch.zeros(3),
    r"it answered int64 \[2, 3\], not logits \[2, 3\]": lambda pixels: torch.zeros(2, 3, dtype=torch.int64),
    "it answered two black items with logits that are not finite": lambda pixels: torch.full((2, 3), torch.nan),
}


@pytest.mark.parametrize("message", ANSWERS)
def test_a_network_is_blamed(message: str) -> None:
    with pytest.raises(PluginError, match=f"^{message}$"):
        check_answers(Net(ANSWERS[message]), SPEC, CPU, failed)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("clip", "shape"), [(None, (2, 3, 4, 4)), (Clip(frames=5), (2, 5, 3, 4, 4))])
def test_a_network_is_asked_in_evaluation_and_left_as_it_was(
    training: bool, clip: Clip | None, shape: tuple[int, ...]
) -> None:
    shapes: list[tuple[int, ...]] = []

    def answer(pixels: Tensor) -> Tensor:
        shapes.append(tuple(pixels.shape))
        return torch.zeros(2, 3)

    network = Net(answer).train(training)
    check_answers(network, replace(SPEC, clip=clip), CPU, failed)
    assert (shapes, network.modes, network.training) == ([shape], [False], training)


# Splits


class Pictures:
    ids, targets, keys = ("first.png",), (0,), ("k",)

    def __init__(self, read: Callable[..., Any]) -> None:
        self.read = read

    def __len__(self) -> int:
        return 1

    def times(self, index: int) -> Sequence[float]:
        return [0.0]


READ: dict[str, Callable[..., Any]] = {
    r"cannot be read: ZeroDivisionError: x": raising(ZeroDivisionError("x")),
    r"is ndarray, not uint8 \[3, H, W\]": lambda *_: torch.zeros(3, 2, 2).numpy(),
    r"is float32 \[3, 2, 2\], not uint8 \[3, H, W\]": lambda *_: torch.zeros(3, 2, 2),
    r"is uint8 \[1, 2, 2\], not uint8 \[3, H, W\]": lambda *_: torch.zeros(1, 2, 2, dtype=torch.uint8),
    r"is uint8 \[3, 2\], not uint8 \[3, H, W\]": lambda *_: torch.zeros(3, 2, dtype=torch.uint8),
}


@pytest.mark.parametrize("message", READ)
def test_a_split_is_blamed_with_its_class(message: str) -> None:
    named = rf"^item first\.png of a split of tests\.api\.test_contract_checks\.Pictures {message}$"
    with pytest.raises(PluginError, match=named) as caught:
        read_image_of(Pictures(READ[message]), 0)
    assert caught.value.next_step == "examine the dataset: python -m toolkit plugins doctor"

    def frames(*arguments: Any) -> Iterator[Any]:
        yield READ[message]()

    with pytest.raises(PluginError, match=named):
        list(read_frames_of(Pictures(frames), 0, [0]))


def test_what_a_split_reads_passes() -> None:
    image = torch.zeros(3, 2, 5, dtype=torch.uint8)
    assert read_image_of(Pictures(lambda index: image), 0) is image
    (frame,) = read_frames_of(Pictures(lambda index, frames: iter([image])), 0, [0])
    assert frame is image
    with pytest.raises(DataError, match="as it is"):
        read_image_of(Pictures(raising(DataError("as it is"))), 0)
