"""Image files as pixels, by Pillow: the very pixels that training read with `toolkit.data.images.read_image`."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from toolkit.api.errors import DataError, printable

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
_TURNED = ("JPEG", "MPO", "PNG")
"""Formats whose EXIF orientation training obeys. MPO is what Pillow calls a JPEG that carries more pictures."""
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_picture(path: str) -> Image.Image:
    """The picture in a JPEG, PNG, WebP or GIF file: mode RGB, turned upright as its EXIF says.

    Grey and palette pictures become RGB, an alpha channel is dropped, 16 bits become 8. Raises DataError naming the
    file when it is missing, damaged, cut short, of another format, animated, or so large that it must be meant to
    exhaust memory.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 (a Path a file costs time)
            raise _unreadable(path, "cannot be read: not a plain file")
        with open(path, "rb") as file:  # noqa: PTH123 (a Path a file costs time)
            return _decoded(Image.open(file, formats=FORMATS))
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise _unreadable(path, "cannot be decoded: not a JPEG, PNG, WebP or GIF image") from error
    except OSError as error:
        raise _unreadable(path, f"cannot be read: {error.strerror}" if error.errno else _undecodable(error)) from error
    except Exception as error:  # a damaged file makes Pillow's parsers raise anything
        raise _unreadable(path, _undecodable(error)) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Pillow's warnings, which name no file, are not shown inside. For the main thread, around all that reads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _decoded(image: ImageFile) -> Image.Image:
    if image.format in ("WEBP", "GIF") and getattr(image, "n_frames", 1) > 1:
        raise ValueError("it is an animation")
    image.load()
    turn = _UPRIGHT.get(_orientation(image)) if image.format in _TURNED else None
    picture: Image.Image = image
    if image.mode.startswith("I"):  # Pillow would clip 16-bit grey at 255 where the high byte is wanted
        picture = image.convert("I").point(lambda level: level / 256).convert("L")
    picture = picture if picture.mode == "RGB" else picture.convert("RGB")
    return picture if turn is None else picture.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """From the EXIF block alone, as training does: Pillow would take it from XMP as well."""
    data = image.info.get("exif")
    if not data:
        return 1
    exif = Image.Exif()
    try:
        exif.load(data)
        return int(exif.get(_ORIENTATION, 1))
    except Exception:  # a damaged block says nothing of the picture, which is whole
        return 1


def _undecodable(error: Exception) -> str:
    return f"cannot be decoded: {error or type(error).__name__}"


def _unreadable(path: str, problem: str) -> DataError:
    return DataError(f"{printable(path)}: {problem}")
