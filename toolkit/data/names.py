"""Names of files and classes as people mean them.

Systems write one name in several ways: macOS takes letters with accents apart (Unicode's normal form D), Windows knows
no case, and tables of competitions name files without a suffix.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from toolkit.api.errors import DataError, counted, first_few


def normal(name: str) -> str:
    """`name` in normal form C: two names that look alike are then equal."""
    return unicodedata.normalize("NFC", name)


class Match(NamedTuple):
    """A file that a table names."""

    item: str
    """Its path relative to the root, with forward slashes."""
    how: str = ""
    """What differs from what is written: `in another case`; empty where nothing does."""


class Files:
    """The files below a root, found by what tables write: their paths, or the last parts of these; where one file alone
    fits, also in another case and without their suffix."""

    def __init__(self, root: Path, items: Iterable[str], is_item: Callable[[str], bool]) -> None:
        """`items` are paths relative to `root`; a name without a suffix means one for which `is_item` is true."""
        self.items = sorted(items)
        self._root = root
        self._is_item = is_item
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for item in self.items:
            name = _name(normal(item)).casefold()
            self._by_name[name].append(item)
            self._by_stem[name.rpartition(".")[0]].append(item)

    def find(self, written: str) -> Match | None:
        """The one file that `written` means; None if no file fits. Raises DataError if several do."""
        wanted = normal(written.replace("\\", "/"))
        wanted = wanted.removeprefix(f"{normal(self._root.as_posix())}/").removeprefix("./")
        for how, found in self._tries(wanted):
            if len(found) == 1:
                return Match(found[0], how)
            if found:
                raise DataError(
                    f"{written} may be any of {first_few(found)}",
                    path=self._root,
                    next_step="Write paths relative to that folder.",
                )
        return None

    def _tries(self, wanted: str) -> Iterator[tuple[str, list[str]]]:
        """What differs, and the files that fit, from the closest try on."""
        name, folded = _name(wanted).casefold(), wanted.casefold()
        alike, stems = self._by_name.get(name, []), self._by_stem.get(name, [])
        yield "", [item for item in alike if normal(item) == wanted]
        yield "", [item for item in alike if _ends(normal(item), wanted)]
        yield "in another case", [item for item in alike if normal(item).casefold() == folded]
        yield "in another case", [item for item in alike if _ends(normal(item).casefold(), folded)]
        fitting = [item for item in stems if _ends(_stem(normal(item).casefold()), folded)]
        yield "without a suffix", [item for item in fitting if self._is_item(item)]  # which may open the file


def lenient_notes(table: str, found: Iterable[tuple[str, Match]]) -> Iterator[str]:
    """Notes on names that a table writes otherwise than the files are called."""
    written: dict[str, list[str]] = defaultdict(list)
    for name, match in found:
        if match.how:
            written[match.how].append(f"{name} ({match.item})")
    for how, names in written.items():
        yield f"{table}: {counted(len(names), 'name')} {how}, each of which one file fits: {first_few(names)}"


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _stem(path: str) -> str:
    return path.rpartition(".")[0]


def _ends(path: str, wanted: str) -> bool:
    return f"/{path}".endswith(f"/{wanted}")
