"""Which videos open: those of codecs that people use, by their own decoders alone."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from av.codec import Codec

from tests.video_files import number_in, write_video
from toolkit.api.errors import DataError
from toolkit.data.decoding import read_frames, timeline
from toolkit.data.opening import DECODERS, FILE, open_video

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
