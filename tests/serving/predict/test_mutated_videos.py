"""Mutated videos: each is answered, with what decoding noticed of its damage reported, or refused by name.

TOOLKIT_MUTATIONS sets how many are tried.
"""

from __future__ import annotations

import os
import random
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import toy_bundle
from tests.odd_videos import ODD, Odd
from toolkit.api.clips import Clip
from toolkit.api.errors import EXIT_DONE, DataError
from toolkit.data.damage import hearing_of_damage
from toolkit.data.decoding import read_frames, timeline
from toolkit.serving.predict import predict_files

COUNT = int(os.environ.get("TOOLKIT_MUTATIONS", "24"))
MEMORY = 2**30
"""Bytes that reading them may add at most."""
EVERY_FRAME = Clip(frames=64, sampling="segments")
BASES = [odd for odd in ODD if isinstance(odd.frames, int) and odd.frames > 2 and not odd.damaged]
NUMBERS = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\x80\0\0\0", b"\0\1\0\0")


def flip(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 5, 30, 200))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def overwrite(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(data))
        count = min(draw.randint(1, 400), len(data) - place)
        data[place : place + count] = draw.randbytes(count)


def blank(data: bytearray, draw: random.Random) -> None:
    place = draw.randrange(len(data))
    data[place:] = bytes(len(data) - place)


def shorten(data: bytearray, draw: random.Random) -> None:
    del data[draw.randrange(1, len(data)) :]


def head(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.randint(1, 8)):
        data[draw.randrange(min(600, len(data)))] = draw.randrange(256)


def numbers(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.randint(1, 6)):
        place = draw.randrange(max(len(data) - 4, 1))
        data[place : place + 4] = draw.choice(NUMBERS)


def repeat(data: bytearray, draw: random.Random) -> None:
    place = draw.randrange(len(data))
    data[place:place] = data[place : place + draw.randint(1, len(data) - place)]


def remove(data: bytearray, draw: random.Random) -> None:
    place = draw.randrange(len(data))
    del data[place : place + draw.randint(1, 2000)]


CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip,
    overwrite,
    blank,
    shorten,
    head,
    numbers,
    repeat,
    remove,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Odd], bytes]:
    """The content of an odd video, written once."""
    folder = tmp_path_factory.mktemp("whole")

    def content(odd: Odd) -> bytes:
        path = folder / odd.file
        if not path.exists():
            odd.write(path)
        return path.read_bytes()

    return content


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_bundle.write(tmp_path_factory.mktemp("bundle") / "toy", clip=EVERY_FRAME)


@pytest.mark.parametrize("seed", range(COUNT))
def test_a_mutated_video_is_answered_or_refused(
    tmp_path: Path,
    whole: Callable[[Odd], bytes],
    bundle: Path,
    seed: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw = random.Random(seed)
    odd = BASES[seed % len(BASES)]
    data = bytearray(whole(odd))
    draw.choice(CHANGES)(data, draw)
    path = tmp_path / odd.file
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        code = predict_files(bundle, [str(path)], device="cpu")
    except DataError:
        assert str(path) in capsys.readouterr().err
    else:
        assert code == EXIT_DONE
        reported = "frames cannot be decoded" in capsys.readouterr().err
        assert reported == bool(noticed(path))
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY


def noticed(path: Path) -> list[object]:
    """The damage that reading all frames of a video meets."""
    found = timeline(path)
    with hearing_of_damage() as damage:
        assert len(list(read_frames(path, found, range(len(found.times))))) == len(found.times)
    return list(damage)
