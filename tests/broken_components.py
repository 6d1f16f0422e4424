"""Components that each break one rule of the conformance kit, as authors do by mistake, and sound ones next to them."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.api.contracts import (
    Batch,
    Curve,
    Data,
    DataSpec,
    Direction,
    Draws,
    EpochRecord,
    Forward,
    Horizon,
    InputDesign,
    Model,
    Record,
    RunFinished,
    RunStarted,
    Scores,
    Task,
)
from toolkit.api.errors import DataError
from toolkit.data.images import ArrayItems
from toolkit.data.videos import ArrayVideos
from toolkit.kit.testing import Case, image_folders
from toolkit.kit.testing import draws as draws_of

SPEC = DataSpec(("first", "second", "third"), size=16)


@dataclass(frozen=True)
class Broken:
    """A component that breaks a rule; and, where that cannot be helped, others."""

    rule: str
    case: Case
    also: frozenset[str] = frozenset()


BROKEN: list[Broken] = []

_Given = TypeVar("_Given", bound=Callable[..., Any] | Model | Task)


def breaks(kind: Any, rule: str, *also: str, **case: Any) -> Callable[[_Given], _Given]:
    """Marks a factory as one whose component breaks this rule of its kind."""

    def marked(factory: _Given) -> _Given:
        given = {"spec": SPEC} if kind == "model" else {}
        BROKEN.append(Broken(rule, Case(kind, factory, **given | case), frozenset(also)))
        return factory

    return marked


# Datasets ----------------------------------------------------------------------------------------------------------

CLASSES = ("bright", "dark")
DRAWN = torch.randint(0, 256, (192, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def drawn(name: str, first: int, count: int = 64) -> ArrayItems:
    """Items `first`, `first + 1`, ... of the drawn images."""
    numbers = range(first, first + count)
    return ArrayItems(
        tuple(f"{name}/{number}" for number in numbers),
        tuple(number % 2 for number in numbers),
        tuple(f"drawn-{number}" for number in numbers),
        DRAWN[first : first + count],
    )


def data(train: Any = None, valid: Any = None, test: Any = None, spec: DataSpec | None = None) -> Data:
    return Data(
        spec or DataSpec(CLASSES, size=8, sample=True),
        train or drawn("train", 0),
        valid or drawn("valid", 64),
        test or drawn("test", 128),
        {"split": "drawn"},
        ("drawn by code",),
    )


def absent(root: Path | None) -> None:
    if root is not None:
        raise DataError("holds no data", path=root, next_step="leave data.root out")


def sound_dataset(root: Path | None) -> Data:
    """Noise, drawn by code."""
    absent(root)
    return data()


@breaks("dataset", "arguments")
def undocumented_dataset(root: Path | None, *, split_seed: int = 0) -> Data:
    """Noise, drawn by code."""
    absent(root)
    return data()


@breaks("dataset", "spec")
def dataset_with_a_class_twice(root: Path | None) -> Data:
    """Noise."""
    absent(root)
    return data(spec=DataSpec(("bright", "bright"), size=8, sample=True))


@breaks("dataset", "items")
def dataset_with_a_target_too_large(root: Path | None) -> Data:
    """Noise."""
    absent(root)
    return data(spec=DataSpec(("bright",), size=8, sample=True))


built_before = itertools.count()


@breaks("dataset", "repeatable")
def dataset_with_other_splits_each_time(root: Path | None) -> Data:
    """Noise."""
    absent(root)
    return data(train=drawn("train", next(built_before) % 4, 60))


@dataclass(frozen=True, eq=False)
class Floats(ArrayItems):
    def read(self, index: int) -> Tensor:
        return self.pixels[index] / 255


@breaks("dataset", "pixels")
def dataset_of_floats(root: Path | None) -> Data:
    """Noise."""
    absent(root)
    items = drawn("train", 0)
    return data(train=Floats(items.ids, items.targets, items.keys, items.pixels))


@dataclass(frozen=True, eq=False)
class Shuffled(ArrayVideos):
    def read(self, index: int, frames: Sequence[int]) -> Iterator[Tensor]:
        yield from (self.pixels[index, place] for place in range(len(frames)))


@breaks("dataset", "frames")
def dataset_that_counts_frames_from_the_first_one_asked_for(root: Path | None, *, clips: bool = False) -> Data:
    """Noise."""
    absent(root)
    if not clips:
        return data()
    images = {name: drawn(name, first) for name, first in (("train", 0), ("valid", 64), ("test", 128))}
    return data(
        **{
            name: Shuffled(one.ids, one.targets, one.keys, one.pixels.unfold(2, 2, 1).movedim(2, 1), 10.0)
            for name, one in images.items()
        }
    )


@breaks("dataset", "disjoint")
def dataset_with_one_picture_on_two_sides(root: Path | None) -> Data:
    """Noise."""
    absent(root)
    test = drawn("test", 128)
    leaked = torch.cat((DRAWN[:1], test.pixels[1:]))
    return data(test=ArrayItems(test.ids, test.targets, test.keys, leaked))


@breaks("dataset", "balance")
def dataset_with_one_class_in_the_test(root: Path | None) -> Data:
    """Noise."""
    absent(root)
    return data(test=drawn("test", 128).select(range(0, 64, 2)))


@dataclass(frozen=True, eq=False)
class Buffered(ArrayItems):
    """Decodes into a buffer that all threads share."""

    buffer: Tensor = field(default_factory=lambda: torch.empty(3, 8, 8, dtype=torch.uint8))

    def read(self, index: int) -> Tensor:
        for channel in range(3):
            self.buffer[channel] = self.pixels[index, channel]
            time.sleep(1e-5)
        return self.buffer.clone()


class Miscounted(ArrayItems):
    @property
    def blocks(self) -> list[int]:
        return [len(self) - 1]

    def expect(self, blocks: Sequence[int]) -> None:
        pass


@breaks("dataset", "blocks")
def dataset_whose_blocks_lack_an_item(root: Path | None) -> Data:
    """All but the last item."""
    absent(root)
    train = drawn("train", 0)
    return data(Miscounted(train.ids, train.targets, train.keys, train.pixels))


@breaks("dataset", "threads")
def dataset_with_one_buffer(root: Path | None) -> Data:
    """Noise."""
    absent(root)
    items = drawn("train", 0)
    return data(train=Buffered(items.ids, items.targets, items.keys, items.pixels))


@breaks("dataset", "processes")
def dataset_of_this_process(root: Path | None) -> Data:
    """Noise."""
    absent(root)
    items = drawn("train", 0)
    return data(train=ArrayItems(items.ids, items.targets, items.keys, items.pixels ^ (os.getpid() % 251 + 1)))


@breaks("dataset", "global_state")
def dataset_that_draws_from_the_global_generator(root: Path | None) -> Data:
    """Noise."""
    absent(root)
    torch.rand(1)
    return data()


@breaks("dataset", "missing", root=image_folders)
def dataset_that_opens_what_is_not_there(root: Path | None) -> Data:
    """Noise."""
    if root is not None:
        next(root.iterdir())
    return data(spec=DataSpec(CLASSES, size=8))


@breaks("dataset", "sample", root=image_folders)
def dataset_that_does_not_say_what_to_do(root: Path | None) -> Data:
    """Noise."""
    if root is None:
        raise DataError("there is no sample")
    if not root.is_dir() or not any(root.iterdir()):
        absent(root)
    return data(spec=DataSpec(CLASSES, size=8))


# Models ------------------------------------------------------------------------------------------------------------


class Sound(nn.Module):
    """A small network that keeps every rule."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1))
        self.head = nn.Linear(8, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(pixels).mean(dim=(2, 3)))
        return logits

    def parts(self) -> Mapping[str, nn.Module]:
        return {"backbone": self.backbone, "head": self.head}

    def begin_epoch(self, epoch: int) -> None:
        self.backbone.requires_grad_(epoch > 0)

    @property
    def notes(self) -> Sequence[str]:
        return ("small",)


class Divided(Sound):
    """A network with all that is optional."""

    def features(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.backbone(pixels).mean(dim=(2, 3))
        return features

    def answer(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits

    def forward(self, pixels: Tensor) -> Tensor:
        return self.answer(self.features(pixels))

    def layers(self) -> Sequence[Sequence[str]]:
        return [["backbone.0", "backbone.1"]]

    def no_weight_decay(self) -> Sequence[str]:
        return ["backbone.1.weight"]


def sound_model(spec: DataSpec) -> nn.Module:
    """A small network."""
    return Divided(len(spec.classes))


@breaks("model", "arguments")
def model_with_an_argument_nobody_explains(spec: DataSpec, *, width=8) -> nn.Module:  # type: ignore[no-untyped-def]
    """A small network.

    width: channels
    """
    return Sound(len(spec.classes))


class Extra(Sound):
    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels)[..., None]


@breaks("model", "logits", "classes", "sizes", "gradients", "onnx")
def model_with_a_dimension_too_many(spec: DataSpec) -> nn.Module:
    """A small network."""
    return Extra(len(spec.classes))


class Softmax(Sound):
    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels).softmax(dim=1)


@breaks("model", "unnormalised")
def model_of_probabilities(spec: DataSpec) -> nn.Module:
    """A small network."""
    return Softmax(len(spec.classes))


@breaks("model", "classes")
def model_of_three_classes(spec: DataSpec) -> nn.Module:
    """A small network."""
    return Sound(3)


class Flat(Sound):
    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.head = nn.Linear(8 * 7 * 7, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(pixels).flatten(1))
        return logits


@breaks("model", "sizes")
def model_of_sixteen_pixels(spec: DataSpec) -> nn.Module:
    """A small network."""
    return Flat(len(spec.classes))


class Idle(Sound):
    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.head = nn.Sequential(nn.Linear(8, classes))
        self.head.spare = nn.Linear(1, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head[0](self.backbone(pixels).mean(dim=(2, 3)))
        return logits


@breaks("model", "gradients")
def model_with_a_layer_it_does_not_use(spec: DataSpec) -> nn.Module:
    """A small network."""
    return Idle(len(spec.classes))


class Doubled(Sound):
    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels) * (1 if self.training else 2)


@breaks("model", "modes")
def model_that_answers_otherwise_in_evaluation(spec: DataSpec) -> nn.Module:
    """A small network."""
    return Doubled(len(spec.classes))


class Centred(Sound):
    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels - pixels.mean(dim=0))


@breaks("model", "items", "onnx")
def model_that_looks_at_the_whole_batch(spec: DataSpec) -> nn.Module:
    """A small network."""
    return Centred(len(spec.classes))


class Forgetful(Sound):
    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        if self.training:
            self.scale += 1
        return super().forward(pixels) * self.scale


@breaks("model", "state")
def model_that_learns_what_it_does_not_save(spec: DataSpec) -> nn.Module:
    """A small network."""
    return Forgetful(len(spec.classes))


class Single(Sound):
    def __deepcopy__(self, memo: object) -> Single:
        return self


@breaks("model", "copies")
def model_that_cannot_be_copied(spec: DataSpec) -> nn.Module:
    """A small network."""
    return Single(len(spec.classes))


@breaks("model", "seeds")
def model_that_seeds_torch(spec: DataSpec) -> nn.Module:
    """A small network."""
    torch.manual_seed(0)
    return Sound(len(spec.classes))


class Overwriting(Sound):
    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels.clamp_(-1, 1))


@breaks("model", "untouched")
def model_that_clamps_its_batch(spec: DataSpec) -> nn.Module:
    """A small network."""
    return Overwriting(len(spec.classes))


class Rooted(Sound):
    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.shift = torch.ones(3, 1, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels + self.shift)


@breaks("model", "moves")
def model_with_a_tensor_that_stays(spec: DataSpec) -> nn.Module:
    """A small network."""
    return Rooted(len(spec.classes))


class Coarse(Sound):
    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels) + 300 - 300


@breaks("model", "bf16")
def model_that_needs_many_digits(spec: DataSpec) -> nn.Module:
    """A small network."""
    return Coarse(len(spec.classes))


class Viewing(Sound):
    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels.view(len(pixels), -1).view_as(pixels))


@breaks("model", "channels_last")
def model_that_counts_on_the_order_in_memory(spec: DataSpec) -> nn.Module:
    """A small network."""
    return Viewing(len(spec.classes))


class Choosing(Sound):
    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels if pixels.mean() > -9 else -pixels)


@breaks("model", "onnx")
def model_that_branches_on_numbers(spec: DataSpec) -> nn.Module:
    """A small network."""
    return Choosing(len(spec.classes))


class Doubling(Divided):
    def features(self, pixels: Tensor) -> Tensor:
        return 2 * super().features(pixels)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.answer(super().features(pixels))


@breaks("model", "features")
def model_that_answers_otherwise_from_features(spec: DataSpec) -> nn.Module:
    """A small network."""
    return Doubling(len(spec.classes))


class Misnaming(Divided):
    def layers(self) -> Sequence[Sequence[str]]:
        return [["backbone.0", "backbone.1"], ["backbone"], ["neck"]]

    def no_weight_decay(self) -> Sequence[str]:
        return ["cls_token"]


@breaks("model", "layers")
def model_whose_layers_do_not_exist(spec: DataSpec) -> nn.Module:
    """A small network."""
    return Misnaming(len(spec.classes))


class Headless(Sound):
    def parts(self) -> Mapping[str, nn.Module]:
        return {"backbone": self.backbone}


@breaks("model", "parts")
def model_whose_head_is_in_no_part(spec: DataSpec) -> nn.Module:
    """A small network."""
    return Headless(len(spec.classes))


class Toggling(Sound):
    def begin_epoch(self, epoch: int) -> None:
        for parameter in self.backbone.parameters():
            parameter.requires_grad = not parameter.requires_grad


@breaks("model", "epochs")
def model_that_counts_calls_of_begin_epoch(spec: DataSpec) -> nn.Module:
    """A small network."""
    return Toggling(len(spec.classes))


class Learning(Sound):
    @property
    def notes(self) -> Sequence[str]:
        return "small"


@breaks("model", "notes")
def model_whose_notes_are_one_text(spec: DataSpec) -> nn.Module:
    """A small network."""
    return Learning(len(spec.classes))


def model_designed_for_no_frames(spec: DataSpec) -> nn.Module:
    """A small network."""
    return Sound(len(spec.classes))


breaks("model", "takes")(Model(model_designed_for_no_frames, takes=InputDesign(frames=0, rate=1, size=16, stored=16)))


# Augmentations -----------------------------------------------------------------------------------------------------

Augment = Callable[[Batch, Draws], Batch]


def spread(batch: Batch, values: Tensor) -> Tensor:
    return values.view(-1, *[1] * (batch.pixels.ndim - 1))


def brightened(batch: Batch, draws: Draws, p: float = 1.0) -> Batch:
    """A number of its own is added to each sample."""
    shift = torch.where(draws.chance(p), draws.integers(0, 90), 0).to(torch.uint8)
    return replace(batch, pixels=batch.pixels + spread(batch, shift))


def sound_augmentation(spec: DataSpec, *, p: float = 1.0) -> Augment:
    """A number of its own is added to each sample.

    p: probability for each sample
    """
    return lambda batch, draws: brightened(batch, draws, p)


@breaks("augmentation", "arguments")
def augmentation_with_an_argument_by_place(spec: DataSpec, share: float = 0.1) -> Augment:
    """Brighter.

    share: of what
    """
    return brightened


@breaks("augmentation", "pixels")
def augmentation_to_floats(spec: DataSpec) -> Augment:
    """Brighter."""

    def changed(batch: Batch, draws: Draws) -> Batch:
        return replace(batch, pixels=brightened(batch, draws).pixels / 255)

    return changed


@breaks("augmentation", "targets", "device")
def augmentation_of_smoothed_targets(spec: DataSpec) -> Augment:
    """Targets that do not sum to 1."""

    def changed(batch: Batch, draws: Draws) -> Batch:
        own = batch.targets if batch.targets.ndim == 2 else torch.eye(len(spec.classes))[batch.targets]
        return replace(brightened(batch, draws), targets=own + 0.1)

    return changed


@breaks("augmentation", "index")
def augmentation_that_restarts_its_count(spec: DataSpec) -> Augment:
    """Brighter."""
    return lambda batch, draws: replace(brightened(batch, draws), index=batch.index.flip(0))


@breaks("augmentation", "untouched")
def augmentation_in_place(spec: DataSpec) -> Augment:
    """Brighter."""

    def changed(batch: Batch, draws: Draws) -> Batch:
        batch.pixels.copy_(brightened(batch, draws).pixels)
        return batch

    return changed


@breaks("augmentation", "repeatable", "layout", "shares")
def augmentation_that_counts_calls(spec: DataSpec) -> Augment:
    """Brighter with every call."""
    calls = itertools.count()

    def changed(batch: Batch, draws: Draws) -> Batch:
        brighter = brightened(batch, draws)
        return replace(brighter, pixels=brighter.pixels + next(calls))

    return changed


class Mistaken:
    def __call__(self, batch: Batch, draws: Draws) -> Batch:
        drawn = ~self.mirrored(draws)
        pixels = batch.pixels
        flipped = torch.where(drawn.view(-1, *[1] * (pixels.ndim - 1)), pixels.flip(-1), pixels)
        return replace(batch, pixels=flipped)

    def mirrored(self, draws: Draws) -> Tensor:
        return draws.chance(0.5)


@breaks("augmentation", "mirrored")
def augmentation_that_mirrors_the_others(spec: DataSpec) -> Augment:
    """Mirrored."""
    return Mistaken()


@breaks("augmentation", "global_state", "repeatable", "shares", "layout", "device")
def augmentation_from_the_global_generator(spec: DataSpec) -> Augment:
    """Brighter."""

    def changed(batch: Batch, draws: Draws) -> Batch:
        shift = torch.randint(0, 90, (len(batch.pixels),), device=draws.device)
        return replace(batch, pixels=batch.pixels + spread(batch, shift.to(torch.uint8)))

    return changed


@breaks("augmentation", "draws", "device")
def augmentation_that_draws_the_same_each_epoch(spec: DataSpec) -> Augment:
    """Brighter."""
    return lambda batch, draws: brightened(batch, draws_of(batch.index.tolist()))


@breaks("augmentation", "samples", "shares")
def augmentation_with_one_draw_a_batch(spec: DataSpec) -> Augment:
    """Brighter."""

    def changed(batch: Batch, draws: Draws) -> Batch:
        return replace(batch, pixels=batch.pixels + draws.integers(0, 90)[:1].to(torch.uint8))

    return changed


@breaks("augmentation", "shares")
def augmentation_that_mixes_the_first_with_the_last(spec: DataSpec) -> Augment:
    """Brighter by half of another one."""

    def changed(batch: Batch, draws: Draws) -> Batch:
        brighter = brightened(batch, draws)
        return replace(brighter, pixels=brighter.pixels + batch.pixels.flip(0) // 2)

    return changed


@breaks("augmentation", "clips", "device")
def augmentation_with_one_draw_a_frame(spec: DataSpec) -> Augment:
    """Brighter."""

    def changed(batch: Batch, draws: Draws) -> Batch:
        shift = draws.integers(0, 90, tuple(batch.pixels.shape[1:-3])).to(torch.uint8)
        return replace(batch, pixels=batch.pixels + shift[..., None, None, None])

    return changed


@breaks("augmentation", "layout")
def augmentation_with_draws_in_the_order_of_memory(spec: DataSpec) -> Augment:
    """Noise, the same in all frames."""

    def changed(batch: Batch, draws: Draws) -> Batch:
        first = batch.pixels if batch.pixels.ndim == 4 else batch.pixels[:, 0]
        noise = draws.bytes(tuple(first.shape[1:]))
        if first.stride(-3) == 1:
            noise = noise.view(first.movedim(-3, -1).shape).movedim(-1, -3)
        return replace(batch, pixels=batch.pixels + (noise if batch.pixels.ndim == 4 else noise[:, None]))

    return changed


@breaks("augmentation", "identity")
def augmentation_that_ignores_p(spec: DataSpec, *, p: float = 0.5) -> Augment:
    """Brighter.

    p: probability
    """
    return brightened


@breaks("augmentation", "device")
def augmentation_that_asks_what_was_drawn(spec: DataSpec) -> Augment:
    """Brighter."""

    def changed(batch: Batch, draws: Draws) -> Batch:
        shift = torch.tensor([int(90 * value) for value in draws.uniform().tolist()], dtype=torch.uint8)
        return replace(batch, pixels=batch.pixels + spread(batch, shift.to(batch.pixels.device)))

    return changed


# Metrics -----------------------------------------------------------------------------------------------------------

NAN = float("nan")


class Hits:
    """Counts right answers."""

    name = "hits"

    def __init__(self) -> None:
        self.right: list[Tensor] = []

    def update(self, logits: Tensor, targets: Tensor) -> None:
        self.right.append(logits.detach().argmax(dim=1) == targets)

    def share(self) -> float:
        return float(torch.cat(self.right).float().mean()) if self.right else NAN

    def compute(self) -> Scores:
        return {self.name: self.share()}


def sound_metric(spec: DataSpec) -> Hits:
    """`hits`: share of right answers."""
    return Hits()


@breaks("metric", "arguments")
def undescribed_metric(spec: DataSpec) -> Hits:
    return Hits()


class AsTensor(Hits):
    def compute(self) -> Scores:
        return {"hits": torch.tensor(self.share())}  # type: ignore[dict-item]


@breaks("metric", "scores", "absent")
def metric_that_gives_a_tensor(spec: DataSpec) -> Hits:
    """`hits`: share of right answers."""
    return AsTensor()


class MeanOfMeans(Hits):
    def update(self, logits: Tensor, targets: Tensor) -> None:
        self.right.append((logits.detach().argmax(dim=1) == targets).float().mean()[None])


@breaks("metric", "batches")
def metric_that_weighs_batches_alike(spec: DataSpec) -> Hits:
    """`hits`: share of right answers."""
    return MeanOfMeans()


class Resetting(Hits):
    def compute(self) -> Scores:
        scores = super().compute()
        self.right = []
        return scores


@breaks("metric", "again")
def metric_that_begins_anew_when_asked(spec: DataSpec) -> Hits:
    """`hits`: share of right answers."""
    return Resetting()


class Shared(Hits):
    everyones: list[Tensor] = []  # noqa: RUF012 - the mistake that is shown

    def __init__(self) -> None:
        self.right = self.everyones


@breaks("metric", "apart", "batches", "empty", "overwritten", "inference", "device")
def metric_whose_answers_are_everyones(spec: DataSpec) -> Hits:
    """`hits`: share of right answers."""
    return Shared()


class Hopeful(Hits):
    def share(self) -> float:
        return super().share() if self.right else 0.0


@breaks("metric", "empty")
def metric_that_knows_before_it_saw(spec: DataSpec) -> Hits:
    """`hits`: share of right answers."""
    return Hopeful()


class Complete(Hits):
    def __init__(self) -> None:
        super().__init__()
        self.seen = set[int]()

    def update(self, logits: Tensor, targets: Tensor) -> None:
        super().update(logits, targets)
        self.seen |= set(targets.tolist())

    def compute(self) -> Scores:
        if len(self.seen) == 1:
            raise ZeroDivisionError("the other classes have no items")
        return super().compute()


@breaks("metric", "absent", "device")
def metric_that_needs_two_classes(spec: DataSpec) -> Hits:
    """`hits`: share of right answers."""
    return Complete()


class Keeping(Hits):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def update(self, logits: Tensor, targets: Tensor) -> None:
        self.seen.append((logits.detach(), targets))

    def share(self) -> float:
        self.right = [logits.argmax(dim=1) == targets for logits, targets in self.seen]
        return super().share()


@breaks("metric", "overwritten")
def metric_that_keeps_what_is_not_its_own(spec: DataSpec) -> Hits:
    """`hits`: share of right answers."""
    return Keeping()


class ByNumpy(Hits):
    def update(self, logits: Tensor, targets: Tensor) -> None:
        self.right.append(torch.from_numpy(logits.numpy().argmax(axis=1) == targets.numpy()))


@breaks("metric", "inference", "device")
def metric_that_forgets_to_detach(spec: DataSpec) -> Hits:
    """`hits`: share of right answers."""
    return ByNumpy()


class Doubt(Hits):
    def compute(self) -> Scores:
        return {"hits": self.share() * (1 - self.share())}


@breaks("metric", "bounds")
def metric_that_is_largest_between_right_and_wrong(spec: DataSpec) -> Hits:
    """`hits`: variance of right answers."""
    return Doubt()


class Percent(Hits):
    def compute(self) -> Scores:
        return {"accuracy": 100 * self.share()}


@breaks("metric", "reference")
def metric_in_percent(spec: DataSpec) -> Hits:
    """`accuracy`: percentage of right answers."""
    return Percent()


class Waiting(Hits):
    def update(self, logits: Tensor, targets: Tensor) -> None:
        super().update(logits.cpu(), targets.cpu())


@breaks("metric", "device")
def metric_that_waits_for_each_batch(spec: DataSpec) -> Hits:
    """`hits`: share of right answers."""
    return Waiting()


# Tasks -------------------------------------------------------------------------------------------------------------


class Soft(nn.Module):
    """Softmax and cross-entropy, as sure as a sharpness that is trained; keeps every rule."""

    targets: Any = "index"
    thresholds: Any = None

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.ones(()))
        self.teacher = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192, affine=False), nn.Linear(192, classes))
        self.teacher.requires_grad_(False).eval()

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits, targets, reduction="none")

    def loss(self, forward: Forward, pixels: Tensor, targets: Tensor) -> Tensor:
        taught = (forward(pixels) - forward(pixels.float() / 255, self.teacher)).square().mean(1)
        return (self.losses(self.logits(forward(pixels)), targets) + 1e-9 * taught).sum()

    def weight(self, targets: Tensor) -> Tensor | int:
        return len(targets)

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.losses(logits, targets).mean()

    def logits(self, outputs: Tensor) -> Tensor:
        return outputs * self.sharpness

    def settle(self, logits: Tensor, targets: Tensor) -> None:
        """There is nothing to choose."""


class SoftSets(Soft):
    """Sigmoids, each with a threshold: the mean answer to the items that show the class; keeps every rule."""

    targets: Any = "set"
    keeps = True

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.register_buffer("chosen", torch.full((classes,), 0.5), persistent=self.keeps)

    @property
    def thresholds(self) -> Tensor:  # type: ignore[override]
        chosen: Tensor = self.chosen
        return chosen

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)

    def settle(self, logits: Tensor, targets: Tensor) -> None:
        mean = (logits.sigmoid() * targets).sum(0) / targets.sum(0).clamp(min=1)
        self.thresholds.copy_(mean.clamp(0.1, 0.9))


def sound_task(spec: DataSpec) -> Soft:
    """Softmax, or sigmoids where targets are sets."""
    return SoftSets(len(spec.classes)) if spec.targets == "set" else Soft(len(spec.classes))


@breaks("task", "arguments")
def task_that_takes_the_targets_by_place(spec: DataSpec, smoothing: float = 0.0) -> Soft:
    """Softmax.

    smoothing: of targets
    """
    return Soft(len(spec.classes))


class Rigid(Soft):
    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.share = torch.ones(classes)

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits, targets, weight=self.share, reduction="none")


@breaks("task", "module", "device")
def task_whose_weights_stay_on_the_cpu(spec: DataSpec) -> Soft:
    """Softmax."""
    return Rigid(len(spec.classes))


class Plural(Soft):
    targets = "indices"


@breaks("task", "targets")
def task_of_an_unknown_form(spec: DataSpec) -> Soft:
    """Softmax."""
    return Plural(len(spec.classes))


class Naive(Soft):
    def loss(self, forward: Forward, pixels: Tensor, targets: Tensor) -> Tensor:
        shown = targets if targets.ndim == 2 else functional.one_hot(targets, 4)
        return -(shown * self.logits(forward(pixels)).softmax(1).log()).sum()


@breaks("task", "loss")
def task_with_the_logarithm_of_a_softmax(spec: DataSpec) -> Soft:
    """Softmax."""
    return Naive(len(spec.classes))


class Mean(Soft):
    def loss(self, forward: Forward, pixels: Tensor, targets: Tensor) -> Tensor:
        return super().loss(forward, pixels, targets) / len(pixels)

    def weight(self, targets: Tensor) -> int:
        return 1


@breaks("task", "parts", "mixed")
def task_whose_loss_is_a_mean(spec: DataSpec) -> Soft:
    """Softmax."""
    return Mean(len(spec.classes))


class Constant(Soft):
    def weight(self, targets: Tensor) -> int:
        return 12


@breaks("task", "weight")
def task_for_batches_of_one_size(spec: DataSpec) -> Soft:
    """Softmax."""
    return Constant(len(spec.classes))


class Gathered(Soft):
    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return -logits.log_softmax(1).gather(1, targets[:, None])[:, 0]


@breaks("task", "mixed")
def task_that_takes_class_indices_alone(spec: DataSpec) -> Soft:
    """Softmax."""
    return Gathered(len(spec.classes))


class Rising(Soft):
    def loss(self, forward: Forward, pixels: Tensor, targets: Tensor) -> Tensor:
        return -super().loss(forward, pixels, targets)


@breaks("task", "learns")
def task_whose_loss_has_the_wrong_sign(spec: DataSpec) -> Soft:
    """Softmax."""
    return Rising(len(spec.classes))


class Total(Soft):
    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.losses(logits, targets).sum()


@breaks("task", "score")
def task_whose_score_is_a_sum(spec: DataSpec) -> Soft:
    """Softmax."""
    return Total(len(spec.classes))


class Contrary(Soft):
    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.losses(-logits, targets).mean()


@breaks("task", "right", "learns")
def task_that_scores_the_contrary(spec: DataSpec) -> Soft:
    """Softmax."""
    return Contrary(len(spec.classes))


class Logarithms(Soft):
    def logits(self, outputs: Tensor) -> Tensor:
        return super().logits(outputs).softmax(-1).log()


@breaks("task", "logits", "loss")
def task_with_logarithms_of_what_vanishes(spec: DataSpec) -> Soft:
    """Softmax."""
    return Logarithms(len(spec.classes))


class Relative(Soft):
    def logits(self, outputs: Tensor) -> Tensor:
        return super().logits(outputs - outputs.mean(0))


@breaks("task", "rows", "parts", "mixed")
def task_whose_logits_look_at_the_batch(spec: DataSpec) -> Soft:
    """Softmax."""
    return Relative(len(spec.classes))


class Halfway(Soft):
    @property
    def thresholds(self) -> Tensor:  # type: ignore[override]
        return torch.full((4,), 0.5)


@breaks("task", "thresholds", "settle")
def task_of_one_class_with_thresholds(spec: DataSpec) -> Soft:
    """Softmax."""
    return Halfway(len(spec.classes))


class Unguarded(SoftSets):
    def settle(self, logits: Tensor, targets: Tensor) -> None:
        self.thresholds.copy_((logits.sigmoid() * targets).sum(0) / targets.sum(0))


SETS = DataSpec(("first", "second", "third", "fourth"), size=8, targets="set")


@breaks("task", "settle", spec=SETS)
def task_that_needs_every_class_in_the_validation_split(spec: DataSpec) -> Soft:
    """Sigmoids."""
    return Unguarded(len(spec.classes))


class Unsaved(SoftSets):
    keeps = False


@breaks("task", "state", spec=SETS)
def task_that_does_not_save_its_thresholds(spec: DataSpec) -> Soft:
    """Sigmoids."""
    return Unsaved(len(spec.classes))


class Spare(Soft):
    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.spare = nn.Linear(classes, classes)


@breaks("task", "owned")
def task_with_a_layer_it_does_not_use(spec: DataSpec) -> Soft:
    """Softmax."""
    return Spare(len(spec.classes))


class Clamping(Soft):
    def loss(self, forward: Forward, pixels: Tensor, targets: Tensor) -> Tensor:
        return super().loss(forward, pixels.clamp_(1, 254), targets)


@breaks("task", "untouched")
def task_that_clamps_its_batch(spec: DataSpec) -> Soft:
    """Softmax."""
    return Clamping(len(spec.classes))


class Seeding(Soft):
    def loss(self, forward: Forward, pixels: Tensor, targets: Tensor) -> Tensor:
        torch.manual_seed(0)
        return super().loss(forward, pixels, targets)


@breaks("task", "draws")
def task_that_seeds_torch(spec: DataSpec) -> Soft:
    """Softmax."""
    return Seeding(len(spec.classes))


class Deciding(Soft):
    def logits(self, outputs: Tensor) -> Tensor:
        return super().logits(outputs if outputs.max() > -9 else outputs + 1)


@breaks("task", "onnx", "device")
def task_whose_logits_branch_on_numbers(spec: DataSpec) -> Soft:
    """Softmax."""
    return Deciding(len(spec.classes))


class Counted(Soft):
    def weight(self, targets: Tensor) -> int:
        return sum(1 for _ in targets.flatten(1).tolist())


@breaks("task", "device")
def task_that_waits_for_each_batch(spec: DataSpec) -> Soft:
    """Softmax."""
    return Counted(len(spec.classes))


class Pretrained(Soft):
    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.classes = classes

    def projected(self, features: Tensor) -> Tensor:
        return features.double()


@breaks("task", "projected")
def task_that_projects_in_double_precision(spec: DataSpec) -> Soft:
    """Softmax."""
    return Pretrained(len(spec.classes))


def task_that_learns_from_labels(spec: DataSpec) -> Soft:
    """Softmax."""
    return Soft(len(spec.classes))


breaks("task", "labels")(Task(task_that_learns_from_labels, labels=False))


class OneOfTwo(Soft):
    views = 2

    def loss(self, forward: Forward, pixels: Tensor, targets: Tensor) -> Tensor:
        return super().loss(forward, pixels[:, 0], targets)


@breaks("task", "views")
def task_that_sees_one_view(spec: DataSpec) -> Soft:
    """Softmax."""
    return OneOfTwo(len(spec.classes))


# Trackers ----------------------------------------------------------------------------------------------------------


class Log:
    """Writes a line an epoch."""

    def __init__(self, run: Path) -> None:
        self.path = run / "log.txt"

    def track(self, record: Record) -> None:
        if isinstance(record, EpochRecord):
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"epoch {record.epoch}: {record.train_loss:.4f}\n")

    def close(self) -> None:
        """Nothing is open."""


def sound_tracker(run: Path) -> Log:
    """One line an epoch."""
    return Log(run)


@breaks("tracker", "arguments")
def tracker_without_a_word_on_its_argument(run: Path, *, name: str = "log.txt") -> Log:
    """One line an epoch."""
    return Log(run)


class Impatient(Log):
    def track(self, record: Record) -> None:
        if isinstance(record, RunFinished):
            raise NotImplementedError("the end of a run")
        super().track(record)


@breaks("tracker", "records", "unusual", "inside", "resumed", "unchanged")
def tracker_that_knows_no_end(run: Path) -> Log:
    """One line an epoch."""
    return Impatient(run)


class Validated(Log):
    def track(self, record: Record) -> None:
        if isinstance(record, EpochRecord) and record.valid["loss"] < record.train_loss:
            super().track(record)


@breaks("tracker", "unusual")
def tracker_that_needs_a_validation_split(run: Path) -> Log:
    """One line an epoch."""
    return Validated(run)


class Once(Log):
    def __init__(self, run: Path) -> None:
        super().__init__(run)
        self.file: Any = self.path.open("a", encoding="utf-8")

    def close(self) -> None:
        self.file.close()
        self.file = None


@breaks("tracker", "close")
def tracker_that_closes_once(run: Path) -> Log:
    """One line an epoch."""
    return Once(run)


@breaks("tracker", "inside")
def tracker_that_writes_where_it_was_started(run: Path) -> Log:
    """One line an epoch."""
    return Log(Path())


class Again(Log):
    def __init__(self, run: Path) -> None:
        super().__init__(run)
        self.path.write_text("", encoding="utf-8")


@breaks("tracker", "resumed")
def tracker_that_begins_again(run: Path) -> Log:
    """One line an epoch."""
    return Again(run)


class Tidying(Log):
    def track(self, record: Record) -> None:
        if isinstance(record, RunStarted):
            record.facts.pop("sample", None)  # type: ignore[attr-defined]
        super().track(record)


@breaks("tracker", "unchanged")
def tracker_that_takes_from_records(run: Path) -> Log:
    """One line an epoch."""
    return Tidying(run)


class Shown(Log):
    viewer = "tensorboard\n"


@breaks("tracker", "viewer")
def tracker_whose_command_is_two_lines(run: Path) -> Log:
    """One line an epoch."""
    return Shown(run)


# Optimizers --------------------------------------------------------------------------------------------------------

Groups = list[dict[str, Any]]


class Descent(torch.optim.Optimizer):
    """Gradient descent with momentum and weight decay, which keeps every rule."""

    def __init__(self, params: Groups, lr: float, weight_decay: float = 0.0, **more: Any) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **more})

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self.move(weight, weight.grad.add(weight.detach(), alpha=group["weight_decay"]), group)

    def move(self, weight: Tensor, gradient: Tensor, group: Mapping[str, Any]) -> None:
        momentum = self.memory(weight).setdefault("momentum", torch.zeros_like(weight))
        momentum.mul_(0.5).add_(gradient)
        weight.data.sub_(momentum, alpha=self.rate(group))

    def memory(self, weight: Tensor) -> dict[str, Any]:
        memory: dict[str, Any] = self.state[weight]
        return memory

    def rate(self, group: Mapping[str, Any]) -> float:
        return float(group["lr"])


def sound_optimizer(params: Groups, *, lr: float, weight_decay: float = 0.0) -> Descent:
    """Gradient descent.

    weight_decay: share of a weight that is added to its gradient
    """
    return Descent(params, lr, weight_decay)


@breaks("optimizer", "arguments")
def optimizer_with_an_argument_nobody_explains(params: Groups, *, lr: float, weight_decay: float = 0.0) -> Descent:
    """Gradient descent."""
    return Descent(params, lr, weight_decay)


@breaks("optimizer", "groups")
def optimizer_that_makes_groups_of_its_own(params: Groups, *, lr: float) -> Descent:
    """Gradient descent."""
    return Descent([{"params": group["params"], "lr": group["lr"]} for group in params], lr)


class Ascent(Descent):
    def rate(self, group: Mapping[str, Any]) -> float:
        return -super().rate(group)


@breaks("optimizer", "steps")
def optimizer_that_goes_up(params: Groups, *, lr: float) -> Descent:
    """Gradient ascent."""
    return Ascent(params, lr)


class Unscheduled(Descent):
    def rate(self, group: Mapping[str, Any]) -> float:
        return float(self.defaults["lr"])


@breaks("optimizer", "rates")
def optimizer_that_remembers_its_first_rate(params: Groups, *, lr: float) -> Descent:
    """Gradient descent."""
    return Unscheduled(params, lr)


class Shrinking(Descent):
    def move(self, weight: Tensor, gradient: Tensor, group: Mapping[str, Any]) -> None:
        decay = self.defaults["weight_decay"] - group["weight_decay"]
        super().move(weight, gradient.add(weight.detach(), alpha=decay), group)


@breaks("optimizer", "decay")
def optimizer_that_decays_every_group(params: Groups, *, lr: float, weight_decay: float = 0.0) -> Descent:
    """Gradient descent.

    weight_decay: share of a weight that is added to its gradient
    """
    return Shrinking(params, lr, weight_decay)


class Coasting(Descent):
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                self.move(weight, torch.zeros_like(weight) if weight.grad is None else weight.grad, group)


@breaks("optimizer", "absent")
def optimizer_that_coasts_without_a_gradient(params: Groups, *, lr: float) -> Descent:
    """Gradient descent."""
    return Coasting(params, lr)


class Unit(Descent):
    def move(self, weight: Tensor, gradient: Tensor, group: Mapping[str, Any]) -> None:
        super().move(weight, gradient / gradient.norm(), group)


@breaks("optimizer", "zeros")
def optimizer_that_divides_by_the_norm(params: Groups, *, lr: float) -> Descent:
    """Steps of one length."""
    return Unit(params, lr)


class Private(Descent):
    def __init__(self, params: Groups, lr: float) -> None:
        super().__init__(params, lr)
        self.own: dict[int, dict[str, Any]] = {}

    def memory(self, weight: Tensor) -> dict[str, Any]:
        return self.own.setdefault(id(weight), {})


@breaks("optimizer", "state")
def optimizer_that_does_not_save_its_momentum(params: Groups, *, lr: float) -> Descent:
    """Gradient descent."""
    return Private(params, lr)


class Tired(Descent):
    taken = 0

    def rate(self, group: Mapping[str, Any]) -> float:
        Tired.taken += 1
        return super().rate(group) / Tired.taken


@breaks("optimizer", "apart", "state")
def optimizer_that_counts_the_steps_of_all(params: Groups, *, lr: float) -> Descent:
    """Gradient descent with a rate that falls."""
    return Tired(params, lr)


@breaks("optimizer", "flag")
def optimizer_that_says_fused_and_is_not(params: Groups, *, lr: float) -> Descent:
    """Gradient descent."""
    return Descent(params, lr, fused=True)


# Schedules ---------------------------------------------------------------------------------------------------------


class Halving:
    """Halves the factor with each epoch that is not better than the one before it; keeps every rule."""

    def __init__(self, horizon: Horizon, direction: Direction) -> None:
        self.horizon, self.sign = horizon, 1.0 if direction == "maximize" else -1.0
        self.last, self.halvings = -float("inf"), 0.0

    def factor(self, step: int) -> float:
        return 0.5**self.halvings * (1 - 0.5 * step / self.horizon.steps)

    def observe(self, score: float) -> None:
        if not self.sign * score > self.last:
            self.halvings += 1
        self.last = self.sign * score

    def state_dict(self) -> dict[str, float]:
        return {"last": self.last, "halvings": self.halvings}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.last, self.halvings = state["last"], state["halvings"]


def sound_schedule(horizon: Horizon, direction: Direction) -> Halving:
    """Half the rate after an epoch that does not improve."""
    return Halving(horizon, direction)


@breaks("schedule", "arguments")
def schedule_with_an_argument_nobody_explains(horizon: Horizon, direction: Direction, *, by: float = 1.0) -> Curve:
    """A line."""
    return Curve(lambda step: 1 - by * step / horizon.steps)


@breaks("schedule", "factors", "scores")
def schedule_below_zero(horizon: Horizon, direction: Direction) -> Curve:
    """A wave."""
    return Curve(lambda step: 1 - 1.5 * (step // horizon.steps_per_epoch % 12) / 10)


@breaks("schedule", "horizon")
def schedule_in_four_parts(horizon: Horizon, direction: Direction) -> Curve:
    """Four steps down."""
    return Curve(lambda step: 1 / (1 + step // (horizon.steps // 4)))


class Counting(Halving):
    asked = 0

    def factor(self, step: int) -> float:
        self.asked += 1
        return 1 / self.asked


@breaks("schedule", "again", "order", "state")
def schedule_that_counts_how_often_it_is_asked(horizon: Horizon, direction: Direction) -> Counting:
    """Lower each time."""
    return Counting(horizon, direction)


class Highest(Halving):
    reached = 0

    def factor(self, step: int) -> float:
        self.reached = max(step, self.reached)
        return 1 / (1 + self.reached)


@breaks("schedule", "order")
def schedule_that_never_goes_back(horizon: Horizon, direction: Direction) -> Highest:
    """Lower with each new step."""
    return Highest(horizon, direction)


class Following(Halving):
    def factor(self, step: int) -> float:
        return min(abs(self.last), 1.0)


@breaks("schedule", "scores")
def schedule_that_takes_the_score_for_its_factor(horizon: Horizon, direction: Direction) -> Following:
    """The last score."""
    return Following(horizon, direction)


class Oblivious(Halving):
    def state_dict(self) -> dict[str, float]:
        return {**super().state_dict(), "last": -float("inf")}


@breaks("schedule", "state")
def schedule_that_does_not_save_the_last_score(horizon: Horizon, direction: Direction) -> Oblivious:
    """Half the rate after an epoch that does not improve."""
    return Oblivious(horizon, direction)


class Common(Halving):
    everyones: dict[str, float] = {}  # noqa: RUF012 - the mistake that is shown

    def factor(self, step: int) -> float:
        return 0.99 ** self.everyones.get("scores", 0.0)

    def observe(self, score: float) -> None:
        self.everyones["scores"] = self.everyones.get("scores", 0.0) + 1


@breaks("schedule", "apart", "state")
def schedule_whose_scores_are_everyones(horizon: Horizon, direction: Direction) -> Common:
    """Lower with each score."""
    return Common(horizon, direction)


SOUND = [
    Case("dataset", sound_dataset),
    Case("model", sound_model, spec=SPEC),
    Case("augmentation", sound_augmentation),
    Case("metric", sound_metric),
    Case("task", sound_task),
    Case("task", sound_task, spec=SETS),
    Case("tracker", sound_tracker),
    Case("optimizer", sound_optimizer),
    Case("schedule", sound_schedule),
]
