from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from toolkit.api.contracts import Split
from toolkit.api.errors import DataError
from toolkit.data.images import ArrayItems, ImageFiles, read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("suffix", "form"), [("png", "PNG"), ("webp", "WEBP"), ("jpg", "JPEG")])
def test_an_image_is_read_as_rgb(tmp_path, suffix, form):
    pixels = read_image(put(tmp_path / f"a.{suffix}", encoded(Image.fromarray(PIXELS), form, lossless=True)))
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (3, 20, 30)
    if form != "JPEG":
        assert np.array_equal(pixels.permute(1, 2, 0).numpy(), PIXELS)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK"])
def test_other_modes_become_rgb(tmp_path, mode):
    form = "JPEG" if mode == "CMYK" else "PNG"
    assert read_image(put(tmp_path / "a.img", encoded(Image.fromarray(PIXELS).convert(mode), form))).shape == (
        3,
        20,
        30,
    )


def test_sixteen_bits_become_eight(tmp_path):
    deep = np.arange(600, dtype=np.uint16).reshape(20, 30) * 109
    pixels = read_image(put(tmp_path / "a.png", encoded(Image.fromarray(deep), "PNG")))
    assert pixels.dtype == torch.uint8
    assert np.array_equal(pixels[0].numpy(), deep >> 8)


def test_an_image_is_turned_upright_as_its_exif_says(tmp_path):
    image = Image.fromarray(PIXELS)
    exif = image.getexif()
    exif[0x0112] = 6
    pixels = read_image(put(tmp_path / "a.png", encoded(image, "PNG", exif=exif)))
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), np.rot90(PIXELS, -1))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_an_image_cut_short_is_an_error_that_names_it(tmp_path, form):
    data = encoded(Image.fromarray(PIXELS), form)
    path = put(tmp_path / "cut.img", data[: len(data) // 2])
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert caught.value.path == path
    assert caught.value.message.startswith(f"{path}: cannot be decoded: ")
    assert ".cpp" not in caught.value.message
    assert "on_corrupt" in caught.value.next_step


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "it is empty"),
        (b"no image", "it is not a JPEG, PNG, WebP or GIF image"),
        (encoded(Image.fromarray(PIXELS), "BMP"), "it is not a JPEG, PNG, WebP or GIF image"),
    ],
)
def test_what_is_not_an_image_is_an_error_that_names_it(tmp_path, data, cause):
    with pytest.raises(DataError, match=rf"a.jpg: cannot be decoded: {cause}$"):
        read_image(put(tmp_path / "a.jpg", data))


@pytest.mark.parametrize(
    ("form", "cause"), [("GIF", "it holds 2 pictures, not one"), ("WEBP", "it holds several pictures, not one")]
)
def test_an_animation_is_not_an_image(tmp_path, form, cause):
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=rf"cannot be decoded: {cause}$"):
        read_image(put(tmp_path / "a.jpg", data))


def test_transparent_pixels_keep_their_colours(tmp_path):
    alpha = np.dstack([PIXELS, np.zeros((20, 30), np.uint8)])
    pixels = read_image(put(tmp_path / "a.png", encoded(Image.fromarray(alpha), "PNG")))
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), PIXELS)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_suffix_may_be_another_formats(tmp_path, form):
    assert read_image(put(tmp_path / "a.bmp", encoded(Image.fromarray(PIXELS), form))).shape == (3, 20, 30)


def test_a_missing_image_is_an_error_that_names_it(tmp_path):
    with pytest.raises(DataError, match=r"gone.jpg: cannot be read: No such file"):
        read_image(tmp_path / "gone.jpg")


def test_image_files_are_a_split(tmp_path):
    paths = tuple(put(tmp_path / f"{n}.png", encoded(Image.fromarray(PIXELS + n), "PNG")) for n in range(3))
    split = ImageFiles(("a", "b", "c"), (0, 1, 0), ("x", "y", "z"), paths)
    assert isinstance(split, Split)
    chosen = split.select([2, 0])
    assert (chosen.ids, chosen.targets, chosen.keys, len(chosen)) == (("c", "a"), (0, 0), ("z", "x"), 2)
    assert torch.equal(chosen.read(0), split.read(2))
    assert not torch.equal(chosen.read(0), chosen.read(1))


@pytest.mark.parametrize("shape", [(3, 3, 4, 4), (3, 2, 3, 4, 4)])
def test_array_items_are_a_split(shape):
    pixels = torch.arange(np.prod(shape)).to(torch.uint8).reshape(shape)
    split = ArrayItems(("a", "b", "c"), (0, 1, 0), ("x", "y", "z"), pixels)
    assert isinstance(split, Split)
    chosen = split.select((1,))
    assert (chosen.ids, chosen.targets, chosen.keys, len(chosen)) == (("b",), (1,), ("y",), 1)
    assert torch.equal(chosen.read(0), pixels[1])
    assert len(split.select(())) == 0


def test_the_module_is_light():
    code = "import sys, toolkit.data.images, toolkit.data.splits; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


DECODING = """
import sys
from pathlib import Path
import torch
from toolkit.data.images import read_image
before = read_image(Path(sys.argv[1]))
assert "torchvision" not in sys.modules
from torchvision.io import ImageReadMode, decode_image, read_file
from toolkit.data import images
assert images._RGB == ImageReadMode.RGB.value
assert torch.equal(before, read_image(Path(sys.argv[1])))
"""


def test_images_are_decoded_with_and_without_the_rest_of_torchvision(tmp_path):
    path = put(tmp_path / "a.png", encoded(Image.new("RGB", (4, 3), (1, 2, 3)), "PNG"))
    done = subprocess.run([sys.executable, "-c", DECODING, str(path)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_where_the_operators_are_elsewhere_all_of_torchvision_brings_them(tmp_path):
    path = put(tmp_path / "a.png", encoded(Image.new("RGB", (4, 3), (1, 2, 3)), "PNG"))
    code = "import sys, toolkit.data.images as images\nimages._libraries = list\nfrom pathlib import Path\n"
    code += "sys.exit(tuple(images.read_image(Path(sys.argv[1])).shape) != (3, 3, 4))"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0
