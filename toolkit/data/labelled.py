"""From labelled files to the splits of a dataset, and what a user must know of them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import cast

from toolkit.api.contracts import Data, DataSpec, FileProblem, Split, VideoSplit
from toolkit.api.errors import DataError, counted, first_few
from toolkit.data.division import Division
from toolkit.data.folders import Found, Listing
from toolkit.data.groups import UNGROUPED, Groups, find_groups
from toolkit.data.images import ImageFiles
from toolkit.data.kinds import may_hold_several
from toolkit.data.sources import suggest_source
from toolkit.data.splits import NO_CLASS, SPLITS, Contents, Partition, classes_of, contents, count_classes, merge_groups
from toolkit.data.targets import FORMS
from toolkit.data.videos import FramesOf, VideoFiles

SIZE, STORED = 224, 256


def labelled(
    found: Found,
    division: Division,
    *,
    group_pattern: re.Pattern[str] | None = None,
    frames_per_video: int = 1,
    clips: bool = False,
) -> Data:
    """Make a dataset of labelled files: splits of images, of videos, or of single frames of videos.

    Byte-identical files and items of one group stay on one side. The notes name what a user must know: twins, groups
    that given splits divide, sources that file names suggest, classes that are alike or unbalanced.

    group_pattern: finds the group of each item in its path, in place of groups.csv
    frames_per_video: evenly spaced frames of each video that become items where single frames are seen
    clips: whether the splits are of whole videos, not of single frames of them

    Raises:
        DataError: clips are wanted of images, groups do not fit the files, or a file cannot be read.
    """
    listing = found.listing
    if clips and not found.videos:
        raise DataError(
            "holds images, but clips need videos",
            path=listing.root,
            next_step="Set data.root to a folder of videos, or remove [clip] and choose a model of images.",
        )
    groups = find_groups(listing, group_pattern, partial=found.given is not None)
    known = contents(listing.paths)
    several = {} if found.videos else _several_pictures(listing)
    bound = merge_groups(groups.names, known.identical)
    strata = FORMS[listing.form].strata(listing.targets, listing.classes)
    parts = division.divide(listing.ids, strata.targets, strata.names, bound, found.given)
    frames = frames_per_video if found.videos and not clips else None
    notes = (
        *(*found.notes, *groups.notes),
        *_first_read(several),
        *_twins(listing, known, parts),
        *_torn(replace(listing, targets=strata.targets), groups, parts),
        *_alike(listing.classes),
        *(_constant(listing) if listing.form == "number" else _shown(listing)),
        *parts.notes,
    )
    protocol = division.protocol(listing.ids, parts, groups.rule, found.given)
    train, valid, test = (_split(found, known, getattr(parts, name), frames) for name in SPLITS)
    spec = DataSpec(
        listing.classes,
        size=SIZE,
        stored=STORED,
        targets=listing.form,
        frames_per_video=frames,
    )
    protocol |= {"frames_per_video": frames} if frames else {}
    files = (
        *found.files,
        *(FileProblem(item, f"holds {count:,} pictures: the first is read") for item, count in several.items()),
        *_duplicates(listing, known, parts),
    )
    sources = _sources(listing.ids, bound, frames)
    return Data(spec, train, valid, test, protocol, notes, files, sources)


def _split(found: Found, known: Contents, positions: Sequence[int], frames: int | None) -> Split | VideoSplit:
    listing = found.listing
    if not found.videos:
        return ImageFiles(listing.ids, listing.targets, known.keys, listing.paths).select(positions)
    videos = VideoFiles(listing.ids, listing.targets, known.keys, listing.paths).select(positions)
    return FramesOf(videos, frames) if frames else videos


def _sources(ids: Sequence[str], bound: Sequence[str], frames: int | None) -> dict[str, str]:
    """The group of each item that shares it with another; of single frames, at least their video."""
    if frames:
        return {f"{name}#{part}": group for name, group in zip(ids, bound, strict=True) for part in range(frames)}
    members = Counter(bound)
    return {name: group for name, group in zip(ids, bound, strict=True) if members[group] > 1}


def _several_pictures(listing: Listing) -> dict[str, int]:
    """The animations and files of several pages among images, with how many pictures each holds."""
    from toolkit.data.pixels import count_pictures

    asked = [(item, path) for item, path in zip(listing.ids, listing.paths, strict=True) if may_hold_several(item)]
    with ThreadPoolExecutor() as pool:
        counts = pool.map(count_pictures, [path for _, path in asked])
        return {item: count for (item, _), count in zip(asked, counts, strict=True) if count > 1}


def _first_read(several: Mapping[str, int]) -> Iterator[str]:
    if several:
        yield f"only the first picture is read of {counted(len(several), 'file')} with several: {first_few([*several])}"


def _twins(listing: Listing, known: Contents, parts: Partition) -> Iterator[str]:
    if not known.identical:
        return
    apart = _count_apart(known.identical, parts)
    noun = FORMS[listing.form].noun
    labelled_twice = sum(len({listing.targets[position] for position in twins}) > 1 for twins in known.identical)
    sides = f"{apart} of them in more than one split" if apart else "each kept on one side of the split"
    labels = f"; {labelled_twice} of them under more than one {noun}" if labelled_twice else ""
    yield f"{counted(len(known.identical), 'set')} of byte-identical files, {sides}{labels}"


def _duplicates(listing: Listing, known: Contents, parts: Partition) -> Iterator[FileProblem]:
    """Each file but the first of every set of byte-identical ones, with how it differs from that first one."""
    split_of = {position: name for name in SPLITS for position in getattr(parts, name)}
    several = "label" if isinstance(listing.targets[0], int) else "set of labels"
    for first, *others in known.identical:
        for other in others:
            unlike = listing.targets[first] != listing.targets[other]
            apart = split_of.get(first) != split_of.get(other)
            where = [*([f"under another {several}"] if unlike else []), *(["in another split"] if apart else [])]
            yield FileProblem(
                listing.ids[other], " ".join(["duplicate", " and ".join(where)]).strip(), listing.ids[first]
            )


def _torn(listing: Listing, groups: Groups, parts: Partition) -> Iterator[str]:
    """Whether one source is in several splits: by the groups in force, or else as file names suggest."""
    if groups.rule != UNGROUPED:
        if torn := _count_torn(groups.names, parts):
            torn_apart = f"{counted(torn, 'group')} ({groups.rule})"
            yield f"the given splits divide {torn_apart}, so scores can show the source instead of the class"
        return
    source = suggest_source(listing, parts.train)
    if source and (torn := _count_torn(source.names, parts)):
        yield (
            f"file names suggest {len(set(source.names))} sources ({source.words}), {torn} of them "
            "in more than one split, so scores can show the source instead of the class: "
            f"set data.group_pattern = '{source.pattern}'"
        )


def _count_torn(names: Sequence[str], parts: Partition) -> int:
    members: dict[str, list[int]] = defaultdict(list)
    for position, name in enumerate(names):
        members[name].append(position)
    return _count_apart(members.values(), parts)


def _count_apart(sets: Iterable[Iterable[int]], parts: Partition) -> int:
    """How many sets of positions are in more than one split."""
    split_of = {position: name for name in SPLITS for position in getattr(parts, name)}
    return sum(len({split_of[position] for position in one if position in split_of}) > 1 for one in sets)


def _alike(classes: Sequence[str]) -> Iterator[str]:
    written: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        written[" ".join(name.split()).casefold()].append(name)
    for names in written.values():
        if len(names) > 1:
            yield f"class names differ only in case or spaces: {' and '.join(names)}"


def _constant(listing: Listing) -> Iterator[str]:
    """Outputs whose number is the same for every item: nothing can be learned there."""
    columns = zip(*(cast(Sequence[float], target) for target in listing.targets), strict=True)
    constant = [name for name, column in zip(listing.classes, columns, strict=True) if len({*column}) == 1]
    if len(constant) == len(listing.classes):
        raise DataError(
            f"every item has the same {' and '.join(constant)}",
            path=listing.root,
            next_step="Name columns whose numbers differ in data.numbers, or add items with other numbers.",
        )
    yield from (f"every item has the same {name}: no r2 can be computed for it" for name in constant)


def _shown(listing: Listing) -> Iterator[str]:
    """Items without a class, classes without an item, and whether some classes have far more items than others."""
    counts = count_classes(listing.targets)
    without = [
        item for item, target in zip(listing.ids, listing.targets, strict=True) if NO_CLASS in classes_of(target)
    ]
    if without:
        yield f"{counted(len(without), 'item')} without a label: {first_few(without)}"
    del counts[NO_CLASS]
    if not counts:
        raise DataError(
            "no item has a label", path=listing.root, next_step="Label some items; others may have no label."
        )
    if len(listing.classes) == 1 and not without:
        raise DataError(
            f"every item is labelled {listing.classes[0]}, the only label",
            path=listing.root,
            next_step="Add items without this label, or with other labels.",
        )
    if unshown := [name for number, name in enumerate(listing.classes) if number not in counts]:
        yield f"no item is labelled {first_few(unshown)}: its scores cannot be computed"
    fewest, most = (choose(counts, key=lambda target: counts[target]) for choose in (min, max))
    if counts[most] > 1.5 * counts[fewest]:
        yield (
            f"the classes are unbalanced: {counts[fewest]:,} of {listing.classes[fewest]}, "
            f"{counts[most]:,} of {listing.classes[most]}"
        )
