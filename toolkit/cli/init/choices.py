"""What suits the files that were found: each choice is a key, its value and the reason. The only module of the core
that names included components: it writes a recipe, as a person would."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolkit.api.contracts import Data
from toolkit.api.errors import first_few
from toolkit.cli.init.layout import Layout
from toolkit.cli.init.media import Media
from toolkit.data.folders import Listing
from toolkit.data.splits import NO_CLASS, count_classes

SMALL = 48
"""Pixels up to which images are small: networks for photos would shrink them to nothing."""
SMALLEST = 96
"""Pixels below which networks for photos see too little, so that smaller images are enlarged."""
UNBALANCED = 3.0
"""From how many times as many items of one class as of another the loss is weighted."""
_SIDED = re.compile(r"(?i)(?<![a-z])(left|right|angle|heading|steering|yaw)(?![a-z])")


@dataclass(frozen=True)
class Choice:
    """A key of a table, its value, and why."""

    key: str
    value: Any
    why: str = ""


@dataclass(frozen=True)
class Table:
    """A table of a recipe."""

    header: str
    choices: tuple[Choice, ...]
    why: str = ""


@dataclass(frozen=True)
class Survey:
    """All that is known of the files."""

    layout: Layout
    data: Data
    media: Media
    gpu: bool
    division: tuple[Choice, ...] = ()
    """Keys of the dataset that say how it is split."""
    warnings: tuple[str, ...] = field(default=())

    @property
    def videos(self) -> bool:
        return self.layout.found.videos

    @property
    def counts(self) -> Mapping[str, int]:
        """Items of each class, in order of class."""
        listing = self.layout.found.listing
        counted = counts_of(listing)
        return {name: counted[number] for number, name in enumerate(listing.classes)}

    @property
    def several(self) -> bool:
        return self.data.spec.targets == "set"

    @property
    def numbers(self) -> bool:
        return self.data.spec.targets == "number"

    @property
    def imbalance(self) -> float:
        """How many times as many items the most frequent class has as the rarest that has any."""
        shown = [count for count in self.counts.values() if count] or [1]
        return max(shown) / min(shown)


def counts_of(listing: Listing) -> Counter[int]:
    """Items by the number of their class, empty where targets are numbers; those without one are not counted."""
    if listing.form == "number":
        return Counter()
    return counted_targets(listing.targets)


def counted_targets(targets: Sequence[Any]) -> Counter[int]:
    """As `counts_of`, for targets that are classes or sets of them."""
    counts = count_classes(targets)
    del counts[NO_CLASS]
    return counts


def choose(survey: Survey) -> list[Table]:
    """The tables of a recipe for these files."""
    model, size = _model(survey), _size(survey)
    return [
        _dataset(survey),
        Table("[input]", (*size, *_corrupt(survey))),
        model,
        *([_clip(survey)] if survey.videos and not _designed(survey) else []),
        *_augmentations(survey),
        _task(survey),
        *_training(survey),
    ]


def described(tables: Sequence[Table]) -> str:
    """The choices in one line."""
    values = {f"{table.header}{choice.key}": choice.value for table in tables for choice in table.choices}
    size = f" at {values['[input]size']} px" if "[input]size" in values else ""
    start = values.get("[model]weights")
    return (
        f"{values['[model]name']}{size}, {f'{start} weights' if start else 'random weights'}, "
        f"{values['[train]epochs']} epochs of batches of {values['[train]batch']}"
    )


def _dataset(survey: Survey) -> Table:
    layout = survey.layout
    name = "video_folder" if survey.videos else "image_folder"
    keys = [Choice(key, value, _WHY_LISTS.get(key, "")) for key, value in layout.keys.items()]
    root = Choice("root", str(layout.root), "another place of the same files: --set data.root=FOLDER")
    return Table("[data]", (Choice("name", name, f"found {layout.what}"), root, *keys, *survey.division))


_WHY_LISTS = {
    "train": "the list of the items to train on",
    "numbers": "what is learned: columns of the list",
    "labels": "some items have several labels",
    "separator": "separates the labels of an item",
}


def _size(survey: Survey) -> Iterator[Choice]:
    if _designed(survey):
        return
    short = survey.media.short
    if short <= SMALL:
        yield Choice("size", max(16, short), f"the files are small: {short} px")
        return
    usual = 224 if survey.gpu else 112 if survey.videos else 160
    reason = "what the weights were trained on" if survey.gpu else "no GPU: 224 takes twice as long or more"
    size = min(usual, max(SMALLEST, -(-short // 32) * 32))
    yield Choice("size", size, reason if size == usual else f"the files are small: {short} px")
    if (stored := size * 8 // 7) <= short:
        yield Choice("stored", stored, "what crops are taken from")


def _corrupt(survey: Survey) -> Iterator[Choice]:
    if not survey.media.damaged:
        return
    damaged = [name for name, _ in survey.media.damaged]
    splits = [set(split.ids) for split in (survey.data.train, survey.data.valid, survey.data.test) if len(split)]
    worst = max(len(split.intersection(damaged)) / len(split) for split in splits)
    share = max(worst, 2 * len(damaged) / survey.media.looked)
    yield Choice("on_corrupt", "skip", f"damaged: {first_few(damaged, 2)}")
    yield Choice("corrupt_limit", min(1.0, round(share + 0.05, 2)), "largest share of a split that is skipped")


def _small(survey: Survey) -> bool:
    return survey.media.short <= SMALL


def _designed(survey: Survey) -> bool:
    """Whether the model says itself which clips it takes."""
    return survey.videos and survey.gpu and not _small(survey)


def _model(survey: Survey) -> Table:
    offline = 'offline: "none" (needs many more items), or the path of a weights file'
    if _designed(survey):
        return Table(
            "[model]",
            (
                Choice("name", "x3d_s", "a small network of clips: it sees motion"),
                Choice("weights", "kinetics400", f"trained on actions; {offline}"),
            ),
        )
    if _small(survey) and not survey.gpu and not survey.videos:
        return Table("[model]", (Choice("name", "cnn", "small images, and no GPU: a small network from scratch"),))
    if _small(survey):
        return Table(
            "[model]",
            (
                Choice("name", "resnet18", "small images: a small network from scratch"),
                Choice("stem", "cifar", "keeps the resolution of small images"),
            ),
        )
    name, why = (
        ("resnet50", "a strong usual start")
        if survey.gpu
        else ("resnet18", "no GPU: resnet50 takes twice as long or more")
    )
    stem = [] if survey.gpu else [Choice("stem", "imagenet", "the one that the weights were trained with")]
    weights = Choice("weights", "imagenet", f"few items suffice with them; {offline}")
    return Table("[model]", (Choice("name", name, why), *stem, weights))


def _clip(survey: Survey) -> Table:
    seconds = f"of {survey.media.seconds:.1f} s"
    return Table(
        "[clip]",
        (
            Choice("sampling", "segments", f"frames from the whole video, usually {seconds}"),
            Choice("frames", 8, "more frames see more, and cost more"),
        ),
    )


def _augmentations(survey: Survey) -> Iterator[Table]:
    if _small(survey):
        padding = max(1, survey.media.short // 8)
        yield Table("[[augment]]", (Choice("name", "random_crop"), Choice("padding", padding, "an eighth of the side")))
    else:
        seen = "things are seen larger and in parts"
        why = f"from 60 % of the area: {'remove it if that changes the numbers' if survey.numbers else seen}"
        yield Table("[[augment]]", (Choice("name", "random_resized_crop"), Choice("scale", [0.6, 1.0], why)))
    names = survey.layout.found.listing.classes
    if not _has_sides(names):
        other = "have other numbers" if survey.numbers else "belong to another class, as with text"
        why = f"remove it if a mirrored picture can {other}"
        yield Table("[[augment]]", (Choice("name", "horizontal_flip", why),))


def _has_sides(classes: Sequence[str]) -> bool:
    """Whether targets change when a picture is mirrored: left and right, angles, digits and letters, x and y."""
    return any(_SIDED.search(name) for name in classes) or all(len(name) == 1 for name in classes)


def _task(survey: Survey) -> Table:
    if survey.numbers:
        return Table("[task]", (Choice("name", "regression", "each item has numbers: the network learns them"),))
    unbalanced = survey.imbalance >= UNBALANCED
    why = f"the largest class has {survey.imbalance:.0f} times the items of the smallest"
    if survey.several:
        weights = [Choice("positive_weights", "balanced", why)] if unbalanced else []
        return Table("[task]", (Choice("name", "multi_label", "an item has any number of labels"), *weights))
    weights = [Choice("class_weights", "balanced", why)] if unbalanced else []
    return Table("[task]", (Choice("label_smoothing", 0.1, "some labels are wrong in most sets"), *weights))


def _training(survey: Survey) -> Iterator[Table]:
    items = len(survey.data.train)
    batch = _batch(survey, items)
    scratch = _small(survey)
    epochs = _epochs(items) * (2 if scratch else 1)
    metric: list[Choice] = []
    if not survey.several and survey.imbalance >= UNBALANCED:
        metric = [Choice("metric", "recall_macro", "the mean over classes: accuracy would favour the largest")]
    steps = max(1, items // batch)
    yield Table(
        "[train]",
        (
            Choice("epochs", epochs, f"{items:,} items to train on: {epochs * steps:,} steps"),
            Choice("batch", batch, "halve it if memory runs out"),
            *metric,
        ),
    )
    backbone = [] if scratch else [Choice("parts.backbone.lr_scale", 0.1, "pretrained layers need small steps")]
    yield Table(
        "[train.optimizer]",
        (Choice("name", "adamw"), Choice("lr", 0.002 if scratch else 0.001), Choice("weight_decay", 0.05), *backbone),
    )
    yield Table("[train.schedule]", (Choice("name", "one_cycle", "rises, then falls to zero at the last epoch"),))


def _epochs(items: int) -> int:
    return next((epochs for most, epochs in ((500, 20), (5_000, 12), (50_000, 8)) if items < most), 5)


def _batch(survey: Survey, items: int) -> int:
    """The largest that leaves enough steps an epoch."""
    most = (16 if survey.gpu else 8) if survey.videos else 256 if _small(survey) else 64 if survey.gpu else 32
    fitting = (batch for batch in (256, 128, 64, 32, 16, 8) if batch <= most)
    return next((batch for batch in fitting if items // batch >= (30 if batch > 64 else 8)), 4)
