"""The inputs that a command line names: image and video files, cameras and streams."""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from toolkit.api.errors import DataError, Problem, UsageError, counted, first_few, nearest, printable
from toolkit.api.files import files_below
from toolkit.data.kinds import IMAGE_SUFFIXES, IMAGES, VIDEO_SUFFIXES, VIDEOS, kind_of, listed_kind, suffix_of
from toolkit.data.tables import paths_of

SCHEMES = ("http", "https", "rtsp", "rtsps")
STANDARD_INPUT = "-"

Moment: TypeAlias = tuple[float, float]
"""Start and end of a part of a video, in seconds from its first frame; both are one where it is a single frame."""
SourceKind: TypeAlias = Literal["image", "video", "animation", "camera", "stream", "unusable"]
"""What `toolkit.data.kinds` says of a file."""

_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+)://")


@dataclass(frozen=True)
class Source:
    """One thing to answer."""

    name: str
    """As it is shown: a path as it was given, a URL without the user's password."""
    kind: SourceKind
    place: str
    """What is opened: a path, a URL, or the number of a camera."""
    problem: str = ""
    """Why it is unusable."""
    moment: Moment | None = None
    """The part of a video that is asked about; None for all of it."""
    shown: datetime | None = None
    """When the end of that part was on show, where it is live."""

    @property
    def remote(self) -> bool:
        """Whether it lies behind a URL."""
        return "://" in self.place and not Path(self.place).exists()

    @property
    def endless(self) -> bool:
        return self.kind in ("camera", "stream")

    @property
    def title(self) -> str:
        """Its name, with the part behind it as URLs write it."""
        if self.moment is None:
            return self.name
        start, end = self.moment
        return f"{self.name}#t={start:.3f}" + (f",{end:.3f}" if end > start else "")


@dataclass(frozen=True)
class Inputs:
    """What a command line names."""

    sources: Sequence[Source]
    passed_over: Sequence[str] = ()
    """Files of folders and patterns that are neither images nor videos."""

    @property
    def notes(self) -> list[str]:
        """What a user must know of them."""
        files = counted(len(self.passed_over), "file")
        named = first_few([printable(name) for name in self.passed_over])
        return [f"skipped {files}, neither images nor videos: {named}"] if self.passed_over else []


def find_sources(words: Sequence[str], standard_input: Iterable[bytes], *, command: str = "predict") -> Inputs:
    """All inputs that `words` name to a command, in their order; what is named twice comes twice.

    A word is an existing file or folder (of which the image and video files below are taken, sorted, hidden ones passed
    over), `-` (`standard_input` has one path a line), a URL, the number of a camera, or a pattern. What there is not
    becomes a source that is unusable, unless there is nothing else. Raises UsageError for words that have no meaning,
    DataError when nothing is found.
    """
    if list(words).count(STANDARD_INPUT) > 1:
        raise UsageError(f"{command}: standard input can be read only once", next_step="give - once")
    found: list[Source] = []
    passed_over: list[str] = []
    for word in words:
        found += _listed(standard_input, passed_over) if word == STANDARD_INPUT else _named(word, passed_over)
    if not found:
        raise UsageError(f"{command}: no input is given", next_step="python -m toolkit predict BUNDLE photos/")
    endless = next((source for source in found if source.endless), None)
    if endless and len(found) > 1:
        raise UsageError(
            f"{command}: {endless.name} does not end, so the other inputs would never be answered",
            next_step=f"give {endless.place if endless.kind == 'camera' else endless.name} alone",
        )
    if all(source.kind == "unusable" for source in found):
        more = f" (and {len(found) - 1:,} more that cannot be used)" if len(found) > 1 else ""
        raise DataError(
            f"{printable(found[0].name)}: {found[0].problem}{more}",
            next_step="give images, videos, folders, patterns in quotes, - for a list, a camera's number or a URL",
        )
    return Inputs(found, passed_over)


def settled(sources: Iterable[Source], *, moving: bool) -> list[Source]:
    """The sources with each animation as a video, where `moving` pictures are wanted, or as the image that it begins
    with."""
    kind: SourceKind = "video" if moving else "image"
    return [replace(source, kind=kind) if source.kind == "animation" else source for source in sources]


def _named(word: str, passed_over: list[str]) -> list[Source]:
    scheme = _URL.match(word)
    if scheme and not os.path.lexists(word):
        return [_remote(word, scheme[1].lower())]
    word = _existing(word)
    if os.path.lexists(word):
        return _local(word, passed_over)
    if re.fullmatch(r"[0-9]{1,4}", word):
        return [Source(f"camera {int(word)}", "camera", str(int(word)))]
    return _matching(word, passed_over) if glob.has_magic(word) else [_missing(word)]


def _listed(lines: Iterable[bytes], passed_over: list[str]) -> list[Source]:
    """The sources of a list of paths, a line each or a column of a table. They are taken literally: no pattern, no
    camera."""
    found: list[Source] = []
    for written in paths_of(b"".join(lines), Path("standard input")):
        scheme = _URL.match(written)
        name = written if scheme else _existing(written)
        if scheme:
            found.append(_remote(name, scheme[1].lower()))
        else:
            found += _local(name, passed_over) if os.path.lexists(name) else [_missing(name)]
    return found or [_unusable("standard input", "it contains no path; expected one per line")]


def _existing(path: str) -> str:
    """`path` in the form of Unicode in which a file has this name; unchanged if no file has it."""
    forms = (path, *(unicodedata.normalize(form, path) for form in ("NFC", "NFD")))
    return next(filter(os.path.lexists, forms), path)


def _local(path: str, passed_over: list[str]) -> list[Source]:
    return _below(path, passed_over) if Path(path).is_dir() else [_file(path)]


def _file(path: str) -> Source:
    """The source of a file that is named: whatever it is, it is opened, and its decoder says what is wrong."""
    try:
        return Source(path, kind_of(path) or "image", path)
    except OSError as error:
        return _unusable(path, error.strerror or str(error))


def _below(folder: str, passed_over: list[str]) -> list[Source]:
    """The image and video files below `folder`, in order of their paths. Links are followed, each folder once."""
    errors: list[OSError] = []
    prefix = os.path.join(folder, "")  # noqa: PTH118 (as it was given)
    found = _sorted_out(sorted(files_below(folder, None, prefix, unreadable=errors.append)), passed_over)
    unusable = [_unusable(str(error.filename), error.strerror or str(error)) for error in errors]
    if not found and not unusable:
        return [_unusable(folder, f"no image or video file found in it ({IMAGES}; {VIDEOS})")]
    return found + unusable


def _matching(pattern: str, passed_over: list[str]) -> list[Source]:
    """The image and video files that match, and those in folders that match, but for `**`, which goes into them
    itself."""
    found: list[Source] = []
    for path in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 (keeps paths as they were written)
        if not Path(path).is_dir():
            found += _sorted_out([path], passed_over)
        elif "**" not in pattern:
            found += [source for source in _below(path, passed_over) if source.kind != "unusable"]
    return found or [_unusable(pattern, "no image or video file matches")]


def _sorted_out(paths: Iterable[str], passed_over: list[str]) -> list[Source]:
    """The images and videos among files that a folder or a pattern names; the others are added to `passed_over`."""
    kinds = [(path, listed_kind(path)) for path in paths]
    passed_over += [path for path, kind in kinds if kind is None]
    return [Source(path, kind, path) for path, kind in kinds if kind is not None]


def _remote(url: str, scheme: str) -> Source:
    try:
        parts = urlsplit(url)
        name = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()  # without a password
    except ValueError as error:
        raise UsageError(f"invalid URL {url}: {error}", next_step="give one such as http://server/video.mp4") from error
    if scheme not in SCHEMES:
        raise UsageError(f"{name}: unsupported URL scheme {scheme}", next_step=f"use one of {', '.join(SCHEMES)}")
    ends = suffix_of(parts.path) in VIDEO_SUFFIXES | IMAGE_SUFFIXES  # opening it then shows what it is
    return Source(name, "video" if ends else "stream", url)


def _missing(path: str) -> Source:
    parent = Path(path).parent
    near = nearest(Path(path).name, os.listdir(parent)) if parent.is_dir() else None  # noqa: PTH208
    return _unusable(path, str(Problem("", "no such file or folder", str(parent / near) if near else None)))


def _unusable(name: str, problem: str) -> Source:
    return Source(name, "unusable", name, problem)
