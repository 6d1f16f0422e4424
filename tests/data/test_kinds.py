"""What a file is: by its content, or in a folder by a suffix that says enough."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import av
import numpy as np
import pytest

from tests.odd_images import READ, REFUSED
from tests.plugins.data_files import write_image, write_video
from toolkit.api.errors import DataError
from toolkit.data import kinds
from toolkit.data.decoding import timeline
from toolkit.data.kinds import IMAGE_SUFFIXES, OTHER_SUFFIXES, VIDEO_SUFFIXES, Format, format_of, kind_of, listed_kind

CONTAINERS: Mapping[str, tuple[str, str]] = {
    "avi": ("mpeg4", "AVI"),
    "mp4": ("mpeg4", "MP4 or MOV"),
    "mov": ("mjpeg", "MP4 or MOV"),
    "3gp": ("mpeg4", "MP4 or MOV"),
    "matroska": ("ffv1", "Matroska or WebM"),
    "webm": ("libvpx", "Matroska or WebM"),
    "mpegts": ("mpeg2video", "MPEG transport stream"),
    "flv": ("flv", "FLV"),
    "asf": ("wmv2", "ASF (WMV)"),
    "vob": ("mpeg2video", "MPEG program stream"),
    "mpeg": ("mpeg1video", "MPEG program stream"),
    "mxf": ("mpeg2video", "MXF"),
    "nut": ("mpeg4", "NUT"),
    "ivf": ("libvpx", "IVF"),
    "yuv4mpegpipe": ("wrapped_avframe", "YUV4MPEG"),
    "mpeg2video": ("mpeg2video", "video stream"),
    "m4v": ("mpeg4", "video stream"),
    "gif": ("gif", "GIF"),
}
"""Containers, as FFmpeg names them, a codec that they hold, and what they are."""


def video(path: Path, container: str, codec: str, frames: int = 6) -> Path:
    """A video in a container, under any name."""
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height = (720, 576) if container == "mxf" else (64, 48)
        supported = stream.codec_context.codec.video_formats
        stream.pix_fmt = "rgb8" if codec == "gif" else supported[0].name if supported else "yuv420p"
        for number in range(frames):
            pixels = np.full((stream.height, stream.width, 3), 40 * number, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return path


def form(path: Path) -> str | None:
    found = format_of(path.read_bytes()[: kinds.LOOKED_AT])
    return found and found.name


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", ["clip", "clip.bin"])
def test_a_video_is_one_under_any_name(tmp_path: Path, container: str, name: str) -> None:
    codec, expected = CONTAINERS[container]
    path = video(tmp_path / name, container, codec)
    assert form(path) == expected
    assert kind_of(path) == listed_kind(path) == ("animation" if container == "gif" else "video")


def test_a_transport_stream_of_a_camcorder_is_one(tmp_path: Path) -> None:
    """Its packets have four bytes before them."""
    packets = video(tmp_path / "a", "mpegts", "mpeg2video").read_bytes()
    timed = b"".join(b"\0\0\0\1" + packets[place : place + 188] for place in range(0, len(packets), 188))
    (tmp_path / "00001.MTS").write_bytes(timed)
    assert listed_kind(tmp_path / "00001.MTS") == "video"


def test_ogg_is_a_video_where_it_holds_one() -> None:
    page = b"OggS\0\2" + bytes(22)
    assert format_of(page + b"\x80theora\3\2\1") == Format("Ogg", "video")
    assert format_of(page + b"\1vorbis" + bytes(40)) is None


@pytest.mark.parametrize("name", READ)
def test_an_image_is_one_under_any_name(tmp_path: Path, name: str) -> None:
    kind = "animation" if name == "animated.gif" else "image"
    for other in (name, "none", "x.bin", "x.txt", "x.mp4"):
        (tmp_path / other).write_bytes(READ[name])
        assert kind_of(tmp_path / other) == kind
    assert listed_kind(tmp_path / "none") == listed_kind(tmp_path / "x.bin") == kind


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES | OTHER_SUFFIXES))
def test_in_a_folder_a_suffix_that_says_enough_decides(tmp_path: Path, suffix: str) -> None:
    """Without a look into the file: it need not even be there."""
    kind = "image" if suffix in IMAGE_SUFFIXES else "video" if suffix in VIDEO_SUFFIXES else None
    assert listed_kind(tmp_path / f"gone{suffix}") == kind
    assert listed_kind(tmp_path / f"GONE{suffix.upper()}") == kind


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("app.ts", b"export const answer = 42;", None),
        ("BMW.dat", b"BMW is a maker of cars and motorcycles", None),
        ("notes", b"no image", None),
        ("empty", b"", None),
        ("damaged.gif", b"no image", "image"),
        ("cut.gif", b"GIF89a", "image"),
        ("layers", b"8BPS" + bytes(60), None),
        ("layers.gif", b"8BPS" + bytes(60), None),
        ("song", b"\0\0\0\x18ftypM4A \0\0\0\0isommp42", None),
        ("photo", b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf", "image"),
        ("photo-2", b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "image"),
        ("raw", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", None),
        ("movie", b"\0\0\0\x08wide\0\0\0\0mdat", "video"),
    ],
)
def test_other_names_are_decided_by_content(tmp_path: Path, name: str, text: bytes, kind: str | None) -> None:
    (tmp_path / name).write_bytes(text)
    assert listed_kind(tmp_path / name) == kind


def test_a_file_that_is_named_is_what_its_content_is(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png").rename(tmp_path / "a.mp4")
    write_video(tmp_path / "b.mp4").rename(tmp_path / "b.jpg")
    assert (kind_of(tmp_path / "a.mp4"), kind_of(tmp_path / "b.jpg")) == ("image", "video")
    assert (listed_kind(tmp_path / "a.mp4"), listed_kind(tmp_path / "b.jpg")) == ("video", "image")


@pytest.mark.parametrize(("name", "kind"), [("a.jpg", "image"), ("a.mp4", "video"), ("a.txt", None), ("a", None)])
def test_where_the_content_is_unknown_the_suffix_names_the_decoder(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(b"neither")
    assert kind_of(tmp_path / name) == kind


def test_a_stream_of_jpegs_is_a_video_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.mjpeg").write_bytes(READ["RGB.jpg"] * 2)
    assert kind_of(tmp_path / "a.mjpeg") == "video"


@pytest.mark.parametrize("name", ["pipe", "pipe.jpg"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    assert kind_of(tmp_path / name) == listed_kind(tmp_path / name) == ("image" if name.endswith("jpg") else None)


def test_what_cannot_be_read_is_neither(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("gone")
    assert listed_kind(tmp_path / "link") is None
    with pytest.raises(OSError, match="No such file"):
        kind_of(tmp_path / "link")


@pytest.mark.parametrize("name", ["psd.jpg", "xl.jpg", "2000.jpg", "page.png", "text.png", "empty.jpg"])
def test_what_is_refused_is_no_item_without_a_suffix_of_images(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").write_bytes(REFUSED[name][0])
    assert listed_kind(tmp_path / "x") is None


@pytest.mark.parametrize("name", ["RGB.jpg", "RGB.png", "RGB.webp", "RGB.bmp", "RGB.tif"])
def test_an_image_is_not_decoded_as_a_video(tmp_path: Path, name: str) -> None:
    (tmp_path / "clip.mp4").write_bytes(READ[name])
    with pytest.raises(DataError, match=r"clip\.mp4: cannot be decoded: it is an image \(\w+\), not a video$"):
        timeline(tmp_path / "clip.mp4")


def test_a_gif_and_a_stream_of_jpegs_are(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(READ["animated.gif"])
    (tmp_path / "clip.mjpeg").write_bytes(READ["RGB.jpg"] * 2)
    assert [len(timeline(tmp_path / name).times) for name in ("clip.mp4", "clip.mjpeg")] == [2, 2]
