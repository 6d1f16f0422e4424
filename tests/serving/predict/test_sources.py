"""Frames of videos, of streams over this machine's own loopback, and of cameras that are not there."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests import loopback, video_files
from tests.loopback import serving
from tests.plugins.data_files import write_image, write_video
from tests.video_files import number_in, spoil
from toolkit.api.errors import DataError
from toolkit.data import decoding as frames
from toolkit.serving.predict import sources as videos
from toolkit.serving.predict.inputs import Source, SourceKind, find_sources
from toolkit.serving.predict.sources import Remote, read_frames, timeline


def video(path: Path | str) -> Source:
    return Source(str(path), "video", str(path))


def read(source: Source, numbers: Sequence[int], threads: int = 1) -> list[np.ndarray]:
    return list(read_frames(source, timeline(source), numbers, threads=threads, stop=threading.Event()))


def levels(frames: list[np.ndarray]) -> list[int]:
    """Which frames of `write_video` these are."""
    return [round(float(frame.mean()) / 16) for frame in frames]


@pytest.mark.parametrize("threads", [1, 3])
def test_frames_of_a_file_are_found_by_number(tmp_path: Path, threads: int) -> None:
    found = read(video(write_video(tmp_path / "a.mp4")), [1, 4, 7, 10], threads)
    assert levels(found) == [1, 4, 7, 10]
    assert found[0].shape == (48, 64, 3)
    assert found[0].dtype == np.uint8


def test_a_name_with_a_colon_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "real.mp4").rename(tmp_path / "concat:a.mp4")
    assert len(read(video("concat:a.mp4"), [0, 5])) == 2


def write_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a server of `tmp_path`."""
    with serving(tmp_path) as address:
        yield address


@pytest.mark.parametrize("threads", [1, 3])
def test_a_video_behind_a_url_is_read_as_a_file(tmp_path: Path, served: str, threads: int) -> None:
    path = write_video(tmp_path / "a.mp4")
    here, there = timeline(video(path)), timeline(video(f"{served}/a.mp4"))
    assert there.times == pytest.approx(here.times)
    assert levels(read(video(f"{served}/a.mp4"), [1, 4, 7, 10], threads)) == [1, 4, 7, 10]


def test_reading_from_a_url_ends_once_it_is_told_to(tmp_path: Path, served: str) -> None:
    write_video(tmp_path / "a.mp4")
    source, stop = video(f"{served}/a.mp4"), threading.Event()
    frames = read_frames(source, timeline(source), range(12), threads=1, stop=stop)
    next(frames)
    stop.set()
    assert list(frames) == []


def write_photos(path: Path) -> Path:
    """A video of ten numbered frames, each of which is a JPEG of its own, as cameras send them."""
    return video_files.write_video(path, 10, codec="mjpeg", pix_fmt="yuvj420p")


@pytest.mark.parametrize("damaged", [[0], [4], [3, 4], [9], [0, 5, 8, 9]])
def test_damaged_packets_behind_a_url_are_stood_in_for_as_in_a_file(
    tmp_path: Path, served: str, damaged: list[int]
) -> None:
    path = spoil(write_photos(tmp_path / "a.avi"), damaged)
    here, there = read(video(path), range(10)), read(video(f"{served}/a.avi"), range(10))
    assert [number_in(frame) for frame in there] == [number_in(frame) for frame in here]
    assert len(there) == 10


SOUND: dict[str, Callable[[Path], Path]] = {
    f"{suffix}-{reordered}": lambda folder, suffix=suffix, reordered=reordered: video_files.write_video(  # type: ignore[misc]
        folder / f"whole.{suffix}", 60, reordered=reordered
    )
    for suffix in ("mp4", "avi", "mkv")
    for reordered in (0, 2)
}


def outcome(source: Source, numbers: Sequence[int]) -> tuple[list[float], list[int], str]:
    """The times of a video, which of its frames are read, and how reading ends."""
    try:
        line = timeline(source)
    except DataError as error:
        return [], [], error.message.removeprefix(f"{source.name}: ")
    found: list[int] = []
    try:
        found += map(number_in, read_frames(source, line, numbers, threads=1, stop=threading.Event()))
    except DataError as error:
        return list(line.times), found, error.message.removeprefix(f"{source.name}: ")
    return list(line.times), found, ""


@pytest.mark.parametrize("damaged", [[], [0], [1], [7], [7, 8, 20], [12, 24, 36], list(range(25, 60))], ids=str)
@pytest.mark.parametrize("name", SOUND)
def test_a_damaged_video_behind_a_url_gives_the_frames_that_the_file_gives(
    tmp_path: Path, name: str, damaged: list[int]
) -> None:
    path = spoil(SOUND[name](tmp_path), damaged)
    asked = (range(60), [5, 31, 57], [7, 8, 9, 50])
    wanted = [outcome(video(path), numbers) for numbers in asked]
    for ranges in (True, False):
        with serving(tmp_path, ranges=ranges) as address:
            assert [outcome(video(f"{address}/{path.name}"), numbers) for numbers in asked] == wanted, ranges


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "whole"])
@pytest.mark.parametrize("name", sorted(video_files.BROKEN.keys() - {"zero_bytes.mp4"}))
def test_what_is_wrong_with_a_video_behind_a_url_is_what_is_wrong_with_the_file(
    tmp_path: Path, name: str, ranges: bool
) -> None:
    path = video_files.BROKEN[name](tmp_path)
    with serving(tmp_path, ranges=ranges) as address:
        here, there = (outcome(video(place), [0, 3, 5]) for place in (path, f"{address}/{path.name}"))
    if not ranges and name == "4k.mp4":  # its index lies at its end, further behind than is read ahead
        here = [], [], "cannot be read to its end"
    assert there == here


@pytest.mark.parametrize("numbers", [[0, 5, 57], [57]], ids=str)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_a_connection_that_is_lost_is_no_damage_to_stand_in_for(
    tmp_path: Path, name: str, numbers: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loopback._Ranges, "lost", threading.Event())
    faststart = {"movflags": "+faststart"} if name == "a.mp4" else {}
    video_files.write_video(tmp_path / name, 60, size=(320, 240), **faststart)
    with serving(tmp_path, ranges=True) as address:
        source = video(f"{address}/{name}")
        line = timeline(source)
        loopback._Ranges.lost.set()
        found: list[int] = []
        with pytest.raises(DataError, match=f"{name}: cannot be read to its end") as caught:
            found += map(number_in, read_frames(source, line, numbers, threads=1, stop=threading.Event()))
        assert found == [number for number in numbers if number < 30]
        assert caught.value.next_step == "download it, and give the file"
        with pytest.raises(DataError, match="cannot be read to its end"):
            timeline(source)


@pytest.mark.parametrize(
    ("kind", "place", "next_step"),
    [
        ("camera", "0", "connect the camera again, or give another"),
        ("stream", "RTSP://host/door", "see whether another player shows it"),
        ("stream", "http://host/a.mp4", "download it, and give the file"),
        ("video", "https://host/a.mp4", "download it, and give the file"),
    ],
)
def test_what_can_be_done_depends_on_where_a_video_comes_from(kind: SourceKind, place: str, next_step: str) -> None:
    assert Remote(Source("x", kind, place)).broken("has no video stream").next_step == next_step


def test_a_video_behind_a_url_is_not_read_from_its_start_to_a_late_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video_files.write_video(tmp_path / "a.mp4", 100)
    decoded: list[object] = []
    pixels = frames._decoded

    def counted(*given: Any) -> Iterator[Any]:
        for frame in pixels(*given):
            decoded.append(frame)
            yield frame

    monkeypatch.setattr(frames, "_decoded", counted)
    with serving(tmp_path, ranges=True) as address:
        assert [number_in(frame) for frame in read(video(f"{address}/a.mp4"), [95])] == [95]
    assert len(decoded) <= 24


def trimmed(path: Path, begin: int) -> Path:
    """The MP4 file, with an edit list that hides the frames before `begin`, as after `ffmpeg -ss ... -c copy`."""
    target = path.with_name(f"trimmed-{path.name}")
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        shift = sorted(packet.pts for packet in packets)[begin]
        for packet in packets:
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
            container.mux(packet)
    return target


def test_the_frames_that_a_trimmed_video_hides_do_not_count_behind_a_url_either(tmp_path: Path, served: str) -> None:
    path = trimmed(video_files.write_video(tmp_path / "a.mp4", 20), 5)
    here, there = video(path), video(f"{served}/{path.name}")
    assert len(timeline(here).times) == 15
    assert timeline(there).times == pytest.approx(timeline(here).times)
    assert [number_in(frame) for frame in read(there, [0, 7, 14])] == [5, 12, 19]


def test_a_video_behind_a_url_none_of_whose_frames_can_be_decoded_is_told(tmp_path: Path, served: str) -> None:
    spoil(write_photos(tmp_path / "a.avi"), range(10))
    with pytest.raises(DataError, match=r"a\.avi: none of its frames can be decoded"):
        read(video(f"{served}/a.avi"), [3])


def test_a_codec_that_is_refused_is_refused_behind_a_url_and_in_a_stream_too(tmp_path: Path, served: str) -> None:
    video_files.write_video(tmp_path / "a.avi", codec="magicyuv")
    said = 'the codec "magicyuv" is not supported; convert the video to H.264 or FFV1'
    with pytest.raises(DataError, match=said):
        timeline(video(f"{served}/a.avi"))
    with pytest.raises(DataError, match=said), Remote(Source("live", "stream", f"{served}/a.avi")).opened():
        pass


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{part}\n#EXT-X-ENDLIST\n"


def test_a_playlist_on_the_web_reads_no_file_of_this_machine(tmp_path: Path, served: str) -> None:
    video_files.write_video(tmp_path / "part.ts", codec="mpeg2video")
    (tmp_path / "own.m3u8").write_text(PLAYLIST.format(part="part.ts"))
    assert timeline(video(f"{served}/own.m3u8")).times
    (tmp_path / "thief.m3u8").write_text(PLAYLIST.format(part=f"file://{tmp_path}/part.ts"))
    with pytest.raises(DataError, match="thief"):
        timeline(video(f"{served}/thief.m3u8"))


def test_what_is_no_video_behind_a_url_is_told(tmp_path: Path, served: str) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    with pytest.raises(DataError, match=r"a\.mp4: cannot be decoded: Invalid data"):
        timeline(video(f"{served}/a.mp4"))


@pytest.mark.parametrize("name", ["photo.jpg", "photo", "photo.mp4"])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_an_image_behind_a_url_is_refused_whatever_it_is_called(
    tmp_path: Path, served: str, name: str, form: str
) -> None:
    Image.new("RGB", (64, 48), (90, 60, 120)).save(tmp_path / name, form)
    (source,) = find_sources([f"{served}/{name}"], ()).sources
    with pytest.raises(DataError, match=f"{name}: it is an image, expected a video") as caught, Remote(source).opened():
        pass
    assert caught.value.next_step == "download it, and give the file"


def test_a_video_behind_a_url_is_read_whatever_it_is_called(tmp_path: Path, served: str) -> None:
    write_video(tmp_path / "a.mp4").rename(tmp_path / "photo.jpg")
    (source,) = find_sources([f"{served}/photo.jpg"], ()).sources
    assert levels(read(source, [1, 4, 7, 10], 1)) == [1, 4, 7, 10]


def test_a_video_behind_a_url_without_frames_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def opened(self: Remote) -> Iterator[tuple[object, object]]:
        yield SimpleNamespace(demux=lambda stream: iter(())), SimpleNamespace(time_base=1, index_entries=())

    monkeypatch.setattr(Remote, "opened", opened)
    with pytest.raises(DataError, match=r"a\.mp4: has no frames"):
        timeline(video("http://yard/a.mp4"))


def camera(number: int) -> Remote:
    return Remote(Source(f"camera {number}", "camera", str(number)))


class Devices:
    """Stands in for `Path` where the device files of cameras are looked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, path: str) -> Path:
        return self.folder / Path(path).name


def test_a_camera_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(videos, "Path", Devices(tmp_path))
    with pytest.raises(DataError, match=r"camera 3: there is no .*video3") as caught, camera(3).opened():
        pass
    assert caught.value.next_step == "connect a camera, or give a file or URL"
    write_image(tmp_path / "x.png").rename(tmp_path / "video1")
    with pytest.raises(DataError) as caught, camera(3).opened():
        pass
    assert caught.value.next_step == "use one that is there: 1"


def test_a_camera_that_does_not_open_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(videos, "Path", Devices(tmp_path))
    write_image(tmp_path / "x.png").rename(tmp_path / "video0")
    with pytest.raises(DataError, match="camera 0: cannot be opened: ") as caught, camera(0).opened():
        pass
    assert "/dev/video0" in str(caught.value.next_step)


def test_a_camera_needs_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with (
        pytest.raises(DataError, match="camera 0: cameras are read through Video4Linux"),
        camera(0).opened(),
    ):
        pass
