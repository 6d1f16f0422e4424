"""The pixels of an image file, by one rule for training, evaluation and `predict`. No torch here.

What becomes of a file that is not as it should be:

| file | what is read |
| --- | --- |
| grey, black and white, with a palette, CMYK, YCbCr or LAB | RGB, without its colour profile |
| with an alpha channel | its colours, as if none were transparent |
| 16 bits a channel | the upper eight |
| numbers of 32 bits, or 16-bit greys that do not go from black to white | an error |
| turned by its EXIF data, wherever that stands; without it, by its XMP data | an upright image |
| another suffix than its format | as if the suffix were right |
| an animation or several pages (GIF, WebP, PNG, TIFF, AVIF) | the first picture; a note counts and names such files |
| HEIC | an image where `pillow-heif` is installed, else an error |
| a TIFF that begins with a thumbnail, as camera raw files do | an error |
| of another format | an error that names it |
| more than 134 million pixels (WebP: 67), or more than 256 MiB | an error |
| empty, damaged, cut short, or no image (text, say) | an error |
"""

from __future__ import annotations

import importlib
import io
import os
import warnings
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError, features

from toolkit.api.errors import DataError
from toolkit.data.kinds import IMAGES, LOOKED_AT, Format, format_of
from toolkit.data.regular import require_regular

LARGEST = 2**27
"""Pixels of the largest image that is decoded: Pillow needs 4 bytes for each of them and the answer 3, so less than
1 GB. A file of some bytes can claim more than any machine has memory for."""
LARGEST_WEBP = LARGEST // 2
"""The same for WebP, of which libwebp keeps two more copies."""
LARGEST_FILE = 2**28
"""Bytes of the largest file that is read."""
STRIP = 2**22
"""Pixels that are converted to RGB at a time: of the whole image there is one copy."""

DecodeJpeg: TypeAlias = Callable[[bytes], "NDArray[np.uint8]"]
"""From the bytes of a JPEG of one or three channels to uint8 `[H, W, 3]`, not turned; RuntimeError where it is damaged.
Its pixels must be those of Pillow, whose word counts where it raises."""

_PILLOW = {"MPO": "JPEG", "HEIC": "HEIF", "WebP": "WEBP"}
"""Formats that Pillow calls otherwise."""
_Turn: TypeAlias = Callable[["NDArray[Any]"], "NDArray[Any]"]
_TURNS: Mapping[int, _Turn] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
"""From the stored picture to the upright one, by EXIF's orientation."""


class UndecodableError(ValueError):
    """An image cannot be decoded; the message says why, about "it"."""


def read_pixels(path: Path, jpeg: DecodeJpeg | None = None) -> NDArray[np.uint8]:
    """The picture in an image file, uint8 `[H, W, 3]`, upright, by the rule of this module. Raises DataError naming the
    file for all that goes wrong.

    jpeg: a decoder that is faster than Pillow's
    """
    data = _read(path)
    try:
        return decode_pixels(data, jpeg)
    except UndecodableError as error:
        raise DataError(
            f"cannot be decoded: {error}",
            path=path,
            next_step='Replace or remove the file, or set input.on_corrupt = "skip".',
        ) from error


def decode_pixels(data: bytes, jpeg: DecodeJpeg | None = None, *, largest: int = LARGEST) -> NDArray[np.uint8]:
    """As `read_pixels`, of the content of a file. Raises UndecodableError.

    largest: pixels that it may have, at most `LARGEST`
    """
    form = format_of(data[:LOOKED_AT])
    if form is None or form.kind != "image":
        raise UndecodableError(_other_than_image(data, form))
    if jpeg is not None and form.name == "JPEG" and (size := _size_of_plain_jpeg(data)):
        _check_size(*size, largest)
        with suppress(RuntimeError):
            return jpeg(data)
        jpeg = None
    return _decoded(data, form, jpeg, largest)


def count_pictures(path: Path) -> int:
    """How many pictures an image file holds, of which the first is read: frames or pages. 1 where it cannot be read."""
    ignore_pillows_warnings()
    try:
        with path.open("rb") as file:
            head = file.read(LOOKED_AT)
            form = format_of(head)
            if form is None or not _may_hold_several(form, head, file):
                return 1
            file.seek(0)
            with open_picture(file, form) as image:
                return int(getattr(image, "n_frames", 1))
    except Exception:  # who decodes it says what is wrong; a damaged file makes Pillow's parsers raise anything
        return 1


def _may_hold_several(form: Format, head: bytes, file: io.BufferedReader) -> bool:
    """Whether more than the head of a file must be looked at: that is enough for the formats of most data sets."""
    if form.name == "WebP":
        return head[12:16] == b"VP8X" and bool(head[20] & 2)
    if form.name == "PNG":
        return _has_animation_chunk(file)
    return form.name in ("GIF", "TIFF", "AVIF")


def _has_animation_chunk(file: io.BufferedReader) -> bool:
    """Whether a PNG has the chunk `acTL`, which stands before its pixels."""
    file.seek(8)
    while len(header := file.read(8)) == 8:
        if header[4:] in (b"acTL", b"IDAT"):
            return header[4:] == b"acTL"
        file.seek(int.from_bytes(header[:4], "big") + 4, io.SEEK_CUR)
    return False


def _read(path: Path) -> bytes:
    require_regular(path)
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (a third of the time of a small file)
            size = os.fstat(file.fileno()).st_size
            if size > LARGEST_FILE:
                raise DataError(f"cannot be decoded: it is larger than {LARGEST_FILE >> 20} MiB", path=path)
            return file.read(size)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from error


def _other_than_image(data: bytes, form: Format | None) -> str:
    if not data:
        return "it is empty"
    if form is None:
        return f"it is not a {IMAGES} image"
    if form.kind == "video":
        return f"it is a video ({form.name}), not an image"
    return f"its format is {form.name}, which is not supported; convert it to PNG"


def _decoded(data: bytes, form: Format, jpeg: DecodeJpeg | None, largest: int) -> NDArray[np.uint8]:
    ignore_pillows_warnings()
    try:
        _check_before_opening(data, form, largest)
        with open_picture(io.BytesIO(data), form) as image:
            _check_size(image.height, image.width, largest)
            pixels = _of_jpeg(image, data, jpeg)
            if pixels is None:
                image.load()
                pixels = _rgb(image)
            turn = _TURNS.get(orientation(image))
            return pixels if turn is None else _turned(pixels, turn)
    except (UndecodableError, MemoryError):
        raise
    except Image.DecompressionBombError as error:  # Pillow's limit is above ours
        raise _too_large(largest) from error
    except UnidentifiedImageError as error:
        raise UndecodableError(f"its {form.name} header is damaged") from error
    except Exception as error:  # a damaged file makes Pillow's parsers raise anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UndecodableError(f"its {form.name} data is damaged: {reason}") from error


def open_picture(file: io.BytesIO | io.BufferedReader, form: Format) -> Any:
    """An image of Pillow, whose header is read. Raises what Pillow raises, or UndecodableError."""
    name = _PILLOW.get(form.name, form.name)
    if name == "HEIF" and not _reads_heif():
        raise UndecodableError("its format is HEIC, which needs another library: pip install pillow-heif")
    if name == "AVIF" and not features.check("avif"):
        raise UndecodableError("its format is AVIF, which this build of Pillow does not decode; convert it to PNG")
    return Image.open(file, formats=(name, "MPO") if name == "JPEG" else (name,))


@cache
def _reads_heif() -> bool:
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return False
    return True


def _check_before_opening(data: bytes, form: Format, largest: int) -> None:
    """What Pillow does not check, or too late."""
    if form.name == "PNG":
        _check_png(data)
    elif form.name == "WebP" and (size := _size_of_webp(data)):
        _check_size(*size, min(largest, LARGEST_WEBP))  # libwebp allocates all of it to open the file


def _check_png(data: bytes) -> None:
    """Compare the checksums of the chunks that matter: Pillow does not look at those of pixels, and passes over damage
    near their end."""
    view, place = memoryview(data), 8
    while place + 12 <= len(data):
        name, end = data[place + 4 : place + 8], place + 8 + int.from_bytes(data[place : place + 4], "big")
        critical = name[:1].isupper()
        if critical and zlib.crc32(view[place + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise UndecodableError("its PNG data is damaged: a checksum does not match")
        if name == b"IEND":
            return
        place = end + 4


def _size_of_webp(data: bytes) -> tuple[int, int] | None:
    """Height and width, as RFC 9649 writes them."""
    chunk = data[12:16]
    if chunk == b"VP8X":
        return int.from_bytes(data[27:30], "little") + 1, int.from_bytes(data[24:27], "little") + 1
    if chunk == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if chunk == b"VP8 ":
        return int.from_bytes(data[28:30], "little") & 0x3FFF, int.from_bytes(data[26:28], "little") & 0x3FFF
    return None


def _size_of_plain_jpeg(data: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG of one or three channels of 8 bits that has neither EXIF nor XMP data, so that nothing
    turns it; None for any other. Opening it with Pillow would take as long as decoding a small one."""
    place, size = 2, None
    while data[place : place + 1] == b"\xff":
        marker, length = data[place + 1 : place + 2], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == b"\xda":  # pixels begin
            return size
        if marker not in _PLAIN or length < 2:
            return None
        if marker in (b"\xc0", b"\xc1", b"\xc2"):
            depth, channels = data[place + 4 : place + 5], data[place + 9 : place + 10]
            height, width = (int.from_bytes(data[place + at : place + at + 2], "big") for at in (5, 7))
            if depth != b"\x08" or channels not in (b"\x01", b"\x03") or not height * width:
                return None
            size = height, width
        place += 2 + length
    return None


_PLAIN = frozenset(bytes([marker]) for marker in (0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, 0xE0, *range(0xE2, 0xF0), 0xFE))
"""Segments of a JPEG that nothing turns: frames, tables, comments and the data of applications but APP1."""


def _check_size(height: int, width: int, largest: int = LARGEST) -> None:
    if height * width > largest:
        raise _too_large(largest)


def _too_large(largest: int = LARGEST) -> UndecodableError:
    return UndecodableError(f"it has more than {largest // 10**6} million pixels; make it smaller")


def _of_jpeg(image: Any, data: bytes, jpeg: DecodeJpeg | None) -> NDArray[np.uint8] | None:
    if jpeg is not None and image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
        with suppress(RuntimeError):
            return jpeg(data)
    return None


def _rgb(image: Any) -> NDArray[np.uint8]:
    """The pixels of a decoded picture as they are stored, not turned."""
    image.info.pop("transparency", None)  # converting a palette would warn that it is dropped
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    if tags.get(_SUBFILE, 0) & 1:
        raise UndecodableError("it begins with a thumbnail, as camera raw files do; convert it to PNG")
    if image.mode.startswith("I;16") and (tags.get(_BITS, (16,)), tags.get(_PHOTOMETRIC, 1)) != ((16,), 1):
        raise UndecodableError("its greys do not go from 0 (black) to 65,535 (white); save it with 8 bits")
    if image.mode in ("I", "F"):
        raise UndecodableError("its pixels are numbers of 32 bits, of any range; save it with 8 or 16 bits a channel")
    if image.width * image.height <= STRIP:
        return _converted(image)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(STRIP // image.width, 1)
    for top in range(0, image.height, rows):
        below = min(top + rows, image.height)
        pixels[top:below] = _converted(image.crop((0, top, image.width, below)))
    return pixels


def _converted(image: Any) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


_SUBFILE, _BITS, _PHOTOMETRIC = 254, 258, 262
"""Tags of TIFF 6.0: whether a page is a smaller version of another, bits a channel, and what the numbers mean."""


def _turned(pixels: NDArray[np.uint8], turn: _Turn) -> NDArray[np.uint8]:
    """A copy, pixel by pixel: numpy takes twice as long for three bytes each."""
    whole = np.ascontiguousarray(pixels).view(np.dtype("V3"))[..., 0]
    upright = np.ascontiguousarray(turn(whole))
    return upright.view(np.uint8).reshape(*upright.shape, 3)


def orientation(image: Any) -> int:
    """EXIF's, as `ImageOps.exif_transpose` has it, so that programs that use a bundle with Pillow do the same."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged block says nothing of the picture, which is whole
        return 1


def ignore_pillows_warnings() -> None:
    """They name no file, and what they are about is an error here or harmless. `warnings.catch_warnings` is not for
    threads, so the rest of the process does not see them either."""
    if _QUIET not in warnings.filters:
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


_QUIET = ("ignore", None, Image.DecompressionBombWarning, None, 0)
