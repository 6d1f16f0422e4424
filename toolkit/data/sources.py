"""What file names say about the videos that clips were cut from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.api.contracts import Targets
from toolkit.data.folders import Listing


@dataclass(frozen=True)
class Source:
    """The source of each of N items, as a part of their names suggests it."""

    names: tuple[str, ...]
    words: str
    """What part of a name that is."""
    pattern: str
    """A regular expression that finds it in every path."""


def suggest_source(listing: Listing, learnt: Sequence[int]) -> Source | None:
    """The source of each item, if their names have one of the forms in which data sets write it; None otherwise.

    A part of a name counts as a source only if most items share it with others, and if it is more than the name of a
    class. Only the items to train on, at the positions `learnt`, decide: those of a split that is given may have other
    names, as in ImageNet.
    """
    targets = [listing.targets[position] for position in learnt]
    for words, pattern, plausible in _FORMS:
        found = [re.search(pattern, item) for item in listing.ids]
        names = [match.group(1) for match in found if match]
        if len(names) < len(found) or not _mostly_shared(names):
            continue
        heads = [match.string[: match.start()] for match in found if match]
        if plausible([names[position] for position in learnt], [heads[position] for position in learnt], targets):
            return Source(tuple(names), words, pattern)
    return None


def _mostly_shared(names: Sequence[str]) -> bool:
    counts = Counter(names)
    return len(counts) > 1 and 2 * sum(count for count in counts.values() if count > 1) >= len(names)


def _after_the_class(_: Sequence[str], heads: Sequence[str], targets: Targets) -> bool:
    """Whether nothing else comes before: in YOUTUBEID_START_END, as of Kinetics, the first number is a second."""
    return len(set(heads)) <= len(set(targets))


def _in_several_classes(names: Sequence[str], _: Sequence[str], targets: Targets) -> bool:
    return len(set(zip(names, targets, strict=True))) > len(set(names))


def _more_than_classes(names: Sequence[str], _: Sequence[str], targets: Targets) -> bool:
    return len(set(names)) > len(set(targets))


_FORMS = (
    ("the first number", r"_(\d+)_\d+\.\w+$", _after_the_class),
    ("the first word", r"(?:^|/)([A-Za-z]+\d+)_[^/]*$", _in_several_classes),
    ("what comes before the last number", r"([^/]+)_\d+\.\w+$", _more_than_classes),
)
"""In Run_11_22.mp4 (ARID) 11 is a scene, in person01_boxing_d1.avi (KTH) person01 acts, and the clips
Film_kick_u_nm_np1_fr_0.avi and ..._1.avi (HMDB51) are cut from one video."""
