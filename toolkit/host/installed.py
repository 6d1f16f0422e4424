"""Which plugins are installed: the entry points of group `toolkit`, without importing what they name."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from toolkit.host.offers import Broken, Plugin, described
from toolkit.host.project import normalised

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoints

GROUP = "toolkit"
BACKPORT = "importlib_metadata"


def installed() -> tuple[list[Plugin], list[Broken]]:
    """Every plugin that is installed, in order, and every distribution whose entry points cannot be read: from here on
    nothing in this process stumbles over these."""
    import importlib.metadata

    found: dict[tuple[str, str, str], Plugin] = {}
    broken = []
    for distribution in importlib.metadata.distributions(path=search_path()):
        try:
            entries = _entry_points(distribution).select(group=GROUP)
        except Exception as error:  # a malformed line makes importlib.metadata raise almost anything
            broken.append(_malformed(distribution, "entry_points.txt", error))
            continue
        if entries:
            try:
                name, version = _named(distribution)
            except UnicodeDecodeError as error:
                broken.append(_malformed(distribution, "METADATA", error))
                continue
            for entry in entries:
                found[name, entry.name, entry.value] = Plugin(name, version, entry.name, entry.value)
    if broken:
        _skip_malformed()
    return sorted(found.values()), broken


def _entry_points(distribution: Distribution) -> EntryPoints:
    """Those of a distribution; what is malformed raises, whatever `_skip_malformed` did."""
    shown: Any = type(distribution).entry_points
    found: EntryPoints = getattr(shown.fget, "strict", shown.fget)(distribution)
    return found


def _skip_malformed() -> None:
    """Let a distribution whose entry points cannot be read have none. Torch, scikit-learn and others ask for those of
    all distributions, each for a group of its own, and would be reported as broken."""
    for name in ("importlib.metadata", BACKPORT):
        if name in sys.modules:
            _skip_malformed_of(sys.modules[name])


def _skip_malformed_of(metadata: Any) -> None:
    shown = metadata.Distribution.entry_points
    if hasattr(shown.fget, "strict"):
        return

    def entry_points(distribution: Distribution) -> EntryPoints:
        try:
            return _entry_points(distribution)
        except Exception:  # a malformed line makes importlib.metadata raise almost anything
            none: EntryPoints = metadata.EntryPoints(())
            return none

    vars(entry_points)["strict"] = shown.fget
    metadata.Distribution.entry_points = property(entry_points)


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
    change. Of one without entry points, which has no plugin, the name of its folder says enough."""
    lines, last = [], 0.0
    for place, names in found.items():
        for name in names:
            try:
                for file in ("entry_points.txt", "METADATA" if name.endswith(".dist-info") else "PKG-INFO"):
                    status = os.stat(f"{place}/{name}/{file}")  # noqa: PTH116 (a Path a file costs time)
                    # not the time of change, which moves when another environment links to the same file
                    lines.append(f"{status.st_size} {status.st_mtime_ns} {status.st_ino}")
                    last = max(last, status.st_ctime)
            except OSError:
                lines.append("-")
    return "\n".join(lines), last


def _searches_folders(finder: object) -> bool:
    """Whether it is the finder of Python itself, which searches `sys.path`, or that of its backport, which takes its
    place once a library (MLflow, say) has imported it."""
    return getattr(finder, "__module__", None) in ("_frozen_importlib_external", BACKPORT)


def _malformed(distribution: Distribution, file: str, error: Exception) -> Broken:
    """A distribution that is skipped, since one of its files cannot be read. Its folder has its name and version:
    `acme_board-1.0.dist-info`."""
    folder = str(getattr(distribution, "_path", "unknown")).replace("\\", "/").rpartition("/")[2]
    name, _, version = folder.rpartition(".")[0].partition("-")
    cause = f"malformed {file}; install the package again ({described(error)})"
    return Broken(Plugin(normalised(name or "unknown"), version or "unknown", file, ""), cause)


def _named(distribution: Distribution) -> tuple[str, str]:
    """Name and version; a distribution's metadata is parsed each time it is asked for, with all of its README."""
    metadata = distribution.metadata
    known = {key: metadata[key] for key in ("Name", "Version") if key in metadata}
    return normalised(known.get("Name", "unknown")), known.get("Version", "unknown")
