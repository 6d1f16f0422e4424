"""Augmentations: what they keep, what they draw, and agreement with torchvision's transforms for the same numbers."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

import toolkit_augment
from toolkit.api.contracts import Augmentation, Batch, DataSpec, Visit
from toolkit.api.errors import RunFailed
from toolkit.kit.testing import draws
from toolkit.kit.testing.side_effects import no_waiting
from toolkit.system.draws import draws_of_each
from toolkit_augment import boxes, color, crop, erase, flip, mix, operations, pixels, policy, resize

CLASSES = ("a", "b", "c", "d", "e")
NAMES = tuple(toolkit_augment.toolkit_augmentations())
HOST_OR_DEVICE = (boxes, flip, pixels, policy, resize)
MIXING = ("mixup", "cutmix")
EXACT = sorted(set(NAMES) - {"random_resized_crop"})

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def as_on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole-batch operations, as an accelerator gets them, on the CPU."""
    for module in HOST_OR_DEVICE:
        monkeypatch.setattr(module, "on_host", lambda _: False)


def factory(name: str) -> Callable[..., Augmentation]:
    module, attribute = toolkit_augment.toolkit_augmentations()[name].split(":")
    made: Callable[..., Augmentation] = getattr(importlib.import_module(module), attribute)
    return made


def spec(size: int = 24, stored: int | None = None) -> DataSpec:
    return DataSpec(CLASSES, size, stored)


def images(samples: int = 6, side: int = 24, frames: int | None = None, *, channels_last: bool = False) -> Tensor:
    lead = (samples,) if frames is None else (samples, frames)
    shape = (*lead, side, side, 3) if channels_last else (*lead, 3, side, side)
    drawn = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(7))
    return drawn.movedim(-1, -3) if channels_last else drawn


def smooth(samples: int = 4, side: int = 40) -> Tensor:
    """Images whose neighbouring pixels are alike, as photographs' are."""
    coarse = torch.rand(samples, 3, 6, 6, generator=torch.Generator().manual_seed(3)) * 255
    shown: Tensor = reference.resize(coarse, [side, side], antialias=True).round().clamp(0, 255).to(torch.uint8)
    return shown


def batch_of(shown: Tensor) -> Batch:
    samples = len(shown)
    return Batch(shown, torch.arange(samples) % len(CLASSES), torch.arange(samples))


def applied(augment: Augmentation, batch: Batch, seed: int = 0) -> Batch:
    return augment(batch, draws(range(len(batch.pixels)), seed))


def difference(one: Tensor, other: Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


# every augmentation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@given(
    samples=st.integers(1, 5),
    size=st.integers(8, 20),
    beyond=st.integers(0, 6),
    frames=st.none() | st.integers(1, 3),
    channels_last=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=15)
def test_gives_uint8_of_a_size_the_model_can_see(
    name: str, samples: int, size: int, beyond: int, frames: int | None, channels_last: bool, seed: int
) -> None:
    shown = images(samples, size + beyond, frames, channels_last=channels_last)
    before = shown.clone()
    out = applied(factory(name)(spec(size, size + beyond)), batch_of(shown), seed)
    assert out.pixels.dtype == torch.uint8
    assert out.pixels.shape[:-2] == shown.shape[:-2]
    assert out.pixels.shape[-1] == out.pixels.shape[-2]
    assert size <= out.pixels.shape[-1] <= size + beyond
    assert torch.equal(out.index, torch.arange(samples))
    assert torch.equal(shown, before), "the batch that was given is not changed"


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_of_one_frame_is_an_image(name: str) -> None:
    augment = factory(name)(spec(16, 24))
    image = applied(augment, batch_of(images())).pixels
    clip = applied(augment, batch_of(images()[:, None])).pixels
    assert torch.equal(clip[:, 0], image)


@pytest.mark.parametrize("frames", [None, 2])
@pytest.mark.parametrize("name", NAMES)
def test_host_and_device_give_the_same_batch(name: str, frames: int | None, request: pytest.FixtureRequest) -> None:
    augment = factory(name)(spec(16, 24))
    host = applied(augment, batch_of(images(frames=frames)), 2)
    request.getfixturevalue("as_on_device")
    device = applied(augment, batch_of(images(frames=frames)), 2)
    assert difference(host.pixels, device.pixels) <= (0 if name in EXACT else 1)
    assert torch.equal(host.targets, device.targets)


@pytest.mark.parametrize("frames", [None, 2])
@pytest.mark.parametrize("name", NAMES)
def test_an_item_comes_out_the_same_in_any_batch(name: str, frames: int | None) -> None:
    augment = factory(name)(spec(16, 24))
    items = torch.randperm(500, generator=torch.Generator().manual_seed(0))[:128]
    places = torch.arange(128)
    shown = images(128, frames=frames)
    wanted = changed_alone(augment, shown, Visit(items, places, 128))
    for size in (4, 28, 64) if name in MIXING else (1, 7, 64):
        for share in torch.arange(128).split(size):
            order = share.flip(0)
            found = changed_alone(augment, shown[order], Visit(items[order], places[order], 128))
            assert torch.equal(found.pixels, wanted.pixels[order])
            assert torch.equal(found.targets, wanted.targets[order])


def changed_alone(augment: Augmentation, shown: Tensor, visit: Visit) -> Batch:
    (its,) = draws_of_each(1, visit, 5, torch.device("cpu"))
    return augment(Batch(shown, visit.items % len(CLASSES), visit.items, visit), its)


@pytest.mark.usefixtures("as_on_device")
@pytest.mark.parametrize("name", NAMES)
def test_on_a_device_no_drawn_number_is_read(name: str) -> None:
    augment, its = factory(name)(spec(16, 24)), draws(range(4))
    with FakeTensorMode():  # raises where the value of a tensor is asked for
        shown = torch.empty(4, 3, 24, 24, dtype=torch.uint8)
        out = augment(Batch(shown, torch.zeros(4, dtype=torch.int64), torch.arange(4)), its)
    assert out.pixels.shape[0] == 4


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("frames", [None, 2])
@pytest.mark.parametrize("name", NAMES)
def test_never_waits_for_a_cuda_device(name: str, frames: int | None) -> None:
    augment = factory(name)(spec(16, 24))
    shown = images(frames=frames).cuda()
    batch = Batch(shown, torch.zeros(len(shown), dtype=torch.int64, device="cuda"), torch.arange(len(shown)))
    visit = Visit(batch.index, batch.index, len(shown))
    its, again = draws_of_each(2, visit, 0, torch.device("cuda"))
    augment(batch, its)
    with no_waiting():
        out = augment(batch, again)
    assert out.pixels.device.type == "cuda"
    assert out.pixels.dtype == torch.uint8


def test_offering_the_components_loads_no_torch() -> None:
    code = "import toolkit_augment as p, sys; p.toolkit_augmentations(); assert not {'torch', 'numpy'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


# arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("random_crop", {"size": 20}, "size: must be at least the 24 pixels the model sees, got 20"),
        ("random_crop", {"size": 40, "padding": 4}, "size: 40 does not fit into 24 stored pixels padded by 4"),
        ("random_crop", {"padding": 24}, "padding: must be below the stored 24 pixels to reflect, got 24"),
        ("random_resized_crop", {"scale": (0.5, 0.2)}, r"scale: must be \[low, high\]"),
        ("random_resized_crop", {"scale": (0.5, 1.5)}, "scale: .* at most 1, got"),
        ("random_resized_crop", {"ratio": (0.0, 1.0)}, "ratio: .* above 0, got"),
        ("random_erasing", {"scale": (0.0, 0.3)}, "scale: "),
        ("random_erasing", {"ratio": (3.0, 0.3)}, "ratio: "),
    ],
)
def test_an_argument_out_of_range_is_named(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        factory(name)(spec(), **arguments)


@pytest.mark.parametrize(
    ("annotation", "bad"),
    [(pixels.Share, 1.5), (pixels.Share, -0.1), (mix.Alpha, 0.0), (erase.Fill, "grey"), (crop.Border, "wrap")],
)
def test_annotations_carry_their_limits(annotation: Any, bad: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(annotation).validate_python(bad)


def test_a_crop_larger_than_what_earlier_augmentations_left_is_explained() -> None:
    with pytest.raises(RunFailed, match="random_crop: cannot cut 24 pixels from an image of 20 x 20") as raised:
        applied(crop.random_crop(spec(), padding=0), batch_of(images(side=20)))
    assert raised.value.next_step
    assert "input.stored" in raised.value.next_step


# random crop -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("frames", [None, 2])
@pytest.mark.parametrize(("border", "mode"), [("reflect", "reflect"), ("zero", "constant"), ("edge", "edge")])
def test_padding_is_torchvisions(border: crop.Border, mode: str, frames: int | None, channels_last: bool) -> None:
    shown = images(3, frames=frames, channels_last=channels_last)
    assert torch.equal(crop.padded(shown, 5, border), reference.pad(shown, [5], padding_mode=mode))


def test_a_crop_shows_one_window_of_the_padded_image() -> None:
    shown = images(8)
    around = reference.pad(shown, [4], padding_mode="constant")
    windows = around.unfold(-2, 24, 1).unfold(-2, 24, 1)
    out = applied(crop.random_crop(spec(), border="zero"), batch_of(shown)).pixels
    found = (windows == out[:, :, None, None]).all(dim=-1).all(dim=-1).all(dim=1)
    assert found.flatten(1).sum(dim=1).tolist() == [1] * 8


def test_nothing_is_padded_where_more_is_stored_than_seen() -> None:
    assert crop.random_crop(spec(24, 32)).padding == 0
    assert crop.random_crop(spec(24)).padding == 4


def test_every_place_of_a_crop_is_as_likely() -> None:
    ramp = (torch.arange(6)[:, None] * 6 + torch.arange(6)).to(torch.uint8).expand(4000, 3, 6, 6)
    out = applied(crop.random_crop(spec(4, 6)), batch_of(ramp)).pixels
    counts = out[:, 0, 0, 0].bincount(minlength=15)[[0, 1, 2, 6, 7, 8, 12, 13, 14]]
    assert counts.sum() == 4000
    assert ((counts / 4000 - 1 / 9).abs() < 0.02).all()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", ["random_crop", "random_resized_crop", "horizontal_flip"])
def test_channels_stay_where_they_are_in_memory(name: str, channels_last: bool) -> None:
    shown = images(channels_last=channels_last)
    out = applied(factory(name)(spec(16, 24)), batch_of(shown)).pixels
    assert (out.stride(-3) == 1) is channels_last


# horizontal flip ---------------------------------------------------------------------------------------------------


def test_flips_as_often_as_asked() -> None:
    shown = images(1, 4).expand(4000, -1, -1, -1)
    out = applied(flip.horizontal_flip(spec(4), p=0.3), batch_of(shown)).pixels
    flipped = (out == shown.flip(-1)).flatten(1).all(dim=1)
    kept = (out == shown).flatten(1).all(dim=1)
    assert (flipped ^ kept).all()
    assert flipped.float().mean() == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize(("p", "turned"), [(0.0, False), (1.0, True)])
def test_flips_none_or_all(p: float, turned: bool) -> None:
    shown = images()
    out = applied(flip.horizontal_flip(spec(), p=p), batch_of(shown)).pixels
    assert torch.equal(out, shown.flip(-1) if turned else shown)


# random resized crop -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [resize.resize_one_by_one, resize.resize_at_once])
@pytest.mark.parametrize("box", [(3, 5, 30, 20), (0, 0, 40, 40), (10, 12, 5, 7), (39, 39, 1, 1), (0, 2, 40, 3)])
def test_resizes_as_torchvision_does(cut: Callable[[Tensor, Tensor, int], Tensor], box: tuple[int, ...]) -> None:
    shown = images(3, 40)
    wanted = reference.resized_crop(shown, *box, size=[17, 17], antialias=True)
    assert difference(cut(shown, torch.tensor([box] * 3), 17), wanted) <= 1


@pytest.mark.parametrize("frames", [None, 2])
@pytest.mark.parametrize("channels_last", [False, True])
def test_threads_share_the_samples_of_a_batch(
    frames: int | None, channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sample is what it is alone, in the layout of the batch."""
    torch.set_num_threads(3)
    shown = images(7, 12, frames, channels_last=channels_last)
    parts = torch.tensor([(n % 3, n % 4, 5 + n % 2, 8 - n % 3) for n in range(7)])
    interpolate, seen = resize.F.interpolate, set[int]()

    def meeting(*given: Any, **named: Any) -> Tensor:
        seen.add(threading.get_ident())
        all_here.wait(timeout=60)
        return interpolate(*given, **named)

    all_here = threading.Barrier(3, action=lambda: monkeypatch.setattr(resize.F, "interpolate", interpolate))
    monkeypatch.setattr(resize.F, "interpolate", meeting)
    together = resize.resize_one_by_one(shown, parts, 9)
    assert len(seen) == 3
    alone = [resize.resize_one_by_one(shown[n : n + 1], parts[n : n + 1], 9) for n in range(7)]
    assert torch.equal(together, torch.cat(alone))
    assert (together.stride(-3) == 1) is channels_last


def test_a_whole_image_of_the_right_size_stays() -> None:
    shown = images()
    augment = resize.random_resized_crop(spec(), scale=(1.0, 1.0), ratio=(1.0, 1.0))
    assert torch.equal(applied(augment, batch_of(shown)).pixels, shown)


@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    scale=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted).map(tuple),
    ratio=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)).map(sorted).map(tuple),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=100)
def test_boxes_lie_inside_the_image(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], seed: int
) -> None:
    top, left, tall, wide = boxes.draw_boxes(draws(range(20), seed), (height, width), scale, ratio).unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (tall >= 1).all()
    assert (wide >= 1).all()
    assert (top + tall <= height).all()
    assert (left + wide <= width).all()


@given(st.lists(st.floats(0, 2**20, width=32), min_size=1))
def test_a_rounded_root_is_exact(squares: list[float]) -> None:
    for square, root in zip(squares, boxes.rounded_root(torch.tensor(squares)).tolist(), strict=True):
        assert max(root - 0.5, 0) ** 2 <= square < (root + 0.5) ** 2


def test_a_root_between_two_numbers_is_rounded_up_on_every_device(monkeypatch: pytest.MonkeyPatch) -> None:
    halves = torch.arange(50.0) + 0.5
    up = halves + 0.5
    assert torch.equal(boxes.rounded_root(halves.square()), up)
    root = torch.Tensor.sqrt
    for off in (-1e-6, 1e-6):
        monkeypatch.setattr(torch.Tensor, "sqrt", lambda values, off=off: root(values) * (1 + off))
        assert torch.equal(boxes.rounded_root(halves.square()), up)


def test_boxes_have_the_area_and_shape_asked_for() -> None:
    _, _, tall, wide = boxes.draw_boxes(draws(range(5000)), (200, 200), (0.1, 0.4), (0.5, 2.0)).double().unbind(1)
    area, shape = tall * wide / 200**2, wide / tall
    assert area.min() > 0.097
    assert area.max() < 0.41
    assert area.mean() == pytest.approx(0.25, abs=0.005)
    assert shape.log().mean() == pytest.approx(0.0, abs=0.02)
    assert shape.min() > 0.48
    assert shape.max() < 2.1


def test_an_area_below_a_pixel_gives_one() -> None:
    drawn = boxes.draw_boxes(draws(range(50)), (20, 40), (1e-5, 1e-4), (0.5, 2.0))
    assert (drawn[:, 2:] == 1).all()


def test_a_shape_that_cannot_fit_gives_the_largest_that_does() -> None:
    drawn = boxes.draw_boxes(draws(range(4)), (20, 40), (1.0, 1.0), (1.0, 1.0))
    assert drawn[:, 2:].tolist() == [[20, 20]] * 4
    assert (drawn[:, 0] == 0).all()


# colour ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "wanted", "amounts"),
    [
        (color.scale_brightness, reference.adjust_brightness, (0.0, 0.6, 1.0, 1.7)),
        (color.scale_contrast, reference.adjust_contrast, (0.0, 0.6, 1.0, 1.7)),
        (color.scale_saturation, reference.adjust_saturation, (0.0, 0.6, 1.0, 1.7)),
        (color.shift_hue, reference.adjust_hue, (-0.5, -0.1, 0.0, 0.3)),
        (operations.scale_sharpness, reference.adjust_sharpness, (0.0, 0.6, 1.0, 1.7)),
    ],
)
def test_colours_change_as_torchvisions(
    change: color.Change, wanted: Callable[[Tensor, float], Tensor], amounts: tuple[float, ...]
) -> None:
    for shown in (images(4), smooth(4)):
        out = color.changed(shown, [(change, torch.tensor(amounts))])
        for sample, amount in enumerate(amounts):
            assert difference(out[sample], wanted(shown[sample], amount)) <= 2


def test_grey_and_black_keep_their_hue() -> None:
    shown = torch.arange(0, 256, 17, dtype=torch.uint8).repeat(3, 1).view(1, 3, 4, 4)
    assert torch.equal(color.changed(shown, [(color.shift_hue, torch.tensor([0.3]))]), shown)


def test_some_samples_become_grey_and_the_others_stay() -> None:
    shown = batch_of(images(64, 4))
    found = applied(color.random_grayscale(spec(4), p=0.5), shown).pixels
    grey = reference.rgb_to_grayscale(shown.pixels, num_output_channels=3)
    turned = (found != shown.pixels).flatten(1).any(1)
    assert 10 < int(turned.sum()) < 54
    assert (found[turned].int() - grey[turned].int()).abs().max() <= 1


def test_colour_jitter_of_no_strength_keeps_the_batch() -> None:
    shown = batch_of(images())
    assert applied(color.color_jitter(spec(), brightness=0, contrast=0, saturation=0, hue=0), shown) is shown


def test_brightness_is_drawn_evenly_within_its_limits() -> None:
    shown = torch.full((2000, 3, 4, 4), 100, dtype=torch.uint8)
    augment = color.color_jitter(spec(4), brightness=0.4, contrast=0, saturation=0, hue=0)
    level = applied(augment, batch_of(shown)).pixels[:, 0, 0, 0].float()
    assert 60 <= level.min() < 62
    assert 138 < level.max() <= 140
    assert level.mean() == pytest.approx(100, abs=2)
    assert level.std() == pytest.approx(80 / math.sqrt(12), abs=1)


# erasing -----------------------------------------------------------------------------------------------------------


def test_erases_a_box_by_the_mean_colour_and_nothing_else() -> None:
    shown = torch.zeros(64, 3, 24, 24, dtype=torch.uint8)
    out = applied(erase.random_erasing(spec(), p=0.5), batch_of(shown)).pixels
    mean = torch.tensor([round(255 * level) for level in spec().mean], dtype=torch.uint8)
    for sample in out[(out != 0).flatten(1).any(dim=1)]:
        rows, columns = sample[0].nonzero().unbind(1)
        box = sample[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert torch.equal(box, mean.view(3, 1, 1).expand_as(box))
        assert 0.015 < box[0].numel() / 24**2 < 0.35
    assert (out != 0).flatten(1).any(dim=1).float().mean() == pytest.approx(0.5, abs=0.15)


def test_erases_nothing_at_probability_zero() -> None:
    shown = images()
    assert torch.equal(applied(erase.random_erasing(spec(), p=0.0), batch_of(shown)).pixels, shown)


def test_erases_by_black_or_by_noise() -> None:
    shown = torch.full((4, 2, 3, 24, 24), 255, dtype=torch.uint8)
    black, noise = (
        applied(erase.random_erasing(spec(), p=1.0, scale=(0.3, 0.3), fill=fill), batch_of(shown)).pixels
        for fill in ("zero", "noise")
    )
    assert set(black.unique().tolist()) == {0, 255}
    assert len(noise.unique()) > 200
    assert not torch.equal(noise[0], noise[1])


def test_cutout_hides_a_square_or_what_of_it_lies_inside() -> None:
    shown = torch.zeros(500, 3, 24, 24, dtype=torch.uint8)
    out = applied(erase.cutout(spec(), size=10), batch_of(shown)).pixels[:, 0] != 0
    tall, wide = out.any(dim=2).sum(dim=1), out.any(dim=1).sum(dim=1)
    assert torch.equal(out.flatten(1).sum(dim=1), tall * wide)
    assert [int(extent) for extent in (tall.max(), wide.max(), tall.min(), wide.min())] == [10, 10, 5, 5]
    assert (tall == 10).float().mean() == pytest.approx(15 / 24, abs=0.06)
    assert out.any(dim=0).all(), "every pixel is hidden at some time, those of the rim too"


def test_cutout_hides_half_the_side_by_default() -> None:
    assert erase.cutout(spec(32)).size == 16


# mixup and cutmix --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 4.0])
def test_lambda_has_the_moments_of_its_beta_distribution(alpha: float) -> None:
    drawn = draws(range(20_000)).beta(alpha).double()
    assert ((drawn >= 0) & (drawn <= 1)).all()
    variance, fourth = 1 / (4 * (2 * alpha + 1)), 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3))
    assert drawn.mean() == pytest.approx(0.5, abs=0.012)
    assert (drawn - 0.5).square().mean() == pytest.approx(variance, rel=0.03)
    assert (drawn - 0.5).pow(4).mean() == pytest.approx(fourth, rel=0.05)


def marked(samples: int = 16) -> Batch:
    """Each sample is of one colour and one class of its own, so that pixels show the share of each."""
    shown = (torch.arange(samples) * 16).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 20, 20)
    return Batch(shown, torch.arange(samples), torch.arange(samples))


def marked_spec() -> DataSpec:
    return DataSpec(tuple(map(str, range(16))), 20)


def test_mixup_mixes_pixels_as_it_mixes_targets() -> None:
    out = applied(mix.mixup(marked_spec(), alpha=1.0), marked())
    assert out.targets.dtype == torch.float32
    assert torch.allclose(out.targets.sum(dim=1), torch.ones(16))
    wanted = out.targets @ (torch.arange(16.0) * 16)
    assert ((out.pixels.float() - wanted.view(-1, 1, 1, 1)).abs() <= 0.51).all()
    assert (out.targets.count_nonzero(dim=1) == 2).sum() > 8


def test_cutmix_targets_are_the_area_shown() -> None:
    out = applied(mix.cutmix(marked_spec()), marked())
    colours = out.pixels[:, 0].flatten(1).long() // 16
    area = torch.stack([row.bincount(minlength=16) for row in colours]) / 400
    assert torch.allclose(out.targets, area, atol=1e-6)
    assert (out.targets.count_nonzero(dim=1) == 2).sum() > 8


def test_cutmix_shows_the_partner_in_place() -> None:
    shown = images(6, 20)
    out = applied(mix.cutmix(spec(20)), batch_of(shown)).pixels
    partners = (out[:, None] == shown[None]).all(dim=2).flatten(2)  # [own, other, place]
    assert partners.any(dim=1).all()


@pytest.mark.parametrize("mixing", [mix.mixup, mix.cutmix])
def test_soft_targets_are_mixed_again(mixing: Callable[..., Augmentation]) -> None:
    once = applied(mix.mixup(marked_spec(), alpha=1.0), marked(), 1)
    twice = applied(mixing(marked_spec(), alpha=1.0), once, 2).targets
    assert torch.allclose(twice.sum(dim=1), torch.ones(16))
    assert twice.count_nonzero(dim=1).max() > 2


@pytest.mark.parametrize("mixing", [mix.mixup, mix.cutmix])
def test_at_probability_zero_only_the_form_of_the_targets_changes(mixing: Callable[..., Augmentation]) -> None:
    out = applied(mixing(marked_spec(), p=0.0), marked())
    assert torch.equal(out.pixels, marked().pixels)
    assert torch.equal(out.targets, torch.eye(16))


@pytest.mark.parametrize("mixing", [mix.mixup, mix.cutmix])
def test_a_batch_of_one_stays(mixing: Callable[..., Augmentation]) -> None:
    out = applied(mixing(marked_spec(), alpha=1.0), marked(1))
    assert torch.equal(out.pixels, marked(1).pixels)
    assert out.targets.tolist() == [[1.0, *[0.0] * 15]]


# RandAugment and TrivialAugment ------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [-0.4, 0.0, 0.3])
@pytest.mark.parametrize("axis", [0, 1])
def test_shears_as_torchvision(axis: int, amount: float) -> None:
    shown = smooth()
    angles = [0.0, 0.0]
    angles[axis] = math.degrees(math.atan(amount))
    wanted = reference.affine(
        shown, 0.0, [0, 0], 1.0, angles, interpolation=InterpolationMode.BILINEAR, center=[0.0, 0.0]
    )
    assert mostly_within(operations.shear(shown, torch.full((4,), amount), axis), wanted)


@pytest.mark.parametrize("distance", [-7, 0, 5])
@pytest.mark.parametrize("axis", [0, 1])
def test_translates_as_torchvision(axis: int, distance: int) -> None:
    shown = images(4)
    shift = [0, 0]
    shift[axis] = distance
    wanted = reference.affine(shown, 0.0, shift, 1.0, [0.0, 0.0])
    assert difference(operations.translate(shown, torch.full((4,), float(distance)), axis), wanted) <= 1


@pytest.mark.parametrize("degrees", [-90.0, 0.0, 20.0, 135.0])
def test_rotates_as_torchvision(degrees: float) -> None:
    shown = smooth()
    wanted = reference.rotate(shown, degrees, interpolation=InterpolationMode.BILINEAR)
    assert mostly_within(operations.rotate(shown, torch.full((4,), degrees)), wanted)


def mostly_within(one: Tensor, other: Tensor) -> bool:
    """All but the rim, where torchvision fades to black differently, within two levels."""
    return bool(((one.int() - other.int()).abs() <= 2).float().mean() > 0.97)


@pytest.mark.parametrize(("most", "divisor"), [(policy.RAND_AUGMENT, 4), (policy.TRIVIAL_AUGMENT, 6)])
def test_posterizes_and_solarizes_at_every_level_as_torchvision(most: operations.Most, divisor: int) -> None:
    named = {operation.name: operation.apply for operation in operations.operations(most)}
    shown = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(31, 3, 16, 16)
    level = torch.arange(31) / 30
    bits = (8 - (torch.arange(31) / (30 / divisor)).round()).int().tolist()
    thresholds = torch.linspace(255.0, 0.0, 31).tolist()
    posterized, solarized = named["posterize"](shown, level), named["solarize"](shown, level)
    for place in range(31):
        assert torch.equal(posterized[place], reference.posterize(shown[place], bits[place]))
        assert torch.equal(solarized[place], reference.solarize(shown[place], thresholds[place]))


def one_colour() -> Tensor:
    return torch.full((2, 3, 24, 24), 90, dtype=torch.uint8)


def two_colours() -> Tensor:
    return one_colour() + (torch.arange(24) > 3).to(torch.uint8) * 40


@pytest.mark.parametrize("shown", [images(4), smooth(), one_colour(), two_colours()])
def test_autocontrast_and_equalize_as_torchvision(shown: Tensor) -> None:
    assert difference(operations.autocontrast(shown), reference.autocontrast(shown)) <= 1
    assert torch.equal(operations.equalize(shown), reference.equalize(shown))


def test_a_clip_is_warped_as_its_frames_are() -> None:
    clip = images(2, frames=3)
    angles = torch.tensor([20.0, -50.0])
    frames = operations.rotate(clip.flatten(0, 1), angles.repeat_interleave(3))
    assert torch.equal(operations.rotate(clip, angles), frames.view_as(clip))


def test_sharpness_of_tiny_images_is_left_alone() -> None:
    tiny = torch.rand(2, 3, 2, 5) * 255
    assert torch.equal(operations.scale_sharpness(tiny, torch.ones(2, 1, 1, 1) * 2), tiny)


def test_both_policies_offer_the_fourteen_operations() -> None:
    for most in (policy.RAND_AUGMENT, policy.TRIVIAL_AUGMENT):
        assert len({operation.name for operation in operations.operations(most)}) == 14


def test_every_operation_is_drawn_as_often_in_both_directions() -> None:
    def recording(place: int) -> operations.Operation:
        def apply(shown: Tensor, level: Tensor) -> Tensor:
            return torch.where(pixels.per_sample(level < 0, shown), 100 + place, place).to(torch.uint8).expand_as(shown)

        return operations.Operation(str(place), apply, signed=place < 2)

    choices = tuple(map(recording, range(4)))
    shown = torch.zeros(4000, 3, 1, 1, dtype=torch.uint8)
    out = policy.apply_drawn(shown, choices, torch.ones(4000), draws(range(4000)))[:, 0, 0, 0]
    shares = out.bincount(minlength=104)[[0, 100, 1, 101, 2, 3, 102, 103]] / 4000
    assert shares.tolist() == pytest.approx([1 / 8, 1 / 8, 1 / 8, 1 / 8, 1 / 4, 1 / 4, 0, 0], abs=0.02)


def test_rand_augment_applies_as_many_operations_as_asked() -> None:
    def brighter(shown: Tensor, level: Tensor) -> Tensor:
        return shown + (level * 30).round().to(torch.uint8).view(-1, 1, 1, 1)

    augment = policy.RandAugment((operations.Operation("brighter", brighter),), num_ops=3, level=9 / 30)
    out = applied(augment, batch_of(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))).pixels
    assert (out == 27).all()


def test_trivial_augment_draws_all_magnitudes() -> None:
    def level_as_pixels(shown: Tensor, level: Tensor) -> Tensor:
        return (level * 30).round().to(torch.uint8).view(-1, 1, 1, 1).expand_as(shown)

    augment = policy.TrivialAugment((operations.Operation("level", level_as_pixels),))
    out = applied(augment, batch_of(torch.zeros(3000, 3, 1, 1, dtype=torch.uint8))).pixels[:, 0, 0, 0]
    counts = out.bincount(minlength=31)
    assert len(counts) == 31
    assert counts.min() > 60
