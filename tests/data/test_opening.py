"""Which videos open: those of codecs that people use, by their own decoders alone."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from av.codec import Codec
from av.stream import Disposition

from tests.video_files import joined, number_in, write_streams, write_video
from toolkit.api.errors import DataError
from toolkit.data import opening
from toolkit.data.damage import Damage, hearing_of_damage
from toolkit.data.decoding import read_frames, timeline
from toolkit.data.opening import DECODERS, FILE, open_video, packets

USED = [
    ("libx264", "mp4", "yuv420p"),
    ("mpeg4", "avi", "yuv420p"),
    ("mpeg1video", "mpg", "yuv420p"),
    ("mpeg2video", "ts", "yuv420p"),
    ("libvpx", "webm", "yuv420p"),
    ("libvpx-vp9", "webm", "yuv420p"),
    ("flv", "flv", "yuv420p"),
    ("wmv1", "wmv", "yuv420p"),
    ("wmv2", "wmv", "yuv420p"),
    ("mjpeg", "avi", "yuvj420p"),
    ("prores", "mov", "yuv422p10le"),
    ("gif", "gif", "rgb8"),
    ("ffv1", "mkv", "yuv420p"),
    ("rawvideo", "avi", "yuv420p"),
    ("huffyuv", "avi", "rgb24"),
    ("ffvhuff", "avi", "yuv420p"),
    ("utvideo", "avi", "yuv420p"),
    ("cinepak", "avi", "rgb24"),
]
REFUSED = [
    ("magicyuv", "avi", "yuv420p"),
    ("qtrle", "mov", "rgb24"),
    ("png", "mov", "rgb24"),
    ("snow", "avi", "yuv420p"),
    ("zmbv", "avi", "bgr0"),
    ("roqvideo", "roq", "yuvj444p"),
]


@pytest.mark.parametrize(("codec", "suffix", "pix_fmt"), USED)
def test_what_people_use_is_read(tmp_path: Path, codec: str, suffix: str, pix_fmt: str) -> None:
    rate = 25 if codec == "mpeg1video" else 10  # it knows a few rates only
    path = write_video(tmp_path / f"a.{suffix}", 8, codec=codec, pix_fmt=pix_fmt, rate=rate)
    assert number_in(next(iter(read_frames(path, timeline(path), [5])))) == 5


@pytest.mark.parametrize(("codec", "suffix", "pix_fmt"), REFUSED)
def test_other_codecs_are_refused_by_name(tmp_path: Path, codec: str, suffix: str, pix_fmt: str) -> None:
    path = write_video(tmp_path / f"a.{suffix}", 4, codec=codec, pix_fmt=pix_fmt)
    with pytest.raises(DataError) as caught:
        timeline(path)
    said = f'the codec "{codec}" is not supported; convert the video to H.264 or FFV1'
    assert caught.value.message == f"{path}: {said}"


def test_a_refused_decoder_does_not_run_while_the_streams_are_looked_at(tmp_path: Path) -> None:
    """FFmpeg decodes frames of its own accord to learn their format, before anyone may ask for the codec."""
    path = write_video(tmp_path / "a.nut", 4, codec="magicyuv", pix_fmt="yuv420p")
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
    with open_video(str(path), FILE) as container:
        assert container.streams.video[0].codec_context.pix_fmt is None


def test_every_decoder_is_one_of_ffmpegs() -> None:
    """A misspelt name would allow nothing. Builds differ in the two of AV1."""
    unknown = set()
    for name in DECODERS:
        try:
            assert Codec(name, "r").name == name
        except av.codec.codec.UnknownCodecError:
            unknown.add(name)
    assert unknown <= {"libaom-av1", "libdav1d"}


# Which stream is taken

STREAMS = [
    ("mp4", 2, [1], None, 1),
    ("mov", 2, [1], None, 1),
    ("mkv", 2, [1], None, 1),
    ("mp4", 2, [0], None, 0),
    ("mkv", 2, [0, 1], None, 0),
    ("mp4", 2, [], None, 0),
    ("mkv", 2, [], None, 0),
    ("mp4", 3, [2], None, 2),
    ("mkv", 3, [1, 2], None, 1),
    ("mkv", 3, [2], None, 2),
    ("mp4", 3, [1], 0, 1),
    ("mp4", 3, [2], 0, 2),
    ("mp4", 2, [], 0, 1),
    ("ts", 2, [1], None, 0),  # a container without such flags
    ("nut", 2, [1], None, 1),
]
"""Container, number of streams, those that are flagged as the default, the cover, and the stream that is taken."""


@pytest.mark.parametrize(("suffix", "count", "default", "cover", "taken"), STREAMS)
def test_the_stream_that_is_flagged_as_the_default_is_taken(
    tmp_path: Path, suffix: str, count: int, default: list[int], cover: int | None, taken: int
) -> None:
    lengths = [1 if place == cover else 5 + place for place in range(count)]
    path = write_streams(tmp_path / f"a.{suffix}", lengths, default, cover=cover)
    found = timeline(path)
    shown = [number_in(pixels) for pixels in read_frames(path, found, range(len(found.times)))]
    assert shown == [16 * taken + number for number in range(lengths[taken])]


def test_of_a_default_stream_that_is_not_supported_no_other_takes_the_place(tmp_path: Path) -> None:
    path = tmp_path / "a.nut"
    with av.open(str(path), "w") as container:
        for codec in ("mpeg4", "magicyuv"):
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.disposition = Disposition.default if codec == "magicyuv" else Disposition(0)
        for stream in container.streams.video:
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts = 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
    with pytest.raises(DataError, match='the codec "magicyuv" is not supported'):
        timeline(path)


# What is too large, and where packets end


def test_frames_of_a_size_that_only_damage_claims_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", 2)
    monkeypatch.setattr(opening, "LARGEST", 64 * 48 - 1)
    with pytest.raises(DataError) as caught:
        timeline(path)
    assert caught.value.message == f"{path}: frames of 64 x 48 pixels are larger than 3,071 pixels"


def test_a_frame_that_grows_too_large_cannot_be_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [
        write_video(tmp_path / f"{side}.ts", 6, size=(side, side), codec="mpeg2video", rate=25) for side in (64, 96)
    ]
    path = joined(tmp_path / "both.ts", *parts)
    monkeypatch.setattr(opening, "LARGEST", 64 * 64)
    with hearing_of_damage() as found:
        assert len(list(read_frames(path, timeline(path), range(12)))) == 12
    assert found == [Damage(6, 12)]


class Ending:
    """A container whose packets end in `error`; that of PyAV for a stream that begins late ends nothing."""

    size = -38

    def __init__(self, name: str, *errors: Exception) -> None:
        self.name, self._errors = name, iter(errors)

    def demux(self, stream: object) -> Iterator[object]:
        yield stream
        error = next(self._errors, None)
        if error is not None:
            raise error


def test_packets_of_a_stream_that_begins_late_are_passed_over() -> None:
    assert list(packets(Ending("a.ts", IndexError(), IndexError()), "packet")) == ["packet"] * 3


@pytest.mark.parametrize("name", ["http://yard/a.mp4", "https://yard/a.mp4"])
def test_the_end_of_a_body_of_unknown_length_is_an_end(name: str) -> None:
    assert list(packets(Ending(name, OSError(errno.EIO, "gone")), "packet")) == ["packet"]


@pytest.mark.parametrize(
    ("name", "size", "number"),
    [
        ("http://yard/a.mp4", 1000, errno.EIO),
        ("http://yard/a.mp4", -38, errno.ECONNRESET),
        ("rtsp://yard/1", -38, errno.EIO),
        ("/dev/video0", -38, errno.EIO),
        ("file:a.mp4", -38, errno.EIO),
    ],
)
def test_any_other_end_is_an_error(name: str, size: int, number: int) -> None:
    container = Ending(name, OSError(number, "gone"))
    container.size = size
    with pytest.raises(OSError, match="gone"):
        list(packets(container, "packet"))
