"""Some items of a split, with targets of their own: of any dataset's, so plugins know nothing of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.api.contracts import Targets, VideoSplit

if TYPE_CHECKING:
    from torch import Tensor


def selected(split: Any, positions: Sequence[int], targets: Targets) -> Any:
    """The items of a split of images or videos at these positions, with one of `targets` each."""
    return (_Videos if isinstance(split, VideoSplit) else _Images)(split, tuple(positions), targets)


@dataclass(frozen=True, eq=False)
class _Selected:
    split: Any
    positions: tuple[int, ...]
    targets: Targets

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def ids(self) -> Sequence[str]:
        return tuple(self.split.ids[position] for position in self.positions)

    @property
    def keys(self) -> Sequence[str]:
        return tuple(self.split.keys[position] for position in self.positions)

    @property
    def paths(self) -> Sequence[Path]:
        """Those of the items; empty where the split has no files."""
        paths = getattr(self.split, "paths", ())
        return tuple(paths[position] for position in self.positions) if paths else ()


class _Images(_Selected):
    def read(self, index: int) -> Tensor:
        pixels: Tensor = self.split.read(self.positions[index])
        return pixels


class _Videos(_Selected):
    def times(self, index: int) -> Sequence[float]:
        times: Sequence[float] = self.split.times(self.positions[index])
        return times

    def read(self, index: int, frames: Sequence[int]) -> Iterator[Tensor]:
        read: Iterator[Tensor] = self.split.read(self.positions[index], frames)
        return read
