"""What is odd about a file that can be read: how it is stored, and what is lost or changed when it is read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit.data.kinds import LOOKED_AT, Format, format_of, suffix_of

_SUFFIXES: Mapping[str, frozenset[str]] = {
    "JPEG": frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mjpeg"}),
    "MPO": frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"}),
    "PNG": frozenset({".png"}),
    "WebP": frozenset({".webp"}),
    "BMP": frozenset({".bmp"}),
    "TIFF": frozenset({".tif", ".tiff"}),
    "GIF": frozenset({".gif"}),
    "AVIF": frozenset({".avif"}),
    "HEIC": frozenset({".heic", ".heif"}),
    "MP4 or MOV": frozenset({".mp4", ".mov", ".m4v", ".3gp", ".3g2", ".f4v"}),
    "Matroska or WebM": frozenset({".mkv", ".webm"}),
    "AVI": frozenset({".avi"}),
}
"""The suffixes of formats that people name wrongly; other formats have too many to judge."""
_GREY = frozenset({"1", "L", "LA", "La"})
_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_FOREIGN = frozenset({"CMYK", "YCbCr", "LAB"})


def oddities(path: Path) -> list[str]:
    """What is odd about the image or video at `path`, in a few words each; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            form = format_of(file.read(LOOKED_AT))
    except OSError:
        return []
    if form is None:
        return []
    suffix, usual = suffix_of(os.fspath(path)), _SUFFIXES.get(form.name)
    named = [f"a {form.name} file named {suffix or 'without a suffix'}"] if usual and suffix not in usual else []
    return [*named, *(_of_image(path, form) if form.kind == "image" else ())]


def _of_image(path: Path, form: Format) -> list[str]:
    from toolkit.data.pixels import count_pictures, ignore_pillows_warnings, open_picture

    ignore_pillows_warnings()
    try:
        with path.open("rb") as file, open_picture(file, form) as image:
            found = list(_stored(image))
    except Exception:  # who decodes it says what is wrong; a damaged file makes Pillow's parsers raise anything
        return []
    count = count_pictures(path)
    return [*found, f"holds {count:,} pictures: the first is read"] if count > 1 else found


def _stored(image: Any) -> Iterator[str]:
    from toolkit.data.pixels import orientation

    if image.mode in _GREY:
        yield "greyscale"
    if image.mode in _ALPHA or "transparency" in image.info:
        yield "transparent: the alpha channel is ignored"
    if image.mode in ("P", "PA"):
        yield "a palette of colours"
    if image.mode in _FOREIGN:
        yield f"{image.mode} colours: read as RGB without a colour profile"
    if image.mode.startswith("I"):
        yield "16 bits a channel: the upper 8 are read"
    if orientation(image) in range(2, 9):
        yield "turned by its EXIF data"
