from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import ImageReadMode

from toolkit.api.contracts import Split
from toolkit.api.errors import DataError
from toolkit.data import images
from toolkit.data.images import ArrayItems, ImageFiles, decode_image, read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_an_image_is_read_channels_first(tmp_path):
    pixels = read_image(put(tmp_path / "a.png", encoded(Image.fromarray(PIXELS), "PNG")))
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (3, 20, 30))
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), PIXELS)


def test_the_bytes_of_an_image_are_read_as_its_file_is(tmp_path):
    data = encoded(Image.fromarray(PIXELS), "JPEG")
    assert torch.equal(decode_image(data), read_image(put(tmp_path / "a.jpg", data)))
    with pytest.raises(ValueError, match=r"^it is empty$"):
        decode_image(b"")


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
import os, sys
from pathlib import Path
import torch
from toolkit.data import images
path = Path(sys.argv[1])
if os.fork() == 0:  # where the operators are elsewhere, all of torchvision brings them
    images._libraries = list
    os._exit(tuple(images.read_image(path).shape) != (3, 3, 4))
assert os.wait()[1] == 0
print(images.read_image(path).tolist())
assert "torchvision" not in sys.modules
"""


def test_images_are_decoded_with_and_without_the_rest_of_torchvision(tmp_path):
    path = put(tmp_path / "a.jpg", encoded(Image.new("RGB", (4, 3), (1, 2, 3)), "JPEG"))
    done = subprocess.run([sys.executable, "-c", DECODING, str(path)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ImageReadMode.RGB.value == images._RGB
    assert json.loads(done.stdout) == read_image(path).tolist()
