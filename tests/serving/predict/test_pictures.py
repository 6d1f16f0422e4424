"""Images read by Pillow are the images that training reads."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.plugins.data_files import real_data
from toolkit.api.errors import DataError
from toolkit.data.images import read_image
from toolkit.serving.predict.pictures import quiet, read_picture

NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
SMOOTH = Image.fromarray(NOISE).resize((97, 61), Image.Resampling.BICUBIC)


def saved(path: Path, image: Image.Image, form: str, **options: object) -> Path:
    image.save(path, form, **options)
    return path


def assert_as_in_training(path: Path) -> None:
    expected = read_image(path).permute(1, 2, 0).numpy()
    picture = read_picture(str(path))
    assert picture.mode == "RGB"
    assert np.array_equal(np.asarray(picture), expected)


def png(depth: int, colour: int, rows: np.ndarray, claimed: tuple[int, int] | None = None) -> bytes:
    """A PNG of rows of big-endian samples (Pillow writes no colour of 16 bits) that claims a height and width."""
    height, width = claimed or rows.shape[:2]

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    body = b"".join(b"\0" + row.astype(f">u{depth // 8}").tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "1"])
@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_all_modes_become_the_rgb_of_training(tmp_path: Path, mode: str, form: str) -> None:
    assert_as_in_training(saved(tmp_path / "a.img", SMOOTH.convert(mode), form))


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {}),
        ("RGB", {"subsampling": 0}),
        ("RGB", {"subsampling": 1}),
        ("RGB", {"progressive": True}),
        ("L", {}),
        ("CMYK", {}),
    ],
)
def test_all_kinds_of_jpeg_become_the_rgb_of_training(tmp_path: Path, mode: str, options: dict[str, object]) -> None:
    assert_as_in_training(saved(tmp_path / "a.jpg", SMOOTH.convert(mode), "JPEG", **options))


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_become_eight(tmp_path: Path, colour: int, channels: int) -> None:
    deep = np.random.default_rng(1).integers(0, 2**16, (7, 9, channels), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png(16, colour, deep))
    assert_as_in_training(tmp_path / "a.png")
    assert np.array_equal(np.asarray(read_picture(str(tmp_path / "a.png")))[..., 0], deep[..., 0] >> 8)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_picture_is_turned_as_in_training(tmp_path: Path, form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_as_in_training(saved(tmp_path / "a.img", SMOOTH, form, exif=exif))


def test_a_damaged_exif_block_does_not_matter(tmp_path: Path) -> None:
    for block in (b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0XX", b"Exif\0\0"):
        with quiet():
            assert_as_in_training(saved(tmp_path / "a.jpg", SMOOTH, "JPEG", exif=block))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(20, 100), st.sampled_from(["JPEG", "PNG", "WEBP"]))
def test_every_size_and_quality_is_read_as_in_training(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, quality: int, form: str
) -> None:
    path = tmp_path_factory.mktemp("picture") / "a.img"
    assert_as_in_training(saved(path, SMOOTH.resize((width, height)), form, quality=quality))


def encoded(form: str) -> bytes:
    buffer = io.BytesIO()
    SMOOTH.save(buffer, form)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_picture_cut_short_is_an_error_that_names_it(tmp_path: Path, form: str) -> None:
    path = tmp_path / "cut.img"
    data = encoded(form)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError) as caught:
        read_picture(str(path))
    assert caught.value.message.startswith(f"{path}: cannot be decoded: ")


@pytest.mark.parametrize("data", [b"", b"no image", encoded("BMP"), encoded("TIFF")])
def test_what_is_not_such_an_image_is_reported(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.jpg: cannot be decoded: not a JPEG, PNG, WebP or GIF image"):
        read_picture(str(tmp_path / "a.jpg"))


@pytest.mark.parametrize("form", ["WEBP", "GIF"])
def test_an_animation_is_not_an_image(tmp_path: Path, form: str) -> None:
    other = SMOOTH.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    path = saved(tmp_path / "a.png", SMOOTH, form, save_all=True, append_images=[other])
    with pytest.raises(DataError, match=r"a\.png: cannot be decoded: it is an animation"):
        read_picture(str(path))


@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
def test_a_gif_that_is_called_otherwise_becomes_the_rgb_of_training(tmp_path: Path, mode: str) -> None:
    assert_as_in_training(saved(tmp_path / "a.png", SMOOTH.convert(mode), "GIF"))


def test_a_missing_picture_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.jpg: cannot be read: No such file"):
        read_picture(str(tmp_path / "gone.jpg"))


def test_a_picture_that_would_exhaust_memory_is_not_decoded(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png(8, 0, np.zeros((1, 1), np.uint8), claimed=(65536, 65536)))
    with pytest.raises(DataError, match=r"bomb.png: cannot be decoded: .*decompression bomb"):
        read_picture(str(tmp_path / "bomb.png"))


def test_pillow_warns_of_nothing_inside_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    path = saved(tmp_path / "a.png", SMOOTH, "PNG")
    with quiet():
        assert read_picture(str(path)).size == SMOOTH.size
        with pytest.raises(UserWarning, match="not of Pillow"):
            warnings.warn("not of Pillow", UserWarning, stacklevel=1)
    with pytest.raises(DataError, match="exceeds limit"):
        read_picture(str(path))


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(["JPEG", "PNG", "WEBP"]))
def test_damaged_bytes_are_read_or_reported(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, form: str
) -> None:
    damaged = bytearray(encoded(form))
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=8)):
        damaged[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "a.img"
    path.write_bytes(damaged)
    with quiet(), suppress(DataError):
        assert read_picture(str(path)).mode == "RGB"


@pytest.mark.real
def test_real_pictures_are_read_as_in_training() -> None:
    for path in sorted(real_data("har-subset").glob("train/*.jpg"))[:40]:
        assert_as_in_training(path)


def test_what_would_never_end_is_not_opened(tmp_path: Path) -> None:
    """A named pipe that nobody writes to, in a folder of pictures say."""
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png: cannot be read: not a plain file"):
        read_picture(str(tmp_path / "pipe.png"))
