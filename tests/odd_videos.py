"""Odd videos as people have them: what writes each, and how many frames it has or why it is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from tests.video_files import (
    bars,
    cut,
    displayed,
    flipped,
    joined,
    small,
    spoil,
    without_times,
    write_corners,
    write_sound,
    write_streams,
    write_video,
)

COUNT = 24


class Odd(NamedTuple):
    file: str
    write: Callable[[Path], object]
    frames: int | str = COUNT
    """How many there are, or the end of the message that refuses the file."""
    damaged: bool = False
    """Whether that some of its frames cannot be decoded is reported."""


def encoded(codec: str, pix_fmt: str = "yuv420p", rate: int = 10, **how: Any) -> Callable[[Path], object]:
    return partial(write_video, frames=COUNT, codec=codec, pix_fmt=pix_fmt, rate=rate, **how)


def turned(*numbers: float) -> Callable[[Path], object]:
    return lambda path: displayed(write_video(path, COUNT), numbers)  # type: ignore[arg-type]


def after(change: Callable[[Path], object], codec: str = "mpeg4", **how: Any) -> Callable[[Path], object]:
    return lambda path: change(write_video(path, COUNT, codec=codec, **how))


def tuned(codec: str, *, size: tuple[int, int] = (64, 48), rate: int = 25, **options: str) -> Callable[[Path], object]:
    """A video by an encoder with options of its own."""

    def write(path: Path) -> None:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=rate, options=options)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            for number in range(COUNT):
                frame = av.VideoFrame.from_ndarray(bars(number, *size), format="rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode())

    return write


def with_sound(path: Path) -> None:
    """Sound that goes on for twice as long as the pictures."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for number in range(2 * COUNT):
            if number < COUNT:
                frame = av.VideoFrame.from_ndarray(bars(number), format="rgb24")
                frame.pts = number
                container.mux(pictures.encode(frame))
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            silence.rate, silence.pts = 8000, 800 * number
            container.mux(sound.encode(silence))
        container.mux(pictures.encode())
        container.mux(sound.encode())


def in_a_row(*first: int) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        how: dict[str, Any] = {"codec": "libx264", "rate": 25, "reordered": 2}
        parts = [write_video(path.with_name(f"part{n}.ts"), 12, first=n, **how) for n in first]
        joined(path, *parts)
        for part in parts:
            part.unlink()

    return write


def renamed(path: Path) -> None:
    write_video(path.with_suffix(".mp4"), COUNT).rename(path)


VFR: Sequence[float] = [number / 10 + (number % 3) / 40 for number in range(COUNT)]
GONE = "Invalid data found when processing input"
NOT_SUPPORTED = "is not supported; convert the video to H.264 or FFV1"
FAST = {"movflags": "+faststart"}

ODD: tuple[Odd, ...] = (
    # codecs and containers
    Odd("h264.mp4", encoded("libx264", reordered=3)),
    Odd("hevc.mp4", encoded("libx265")),
    Odd("vp8.webm", encoded("libvpx")),
    Odd("vp9.webm", encoded("libvpx-vp9")),
    Odd("packed.avi", encoded("mpeg4", reordered=2)),
    Odd("msmpeg4.avi", encoded("msmpeg4")),
    Odd("mpeg2.ts", encoded("mpeg2video", rate=25, reordered=2)),
    Odd("mpeg2.vob", encoded("mpeg2video", rate=25)),
    Odd("mpeg1.mpg", encoded("mpeg1video", rate=25)),
    Odd("photos.avi", encoded("mjpeg", "yuvj420p")),
    Odd("prores.mov", encoded("prores", "yuv422p10le")),
    Odd("ffv1.mkv", encoded("ffv1")),
    Odd("huffyuv.avi", encoded("huffyuv", "rgb24")),
    Odd("utvideo.avi", encoded("utvideo")),
    Odd("cinepak.avi", encoded("cinepak", "rgb24")),
    Odd("animated.gif", encoded("gif", "rgb8")),
    Odd("wmv2.wmv", encoded("wmv2")),
    Odd("flv.flv", encoded("flv")),
    Odd("h263.3gp", encoded("h263", rate=25, size=(176, 144))),
    Odd("raw.avi", encoded("rawvideo")),
    Odd("raw.y4m", encoded("rawvideo")),
    Odd("fragments.mp4", encoded("libx264", movflags="+frag_keyframe+empty_moov")),
    Odd("bare.h264", encoded("libx264", rate=25)),
    # pixels
    Odd("ten_bits.mkv", encoded("ffv1", "yuv420p10le")),
    Odd("full_chroma.mp4", encoded("libx264", "yuv444p")),
    Odd("grey.mkv", encoded("ffv1", "gray")),
    Odd("alpha.mkv", encoded("ffv1", "bgra")),
    Odd("odd_size.mkv", encoded("ffv1", "yuv444p", size=(321, 241))),
    Odd("narrow.mkv", encoded("ffv1", "yuv444p", size=(17, 240))),
    Odd("interlaced.mpg", tuned("mpeg2video", flags="+ildct+ilme", top="1")),
    # orientation and shape
    Odd("turned_right.mp4", turned(0, 1, -1, 0)),
    Odd("turned_half.mp4", turned(-1, 0, 0, -1)),
    Odd("mirrored.mp4", turned(-1, 0, 0, 1)),
    Odd("upside_down.mp4", turned(1, 0, 0, -1)),
    Odd("transposed.mp4", turned(0, 1, 1, 0)),
    Odd("anamorphic.mp4", partial(write_corners, codec="libx264", aspect=Fraction(4, 3)), 3),
    Odd("anamorphic.mkv", partial(write_corners, aspect=Fraction(10, 11)), 3),
    # time
    Odd("variable.mp4", encoded("mpeg4", times=VFR)),
    Odd("variable.mkv", encoded("libx264", times=VFR, reordered=2)),
    Odd("late.mkv", encoded("mpeg4", times=[5 + time for time in VFR])),
    Odd("early.mp4", encoded("libx264", times=[time - 0.45 for time in VFR], reordered=2, use_editlist="1"), frames=19),
    Odd("lasting.mp4", encoded("mpeg4", times=VFR, last=4.0)),
    Odd("without_times.mp4", after(without_times)),
    Odd("in_a_row.ts", in_a_row(0, 12)),
    Odd("three_in_a_row.ts", in_a_row(0, 12, 24), 36),
    Odd("one_frame.mp4", partial(write_video, frames=1), 1),
    Odd("two_frames.mkv", partial(write_video, frames=2), 2),
    # streams
    Odd("with_sound.mkv", with_sound),
    Odd("second_is_default.mp4", lambda path: write_streams(path, [9, 12], [1]), 12),
    Odd("cover_first.mp4", lambda path: write_streams(path, [1, 12], [1], cover=0), 12),
    Odd("renamed.avi", renamed),
    # damage
    Odd("spoilt.mp4", after(lambda path: spoil(path, range(8, 16))), damaged=True),
    Odd("flipped.mp4", after(lambda path: flipped(path, range(8, 16))), damaged=True),
    Odd("cut_short.mkv", after(lambda path: cut(path, 0.85)), -1, damaged=True),
    Odd("cut_short.mp4", after(lambda path: cut(path, 0.9), **FAST), -1, damaged=True),
    Odd("cut_short.flv", after(lambda path: cut(path, 0.7), "flv"), -1, damaged=True),
    # refused
    Odd("without_index.mp4", after(lambda path: cut(path, 0.7)), GONE),
    Odd("all_spoilt.mp4", after(lambda path: spoil(path, range(COUNT))), "none of its frames can be decoded"),
    Odd("magicyuv.avi", encoded("magicyuv"), f'the codec "magicyuv" {NOT_SUPPORTED}'),
    Odd("qtrle.mov", encoded("qtrle", "rgb24"), f'the codec "qtrle" {NOT_SUPPORTED}'),
    Odd("snow.avi", encoded("snow"), f'the codec "snow" {NOT_SUPPORTED}'),
    Odd("png.mov", encoded("png", "rgb24"), f'the codec "png" {NOT_SUPPORTED}'),
    Odd("empty.mp4", lambda path: small(path, b""), GONE),
    Odd("text.mp4", lambda path: small(path, b"text\n" * 999), GONE),
    Odd("sound.mkv", write_sound, "has no video stream"),
)
