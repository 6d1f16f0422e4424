"""A bundle that declines and has sets: what it says is read back and checked, and the toolkit decides as its graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests import toy_bundle
from tests.toy_bundle import edit
from toolkit.api.clips import Clip
from toolkit.api.errors import BundleError
from toolkit.serving.bundle import Bundle, Conformal, Rejection, Trust, read_manifest

MEASURED = {"test": {"items": 3, "coverage": 1.0}}
CONFIDENT = Trust(2.0, Rejection("confidence", 0.9, 0.05), Conformal(0.25, 0.1), MEASURED)
ENERGETIC = Trust(reject=Rejection("energy", 8.0, 0.05))
ALIKE = Trust(reject=Rejection("similarity", 2.0, 0.05, 0.5))
DARK, MIDDLE, BRIGHT = (np.full((16, 16, 3), value, np.uint8) for value in (0, 127, 255))


def written(tmp_path: Path, trust: Trust, **changes: Any) -> Path:
    return toy_bundle.write(tmp_path / "toy", trust=trust, **changes)


@pytest.mark.parametrize("trust", [CONFIDENT, ENERGETIC, ALIKE, Trust()])
def test_what_is_written_is_read(tmp_path: Path, trust: Trust) -> None:
    assert read_manifest(written(tmp_path, trust)).trust == trust


def refusal(bundle: Path, change: dict[str, Any]) -> str:
    edit(bundle, lambda claimed: claimed["trust"].update(change))
    with pytest.raises(BundleError) as caught:
        read_manifest(bundle)
    return caught.value.message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"temperature": "2"}, "trust.temperature: must be a number, got '2'"),
        ({"reject": {"score": "luck", "threshold": 0.5, "rate": 0.1}}, "trust.reject.score: unknown score 'luck'"),
        ({"reject": {"score": "energy", "threshold": None, "rate": 0.1}}, "trust.reject.threshold: must be a number"),
        (
            {"reject": {"score": "similarity", "threshold": 0.5, "rate": 0.1, "weight": "2"}},
            "trust.reject.weight: must be a number, got '2'",
        ),
        ({"conformal": {"threshold": True, "error": 0.1}}, "trust.conformal.threshold: must be a number, got True"),
        ({"conformal": {"threshold": 0.5}}, "missing 1 required positional argument: 'error'"),
        ({"sets": 3}, "unexpected keyword argument 'sets'"),
    ],
)
def test_what_cannot_be_true_is_refused(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    assert expected in refusal(written(tmp_path, Trust()), change)


def test_numbers_and_sets_cannot_be_declined(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="only a model of one class an item declines or has sets"):
        read_manifest(toy_bundle.write(tmp_path / "toy", numbers=True, trust=ENERGETIC))


def test_the_graph_must_give_what_the_bundle_says(tmp_path: Path) -> None:
    bundle = written(tmp_path, CONFIDENT)
    edit(bundle, lambda claimed: claimed["trust"].update(conformal=None))
    with pytest.raises(BundleError) as caught:
        Bundle.load(bundle, device="cpu")
    assert '"declined" bool [N], "plausible" bool [N, 2]; by bundle.json it gives' in caught.value.message


@pytest.mark.parametrize("trust", [CONFIDENT, ENERGETIC, ALIKE])
def test_the_toolkit_decides_as_the_graph_does(tmp_path: Path, trust: Trust) -> None:
    bundle = Bundle.load(written(tmp_path, trust), device="cpu")
    frames = np.stack([DARK, MIDDLE, BRIGHT])
    answers = bundle.predict(frames)
    session = onnxruntime.InferenceSession(tmp_path / "toy" / "model.onnx", providers=["CPUExecutionProvider"])
    given = dict(zip((one.name for one in session.get_outputs()), session.run(None, {"frames": frames}), strict=True))
    assert answers.declined == given["declined"].tolist()
    assert len({*answers.declined}) == 2
    if trust.conformal is not None:
        sets = [tuple(np.array(answers.classes)[row].tolist()) for row in given["plausible"]]
        assert answers.plausible == sets == [("dark",), ("dark", "bright"), ("bright",)]
    else:
        assert answers.plausible is None
        assert answers.scores is not None
        np.testing.assert_array_equal(answers.scores, given[trust.scored])


def test_frames_of_mixed_sizes_have_energies_in_their_order(tmp_path: Path) -> None:
    bundle = Bundle.load(written(tmp_path, ENERGETIC), device="cpu")
    mixed = [BRIGHT, DARK[:7], BRIGHT[:, :9]]
    expected = [bundle.predict(frame).declined[0] for frame in mixed]
    assert bundle.predict(mixed).declined == expected == [False, True, False]


def test_a_bundle_without_trust_declines_nothing(tmp_path: Path) -> None:
    answers = Bundle.load(written(tmp_path, Trust()), device="cpu").predict(DARK)
    assert (answers.declined, answers.plausible, answers.scores) == ([False], None, None)


def test_clips_have_one_energy_each(tmp_path: Path) -> None:
    bundle = Bundle.load(written(tmp_path, ENERGETIC, clip=Clip(frames=3)), device="cpu")
    answers = bundle.predict(np.stack([np.stack([DARK] * 3), np.stack([BRIGHT] * 3)]))
    assert answers.declined == [True, False]


def test_measured_figures_may_be_anything(tmp_path: Path) -> None:
    trust = replace(CONFIDENT, measured={"unknown": {"items": 2.0, "declined": 0.5}})
    assert read_manifest(written(tmp_path, trust)).trust.measured["unknown"]["declined"] == 0.5
