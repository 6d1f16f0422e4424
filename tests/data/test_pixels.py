"""One rule for what an image file shows: training, evaluation and `predict` see the same pixels, or the same reason."""

from __future__ import annotations

import io
import os
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFile, features

from tests.odd_images import DEEP, READ, REFUSED, SEVERAL, SMOOTH, UPRIGHT, encoded, flipped, png, turned
from tests.plugins.data_files import real_data
from toolkit.api.errors import DataError
from toolkit.data import pixels as module
from toolkit.data.images import read_image
from toolkit.data.pixels import count_pictures, decode_pixels, read_pixels


def put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def as_in_training(path: Path) -> NDArray[np.uint8]:
    """The pixels that `predict` reads, after a look whether training reads the same."""
    pixels = read_pixels(path)
    assert (pixels.dtype, pixels.shape[2:]) == (np.uint8, (3,))
    assert np.array_equal(read_image(path).permute(1, 2, 0).numpy(), pixels)
    return pixels


@pytest.mark.parametrize("name", READ)
def test_odd_images_are_read_alike(tmp_path: Path, name: str) -> None:
    pixels = as_in_training(put(tmp_path, name, READ[name]))
    if name in UPRIGHT:
        assert np.array_equal(pixels, UPRIGHT[name])


@pytest.mark.parametrize("name", REFUSED)
def test_other_images_are_refused_by_name(tmp_path: Path, name: str) -> None:
    data, reason = REFUSED[name]
    path = put(tmp_path, name, data)
    for read in (read_image, read_pixels):
        with pytest.raises(DataError, match=f"^{path}: cannot be decoded: {reason}") as caught:
            read(path)
        assert caught.value.path == path
        assert "on_corrupt" in str(caught.value.next_step)


def test_colours_that_are_transparent_are_read() -> None:
    hidden = np.dstack([np.asarray(SMOOTH), np.zeros((61, 97), np.uint8)])
    assert np.array_equal(decode_pixels(encoded(Image.fromarray(hidden), "PNG")), np.asarray(SMOOTH))


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_of_sixteen_bits_the_upper_eight_are_read(colour: int, channels: int) -> None:
    pixels = decode_pixels(png(16, colour, DEEP[..., :channels]))
    shown = channels - 1 + channels % 2  # without the alpha channel
    assert np.array_equal(pixels, np.broadcast_to(DEEP[..., :shown] >> 8, pixels.shape))


@pytest.mark.parametrize("name", ["deep.tif", "deep-big-endian.tif"])
def test_of_a_tiff_too(name: str) -> None:
    assert np.array_equal(decode_pixels(READ[name])[..., 0], DEEP[..., 0] >> 8)


@settings(max_examples=30)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(20, 100), st.sampled_from(["JPEG", "PNG", "WEBP"]))
def test_every_size_and_quality_is_read_as_in_training(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, quality: int, form: str
) -> None:
    data = encoded(SMOOTH.resize((width, height)), form, quality=quality)
    as_in_training(put(tmp_path_factory.mktemp("picture"), "a.img", data))


@pytest.mark.parametrize("name", SEVERAL)
def test_files_that_hold_several_pictures_are_known(tmp_path: Path, name: str) -> None:
    assert count_pictures(put(tmp_path, name, READ[name])) == SEVERAL[name]
    if name != "animated.avif":  # which is lossy
        first = SMOOTH.convert("P") if name.endswith("gif") else SMOOTH
        assert np.array_equal(decode_pixels(READ[name]), np.asarray(first.convert("RGB")))


@pytest.mark.parametrize("name", sorted(READ.keys() - SEVERAL.keys()))
def test_others_hold_one(tmp_path: Path, name: str) -> None:
    assert count_pictures(put(tmp_path, name, READ[name])) == 1


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_counts_as_one(tmp_path: Path, name: str) -> None:
    assert count_pictures(put(tmp_path, name, REFUSED[name][0])) == 1


def test_an_image_is_converted_in_strips_where_it_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("RGB.png", "P.png", "CMYK.jpg", "deep.tif", "1.bmp", "turned.png")
    whole = [decode_pixels(READ[name]) for name in names]
    monkeypatch.setattr(module, "STRIP", 100)
    assert all(np.array_equal(decode_pixels(READ[name]), one) for name, one in zip(names, whole, strict=True))


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.png"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    for read in (read_image, read_pixels):
        with pytest.raises(DataError, match=r"sparse\.png: cannot be decoded: it is larger than 256 MiB$"):
            read(path)


def test_what_would_never_end_is_not_opened(tmp_path: Path) -> None:
    """A named pipe that nobody writes to, in a folder of pictures say."""
    os.mkfifo(tmp_path / "pipe.png")
    for read in (read_image, read_pixels):
        with pytest.raises(DataError, match=r"pipe\.png: expected a regular file, got a FIFO"):
            read(tmp_path / "pipe.png")


def test_a_missing_image_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jpg: cannot be read: No such file"):
        read_pixels(tmp_path / "gone.jpg")


@pytest.mark.parametrize("name", ["RGB.jpg", "turned-6.jpg"])
def test_pillow_decides_where_the_faster_decoder_does_not_read_a_jpeg(name: str) -> None:
    asked = []

    def refuse(data: bytes) -> NDArray[np.uint8]:
        asked.append(data)
        raise RuntimeError("damaged")

    assert np.array_equal(decode_pixels(READ[name], refuse), decode_pixels(READ[name]))
    assert asked == [READ[name]]


@pytest.mark.parametrize("name", ["CMYK.jpg", "RGB.png", "webp.png"])
def test_the_faster_decoder_is_not_asked_for_others(name: str) -> None:
    def fail(data: bytes) -> NDArray[np.uint8]:
        raise AssertionError(data[:16])

    decode_pixels(READ[name], fail)


def test_pillow_warns_of_nothing_and_others_still_do() -> None:
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("error")
        decode_pixels(encoded(SMOOTH, "JPEG", exif=b"Exif\0\0XX"))
        decode_pixels(READ["transparent-palette.png"])
        before = len(warnings.filters)
        decode_pixels(READ["RGB.png"])
        assert len(warnings.filters) == before
        with pytest.raises(UserWarning, match="not of Pillow"):
            warnings.warn("not of Pillow", UserWarning, stacklevel=1)


def test_heic_is_refused_with_what_brings_its_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    module._reads_heif.cache_clear()
    with pytest.raises(ValueError, match=r"^its format is HEIC, which needs another library: pip install pillow-heif$"):
        decode_pixels(HEIC)
    module._reads_heif.cache_clear()


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


class HeifLike(ImageFile.ImageFile):
    """Stands in for pillow-heif's opener: a picture of one colour."""

    format = "HEIF"

    def _open(self) -> None:
        self._size, self._mode = (4, 3), "RGB"
        self.tile = [ImageFile._Tile("raw", (0, 0, 4, 3), 0, ("RGB", 0, 1))]
        self.fp = io.BytesIO(bytes([9]) * 36)


def test_heic_is_read_where_its_decoder_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {name: dict(getattr(Image, name)) for name in ("OPEN", "EXTENSION", "MIME")}
    listed = list(Image.ID)

    def register() -> None:
        Image.register_open("HEIF", HeifLike, lambda head: head[4:8] == b"ftyp")

    fake: Any = types.ModuleType("pillow_heif")
    fake.register_heif_opener = register
    monkeypatch.setitem(sys.modules, "pillow_heif", fake)
    module._reads_heif.cache_clear()
    try:
        assert np.array_equal(decode_pixels(HEIC), np.full((3, 4, 3), 9))
    finally:
        module._reads_heif.cache_clear()
        Image.ID[:] = listed
        for name, before in known.items():
            getattr(Image, name).clear()
            getattr(Image, name).update(before)


def test_avif_is_refused_where_pillow_does_not_decode_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda name: name != "avif")
    with pytest.raises(ValueError, match=r"^its format is AVIF, which this build of Pillow does not decode"):
        decode_pixels(READ["RGB.avif"])


@pytest.mark.parametrize("place", range(0, 400, 7))
def test_a_png_with_one_flipped_bit_is_refused_or_whole(place: int) -> None:
    """Its pixels have checksums: no damage passes for another picture."""
    data = READ["P.png"]
    changed = flipped(data, len(data) - 1 - place * len(data) // 400)
    try:
        assert np.array_equal(decode_pixels(changed), decode_pixels(data))
    except ValueError as error:
        assert str(error).startswith("it")  # noqa: PT017 - both outcomes are right


@pytest.mark.real
def test_real_images_are_read_alike() -> None:
    for path in sorted(real_data("har-subset").glob("train/*.jpg"))[:40]:
        as_in_training(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_every_orientation_is_turned_as_pillow_does(form: str, orientation: int) -> None:
    from PIL import ImageOps

    data = encoded(SMOOTH, form, exif=turned(orientation), lossless=True)
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert np.array_equal(decode_pixels(data), np.asarray(shown))
