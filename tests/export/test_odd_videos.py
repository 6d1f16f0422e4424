"""Odd videos are decoded alike by training, by the evaluation of a bundle and by predict: or refused by name."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import small, toy_bundle
from tests.odd_videos import ODD, Odd
from toolkit.api.clips import Clip
from toolkit.api.contracts import DataSpec
from toolkit.api.errors import DataError
from toolkit.data.damage import hearing_of_damage
from toolkit.data.store import clips as store
from toolkit.data.videos import VideoFiles
from toolkit.export import asking
from toolkit.serving.bundle import Bundle
from toolkit.serving.predict import predict_files

CLIP = Clip(frames=3, rate=2, fps=10, clips=4)
SPEC = DataSpec(small.SPEC.classes, size=8, stored=16, clip=CLIP)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_bundle.write(tmp_path_factory.mktemp("bundle") / "toy", clip=CLIP)


@contextmanager
def seen(owner: Any, name: str, place: int = 0) -> Iterator[list[bytes]]:
    """The frames `[H, W, 3]` that a function of `owner` is called with, in turn, each with its shape."""
    found: list[bytes] = []
    right = getattr(owner, name)

    def spy(*arguments: Any, **options: Any) -> Any:
        frame = arguments[place]
        pixels = frame.movedim(0, -1).numpy() if isinstance(frame, torch.Tensor) else frame
        found.append(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes())
        return right(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, spy)
        yield found


def training(split: VideoFiles) -> list[bytes]:
    with seen(store, "resize") as found:
        store.ClipStore(split, SPEC, None, workers=1, training=False).views(torch.tensor([0]))
    return found


def evaluation(split: VideoFiles, bundle: Path) -> tuple[list[bytes], int]:
    with seen(asking, "_channels_last") as found:
        answers = asking.ask_raw(Bundle.load(bundle, device="cpu"), split, [0], (1,), progress=lambda _: None)
    return found, int(answers[0].argmax())


def prediction(path: Path, bundle: Path) -> tuple[list[bytes], int]:
    output = path.with_suffix(".csv")
    with seen(Bundle, "squares", 1) as found:
        predict_files(bundle, [str(path)], output=output, device="cpu")
    with output.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    return found, ("dark", "bright").index(row["class_1"])


@pytest.mark.parametrize("odd", ODD, ids=[odd.file for odd in ODD])
def test_an_odd_video_is_decoded_alike_everywhere_or_refused_by_name(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str], odd: Odd
) -> None:
    path = tmp_path / odd.file
    odd.write(path)
    split = VideoFiles((odd.file,), (0,), (str(path),), (path,))
    if isinstance(odd.frames, str):
        for reading in (lambda: training(split), lambda: evaluation(split, bundle)):
            with pytest.raises(DataError) as caught:
                reading()
            assert caught.value.message == f"{path}: {caught.value.message.removeprefix(f'{path}: ')}"
            assert caught.value.message.endswith(odd.frames)
        with pytest.raises(DataError):
            prediction(path, bundle)
        assert odd.frames in capsys.readouterr().err
        return
    with hearing_of_damage() as damage:
        count = len(list(split.read(0, range(len(split.times(0))))))
    assert count == (odd.frames if odd.frames > 0 else count)
    trained = training(split)
    evaluated, first = evaluation(split, bundle)
    predicted, second = prediction(path, bundle)
    assert trained == evaluated == predicted
    assert len(trained) >= 1
    assert first == second
    assert bool(damage) == odd.damaged == ("frames cannot be decoded" in capsys.readouterr().err)
