"""Near duplicates: pictures that are resized, re-compressed, slightly changed or mirrored copies of others.

The signature of a picture is what perceptual hashes are made of: the lowest frequencies of its thumbnail (pHash;
Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010). It is kept as numbers, not as
bits, so that a k-d tree finds neighbours without comparing all pairs. Candidates are then compared by their whole
thumbnails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.data.quality.measures import THUMB

LOW = 5
"""Frequencies along each side of the signature of an image."""
LOW_OF_FRAMES = 3
"""The same of each frame of a video."""
RADIUS = 0.25
"""Largest distance of two signatures of near duplicates; signatures have the length 1 or less."""
LIKENESS, COLOUR_LIKENESS = 0.90, 0.88
"""Least correlation of their thumbnails in grey and in colour."""
DETAIL_LIKENESS = 0.82
"""Least correlation of what their signatures do not hold, of thumbnails that have such detail."""
DETAIL = 1.5
"""Standard deviation of that detail, of 0 to 255, from which a thumbnail has it."""
SMOOTH_LIKENESS = 0.99
"""Least correlation in grey of thumbnails without detail: skies and walls are alike."""
FLAT = 4.0
"""Standard deviation of a thumbnail, of 0 to 255, below which it shows nothing that could be compared."""
NEIGHBOURS = 6
"""Nearest items that are compared with each item, in each split."""
_ROWS = 8192


class Pair(NamedTuple):
    """Two near duplicates, the positions of items in ascending order."""

    first: int
    second: int
    likeness: float
    """Correlation of their thumbnails in grey, 0 to 1."""
    mirrored: bool


def near_duplicates(
    thumbs: NDArray[np.uint8], splits: NDArray[np.int8], usable: NDArray[np.bool_]
) -> tuple[list[Pair], NDArray[np.bool_]]:
    """The pairs of near duplicates among N items, and bool `[N]`: which items are flat, and so were not compared.

    thumbs: uint8 `[N, F, 16, 16, 3]`, the thumbnails of F frames of each item
    splits: int8 `[N]`, the number of the split of each item
    usable: bool `[N]`, the items to compare

    Every item is compared with its `NEIGHBOURS` nearest items of each split. So an item with more copies than that has
    some pairs only, and each copy has a pair.
    """
    signatures, flat = _signatures(thumbs, usable)
    compared = np.flatnonzero(usable & ~flat)
    candidates = _candidates(signatures[compared], splits[compared], _odd(thumbs.shape[1]))
    found = np.unique(np.concatenate([np.empty((0, 3), np.int64), *candidates]), axis=0)
    if not len(found):
        return [], flat
    first, second, mirrored = compared[found[:, 0]], compared[found[:, 1]], found[:, 2].astype(bool)
    likeness = np.concatenate(
        [
            _likeness(thumbs[first[rows]], thumbs[second[rows]], mirrored[rows])
            for rows in np.split(np.arange(len(first)), range(_ROWS, len(first), _ROWS))
        ]
    )
    best: dict[tuple[int, int], Pair] = {}
    for place in np.flatnonzero(likeness > 0):
        pair = Pair(int(first[place]), int(second[place]), float(likeness[place]), bool(mirrored[place]))
        known = best.get(pair[:2])
        if known is None or pair.likeness > known.likeness:
            best[pair[:2]] = pair
    return sorted(best.values(), key=lambda pair: (-pair.likeness, pair)), flat


def _signatures(thumbs: NDArray[np.uint8], usable: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """float32 `[N, D]`, a part of the normalised thumbnails in an orthonormal basis, so distances do not grow; and
    whether each thumbnail is flat."""
    low = LOW if thumbs.shape[1] == 1 else LOW_OF_FRAMES
    signatures = np.zeros((len(thumbs), thumbs.shape[1] * low * low), np.float32)
    flat = np.zeros(len(thumbs), bool)
    for rows in np.split(np.arange(len(thumbs)), range(_ROWS, len(thumbs), _ROWS)):
        grey = thumbs[rows].astype(np.float32).mean(axis=-1)
        grey -= grey.mean(axis=(1, 2, 3), keepdims=True)
        norms = np.sqrt((grey**2).sum(axis=(1, 2, 3)))
        flat[rows] = norms < FLAT * np.sqrt(grey[0].size)
        spectrum = _spectrum(grey)[..., :low, :low] / np.maximum(norms, 1e-6)[:, None, None, None]
        signatures[rows] = spectrum.reshape(len(rows), -1)
    return signatures, flat & usable


def _spectrum(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """The orthonormal cosine transform of float32 `[..., 16, 16]`."""
    from scipy.fft import dctn

    spectrum: NDArray[np.float32] = dctn(pictures, axes=(-2, -1), norm="ortho")
    return spectrum


def _odd(frames: int) -> NDArray[np.float32]:
    """What a signature is multiplied by when the picture is mirrored: -1 where a cosine is odd along the width."""
    low = LOW if frames == 1 else LOW_OF_FRAMES
    signs = np.broadcast_to((-1.0) ** np.arange(low), (frames, low, low))
    return np.ascontiguousarray(signs.reshape(-1), np.float32)


def _candidates(
    signatures: NDArray[np.float32], splits: NDArray[np.int8], odd: NDArray[np.float32]
) -> Iterator[NDArray[np.int64]]:
    """int64 `[P, 3]`: positions of two near items, the lower one first, and whether one is mirrored."""
    from scipy.spatial import KDTree

    members = [np.flatnonzero(splits == split) for split in np.unique(splits)]
    trees = [KDTree(signatures[rows]) for rows in members]
    for number, rows in enumerate(members):
        for other, tree in zip(members[number:], trees[number:], strict=True):
            for mirrored in (False, True):
                asked = signatures[rows] * odd if mirrored else signatures[rows]
                # cell by cell: trees of such dimensions are walked far faster with a bound
                _, found = tree.query(asked, k=NEIGHBOURS, distance_upper_bound=RADIUS, workers=-1)
                place, rank = np.nonzero(found < len(other))
                near = np.sort(np.stack([rows[place], other[found[place, rank]]], axis=1), axis=1)
                near = near[near[:, 0] != near[:, 1]]
                yield np.column_stack([near, np.full(len(near), mirrored)])


def _likeness(one: NDArray[np.uint8], other: NDArray[np.uint8], mirrored: NDArray[np.bool_]) -> NDArray[np.float32]:
    """float32 `[P]`: the correlation of two thumbnails each, uint8 `[P, F, 16, 16, 3]`; 0 where they are unlike."""
    other = np.where(mirrored[:, None, None, None, None], other[:, :, :, ::-1], other)
    pictures = [one.astype(np.float32), other.astype(np.float32)]
    greys = [picture.mean(axis=-1) for picture in pictures]
    details = [_details(grey) for grey in greys]
    in_grey, in_colour, in_detail = (_correlation(*pair) for pair in (greys, pictures, details))
    detailed = np.minimum(*(np.sqrt((detail**2).mean(axis=(1, 2, 3))) for detail in details)) >= DETAIL
    like = np.where(detailed, in_detail >= DETAIL_LIKENESS, in_grey >= SMOOTH_LIKENESS)
    return np.where(like & (in_grey >= LIKENESS) & (in_colour >= COLOUR_LIKENESS), in_grey, 0).astype(np.float32)


def _details(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """The spectrum without its lowest frequencies, in which unlike pictures of one kind are often alike."""
    spectrum = _spectrum(grey)
    spectrum[..., :LOW, :LOW] = 0
    spectrum[..., THUMB * 3 // 4 :, :] = 0  # what compression and resizing change
    spectrum[..., :, THUMB * 3 // 4 :] = 0
    return spectrum


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 `[P]`, of each two of P arrays."""
    flat = [array.reshape(len(array), -1) for array in (one, other)]
    centred = [array - array.mean(axis=1, keepdims=True) for array in flat]
    product = (centred[0] * centred[1]).sum(axis=1)
    norms = np.sqrt((centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1))
    correlation: NDArray[np.float32] = product / np.maximum(norms, np.float32(1e-6))
    return correlation


def groups_of(count: int, pairs: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """int64 `[count]`: the lowest position that each item is connected with by `pairs`, directly or through others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.asarray(pairs, np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    _, lowest = np.unique(labels, return_index=True)
    groups: NDArray[np.int64] = lowest[labels].astype(np.int64)
    return groups
