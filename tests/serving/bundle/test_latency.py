"""The latency of a bundle: of one input of the stored size, after a warm-up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import toy_bundle
from toolkit.api.clips import Clip
from toolkit.serving.bundle import Bundle
from toolkit.serving.bundle.latency import ANSWERS, WARM_UP, latency
from toolkit.serving.bundle.session import ModelSession


@pytest.mark.parametrize(("clip", "shape"), [(None, (1, 16, 16, 3)), (Clip(frames=3), (1, 3, 16, 16, 3))])
def test_one_input_is_answered_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: Clip | None, shape: tuple[int, ...]
) -> None:
    asked: list[tuple[int, ...]] = []

    def run(self: ModelSession, pixels: np.ndarray) -> np.ndarray:
        asked.append(pixels.shape)
        return np.zeros((1, 2), np.float32)

    bundle = Bundle.load(toy_bundle.write(tmp_path / "toy", clip=clip), device="cpu")
    monkeypatch.setattr(ModelSession, "run", run)
    assert latency(bundle, seconds=0.0) >= 0
    assert asked == [shape] * (WARM_UP + ANSWERS)
