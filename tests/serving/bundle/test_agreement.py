from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests import toy_bundle
from toolkit.api.clips import Clip
from toolkit.serving.bundle import Manifest, Rejection, Trust, read_manifest
from toolkit.serving.bundle.agreement import BATCHES, SHAPES, SHARE, Agreement, agreement, probes
from toolkit.serving.bundle.manifest import Input

COUNT = sum(BATCHES) + sum(count for *_, count in SHAPES)
INT8 = "[export.int8]\nmax_difference = 1.0\n[export.fp32]\nmax_difference = 1e-3\n"


def answers(rows: np.ndarray, change: float = 0.0, *, column: int = 0) -> object:
    """What answers the probes with the rows of `[COUNT, C]`, in turn, changed in one place."""
    changed = rows.copy()
    changed[2, column] += change
    taken = iter(changed)
    return lambda pixels: np.stack([next(taken) for _ in pixels])


def compared(manifest: Manifest, precision: str, change: float, *, spread: float = 0.5, column: int = 0) -> Agreement:
    rows = np.full((COUNT, manifest.columns), 0.25)
    rows[::2] += spread
    proved, other = answers(rows), answers(rows, change, column=column)
    return agreement(manifest, precision, proved, other)  # type: ignore[arg-type]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return read_manifest(toy_bundle.write(tmp_path / "toy", recipe=INT8))


def test_a_difference_up_to_the_limit_of_the_export_passes(manifest: Manifest) -> None:
    assert compared(manifest, "fp32", 9e-4).passes
    found = compared(manifest, "fp32", 2e-3)
    assert not found.passes
    assert str(found) == "a probability differs by 0.002; the limit is 0.001"


def test_a_wide_limit_is_narrowed_to_a_share_of_how_answers_vary(manifest: Manifest) -> None:
    """int8 may differ by 1 from the trained model, whose score decides; two runtimes of one graph may not."""
    allowed = SHARE * 0.25  # half of the answers are 0.5 above the others
    assert compared(manifest, "int8", 0.9 * allowed).passes
    assert not compared(manifest, "int8", 1.1 * allowed).passes
    assert not compared(manifest, "int8", 0.9 * allowed, spread=0.01).passes
    assert compared(manifest, "int8", 9e-5, spread=0.0).passes


def test_an_answer_that_is_not_a_number_does_not_pass(manifest: Manifest) -> None:
    for wrong in (math.nan, math.inf):
        assert not compared(manifest, "fp32", wrong).passes


@pytest.mark.parametrize(
    "recipe", ["", "no = toml = at all", "export = 1", "[export.fp32]\nmax_difference = 7", "[export]\nfp32 = [true]"]
)
def test_without_a_limit_the_usual_one_of_fp32_holds(tmp_path: Path, recipe: str) -> None:
    manifest = read_manifest(toy_bundle.write(tmp_path / "toy", recipe=recipe))
    assert compared(manifest, "fp32", 9e-5).passes
    assert not compared(manifest, "fp32", 2e-4).passes


def test_numbers_and_energies_are_judged_by_their_own_size(tmp_path: Path) -> None:
    numbers = read_manifest(toy_bundle.write(tmp_path / "numbers", numbers=True, classes=("age", "height")))
    found = compared(numbers, "fp32", 100.0, spread=1000.0, column=1)
    assert not found.passes
    assert str(found).startswith('"height" differs by 1e+02; the limit is ')
    assert compared(numbers, "fp32", 0.09, spread=1000.0, column=1).passes
    for reject in (Rejection("energy", 8.0, 0.05), Rejection("similarity", 2.0, 0.05, 0.5)):
        scored = read_manifest(toy_bundle.write(tmp_path / reject.score, trust=Trust(reject=reject)))
        assert str(compared(scored, "fp32", 1.0, column=2)).startswith(f"the {reject.score} differs by 1;")


@pytest.mark.parametrize("clip", [None, Clip(frames=3)])
def test_the_pictures_are_squares_and_others_and_the_same_each_time(clip: Clip | None) -> None:
    expected = Input(square=32, size=24, fit="crop", frames=None if clip is None else clip.frames)
    first, second = [*probes(expected)], [*probes(expected)]
    assert all((one == other).all() for one, other in zip(first, second, strict=True))
    assert {batch.dtype.name for batch in first} == {"uint8"}
    assert {batch.shape[-3:] for batch in first} == {(32, 32, 3), (48, 64, 3), (80, 48, 3)}
    assert {batch.ndim for batch in first} == {4 if clip is None else 5}
    every = [one for batch in first for one in batch]
    assert len({one.tobytes() for one in every}) == len(every)
    assert np.std([one.mean() for one in every]) > 10  # some are dark, others bright
    if clip is not None:
        assert all((one[0] != one[-1]).any() for one in every)
