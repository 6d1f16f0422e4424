"""Frames of videos, of streams over this machine's own loopback, and of cameras that are not there."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.loopback import serving
from tests.plugins.data_files import real_data, write_image, write_video
from toolkit.errors import DataError
from toolkit.predict import videos
from toolkit.predict.inputs import Source
from toolkit.predict.videos import live_frames, middles, sample_frames
from toolkit_har import frames as training


def video(path: Path | str) -> Source:
    return Source(str(path), "video", str(path))


def sampled(source: Source, frames: int, threads: int = 1) -> list[np.ndarray]:
    return list(sample_frames(source, frames, threads=threads, stop=threading.Event()))


def levels(frames: list[np.ndarray]) -> list[int]:
    """Which frames of `write_video` these are."""
    return [round(float(frame.mean()) / 16) for frame in frames]


@pytest.mark.parametrize("threads", [1, 3])
def test_frames_are_the_middles_of_equal_parts(tmp_path: Path, threads: int) -> None:
    found = sampled(video(write_video(tmp_path / "a.mp4")), 4, threads)
    assert levels(found) == [1, 4, 7, 10]
    assert found[0].shape == (48, 64, 3)
    assert found[0].dtype == np.uint8


def test_a_short_video_gives_all_its_frames(tmp_path: Path) -> None:
    assert levels(sampled(video(write_video(tmp_path / "a.mp4", frames=3)), 9)) == [0, 1, 2]


@given(st.integers(0, 500), st.integers(1, 40))
def test_frames_are_evenly_spaced_and_are_those_of_training(total: int, wanted: int) -> None:
    numbers = middles(total, wanted)
    assert numbers == training.middles(total, wanted)
    assert numbers == sorted(set(numbers))
    assert len(numbers) == min(total, wanted)
    gaps = set(np.diff(numbers).tolist())
    assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.real
def test_frames_of_real_videos_are_those_of_training() -> None:
    for path in sorted(real_data("ucf101-fixture").rglob("*.avi"))[:3]:
        expected = [frame.permute(1, 2, 0).numpy() for frame in training.sample_frames(path, 5)]
        assert all(map(np.array_equal, sampled(video(path), 5, threads=2), expected))


def test_a_turned_video_is_turned_upright(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    frame = SimpleNamespace(to_ndarray=lambda **_: pixels, rotation=-90.0)
    assert np.array_equal(videos._upright(frame), np.rot90(pixels, -1))


def test_a_name_with_a_colon_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "real.mp4").rename(tmp_path / "concat:a.mp4")
    assert len(sampled(video("concat:a.mp4"), 2)) == 2


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def cut(path: Path) -> Path:
    data = write_video(path).read_bytes()
    return put(path, data[: len(data) // 3])


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: path, "cannot be decoded: No such file or directory"),
        (lambda path: put(path, b""), "cannot be decoded: "),
        (lambda path: put(path, b"no video at all"), "cannot be decoded: Invalid data"),
        (cut, "cannot be decoded: "),
    ],
    ids=["missing", "empty", "text", "cut"],
)
def test_what_is_no_video_is_told(tmp_path: Path, make: Callable[[Path], Path], problem: str) -> None:
    path = make(tmp_path / "a.mp4")
    with pytest.raises(DataError) as caught:
        sampled(video(path), 3)
    assert caught.value.message.startswith(f"{path}: {problem}")


def write_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mp4")
    with pytest.raises(DataError, match=r"a\.mp4: has no video stream"):
        sampled(video(path), 3)


def test_a_video_without_frames_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "_count_frames", lambda source, stop: 0)
    with pytest.raises(DataError, match=r"a\.mp4: has no frames"):
        sampled(video(write_video(tmp_path / "a.mp4")), 3)


def test_decoding_ends_once_it_is_told_to(tmp_path: Path) -> None:
    stop = threading.Event()
    frames = sample_frames(video(write_video(tmp_path / "a.mp4")), 12, threads=1, stop=stop)
    next(frames)
    stop.set()
    assert list(frames) == []


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a server of `tmp_path`."""
    with serving(tmp_path) as address:
        yield address


def test_a_video_behind_a_url_is_sampled_as_a_file(tmp_path: Path, served: str) -> None:
    write_video(tmp_path / "a.mp4")
    assert levels(sampled(video(f"{served}/a.mp4"), 4)) == [1, 4, 7, 10]


def test_of_a_stream_the_newest_frames_come_in_order_to_the_last(tmp_path: Path, served: str) -> None:
    write_video(tmp_path / "live.mkv").rename(tmp_path / "live")
    found = list(live_frames(Source("live", "stream", f"{served}/live")))
    shown = levels([frame.pixels for frame in found])
    assert shown == sorted(set(shown))
    assert shown[-1] == 11
    assert [frame.seconds for frame in found] == pytest.approx([level / 10 for level in shown])
    assert not any(thread.name == "frames" for thread in threading.enumerate())


def test_what_comes_while_a_frame_is_in_use_is_lost() -> None:
    newest = videos._Newest()
    for number in range(5):
        newest.put(SimpleNamespace(time=7 + number / 10))
    taken = newest.take()
    assert taken is not None
    assert taken[0].time == 7.4
    assert taken[1] == pytest.approx(0.4)
    newest.put(SimpleNamespace(time=7.5))
    newest.close()
    assert newest.take() is not None
    assert newest.take() is None


def test_a_source_without_a_clock_is_timed_by_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 103.5])
    monkeypatch.setattr(videos, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    newest = videos._Newest()
    for _ in range(2):
        newest.put(SimpleNamespace(time=None))
    taken = newest.take()
    assert taken is not None
    assert taken[1] == 3.5


def test_leaving_a_stream_ends_its_thread(tmp_path: Path, served: str) -> None:
    write_video(tmp_path / "live.mkv").rename(tmp_path / "live")
    frames = live_frames(Source("live", "stream", f"{served}/live"))
    next(frames)
    frames.close()
    assert not any(thread.name == "frames" for thread in threading.enumerate())


def test_a_stream_that_breaks_is_told() -> None:
    newest = videos._Newest()
    newest.close(av.error.InvalidDataError(1, "Invalid data"))
    with pytest.raises(av.error.InvalidDataError):
        newest.take()


def test_a_stream_that_is_lost_is_an_error_that_names_it(
    tmp_path: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "live.mkv").rename(tmp_path / "live")

    def lost(newest: videos._Newest, container: object, stream: object) -> None:
        newest.close(OSError(104, "Connection reset by peer"))

    monkeypatch.setattr(videos, "_read_into", lost)
    with pytest.raises(DataError, match="live: cannot be decoded: Connection reset by peer"):
        next(live_frames(Source("live", "stream", f"{served}/live")))


def test_a_stream_that_is_not_there_is_told(served: str) -> None:
    with pytest.raises(DataError) as caught:
        next(live_frames(Source("the yard", "stream", f"{served}/nothing")))
    assert caught.value.message.startswith("the yard: cannot be opened: ")
    assert "reachable" in str(caught.value.next_step)


def test_a_stream_without_pictures_is_told(tmp_path: Path, served: str) -> None:
    write_sound(tmp_path / "a.mp4").rename(tmp_path / "live")
    with pytest.raises(DataError, match="live: has no video stream"):
        next(live_frames(Source("live", "stream", f"{served}/live")))


class Devices:
    """Stands in for `Path` where the device files of cameras are looked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, path: str) -> Path:
        return self.folder / Path(path).name


def test_a_camera_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(videos, "Path", Devices(tmp_path))
    with pytest.raises(DataError, match=r"camera 3: there is no .*video3") as caught:
        next(live_frames(Source("camera 3", "camera", "3")))
    assert caught.value.next_step == "connect a camera, or give a file or URL"
    write_image(tmp_path / "x.png").rename(tmp_path / "video1")
    with pytest.raises(DataError) as caught:
        next(live_frames(Source("camera 3", "camera", "3")))
    assert caught.value.next_step == "use one that is there: 1"


def test_a_camera_that_does_not_open_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(videos, "Path", Devices(tmp_path))
    write_image(tmp_path / "x.png").rename(tmp_path / "video0")
    with pytest.raises(DataError, match="camera 0: cannot be opened: ") as caught:
        next(live_frames(Source("camera 0", "camera", "0")))
    assert "/dev/video0" in str(caught.value.next_step)


def test_a_camera_needs_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(DataError, match="camera 0: cameras are read through Video4Linux, which win32"):
        next(live_frames(Source("camera 0", "camera", "0")))
