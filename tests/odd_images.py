"""Images that are not as they should be, made in memory: those that are read, with their pixels, and those that are
refused, with what is said of them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

ORIENTATION = 0x0112
NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
SMOOTH = Image.fromarray(NOISE).resize((97, 61), Image.Resampling.BICUBIC)
OTHER = SMOOTH.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
DEEP = np.random.default_rng(1).integers(0, 2**16, (7, 9, 4), dtype=np.uint16)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
TURNED_BY_XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:Description tiff:Orientation="6"/></x:xmpmeta>'


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.copy().save(buffer, form, **options)  # saving leaves traces in the image, which the next format minds
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def segment(marker: int, data: bytes) -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG with more segments before its others."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    depth: int, colour: int, rows: NDArray[Any], claimed: tuple[int, int] | None = None, before: bytes = b""
) -> bytes:
    """A PNG of rows of samples of 8 or 16 bits (Pillow writes no colour of 16 bits) that claims a height and width."""
    height, width = claimed or rows.shape[:2]
    body = b"".join(b"\0" + row.astype(f">u{depth // 8}").tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def with_chunk_behind_pixels(image: bytes, kind: bytes, data: bytes) -> bytes:
    return image[:-12] + chunk(kind, data) + image[-12:]


def tiff(tags: Mapping[int, Any], image: Image.Image) -> bytes:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[tag] = value
    return encoded(image, "TIFF", tiffinfo=info)


def flipped(data: bytes, place: int) -> bytes:
    """The data with one bit changed."""
    changed = bytearray(data)
    changed[place] ^= 0x10
    return bytes(changed)


def _long_orientation() -> bytes:
    """An EXIF block, big-endian, whose orientation is a number of 32 bits."""
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">HHHII", 1, ORIENTATION, 4, 1, 6) + struct.pack(">I", 0)


def _jpeg_of_several(*images: Image.Image) -> bytes:
    return encoded(images[0], "MPO", save_all=True, append_images=images[1:])


_PLAIN = encoded(SMOOTH, "JPEG")
_LOSSLESS = encoded(SMOOTH, "PNG")
_BITMAP = encoded(SMOOTH, "BMP")
TOO_LARGE = "it has more than 134 million pixels; make it smaller"
_EXIF = turned(6).tobytes()

READ: Mapping[str, bytes] = {
    # JPEG
    **{f"{mode}.jpg": encoded(SMOOTH.convert(mode), "JPEG") for mode in ("L", "RGB", "CMYK")},
    "progressive.jpg": encoded(SMOOTH, "JPEG", progressive=True),
    **{f"subsampled-{number}.jpg": encoded(SMOOTH, "JPEG", subsampling=number) for number in range(3)},
    "restarting.jpg": encoded(SMOOTH, "JPEG", restart_marker_blocks=2),
    "worst.jpg": encoded(SMOOTH, "JPEG", quality=1),
    "one-pixel.jpg": encoded(SMOOTH.crop((0, 0, 1, 1)), "JPEG"),
    "cmyk-with-exif.jpg": encoded(SMOOTH.convert("CMYK"), "JPEG", exif=turned(5)),
    "trailing-text.jpg": _PLAIN + b"what a camera adds",
    "exif-damaged.jpg": encoded(SMOOTH, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"),
    **{f"turned-{number}.jpg": encoded(SMOOTH, "JPEG", exif=turned(number)) for number in range(10)},
    "xmp-first.jpg": with_segments(
        encoded(SMOOTH, "JPEG", exif=turned(6)), segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
    ),
    "long.jpg": with_segments(_PLAIN, segment(0xE1, _long_orientation())),
    "xmp-alone.jpg": with_segments(_PLAIN, segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + TURNED_BY_XMP)),
    "several.jpg": _jpeg_of_several(SMOOTH, OTHER),
    "photo.jfif": _PLAIN,
    # PNG
    **{f"{mode}.png": encoded(SMOOTH.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
    "two-bits.png": encoded(SMOOTH.convert("P", palette=Image.Palette.ADAPTIVE, colors=4), "PNG", bits=2),
    "transparent-palette.png": encoded(SMOOTH.convert("P"), "PNG", transparency=bytes(range(256))),
    "transparent-grey.png": encoded(SMOOTH.convert("L"), "PNG", transparency=7),
    **{f"deep-{colour}.png": png(16, colour, DEEP[..., :n]) for colour, n in ((0, 1), (2, 3), (4, 2), (6, 4))},
    "turned.png": encoded(SMOOTH, "PNG", exif=turned(6)),
    "late-exif.png": with_chunk_behind_pixels(_LOSSLESS, b"eXIf", _EXIF.removeprefix(b"Exif\0\0")),
    "animated.png": encoded(SMOOTH, "PNG", save_all=True, append_images=[OTHER]),
    "with-profile.png": encoded(SMOOTH, "PNG", icc_profile=b"\0" * 4000),
    # WebP
    **{f"{mode}.webp": encoded(SMOOTH.convert(mode), "WEBP") for mode in ("L", "P", "RGB", "RGBA")},
    "lossless.webp": encoded(SMOOTH, "WEBP", lossless=True),
    "turned.webp": encoded(SMOOTH, "WEBP", lossless=True, exif=turned(6)),
    "animated.webp": encoded(SMOOTH, "WEBP", lossless=True, save_all=True, append_images=[OTHER]),
    # GIF
    **{f"{mode}.gif": encoded(SMOOTH.convert(mode), "GIF") for mode in ("1", "L", "P")},
    "transparent.gif": encoded(SMOOTH.convert("P"), "GIF", transparency=3),
    "interlaced.gif": encoded(SMOOTH.convert("P"), "GIF", interlace=1),
    "animated.gif": encoded(SMOOTH.convert("P"), "GIF", save_all=True, append_images=[OTHER.convert("P")]),
    # BMP
    **{f"{mode}.bmp": encoded(SMOOTH.convert(mode), "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")},
    # TIFF
    **{f"{mode}.tif": encoded(SMOOTH.convert(mode), "TIFF") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")},
    "lab.tif": encoded(Image.merge("LAB", SMOOTH.split()), "TIFF"),
    **{
        f"{name.removeprefix('tiff_')}.tif": encoded(SMOOTH, "TIFF", compression=name)
        for name in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")
    },
    "fax.tif": encoded(SMOOTH.convert("1"), "TIFF", compression="group4"),
    "deep.tif": encoded(Image.fromarray(DEEP[..., 0]), "TIFF"),
    "deep-big-endian.tif": encoded(Image.fromarray(DEEP[..., 0].astype(">u2")), "TIFF"),
    "big.tiff": encoded(SMOOTH, "TIFF", big_tiff=True),
    "turned.tif": tiff({ORIENTATION: 6}, SMOOTH),
    "pages.tif": encoded(SMOOTH, "TIFF", save_all=True, append_images=[OTHER.copy(), OTHER.copy()]),
    # AVIF
    **{f"{mode}.avif": encoded(SMOOTH.convert(mode), "AVIF", speed=10) for mode in ("L", "RGB", "RGBA")},
    "turned.avif": encoded(SMOOTH, "AVIF", speed=10, exif=turned(6)),
    "animated.avif": encoded(SMOOTH, "AVIF", speed=10, save_all=True, append_images=[OTHER]),
    # By another name
    "png.jpg": _LOSSLESS,
    "webp.png": encoded(SMOOTH, "WEBP"),
    "bmp.webp": encoded(SMOOTH, "BMP"),
    "jpeg.tif": _PLAIN,
    "jpeg": _PLAIN,
}
"""Every one of them is read, by its name: its content."""

SEVERAL = {"animated.png": 2, "animated.webp": 2, "animated.gif": 2, "animated.avif": 2, "pages.tif": 3}
"""Of them, those that hold several pictures, with how many."""

ON_THEIR_SIDE = (
    *("turned-6.jpg", "xmp-first.jpg", "long.jpg", "xmp-alone.jpg"),
    *("turned.png", "late-exif.png", "turned.webp", "turned.tif"),
)
UPRIGHT: Mapping[str, NDArray[np.uint8]] = {
    name: np.rot90(np.asarray(Image.open(io.BytesIO(_PLAIN)) if name.endswith(".jpg") else SMOOTH), -1)
    for name in ON_THEIR_SIDE
}
"""Of them, those that are stored on their side, with the upright pixels."""


REFUSED: Mapping[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "it is empty"),
    "text.png": (b"no image", "it is not a JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC image"),
    **{
        f"cut.{form.lower()}": (encoded(SMOOTH, form)[:900], rf"its {name} data is damaged")
        for form, name in (("JPEG", "JPEG"), ("PNG", "PNG"), ("WEBP", "WebP"), ("GIF", "GIF"), ("TIFF", "TIFF"))
    },
    "header.png": (b"\x89PNG\r\n\x1a\n cut short", "its PNG header is damaged"),
    "flipped.png": (flipped(_LOSSLESS, len(_LOSSLESS) // 2), "its PNG data is damaged: a checksum does not match"),
    "flipped-at-end.png": (flipped(_LOSSLESS, len(_LOSSLESS) - 25), "its PNG data is damaged: a checksum does not"),
    "psd.jpg": (b"8BPS" + bytes(60), r"its format is Photoshop \(PSD\), which is not supported; convert it to PNG"),
    "xl.jpg": (b"\xff\x0a" + bytes(60), "its format is JPEG XL, which is not supported"),
    "2000.jpg": (encoded(SMOOTH, "JPEG2000"), "its format is JPEG 2000, which is not supported"),
    "page.png": (b"%PDF-1.7\n", "its format is PDF, which is not supported"),
    "clip.jpg": (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", r"it is a video \(MP4 or MOV\), not an image"),
    "integers.tif": (encoded(Image.fromarray(DEEP[..., 0].astype(np.int32)), "TIFF"), "its pixels are numbers of 32"),
    "floats.tif": (encoded(Image.fromarray(DEEP[..., 0].astype(np.float32)), "TIFF"), "its pixels are numbers of 32"),
    "white-is-zero.tif": (tiff({262: 0}, Image.fromarray(DEEP[..., 0])), r"its greys do not go from 0 \(black\) to"),
    "thumbnail.tif": (tiff({254: 1}, SMOOTH), "it begins with a thumbnail, as camera raw files do"),
    "bomb.png": (png(8, 0, np.zeros((1, 1), np.uint8), (65536, 65536)), TOO_LARGE),
    "bomb.jpg": (_PLAIN.replace(struct.pack(">HH", 61, 97), b"\xff\xdc\xff\xdc"), TOO_LARGE),
    "bomb.bmp": (_BITMAP[:18] + struct.pack("<ii", 60000, 60000) + _BITMAP[26:], TOO_LARGE),
    "bomb.tif": (
        tiff({}, SMOOTH).replace(struct.pack("<HHII", 256, 4, 1, 97), struct.pack("<HHII", 256, 4, 1, 9**9)),
        TOO_LARGE,
    ),
    "bomb.gif": (b"GIF89a" + b"\xff\xff\xff\xff" + encoded(SMOOTH.convert("P"), "GIF")[10:], TOO_LARGE),
    "bomb.webp": (
        b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\xff" * 2,
        TOO_LARGE.replace("134", "67"),
    ),
}
"""None of them is read."""
