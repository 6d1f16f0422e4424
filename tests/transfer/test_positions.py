"""Positions for another size of images or number of frames, against the textbook's sums."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from toolkit.api.errors import WeightsError
from toolkit.transfer.positions import Positions
from toolkit.transfer.weights import Known, load_weights

SQUARES = Positions("pos_embed")
LINE = Positions("rel_pos", "line")
DISTANCES = Positions("table", "distances")
CLOSE = 1e-4
"""Absolute: torch finds places between rows in float32."""


def keys_cubic(distance: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel (Keys, 1981) with a = -0.5."""
    x = np.abs(distance)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def matrix(given: int, wanted: int, kernel: str) -> np.ndarray:
    """`[wanted, given]`: how much each given place counts in each wanted one, if places are the middles of cells."""
    centres = (np.arange(wanted) + 0.5) * given / wanted
    places = np.arange(given) + 0.5
    if kernel == "linear":  # between neighbours, without a filter
        weights = np.maximum(1 - np.abs(centres.clip(0.5, given - 0.5)[:, None] - places), 0)
    else:
        weights = keys_cubic((centres[:, None] - places) / max(given / wanted, 1))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("given", "wanted"), [(4, 7), (7, 4), (14, 24)])
@pytest.mark.parametrize("tokens", [0, 1, 5])
def test_squares_are_interpolated_bicubically_and_tokens_stay(given: int, wanted: int, tokens: int) -> None:
    table = torch.randn(1, tokens + given**2, 3)
    found = SQUARES.fitted(table, torch.Size([1, tokens + wanted**2, 3]))
    assert found
    across = matrix(given, wanted, "cubic")
    grid = table[0, tokens:].numpy().reshape(given, given, 3)
    expected = np.einsum("ai,bj,ijc->abc", across, across, grid).reshape(-1, 3)
    np.testing.assert_allclose(found.value[0, tokens:], expected, atol=CLOSE)
    assert torch.equal(found.value[:, :tokens], table[:, :tokens])
    assert (found.given, found.wanted) == (f"{given}x{given}", f"{wanted}x{wanted}")


def test_it_is_what_timm_does() -> None:
    from timm.layers import resample_abs_pos_embed

    table = torch.randn(1, 1 + 14 * 14, 8)
    found = SQUARES.fitted(table, torch.Size([1, 1 + 6 * 6, 8]))
    assert found
    torch.testing.assert_close(found.value, resample_abs_pos_embed(table, [6, 6], num_prefix_tokens=1))


@pytest.mark.parametrize(("given", "wanted"), [(7, 11), (27, 13)])
@pytest.mark.parametrize("tokens", [0, 3])
def test_distances_are_interpolated_bicubically_and_the_tokens_behind_them_stay(
    given: int, wanted: int, tokens: int
) -> None:
    table = torch.randn(given**2 + tokens, 2)
    found = DISTANCES.fitted(table, torch.Size([wanted**2 + tokens, 2]))
    assert found
    across = matrix(given, wanted, "cubic")
    grid = table[: given**2].numpy().reshape(given, given, 2)
    expected = np.einsum("ai,bj,ijc->abc", across, across, grid).reshape(-1, 2)
    np.testing.assert_allclose(found.value[: wanted**2], expected, atol=CLOSE)
    assert torch.equal(found.value[wanted**2 :], table[given**2 :])
    assert (found.given, found.wanted) == (f"{given}x{given}", f"{wanted}x{wanted}")


@pytest.mark.parametrize(("given", "wanted"), [(8, 16), (55, 27)])
def test_a_line_is_interpolated_linearly(given: int, wanted: int) -> None:
    table = torch.randn(given, 3)
    found = LINE.fitted(table, torch.Size([wanted, 3]))
    assert found
    np.testing.assert_allclose(found.value, matrix(given, wanted, "linear") @ table.numpy(), atol=CLOSE)


@pytest.mark.parametrize(
    ("published", "given", "count", "wanted"),
    [(4, (4, 5), 8, (8, 5)), (None, (4, 5), 8, (8, 5)), (None, (4, 5), 4, (4, 3)), (4, (4, 5), 2, (2, 3))],
)
def test_frames_are_interpolated_in_space_and_then_in_time(
    published: int | None, given: tuple[int, int], count: int, wanted: tuple[int, int]
) -> None:
    table = torch.randn(1, 1 + given[0] * given[1] ** 2, 3)
    frames = Positions("position_embeddings", "frames", count=count, published=published)
    found = frames.fitted(table, torch.Size([1, 1 + wanted[0] * wanted[1] ** 2, 3]))
    assert found
    across, along = matrix(given[1], wanted[1], "cubic"), matrix(given[0], wanted[0], "linear")
    grid = table[0, 1:].numpy().reshape(given[0], given[1], given[1], 3)
    expected = np.einsum("ft,ai,bj,tijc->fabc", along, across, across, grid).reshape(-1, 3)
    np.testing.assert_allclose(found.value[0, 1:], expected, atol=CLOSE)
    assert torch.equal(found.value[:, :1], table[:, :1])


@pytest.mark.parametrize(
    ("positions", "given", "wanted"),
    [
        (SQUARES, (1, 17, 4), (1, 26, 5)),  # other channels
        (SQUARES, (1, 17, 4), (1, 27, 4)),  # 27 places are a square with no number of tokens that 17 are one with
        (SQUARES, (2, 17, 4), (2, 26, 4)),
        (SQUARES, (17,), (26,)),
        (LINE, (3, 7), (7,)),
        (DISTANCES, (49, 2), (84, 2)),  # without a class token, and with one
        (DISTANCES, (36, 2), (81, 2)),  # no window has distances in 6 rows
        (DISTANCES, (49, 2), (81, 3)),
        (Positions("p", "frames", count=8), (1, 392, 4), (1, 1568, 4)),  # 8 frames of 7 x 7, or 2 of 14 x 14
        (Positions("p", "frames", count=8, published=5), (1, 392, 4), (1, 1568, 4)),
    ],
)
def test_rows_that_do_not_show_their_places_are_left_alone(
    positions: Positions, given: tuple[int, ...], wanted: tuple[int, ...]
) -> None:
    assert positions.fitted(torch.zeros(given), torch.Size(wanted)) is None


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("pos_embed", True), ("backbone.1.pos_embed", True), ("other_pos_embed", False), ("pos_embed.weight", False)],
)
def test_names_of_tables(name: str, is_one: bool) -> None:
    assert SQUARES.has(name) is is_one


class Placed(nn.Module):
    def __init__(self, side: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + side**2, 4))
        self.fc = nn.Linear(4, 4)


def test_weights_of_another_size_are_loaded_with_a_note() -> None:
    theirs, ours = Placed(4), Placed(6)
    known = Known(positions=[SQUARES])
    wrapped = {f"module.{name}": value.half() for name, value in theirs.state_dict().items()}
    notes = load_weights(ours, wrapped, source="w.pt", known=known)
    assert notes == ['prefix "module." removed', "positions pos_embed interpolated from 4x4 to 6x6"]
    expected = SQUARES.fitted(theirs.pos_embed.half(), ours.pos_embed.shape)
    assert expected
    assert torch.equal(ours.pos_embed, expected.value)
    assert ours.pos_embed.requires_grad


def test_without_knowing_the_tables_they_do_not_fit() -> None:
    with pytest.raises(WeightsError) as raised:
        load_weights(Placed(6), Placed(4).state_dict(), source="w.pt")
    assert re.search(r"pos_embed \(1x17x4 given, 1x37x4 wanted\)", str(raised.value.mis_shaped))
