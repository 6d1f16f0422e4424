"""Which plugins are installed: the entry points of group `toolkit`, without importing what they name."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from toolkit.host.offers import Broken, Plugin, described
from toolkit.host.project import normalised

if TYPE_CHECKING:
    from importlib.metadata import Distribution

GROUP = "toolkit"


def installed() -> tuple[list[Plugin], list[Broken]]:
    """Every plugin that is installed, in order, and every distribution whose entry points cannot be read."""
    import importlib.metadata

    found: dict[tuple[str, str, str], Plugin] = {}
    broken = []
    for distribution in importlib.metadata.distributions(path=search_path()):
        try:
            # only distributions that mention the group are parsed, for there may be hundreds
            text = distribution.read_text("entry_points.txt") or ""
            entries = distribution.entry_points.select(group=GROUP) if f"[{GROUP}]" in text else ()
        except Exception as error:  # a malformed line makes importlib.metadata raise almost anything
            broken.append(Broken(Plugin(*_named(distribution), "entry_points.txt", ""), described(error)))
            continue
        if entries:
            name, version = _named(distribution)
            for entry in entries:
                found[name, entry.name, entry.value] = Plugin(name, version, entry.name, entry.value)
    return sorted(found.values()), broken


def search_path() -> list[str]:
    """Where distributions are looked for."""
    return sys.path


def distributions() -> dict[str, list[str]] | None:
    """The names of the folders that hold what distributions say of themselves, by the place on the search path where
    they lie. None where Python also finds distributions elsewhere, in archives say."""
    if any(hasattr(finder, "find_distributions") and not _searches_folders(finder) for finder in sys.meta_path):
        return None
    found: dict[str, list[str]] = {}
    for place in map(str, search_path()):
        if place.endswith((".egg", ".zip", ".whl")) and os.path.exists(place):  # noqa: PTH110
            return None
        try:
            names = [name for name in os.listdir(place or ".") if name.lower().endswith((".dist-info", ".egg-info"))]  # noqa: PTH208
        except NotADirectoryError:
            return None
        except OSError:
            continue
        if names:
            found[os.path.abspath(place)] = sorted(names)  # noqa: PTH100
    return found


def state_of(found: dict[str, list[str]]) -> tuple[str, float]:
    """Text that changes when one of these distributions says something else of itself, and the time of the last
    change."""
    lines, last = [], 0.0
    for place, names in found.items():
        for name in names:
            for file in ("entry_points.txt", "METADATA" if name.endswith(".dist-info") else "PKG-INFO"):
                try:
                    status = os.stat(f"{place}/{name}/{file}")  # noqa: PTH116 (a Path a file costs time)
                except OSError:
                    lines.append("-")
                else:
                    # not the time of change, which moves when another environment links to the same file
                    lines.append(f"{status.st_size} {status.st_mtime_ns} {status.st_ino}")
                    last = max(last, status.st_ctime)
    return "\n".join(lines), last


def _searches_folders(finder: object) -> bool:
    """Whether it is the finder of Python itself, which searches `sys.path`."""
    return getattr(finder, "__module__", None) == "_frozen_importlib_external"


def _named(distribution: Distribution) -> tuple[str, str]:
    """Name and version; a distribution's metadata is parsed each time it is asked for, with all of its README."""
    metadata = distribution.metadata
    known = {key: metadata[key] for key in ("Name", "Version") if key in metadata}
    return normalised(known.get("Name", "unknown")), known.get("Version", "unknown")
