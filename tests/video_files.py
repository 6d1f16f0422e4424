"""Small video files, good and broken: each frame shows its own number as black and white bars."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

BITS = 8
WIDTH, HEIGHT = 64, 48


def bars(number: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """uint8 `[height, width, 3]`: one upright bar a bit of `number`, the lowest on the left."""
    bits = [255 * (number >> place & 1) for place in range(BITS)]
    row = np.array(bits, np.uint8)[np.arange(width) * BITS // width]
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def number_in(pixels: Any) -> int:
    """The number that a frame `[H, W, 3]` shows."""
    pixels = np.asarray(pixels)
    middles = (2 * np.arange(BITS) + 1) * pixels.shape[1] // (2 * BITS)
    return sum(1 << place for place, level in enumerate(pixels[pixels.shape[0] // 2, middles, 0]) if level > 127)


def write_video(
    path: Path,
    frames: int = 12,
    *,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    rate: int = 10,
    codec: str = "mpeg4",
    pix_fmt: str = "yuv420p",
    gop: int = 12,
    reordered: int = 0,
    times: Sequence[float] | None = None,
    first: int = 0,
    last: float | None = None,
    title: str | None = None,
    **muxer: str,
) -> Path:
    """A video of `frames` numbered frames, from `first` on. `reordered`: B-frames in a row; `times`: seconds at which
    frames are shown, where that is not every 1 / `rate`; `last`: seconds for which the last one is; `muxer`: options of
    the container."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", container_options=muxer) as container:
        if title is not None:
            container.metadata["title"] = title
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *size, pix_fmt, 4_000_000
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = gop, reordered
        stream.codec_context.time_base = Fraction(1, 1000 if times else rate)
        shown = [round(time * 1000) for time in times] if times else list(range(frames))
        packets = []
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(bars(first + number, *size), format="rgb24")
            frame.time_base, frame.pts = stream.codec_context.time_base, shown[number]
            packets += stream.encode(frame)
        for packet in (*packets, *stream.encode()):
            if last is not None and packet.pts == shown[-1]:
                packet.duration = round(last / float(packet.time_base))
            container.mux(packet)
    return path


def write_streams(path: Path, frames: Sequence[int], default: Sequence[int], *, cover: int | None = None) -> Path:
    """A file of several video streams: stream n has so many frames, whose numbers begin at 16 n. Those in `default` are
    flagged; `cover` is the picture of a song."""
    with av.open(str(path), "w") as container:
        codecs = ["mjpeg" if place == cover else "mpeg4" for place in range(len(frames))]
        streams = [container.add_stream(codec, rate=10) for codec in codecs]
        for place, stream in enumerate(streams):
            stream.width, stream.height = WIDTH, HEIGHT
            stream.pix_fmt = "yuv420p" if place != cover else "yuvj420p"
            stream.disposition = Disposition.default if place in default else Disposition(0)
            if place == cover:
                stream.disposition |= Disposition.attached_pic
        for place, (stream, count) in enumerate(zip(streams, frames, strict=True)):
            for number in range(count):
                frame = av.VideoFrame.from_ndarray(bars(16 * place + number), format="rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return path


def joined(path: Path, *parts: Path) -> Path:
    """The file that `cat` makes of these."""
    return small(path, b"".join(part.read_bytes() for part in parts))


def write_corners(path: Path, *, codec: str = "mpeg4", aspect: Fraction | None = None, **muxer: str) -> Path:
    """A video of three frames, 96 x 64, red and green above blue and white; `aspect`: width of a pixel by its
    height."""
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:32, :48, 0] = pixels[:32, 48:, 1] = pixels[32:, :48, 2] = 255
    pixels[32:, 48:] = 255
    with av.open(str(path), "w", container_options=muxer) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def corners(pixels: Any) -> str:
    """The colours in the corners of a frame `[H, W, 3]`, row by row: R, G, B, W, or ? for another."""
    height, width = pixels.shape[:2]
    names = {(1, 0, 0): "R", (0, 1, 0): "G", (0, 0, 1): "B", (1, 1, 1): "W"}
    found = (pixels[y, x] for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4))
    return "".join(names.get(tuple(int(level > 110) for level in pixel), "?") for pixel in found)


def write_sound(path: Path) -> Path:
    """A tenth of a second of silence, and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        silence.rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    return path


def cut(path: Path, share: float) -> Path:
    """The file, with only its first part left."""
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    return path


def spoil(path: Path, packets: Sequence[int]) -> Path:
    """The file, with the data of the packets with these numbers (in the order of decoding) overwritten."""
    data = bytearray(path.read_bytes())
    for place, size in _places(path, packets):
        data[place : place + size] = bytes(size)
    path.write_bytes(data)
    return path


def flipped(path: Path, packets: Sequence[int]) -> Path:
    """The file, with three bits flipped in each packet with these numbers, behind its header."""
    data, draw = bytearray(path.read_bytes()), random.Random(1)
    for place, size in _places(path, packets):
        for _ in range(3):
            data[place + size // 3 + draw.randrange(max(size * 2 // 3 - 2, 1))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    return path


def _places(path: Path, packets: Sequence[int]) -> list[tuple[int, int]]:
    """Where in the file these packets lie, and how long they are."""
    with av.open(str(path)) as container:
        found = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    return [found[number] for number in packets]


def displayed(path: Path, numbers: tuple[float, float, float, float]) -> Path:
    """The MP4 file, with these numbers a, b, c, d in its display matrix."""
    a, b, c, d = (round(number * (1 << 16)) for number in numbers)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    data[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def rotate(path: Path) -> Path:
    """The MP4 file, with metadata that asks for a quarter turn to the right."""
    return displayed(path, (0, 1, -1, 0))


def without_times(path: Path) -> Path:
    """The MP4 file, with all packets but the last said to take no time, so that all are shown at 0."""
    data = bytearray(path.read_bytes())
    table = data.index(b"stts") + 8
    (entries,) = struct.unpack_from(">I", data, table)
    for entry in range(entries - 1):
        struct.pack_into(">I", data, table + 8 * (entry + 1), 0)
    path.write_bytes(data)
    return path


def small(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


BROKEN: dict[str, Callable[[Path], Path]] = {
    "truncated.mp4": lambda folder: cut(write_video(folder / "truncated.mp4", 60, movflags="+faststart"), 0.7),
    "without_index.mp4": lambda folder: cut(write_video(folder / "without_index.mp4", 60), 0.7),
    "zero_bytes.mp4": lambda folder: small(folder / "zero_bytes.mp4", b""),
    "text.mp4": lambda folder: small(folder / "text.mp4", b"no video, but text\n" * 500),
    "sound_only.mkv": lambda folder: write_sound(folder / "sound_only.mkv"),
    "one_frame.mp4": lambda folder: write_video(folder / "one_frame.mp4", 1),
    "rotated.mp4": lambda folder: rotate(write_video(folder / "rotated.mp4")),
    "variable_rate.mp4": lambda folder: write_video(
        folder / "variable_rate.mp4", 6, times=[0, 0.1, 0.15, 0.5, 1.5, 1.6]
    ),
    "4k.mp4": lambda folder: write_video(folder / "4k.mp4", 2, size=(3840, 2160)),
    "odd_size.mkv": lambda folder: write_video(
        folder / "odd_size.mkv", 3, size=(321, 241), codec="ffv1", pix_fmt="yuv444p"
    ),
    "wrong_suffix.avi": lambda folder: write_video(folder / "right.mp4").rename(folder / "wrong_suffix.avi"),
}
"""Ten ways for a video to be out of the ordinary (the first in two forms), by file name: what writes it."""
