"""What a file is: an image, a video, or neither. Datasets, `check`, `init` and `predict` share this rule.

| file | what decides |
| --- | --- |
| one that a command line or a list names | its content |
| one in a folder, with a suffix of images or videos | the suffix; reading then refuses other content by name |
| one in a folder, with a suffix of texts, tables, archives or sound | the suffix: it is neither, and is not opened |
| any other in a folder, such as `.ts`, `.gif` or without a suffix | its content |

Folders are listed by suffix first because a look into each of 100,000 files takes minutes on a network drive.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from toolkit.api.files import files_below

Kind: TypeAlias = Literal["image", "video", "animation"]
"""An animation is a GIF of several frames: a video where moving pictures are wanted, else an image, its first frame."""

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)
VIDEO_SUFFIXES = frozenset(
    {
        *(".3g2", ".3gp", ".asf", ".avi", ".f4v", ".flv", ".m2ts", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg"),
        *(".mpg", ".mxf", ".ogv", ".vob", ".webm", ".wmv"),
    }
)
OTHER_SUFFIXES = frozenset(
    {
        *(".7z", ".cfg", ".csv", ".db", ".doc", ".docx", ".flac", ".gz", ".h5", ".hdf5", ".htm", ".html", ".ini"),
        *(".json", ".jsonl", ".log", ".m4a", ".mat", ".md", ".mp3", ".npy", ".npz", ".onnx", ".parquet", ".pdf"),
        *(".pkl", ".pt", ".pth", ".py", ".rar", ".safetensors", ".srt", ".svg", ".tar", ".toml", ".tsv", ".txt"),
        *(".wav", ".xls", ".xlsx", ".xml", ".yaml", ".yml", ".zip"),
    }
)
"""Of what lies next to images and videos: such a file is opened only where it is named."""

IMAGES = "JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC"
VIDEOS = "MP4, MOV, MKV, WebM, AVI, MPEG, WMV, FLV, Ogg, MXF or GIF"
"""What errors ask for."""

LOOKED_AT = 1024
"""Bytes from the start of a file that show what it is: of MPEG-TS, several packets of 188 or 192 are needed."""
_ANIMATIONS = ".gif"
_JPEGS = ".mjpeg"
"""Of a video that is one JPEG after the other, which begins as an image does."""


@dataclass(frozen=True)
class Format:
    """What the content of a file is."""

    name: str
    """As an error names it."""
    kind: Literal["image", "video"] | None
    """None: it is known, but neither is decoded."""


def format_of(head: bytes) -> Format | None:
    """The format of a file that begins with `head`, of `LOOKED_AT` bytes where the file is that long; None where it is
    unknown."""
    return next((form for form, matches in _FORMATS if matches(head)), None)


def kind_of(path: str | Path) -> Kind | None:
    """What a file is, by its content; by its suffix where the content is unknown, so that its decoder says what is
    wrong. None where neither is one of an image or a video. Raises OSError where it cannot be read."""
    place = os.fspath(path)
    head = look(place)
    form = None if head is None else format_of(head)
    if form is None or form.kind is None:
        return _BY_SUFFIX.get(suffix_of(place)) if form is None else None
    if form is _GIF:
        return "animation" if _is_animated(place) else "image"
    if form is _JPEG and suffix_of(place) == _JPEGS:
        return "video"
    return form.kind


def image_format(path: str | Path) -> str | None:
    """The name of the format of a file that can only be an image; FFmpeg would read some of them, with other pixels."""
    head = look(os.fspath(path))
    form = None if head is None else format_of(head)
    if form is None or form is _GIF or (form is _JPEG and suffix_of(os.fspath(path)) == _JPEGS):
        return None
    return form.name if form.kind == "image" else None


def listed_kind(path: str | Path) -> Kind | None:
    """What a file in a folder is, by the rule of this module: by its suffix where that says enough. A file that cannot
    be read is neither."""
    suffix = suffix_of(os.fspath(path))
    known = _BY_SUFFIX.get(suffix)
    if suffix in OTHER_SUFFIXES or (known and suffix != _ANIMATIONS):
        return known
    try:
        return kind_of(path)
    except OSError:
        return known


def is_image(path: str | Path) -> bool:
    """Whether a listing of images takes this file of a folder."""
    return suffix_of(os.fspath(path)) == _ANIMATIONS or listed_kind(path) in ("image", "animation")


def is_video(path: str | Path) -> bool:
    """Whether a listing of videos takes this file of a folder."""
    return listed_kind(path) in ("video", "animation")


def wanted(*, videos: bool) -> Callable[[str | Path], bool]:
    """What a listing of videos, or of images, takes."""
    return is_video if videos else is_image


def items_below(folder: Path, is_item: Callable[[str], bool]) -> Iterator[str]:
    """The paths, relative to `folder`, of the files below it for whose own path `is_item` is true, as `files_below`
    finds them."""
    start = os.path.join(folder, "")  # noqa: PTH118 (a Path a file costs seconds at 60k)
    return (item for item in files_below(folder, None) if is_item(start + item))


def may_hold_several(name: str) -> bool:
    """Whether an image file of this name may hold several pictures, so that a look into it is worth its time. A JPEG
    holds one; what its maker adds are versions of it."""
    return suffix_of(name) not in (".bmp", ".jfif", ".jpe", ".jpeg", ".jpg")


def suffix_of(path: str) -> str:
    """The suffix, in lower case."""
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 (a Path a file costs seconds at a million)


def look(path: str) -> bytes | None:
    """The first `LOOKED_AT` bytes of a file; None where it is not a regular one: a pipe would block."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        return os.read(descriptor, LOOKED_AT) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    finally:
        os.close(descriptor)


def _is_animated(gif: str) -> bool:
    """Whether a GIF has several frames. A damaged one counts as an image, whose decoder then says what is wrong."""
    from PIL.GifImagePlugin import GifImageFile

    try:
        with GifImageFile(gif) as image:
            return image.is_animated
    except Exception:  # a damaged file makes Pillow's parsers raise anything
        return False


_BY_SUFFIX: dict[str, Kind] = {
    **dict.fromkeys(IMAGE_SUFFIXES, "image"),
    **dict.fromkeys(VIDEO_SUFFIXES, "video"),
    _ANIMATIONS: "image",
}


def _starts(*signatures: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(signatures)


def _riff(form: bytes) -> Callable[[bytes], bool]:
    return lambda head: head[:4] == b"RIFF" and head[8:12] == form


def _branded(*brands: bytes) -> Callable[[bytes], bool]:
    return lambda head: _brand_of(head) in brands


def _brand_of(head: bytes) -> bytes:
    """What an ISO base media file (ISO/IEC 14496-12) is: its own brand, or where that is one of any codec, the first
    more precise one that it is compatible with."""
    if head[4:8] != b"ftyp":
        return b""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[place : place + 4] for place in range(16, size - 3, 4))]
    return next((brand for brand in brands if brand not in (b"mif1", b"msf1", b"miaf")), brands[0])


def _is_movie(head: bytes) -> bool:
    return head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"skip", b"free", b"pnot")


def _is_transport(head: bytes) -> bool:
    """MPEG-TS: packets of 188 bytes, or of 192 with a time code before each, that begin with 0x47."""
    return any(
        len(head) > start + 2 * size and all(head[place] == 0x47 for place in range(start, len(head), size))
        for start, size in ((0, 188), (4, 192))
    )


def _is_bitmap(head: bytes) -> bool:
    """BMP: "BM" begins texts too, so the size of the header that follows is looked at."""
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in (12, 16, 40, 52, 56, 64, 108, 124)


def _is_moving_ogg(head: bytes) -> bool:
    return head[:4] == b"OggS" and any(codec in head for codec in (b"\x80theora", b"OVP80", b"\x01video\0"))


def _is_stream(head: bytes) -> bool:
    """A stream without a container: its first unit is a sequence header of MPEG-1, 2 or 4, or in H.264 and HEVC a set
    of parameters or a delimiter."""
    start = next((len(code) for code in (b"\0\0\0\1", b"\0\0\1") if head.startswith(code)), 0)
    if not start or len(head) <= start:
        return False
    unit = head[start]
    return unit in (0xB0, 0xB3, 0x40, 0x42, 0x46) or unit & 0x9F in (0x07, 0x09)


_JPEG, _GIF = Format("JPEG", "image"), Format("GIF", "image")
_FORMATS: tuple[tuple[Format, Callable[[bytes], bool]], ...] = (
    (_JPEG, _starts(b"\xff\xd8\xff")),
    (Format("PNG", "image"), _starts(b"\x89PNG\r\n\x1a\n")),
    (Format("WebP", "image"), _riff(b"WEBP")),
    (Format("BMP", "image"), _is_bitmap),
    (_GIF, _starts(b"GIF87a", b"GIF89a")),
    (Format("TIFF", "image"), _starts(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (Format("AVIF", "image"), _branded(b"avif", b"avis")),
    (Format("HEIC", "image"), _branded(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")),
    (Format("JPEG XL", None), _starts(b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")),
    (Format("JPEG 2000", None), _starts(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")),
    (Format("Photoshop (PSD)", None), _starts(b"8BPS")),
    (Format("OpenEXR", None), _starts(b"v/1\x01")),
    (Format("PDF", None), _starts(b"%PDF-")),
    (Format("DICOM", None), lambda head: head[128:132] == b"DICM"),
    (Format("sound (MP4)", None), _branded(b"M4A ", b"M4B ", b"M4P ")),
    (Format("camera raw (CR3)", None), _branded(b"crx ")),
    (Format("MP4 or MOV", "video"), _is_movie),
    (Format("AVI", "video"), _riff(b"AVI ")),
    (Format("Matroska or WebM", "video"), _starts(b"\x1a\x45\xdf\xa3")),
    (Format("FLV", "video"), _starts(b"FLV\x01")),
    (Format("ASF (WMV)", "video"), _starts(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11")),
    (Format("Ogg", "video"), _is_moving_ogg),
    (Format("MXF", "video"), _starts(b"\x06\x0e\x2b\x34\x02\x05\x01\x01")),
    (Format("MPEG program stream", "video"), _starts(b"\0\0\x01\xba")),
    (Format("MPEG transport stream", "video"), _is_transport),
    (Format("DV", "video"), _starts(b"\x1f\x07\x00")),
    (Format("YUV4MPEG", "video"), _starts(b"YUV4MPEG2 ")),
    (Format("IVF", "video"), _starts(b"DKIF")),
    (Format("NUT", "video"), _starts(b"nut/multimedia container")),
    (Format("video stream", "video"), _is_stream),
)
"""Signatures, as the formats' specifications give them. Containers are those whose codecs `toolkit.data.opening`
decodes."""
