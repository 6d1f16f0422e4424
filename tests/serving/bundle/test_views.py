"""Views of a video: which frames they see, how they are put together, and what is made of their answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from toolkit.api.clips import Averaged, Clip, evaluation_clips, middle, middles
from toolkit.api.contracts import TargetForm
from toolkit.serving.bundle import ClipSampling, FrameSampling
from toolkit.serving.bundle.views import average_views, gathered, inputs, needed, views
from toolkit.training.answers import answers_of, averaged

LISTS = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=5), max_size=8)


@given(st.integers(1, 500), st.integers(1, 40))
def test_frames_are_the_middles_of_equal_parts_as_in_training(total: int, wanted: int) -> None:
    numbers = middles(total, wanted)
    assert numbers == sorted({middle(total, part, wanted) for part in range(wanted)})
    assert len(numbers) == min(total, wanted)
    gaps = set(np.diff(numbers).tolist())
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_views_are_those_of_evaluation() -> None:
    clip, times = Clip(frames=3, rate=2, fps=10, clips=4), [number / 10 for number in range(50)]
    assert views(ClipSampling(clip, clip.span), times) == evaluation_clips(clip, times)
    assert views(FrameSampling(4), times[:12]) == [[1], [4], [7], [10]]


@given(LISTS)
def test_every_list_gets_its_frames_in_order(wanted: list[list[int]]) -> None:
    frames = ((number, f"frame {number}") for number in needed(wanted))
    assert list(gathered(wanted, frames)) == [[f"frame {number}" for number in numbers] for numbers in wanted]


@given(st.integers(1, 60), st.integers(1, 8), st.integers(1, 9))
def test_no_more_is_held_than_what_is_still_wanted(count: int, length: int, step: int) -> None:
    """Of windows that move on, as many frames as one has."""
    wanted = [list(range(step * number, step * number + length)) for number in range(count)]
    alive: set[int] = set()
    most = 0

    class Frame:
        def __init__(self, number: int) -> None:
            self.number = number
            alive.add(number)

        def __del__(self) -> None:
            alive.discard(self.number)

    for numbers, found in zip(wanted, gathered(wanted, ((n, Frame(n)) for n in needed(wanted))), strict=True):
        assert [frame.number for frame in found] == numbers
        most = max(most, len(alive))
        del found
    assert most <= length + 2


def test_a_reading_that_ends_early_gives_the_lists_that_are_whole() -> None:
    assert list(gathered([[0, 1], [1, 2]], [(0, "a"), (1, "b")])) == [["a", "b"]]


def test_inputs_are_one_clip_for_each_crop() -> None:
    frames = [[np.full((2, 2, 3), 10 * time + crop, np.uint8) for crop in range(3)] for time in range(4)]
    made = inputs(frames, clips=True)
    assert [clip.shape for clip in made] == [(4, 2, 2, 3)] * 3
    assert [clip[:, 0, 0, 0].tolist() for clip in made] == [
        [crop, 10 + crop, 20 + crop, 30 + crop] for crop in range(3)
    ]
    assert inputs(frames[:1], clips=False)[2] is frames[0][2]


ROWS = np.array([[[0.9, 0.1], [0.3, 0.7]], [[1.0, 0.0], [0.5, 0.5]]], np.float32)


def test_probabilities_are_averaged() -> None:
    found = average_views(ROWS, "probabilities")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0.6, 0.4], [0.75, 0.25]], rtol=1e-6)


def test_logits_are_averaged() -> None:
    logits = np.log(ROWS[0].astype(np.float64)).mean(0)
    wanted = np.exp(logits) / np.exp(logits).sum()
    found = average_views(ROWS, "logits")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], wanted, rtol=1e-6)
    np.testing.assert_allclose(found[1], [1, 0], atol=1e-6)  # no answer is infinitely sure, and each is a number


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("form", ["index", "set"])
def test_a_bundle_averages_as_evaluation_does(average: Averaged, form: TargetForm) -> None:
    logits = torch.randn((5, 4, 7), generator=torch.Generator().manual_seed(0)) * 3
    trained = answers_of(averaged(logits.flatten(0, 1), form, 5, average), form)
    found = average_views(answers_of(logits, form).numpy(), average, form)
    np.testing.assert_allclose(found, trained, atol=1e-5)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_the_average_of_one_view_is_that_view(average) -> None:
    np.testing.assert_allclose(average_views(ROWS[:, :1], average), ROWS[:, 0], atol=1e-6)
