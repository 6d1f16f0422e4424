"""The rules of datasets."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from toolkit.api.contracts import Blocked, Data, DataSpec, Split, VideoSplit
from toolkit.api.errors import DataError
from toolkit.data.splits import NO_CLASS, SPLITS, classes_of
from toolkit.data.targets import FORMS
from toolkit.kit.testing.case import Subject, once
from toolkit.kit.testing.rulebook import DoesNotApply, Rulebook
from toolkit.kit.testing.side_effects import GlobalStates

RULES = Rulebook("dataset")

AnySplit: TypeAlias = Split | VideoSplit

READ = 8
"""Items of each split that are read, evenly spaced."""
FRAMES = 32
"""Frames of each video that are read, and the last one."""
COMPARED = 256
"""Items of each split whose pixels are compared with those of the others."""
THREADS = 8
DEVIATIONS = 4
"""How far a class's share may be from that in train, in standard deviations of a random draw of items."""


@RULES.rule
def spec(subject: Subject) -> Iterator[str]:
    """The spec has distinct class names, sides in pixels and statistics of pixels scaled to 0..1; protocol and notes
    are plain values; only a built-in sample is called one."""
    for mode, data in data_of(subject).items():
        found = data.spec
        if not found.classes or not all(isinstance(name, str) and name for name in found.classes):
            yield f"{mode}: classes are {found.classes!r}"
        if len(set(found.classes)) < len(found.classes):
            yield f"{mode}: a class name occurs twice"
        if found.size < 1 or found.stored_size < found.size:
            yield f"{mode}: size is {found.size}, stored {found.stored}"
        if not all(0 <= value <= 1 for value in found.mean) or not all(0 < value <= 1 for value in found.std):
            yield f"{mode}: mean is {found.mean}, std {found.std}"
        if found.frames_per_video is not None and found.frames_per_video < 1:
            yield f"{mode}: frames_per_video is {found.frames_per_video}"
        if found.sample and subject.root is not None:
            yield f"{mode}: data from a root is marked as the sample"
        yield from (f"{mode}: {text}" for text in _not_plain(data))


def _not_plain(data: Data) -> Iterator[str]:
    protocol: Mapping[Any, Any] = data.protocol
    for key, value in protocol.items():
        if not isinstance(key, str) or not isinstance(value, (str, int, float)):
            yield f"protocol has {key!r}: {value!r}"
    notes: object = data.notes
    if not isinstance(notes, (tuple, list)) or not all(isinstance(note, str) for note in notes):
        yield f"notes are {notes!r}"


@RULES.rule
def items(subject: Subject) -> Iterator[str]:
    """Each split has as many ids (unique), targets (in range) and keys as it has items, and train has some."""
    for mode, data in data_of(subject).items():
        if not len(data.train):
            yield f"{mode}: train is empty"
        for name, split in splits(data):
            yield from (f"{mode}, {name}: {text}" for text in _wrong_items(split, data.spec))


@RULES.rule
def repeatable(subject: Subject) -> Iterator[str]:
    """Built twice with the same arguments, the data are the same: classes, splits, keys, protocol."""
    for mode, data in data_of(subject).items():
        other = built(subject, mode)
        if (data.spec, dict(data.protocol)) != (other.spec, dict(other.protocol)):
            yield f"{mode}: spec or protocol differ"
        for (name, split), (_, again) in zip(splits(data), splits(other), strict=True):
            for what in ("ids", "targets", "keys"):
                if list(getattr(split, what)) != list(getattr(again, what)):
                    yield f"{mode}: {what} of {name} differ"


@RULES.rule
def pixels(subject: Subject) -> Iterator[str]:
    """`read` gives an image as uint8 [3, H, W] on the CPU, the same each time."""
    for name, split in splits(data_of(subject)[IMAGES]):
        if isinstance(split, VideoSplit):
            yield f"{name}: without clips = True it must have images, but has videos"
            continue
        for place in some(split):
            image = split.read(place)
            if wrong := _wrong_image(image):
                yield f"{name}, {split.ids[place]}: {wrong}"
            elif not torch.equal(split.read(place), image):
                yield f"{name}, {split.ids[place]}: read twice, it differs"


@RULES.rule
def frames(subject: Subject) -> Iterator[str]:
    """The times of a video ascend, and `read` gives the frames of these numbers as uint8 [3, H, W], all of one size and
    the same whichever are asked for."""
    if CLIPS not in data_of(subject):
        raise DoesNotApply("it has no videos")
    for name, split in splits(data_of(subject)[CLIPS]):
        if not isinstance(split, VideoSplit):
            yield f"{name}: with clips = True it must have videos, but has images"
            continue
        for place in some(split):
            yield from (f"{name}, {split.ids[place]}: {text}" for text in _wrong_video(split, place))


@RULES.rule
def disjoint(subject: Subject) -> Iterator[str]:
    """No item, file, pixels or group of items stands in two splits."""
    for mode, data in data_of(subject).items():
        alike = _pixels(data)
        known = {name: _identities(split) | {"pixels": alike[name]} for name, split in splits(data)}
        for one, other in itertools.combinations(SPLITS, 2):
            for what, values in known[one].items():
                if shared := values.keys() & known[other].get(what, {}).keys():
                    yield f"{mode}: {one} and {other} share {what}: {values[min(shared)]} ({len(shared)} in all)"


@RULES.rule
def balance(subject: Subject) -> Iterator[str]:
    """Every class, or range of numbers, is in train, and its share of another split is near that of train, as a random
    draw would be."""
    for mode, data in data_of(subject).items():
        counts, names = _counts(data)
        if unseen := set().union(*counts.values()) - counts.get("train", Counter()).keys():
            yield f"{mode}: {_class_names(names, unseen)} not in train"
        for name in counts.keys() - {"train"}:
            if far := {target for target in counts["train"] if _is_far(counts["train"], counts[name], target)}:
                yield f"{mode}: shares of {_class_names(names, far)} differ between train and {name}"


def _counts(data: Data) -> tuple[dict[str, Counter[int]], Sequence[str]]:
    """Items of each class, or range of numbers, by split, and the names of these."""
    held = [(name, split) for name, split in splits(data) if len(split)]
    strata = FORMS[data.spec.targets].strata([one for _, split in held for one in split.targets], data.spec.classes)
    counts, start = {}, 0
    for name, split in held:
        targets = strata.targets[start : start + len(split)]
        counts[name] = Counter(number for target in targets for number in classes_of(target) if number != NO_CLASS)
        start += len(split)
    return counts, strata.names


@RULES.rule
def blocks(subject: Subject) -> Iterator[str]:
    """Blocks, if a split has them, hold all of its items, and an item reads the same whichever blocks are expected."""
    blocked = [
        mode for mode, data in data_of(subject).items() if any(isinstance(one, Blocked) for _, one in splits(data))
    ]
    if not blocked:
        raise DoesNotApply("its items do not lie in blocks")
    for mode in blocked:
        for name, split in splits(built(subject, mode)):  # a split remembers what is expected
            if isinstance(split, Blocked):
                yield from (f"{mode}, {name}: {text}" for text in _wrong_blocks(split))


@RULES.rule
def threads(subject: Subject) -> Iterator[str]:
    """Many threads read what one thread reads."""
    for mode, data in data_of(subject).items():
        for name, split in splits(data):
            places = some(split)
            expected = [digest(split, place) for place in places]
            before = sys.getswitchinterval()
            sys.setswitchinterval(1e-6)  # Python changes between threads as often as it can
            try:
                with ThreadPoolExecutor(THREADS) as pool:
                    found = list(pool.map(lambda place, split=split: digest(split, place), places * THREADS))
            finally:
                sys.setswitchinterval(before)
            if found != expected * THREADS:
                yield f"{mode}: reads of {name} differ in {THREADS} threads"


@RULES.slow_rule
def processes(subject: Subject) -> Iterator[str]:
    """A process that was started afresh reads what this one reads."""
    try:
        pickle.loads(pickle.dumps(subject.factory))  # noqa: S301 - what was pickled here
    except Exception as error:
        raise DoesNotApply("the factory cannot be imported by name in another process") from error
    place, modes = subject.scratch("elsewhere"), list(data_of(subject))
    request, answer = place / "request", place / "answer"
    args = [subject.args | ({"clips": True} if mode == CLIPS else {}) for mode in modes]
    request.write_bytes(pickle.dumps((subject.factory, subject.root, args)))
    done = subprocess.run(  # noqa: S603 - this interpreter, and files of this examination
        [sys.executable, "-m", "toolkit.kit.testing.datasets", str(request), str(answer)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"another process failed: {done.stderr.strip().rpartition(chr(10))[2]}")
    for mode, found in zip(modes, json.loads(answer.read_text(encoding="utf-8")), strict=True):
        if digests(data_of(subject)[mode]) != found:
            yield f"{mode}: reads differ in another process"


@RULES.rule
def global_state(subject: Subject) -> Iterator[str]:
    """Building and reading draw from no global generator: splits come from a seed of their own."""
    modes = list(data_of(subject))
    before = GlobalStates.now()
    for mode in modes:
        digests(built(subject, mode))
    yield from (f"{whose} global generator was used" for whose in before.used())


@RULES.rule
def missing(subject: Subject) -> Iterator[str]:
    """A root that does not exist or is empty raises `DataError` that names it and says what to type next."""
    for what, root in (
        ("that does not exist", subject.folder / "missing"),
        ("that is empty", subject.scratch("empty")),
    ):
        try:
            subject.build(root)
        except DataError as error:
            if root.name not in error.message:
                yield f'a root {what}: the message "{error.message}" does not name it'
            elif not error.next_step:
                yield f"a root {what}: the error has no next_step"
        except Exception as error:
            yield f"a root {what}: expected DataError, got {type(error).__name__}: {error}"
        else:
            yield f"a root {what}: expected DataError, got data"


@RULES.rule
def sample(subject: Subject) -> Iterator[str]:
    """Without a root there is a built-in sample, or `DataError` says what to type next."""
    try:
        data = subject.build(None)
    except DataError as error:
        if not error.next_step:
            yield "the error has no next_step"
        return
    if not isinstance(data, Data):
        yield f"expected Data, got {type(data).__name__}"


IMAGES, CLIPS = "images", "clips"


def built(subject: Subject, mode: str) -> Data:
    """The data, fresh."""
    try:
        data = subject.build(subject.root, **({"clips": True} if mode == CLIPS else {}))
    except DataError as error:
        if subject.root is None:
            raise DoesNotApply(f"it has no built-in sample ({error.message}): give the Case a root") from error
        raise
    if not isinstance(data, Data):
        raise TypeError(f"the factory made {type(data).__name__}, not toolkit.api.contracts.Data")
    return data


@once
def data_of(subject: Subject) -> Mapping[str, Data]:
    """The data as images and, where it has videos, as clips: what rules only read. One dataset may have videos or
    images: only with a root of videos it has clips."""
    found = {IMAGES: built(subject, IMAGES)}
    if subject.takes("clips"):
        with suppress(DataError):
            found[CLIPS] = built(subject, CLIPS)
    return found


def splits(data: Data) -> list[tuple[str, AnySplit]]:
    """The splits by name."""
    return [(name, getattr(data, name)) for name in SPLITS]


def some(split: AnySplit, count: int = READ) -> list[int]:
    """Positions of at most `count` items, evenly spaced."""
    return sorted({step * len(split) // count for step in range(count)}) if len(split) else []


def digest(split: AnySplit, place: int, *, first: bool = False) -> str:
    """Of all pixels of an image, or of three frames of a video, or the `first` alone."""
    if isinstance(split, VideoSplit):
        total = len(split.times(place))
        images: Any = split.read(place, [0] if first else sorted({0, total // 2, total - 1}))
    else:
        total, images = 1, [split.read(place)]
    found = hashlib.blake2b(f"{total}".encode(), digest_size=16)
    for image in images:
        found.update(f"{list(image.shape)}".encode())
        found.update(image.contiguous().numpy().tobytes())
    return found.hexdigest()


def digests(data: Data) -> dict[str, list[str]]:
    """Of some items of each split."""
    return {name: [digest(split, place) for place in some(split)] for name, split in splits(data)}


def _wrong_items(split: AnySplit, spec: DataSpec) -> Iterator[str]:
    lengths = {what: len(getattr(split, what)) for what in ("ids", "targets", "keys")}
    if set(lengths.values()) != {len(split)}:
        yield f"{len(split)} items, but {', '.join(f'{count} {what}' for what, count in lengths.items())}"
    if len(set(split.ids)) < lengths["ids"]:
        yield f"id {Counter(split.ids).most_common(1)[0][0]} occurs twice"
    for what in ("ids", "keys"):
        if odd := [value for value in getattr(split, what) if not isinstance(value, str)]:
            yield f"among {what} is {odd[0]!r}"
    classes = len(spec.classes)
    if wrong := [target for target in split.targets if not FORMS[spec.targets].holds(target, classes)]:
        what = "outputs" if spec.targets == "number" else "classes"
        yield f"among targets is {wrong[0]!r}, of {classes} {what}"


def _wrong_blocks(split: Any) -> Iterator[str]:
    counts = list(split.blocks)
    if wrong := [count for count in counts if not isinstance(count, int) or count < 1]:
        yield f"a block has {wrong[0]!r} items"
    elif sum(counts) != len(split):
        yield f"its blocks have {sum(counts)} items, it has {len(split)}"
    places = some(split)
    before = [digest(split, place) for place in places]
    for expected in ([], list(range(len(counts)))[-1:], list(range(len(counts)))[::-1]):
        split.expect(expected)
        if [digest(split, place) for place in places] != before:
            yield f"reads differ once the blocks {expected} are expected"


def _wrong_image(image: object) -> str | None:
    if not isinstance(image, Tensor):
        return f"read returned {type(image).__name__}, not a tensor"
    if image.dtype != torch.uint8:
        return f"read gave {str(image.dtype).removeprefix('torch.')}"
    if image.ndim != 3 or len(image) != 3 or not image.numel():
        return f"read gave {list(image.shape)}"
    return None if image.device.type == "cpu" else f"read gave a tensor on {image.device}"


def _wrong_video(split: VideoSplit, place: int) -> Iterator[str]:
    times = list(split.times(place))
    if not times or not all(math.isfinite(time) for time in times):
        yield f"its times are {times[:3]}"
        return
    if any(one >= other for one, other in itertools.pairwise(times)):
        yield "its times do not ascend"
    asked = sorted({*range(min(len(times), FRAMES)), len(times) - 1})
    found = list(split.read(place, asked))
    wrong = next((text for image in found if (text := _wrong_image(image))), None)
    if wrong or len(found) != len(asked):
        yield wrong or f"{len(found)} frames came where {len(asked)} were asked for"
        return
    if len({image.shape for image in found}) > 1:
        yield "its frames are of several sizes"
        return
    again = list(split.read(place, asked[1::3]))
    if len(again) != len(found[1::3]) or not all(map(torch.equal, again, found[1::3])):
        yield "every third frame differs when it is read alone"


def _identities(split: AnySplit) -> dict[str, dict[Any, str]]:
    """By what items are known, each value with the id of an item that has it: as far as a split says."""
    whole = getattr(split, "videos", split)
    return {
        "ids": {name: name for name in split.ids},
        "keys": dict(zip(split.keys, split.ids, strict=False)),
        "videos": {name: name for name in whole.ids} if whole is not split else {},
        "files": {str(Path(path).resolve()): str(path) for path in getattr(whole, "paths", ())},
        "groups": {group: str(group) for group in getattr(whole, "groups", ())},
    }


def _pixels(data: Data) -> dict[str, dict[str, str]]:
    """Ids of some items of each split by what these show. A video is decoded to its end only if another split has one
    of the same length and first frame."""
    begun = {
        name: {place: digest(split, place, first=True) for place in some(split, COMPARED)}
        for name, split in splits(data)
    }
    times = Counter(shown for found in begun.values() for shown in set(found.values()))
    return {
        name: {
            digest(split, place) if times[shown] > 1 else shown: split.ids[place]
            for place, shown in begun[name].items()
        }
        for name, split in splits(data)
    }


def _is_far(train: Counter[int], other: Counter[int], target: int) -> bool:
    """Whether the class's shares differ by more than chance and one item do."""
    shown, seen = other.total(), train.total()
    share = (train[target] + other[target]) / (seen + shown)
    chance = DEVIATIONS * math.sqrt(share * (1 - share) * (1 / seen + 1 / shown))
    return abs(other[target] / shown - train[target] / seen) > chance + 1 / shown


def _class_names(classes: Sequence[str], targets: set[int]) -> str:
    names = [classes[target] for target in sorted(targets)]
    return f'"{names[0]}"' + (f" and {len(names) - 1} other classes" if len(names) > 1 else "")


if __name__ == "__main__":  # what another process does for the rule `processes`
    _request, _answer = map(Path, sys.argv[1:])
    _factory, _root, _args = pickle.loads(_request.read_bytes())  # noqa: S301 - written by the process that started this one
    _answer.write_text(json.dumps([digests(_factory(_root, **each)) for each in _args]), encoding="utf-8")
