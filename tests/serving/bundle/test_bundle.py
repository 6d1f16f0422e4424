"""Bundles in use: what they answer, what they take, what they refuse, and what they load."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from subprocess import run
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tests import toy_bundle
from toolkit.api.clips import Clip
from toolkit.api.contracts import Fit
from toolkit.api.errors import EXIT_USAGE, BundleError, UsageError
from toolkit.data.geometry import covering
from toolkit.data.store.resampling import resize, to_square
from toolkit.serving.bundle import Answers, Bundle, Input
from toolkit.serving.bundle.inputs import to_squares


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return toy_bundle.write(tmp_path / "toy")


@pytest.fixture
def bundle(folder: Path) -> Bundle:
    return Bundle.load(folder, device="cpu")


def grey(value: int, *shape: int) -> NDArray[np.uint8]:
    return np.full((*shape, 3), value, np.uint8)


def usage(bundle: Bundle, frames: object) -> str:
    with pytest.raises(UsageError) as caught:
        bundle.predict(frames)  # type: ignore[arg-type]
    assert caught.value.exit_code == EXIT_USAGE
    return caught.value.message


def test_a_batch_is_answered(bundle: Bundle) -> None:
    answers = bundle.predict(np.stack([grey(90, 5, 7), grey(200, 5, 7)]))
    assert answers.labels == ["dark", "bright"]
    assert answers.probabilities.dtype == np.float32
    np.testing.assert_allclose(answers.probabilities.sum(1), 1, atol=1e-6)


def test_one_image_is_a_batch_of_one(bundle: Bundle) -> None:
    assert bundle.predict(grey(200, 5, 7)).labels == ["bright"]


def test_sizes_may_mix_and_order_is_kept(bundle: Bundle) -> None:
    frames = [grey(200, 5, 7), grey(90, 9, 4), grey(90, 5, 7), grey(201, 9, 4)]
    answers = bundle.predict(frames)
    assert answers.labels == ["bright", "dark", "dark", "bright"]
    alone = np.concatenate([bundle.predict(frame).probabilities for frame in frames])
    np.testing.assert_allclose(answers.probabilities, alone, rtol=1e-6)


def test_no_frames_have_no_answers(bundle: Bundle) -> None:
    assert bundle.predict([]).probabilities.shape == (0, 2)
    assert bundle.predict(grey(0, 0, 5, 7)).probabilities.shape == (0, 2)


def test_frames_need_not_be_contiguous(bundle: Bundle) -> None:
    image = grey(200, 10, 14)
    image[::2] = 20
    assert bundle.predict(image[::2]).labels == ["dark"]


def test_clips_are_answered(tmp_path: Path) -> None:
    bundle = Bundle.load(toy_bundle.write(tmp_path / "toy", clip=Clip(frames=4), classes="abc"), device="cpu")
    assert bundle.predict(grey(130, 4, 6, 8)).labels == ["b"]
    assert bundle.predict([grey(130, 4, 6, 8), grey(255, 4, 3, 3)]).labels == ["b", "c"]
    assert bundle.predict(grey(10, 2, 4, 6, 8)).labels == ["a", "a"]
    assert usage(bundle, grey(10, 3, 6, 8)) == "frames: given uint8 [3, 6, 8, 3], needed uint8 [4, H, W, 3]"


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (np.zeros((4, 4, 3), np.float32), "frames: given float32 [4, 4, 3], needed uint8 [H, W, 3]"),
        (np.zeros((4, 4), np.uint8), "frames: given uint8 [4, 4], needed uint8 [H, W, 3]"),
        (np.zeros((4, 4, 4), np.uint8), "frames: given uint8 [4, 4, 4], needed uint8 [H, W, 3]"),
        (np.zeros((2, 3, 4, 4), np.uint8), "frames: given uint8 [2, 3, 4, 4], needed uint8 [H, W, 3]"),
        (np.zeros((1, 2, 4, 4, 3), np.uint8), "frames: given uint8 [1, 2, 4, 4, 3], needed uint8 [H, W, 3]"),
        (np.zeros((0, 4, 3), np.uint8), "frames: given uint8 [0, 4, 3], needed uint8 [H, W, 3]"),
        ([grey(1, 4, 4), np.zeros((4, 4, 3))], "frames[1]: given float64 [4, 4, 3], needed uint8 [H, W, 3]"),
        (["a.png"], "frames[0]: given a str, needed uint8 [H, W, 3]"),
        (Image.new("RGB", (4, 4)), "frames: given a Image, needed uint8 [H, W, 3]"),
    ],
)
def test_other_arrays_are_refused_by_what_they_are(bundle: Bundle, frames: object, said: str) -> None:
    assert usage(bundle, frames) == said


def test_the_likeliest_come_first_and_equals_in_the_models_order() -> None:
    answers = Answers(np.array([[0.25, 0.5, 0.25]], np.float32), ("a", "b", "c"))
    assert answers.top(2) == [[("b", 0.5), ("a", 0.25)]]
    assert len(answers.top(9)[0]) == 3


def test_an_answer_with_one_class_is_a_set_of_it() -> None:
    answers = Answers(np.array([[0.25, 0.5, 0.25], [0.4, 0.4, 0.2]], np.float32), ("a", "b", "c"))
    assert answers.sets == [("b",), ("a",)]
    assert answers.labels == ["b", "a"]


def test_a_set_has_every_class_that_reaches_its_own_threshold() -> None:
    rows = np.array([[0.9, 0.1, 0.69], [0.1, 0.0999, 0.7], [0, 0, 0], [1, 1, 1]], np.float32)
    answers = Answers(rows, ("a", "b", "c"), (0.9, float(np.float32(0.1)), 0.7))
    # 0.9 and 0.7 of float32 lie on this and on that side of those of Python
    assert answers.sets == [("b",), (), (), ("a", "b", "c")]
    assert answers.labels == ["b", "", "", "a|b|c"]
    assert [best[0][0] for best in answers.top(1)] == ["a", "c", "a", "a"]


def test_a_bundle_answers_with_sets_by_its_thresholds(tmp_path: Path) -> None:
    bundle = Bundle.load(toy_bundle.write(tmp_path / "toy", classes="abc", thresholds=(0.5, 0.5, 0.1)), device="cpu")
    answers = bundle.predict(np.stack([grey(0, 4, 4), grey(60, 4, 4), grey(135, 4, 4), grey(255, 4, 4)]))
    assert answers.sets == [(), ("a",), ("a", "b", "c"), ("a", "b", "c")]
    assert answers.labels == ["", "a", "a|b|c", "a|b|c"]
    assert bundle.predict([grey(60, 4, 4), grey(0, 5, 4)]).sets == [("a",), ()]
    assert answers.probabilities[3].sum() > 2


def test_a_bundle_of_numbers_estimates(tmp_path: Path) -> None:
    bundle = Bundle.load(toy_bundle.write(tmp_path / "toy", classes=("age", "height"), numbers=True), device="cpu")
    found = bundle.estimate([grey(60, 4, 4), grey(10, 5, 4)])
    assert found.outputs == ("age", "height")
    assert found.values.tolist() == [[60, 120], [10, 20]]
    with pytest.raises(UsageError, match="answers with numbers") as caught:
        bundle.predict(grey(0, 4, 4))
    assert caught.value.next_step == "call Bundle.estimate(frames)"


def test_a_bundle_of_classes_does_not_estimate(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="answers with classes") as caught:
        bundle.estimate(grey(0, 4, 4))
    assert caught.value.next_step == "call Bundle.predict(frames)"


def test_the_first_precision_is_preferred_and_others_can_be_asked_for(tmp_path: Path) -> None:
    folder = toy_bundle.write(tmp_path / "toy", precisions=("int8", "fp32"))
    assert Bundle.load(folder, device="cpu").precision == "int8"
    assert Bundle.load(str(folder), device="cpu", precision="fp32").precision == "fp32"
    with pytest.raises(UsageError, match='has no model in precision "fp16"') as caught:
        Bundle.load(folder, precision="fp16")
    assert caught.value.next_step == "use one that it has: int8, fp32"


@pytest.mark.parametrize("name", ["model.onnx", "README.md"])
def test_one_changed_byte_is_refused(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(BundleError, match=r"changed or cut short: its SHA-256 is [0-9a-f]{64}, bundle\.json says"):
        Bundle.load(folder)


def test_a_missing_file_is_refused(folder: Path) -> None:
    (folder / "README.md").unlink()
    with pytest.raises(BundleError, match=r"No such file or directory; bundle\.json lists it"):
        Bundle.load(folder)


def test_a_link_out_of_the_bundle_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "model.onnx").rename(tmp_path / "model.onnx")
    (folder / "model.onnx").symlink_to(tmp_path / "model.onnx")
    with pytest.raises(BundleError, match="is a link that leads out of the bundle"):
        Bundle.load(folder)


def test_what_is_no_plain_file_is_refused_and_not_waited_for(folder: Path) -> None:
    (folder / "README.md").unlink()
    os.mkfifo(folder / "README.md")
    with pytest.raises(BundleError, match=r"README\.md: expected a regular file, got a FIFO"):
        Bundle.load(folder)


def test_a_file_too_large_for_a_model_is_refused_unread(folder: Path) -> None:
    with (folder / "README.md").open("r+b") as file:
        file.truncate(200 << 30)
    with pytest.raises(BundleError, match=r"README\.md: has 214,748,364,800 bytes; the limit is 17,179,869,184"):
        Bundle.load(folder)


def test_a_hard_link_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").hardlink_to(folder / "README.md")
    with pytest.raises(BundleError, match="expected a file of one name, got one with 2"):
        Bundle.load(folder)


@pytest.mark.parametrize(("classes", "frames"), [(("a", "b", "c"), None), (("dark", "bright"), 4)])
def test_a_model_that_is_not_what_the_manifest_says_is_refused(
    folder: Path, classes: tuple[str, ...], frames: int | None
) -> None:
    def change(claimed: dict[str, Any]) -> None:
        claimed["classes"] = classes
        claimed["input"]["frames"] = frames
        if frames:
            claimed["sampling"] = {"clip": asdict(Clip(frames=frames)), "span": 1.0}

    toy_bundle.edit(folder, change)
    with pytest.raises(BundleError, match=r"bundle\.json it (takes|gives)"):
        Bundle.load(folder)


SIDES = st.integers(1, 90)
FITS = st.sampled_from(["crop", "stretch"])


@settings(max_examples=150)
@given(SIDES, SIDES, SIDES, FITS, st.integers(0, 2**32 - 1))
def test_squares_are_those_of_training(height: int, width: int, side: int, fit: Fit, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    (found,) = to_squares(Image.fromarray(image), Input(square=side, size=side, fit=fit))
    wanted = to_square(torch.from_numpy(image).movedim(-1, 0), side, fit).movedim(0, -1).numpy()
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (1080, 1920), (2999, 700)])
def test_squares_of_photos_are_those_of_training(height: int, width: int) -> None:
    """Black and white: the largest sums there are."""
    image = np.random.default_rng(0).integers(0, 2, (height, width, 3), dtype=np.uint8) * 255
    (found,) = to_squares(image, Input(square=224, size=224, fit="crop"))
    wanted = to_square(torch.from_numpy(image).movedim(-1, 0), 224, "crop").movedim(0, -1).numpy()
    np.testing.assert_array_equal(found, wanted)


def test_a_bundle_makes_squares_of_arrays_and_pictures(bundle: Bundle) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    square = bundle.square(image)
    assert square.shape == (16, 16, 3)
    np.testing.assert_array_equal(bundle.square(Image.fromarray(image)), square)
    assert bundle.square(square) is square
    np.testing.assert_array_equal(bundle.square(Image.fromarray(square)), square)


def test_pictures_of_other_modes_become_rgb(bundle: Bundle) -> None:
    picture = Image.fromarray(grey(7, 16, 16)).convert("L")
    np.testing.assert_array_equal(bundle.square(picture), grey(7, 16, 16))


def test_squares_of_what_is_no_image_are_refused(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match=r"image: given uint8 \[4, 4\], needed uint8 \[H, W, 3\]"):
        bundle.square(np.zeros((4, 4), np.uint8))


LOADS_LITTLE = """
import sys
import numpy as np
from toolkit.serving.bundle import Bundle
assert not {"numpy.ma", "onnxruntime", "PIL"} & set(sys.modules), "importing alone loads much"
answers = Bundle.load(sys.argv[1], device="cpu").predict(np.zeros((2, 9, 9, 3), np.uint8))
assert answers.labels == ["dark", "dark"]
heavy = {"torch", "torchvision", "pydantic", "rich", "onnx", "sklearn", "matplotlib", "PIL", "google.protobuf"}
sys.exit(" ".join(sorted(heavy & set(sys.modules))) or 0)
"""


def test_answering_loads_neither_torch_nor_what_it_does_not_need(folder: Path) -> None:
    done = run([sys.executable, "-c", LOADS_LITTLE, str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_model_that_is_not_used_is_not_read(tmp_path: Path) -> None:
    path = toy_bundle.write(tmp_path / "toy", precisions=("fp32", "int8"))
    (path / "model.int8.onnx").write_bytes(b"other")
    assert Bundle.load(path, device="cpu").precision == "fp32"
    with pytest.raises(BundleError, match="changed or cut short"):
        Bundle.load(path, device="cpu", precision="int8")


@settings(max_examples=150)
@given(height=SIDES, width=SIDES, side=SIDES, fit=FITS)
def test_three_crops_are_the_ends_and_the_centre_of_the_long_side(height: int, width: int, side: int, fit: Fit) -> None:
    image = np.random.default_rng(height * 91 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = to_squares(Image.fromarray(image), Input(square=side, size=side, fit=fit), crops=3)
    extent = covering(height, width, side) if fit == "crop" else (side, side)
    resized = resize(torch.from_numpy(image).movedim(-1, 0), *extent).movedim(0, -1).numpy()
    for place, square in enumerate(found):
        top, left = (place * (length - side) // 2 for length in extent)
        np.testing.assert_array_equal(resized[top : top + side, left : left + side], square)


def test_a_frame_that_is_a_square_is_every_crop(folder: Path) -> None:
    bundle = Bundle.load(folder, device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for crops in (1, 3):
        assert [np.array_equal(image, square) for square in bundle.squares(image, crops)] == [True] * crops
