"""One connection to a live source over this machine's own loopback: its frames, and how it ends."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from tests import video_files
from tests.live_servers import Act, acting, answers, closes, plays, plays_chunks, plays_rtsp, resets, stalls, transport
from tests.loopback import serving
from tests.plugins.data_files import write_video
from tests.video_files import number_in, spoil
from toolkit.api.errors import DataError
from toolkit.serving.predict import connection, sources
from toolkit.serving.predict.connection import LostError, Tally, received
from toolkit.serving.predict.inputs import Source
from toolkit.serving.predict.sources import Remote

FRAMES = 20


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    return transport(tmp_path / "a.ts", FRAMES)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sources, connection):
        monkeypatch.setattr(module, "READING_SECONDS", 0.3)
    monkeypatch.setattr(sources, "OPENING_SECONDS", 0.5)  # FFmpeg looks at more than comes


def live(address: str, name: str = "live") -> Source:
    return Source(name, "stream", address)


def outcome(address: str, opened: threading.Event | None = None) -> tuple[list[int], DataError | None]:
    """The numbers of the frames that come, of which the first sets `opened`, and how it ends."""
    found: list[int] = []
    try:
        for _, pixels in received(live(address), time.monotonic, Tally()):
            found.append(number_in(pixels()))
            (opened or threading.Event()).set()
    except DataError as error:
        return found, error
    return found, None


HOW_IT_ENDS: dict[str, tuple[Callable[[bytes], Act], str, bool]] = {
    "closed": (plays, "it ended", True),
    "chunks that end": (lambda data: plays_chunks(data, ends=True), "it ended", True),
    "chunks that break off": (lambda data: plays_chunks(data, ends=False), "it ended", True),
    "stalled": (lambda data: plays(data, stalls), "nothing came for 0.3 s", False),
    "stalled chunks": (lambda data: plays_chunks(data, ends=False, then=stalls), "nothing came for 0.3 s", False),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", HOW_IT_ENDS)
def test_a_source_without_a_length_is_lost_in_plain_words(data: bytes, how: str) -> None:
    act, reason, ended = HOW_IT_ENDS[how]
    with acting([act(data)]) as address:
        found, error = outcome(address)
    assert found == list(range(len(found)))
    assert len(found) >= FRAMES - (0 if how == "closed" else 2)  # what the decoder held when the source broke off
    assert isinstance(error, LostError)
    assert (error.message, error.ended) == (f"live: {reason}", ended)
    assert error.next_step == "see that it is on and reachable, then run the same command again"


@pytest.mark.parametrize(("scheme", "playing"), [("http", plays), ("rtsp", plays_rtsp)])
def test_a_connection_that_is_reset_is_lost(tmp_path: Path, scheme: str, playing: Callable[[bytes, Act], Act]) -> None:
    data = transport(tmp_path / "long.ts", 120)  # so much that FFmpeg opens it without a look at its end
    opened = threading.Event()

    def reset(connection: socket.socket) -> None:
        assert opened.wait(30)  # what was not read by then would be lost with it
        resets(connection)

    with acting([playing(data, reset)], scheme) as address:
        found, error = outcome(address, opened)
    assert found
    assert isinstance(error, LostError)
    assert scheme == "rtsp" or error.message == "live: the connection was lost: Connection reset by peer"


def test_a_source_that_states_its_length_ends_there(data: bytes) -> None:
    with acting([answers("200 OK", data)]) as address:
        assert outcome(address) == (list(range(FRAMES)), None)


def test_a_source_of_stated_length_that_breaks_off_is_an_error_and_not_lost(data: bytes) -> None:
    with acting([answers("200 OK", data[: len(data) // 2], claims=len(data))]) as address:
        found, error = outcome(address)
    assert 0 < len(found) < FRAMES
    assert error is not None
    assert not isinstance(error, LostError)
    assert error.message == "live: cannot be read to its end"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_recording_of_unknown_length_that_states_how_long_it_lasts_ends(tmp_path: Path, chunked: bool) -> None:
    data = video_files.write_video(tmp_path / "a.mp4", FRAMES, movflags="+faststart").read_bytes()
    with acting([plays_chunks(data, ends=True) if chunked else plays(data)]) as address:
        assert outcome(address) == (list(range(FRAMES)), None)


REFUSED: dict[str, tuple[list[Act], str]] = {
    "no such page": ([answers("404 Not Found")], "cannot be opened: Server returned 404 Not Found"),
    "a page of text": ([answers("200 OK", b"<html>log in</html>" * 50)], "cannot be decoded: Invalid data"),
    "text of unknown length": ([plays(b"<html>log in</html>")], "cannot be opened: no video comes from it"),
    "nobody": ([], "cannot be opened: Connection refused"),
    "closed at once": ([closes], "cannot be opened: no video comes from it"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_a_source_that_cannot_be_opened_says_why(how: str) -> None:
    acts, reason = REFUSED[how]
    with acting(acts) as address:
        found, error = outcome(address)
    assert found == []
    assert error is not None
    assert error.message.startswith(f"live: {reason}")
    assert error.next_step
    assert not isinstance(error, LostError)


def test_a_source_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "OPENING_SECONDS", 0.3)
    with acting([stalls]) as address:
        _, error = outcome(address)
    assert error is not None
    assert re.match(r"live: cannot be opened: nothing came for \d+ s", error.message)


def test_a_host_that_does_not_exist_says_so_in_plain_words() -> None:
    _, error = outcome("http://no-such-host.invalid/live")
    assert error is not None
    assert error.message == "live: cannot be opened: no video comes from it"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("then", "reason"), [(closes, "it ended"), (stalls, "nothing came for 0.3 s")])
def test_an_rtsp_camera_is_received_until_it_is_lost(data: bytes, then: Act, reason: str) -> None:
    with acting([plays_rtsp(data, then)], "rtsp") as address:
        found, error = outcome(address)
    assert len(found) >= FRAMES - 2
    assert found == list(range(len(found)))
    assert isinstance(error, LostError)
    assert error.message == f"live: {reason}"


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na.ts\n#EXT-X-ENDLIST\n"


def test_a_playlist_that_is_complete_ends(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "live.m3u8").write_text(PLAYLIST)
    with serving(tmp_path) as address:
        assert outcome(f"{address}/live.m3u8") == (list(range(FRAMES)), None)


def photos(path: Path, count: int) -> list[bytes]:
    """The JPEG files of a video of numbered frames."""
    video_files.write_video(path, count, codec="mjpeg", pix_fmt="yuvj420p")
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def test_a_camera_that_sends_photos_has_no_clock_of_its_own(tmp_path: Path) -> None:
    """FFmpeg counts 25 of them a second, however many come."""
    said = b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n"
    parts = [said % (len(photo), photo) for photo in photos(tmp_path / "a.avi", 9)]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=next\r\n\r\n"
    with acting([lambda connection: connection.sendall(head + b"".join(parts))]) as address:
        frames = received(live(address), time.monotonic, Tally())
        found = [(stamp, number_in(pixels())) for stamp, pixels in islice(frames, 8)]
        frames.close()
    assert found == [(None, number) for number in range(8)]


def mostly_sound(path: Path) -> bytes:
    """MPEG-TS whose pictures end after half a second, and whose sound goes on for twenty."""
    with av.open(str(path), "w", format="mpegts") as container:
        picture, sound = container.add_stream("mpeg2video", rate=10), container.add_stream("mp2", rate=32000)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(video_files.bars(number), format="rgb24")
            container.mux(picture.encode(frame))
        container.mux(picture.encode())
        for number in range(600):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
            silence.rate, silence.pts = 32000, 1152 * number
            container.mux(sound.encode(silence))
    return path.read_bytes()


def test_sound_alone_does_not_keep_a_source_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "READING_SECONDS", 5.0)
    ticks = iter(range(10_000))
    with (
        acting([plays(mostly_sound(tmp_path / "a.ts"))]) as address,
        pytest.raises(LostError, match="live: no picture came for 5 s"),
    ):
        list(received(live(address), lambda: float(next(ticks)), Tally()))


# Damage


def write_photos(path: Path) -> Path:
    """A video of ten numbered frames, each of which is a JPEG of its own."""
    return video_files.write_video(path, 10, codec="mjpeg", pix_fmt="yuvj420p")


def test_the_frames_of_a_stream_come_in_order_with_their_times(tmp_path: Path) -> None:
    write_video(tmp_path / "live.mkv").rename(tmp_path / "live")
    with serving(tmp_path) as address:
        found = [
            (stamp, round(float(pixels().mean()) / 16))
            for stamp, pixels in received(live(f"{address}/live"), time.monotonic, Tally())
        ]
    assert found == [(pytest.approx(number / 10), number) for number in range(12)]


def test_a_stream_goes_on_after_a_damaged_packet(tmp_path: Path) -> None:
    spoil(write_photos(tmp_path / "a.avi"), [0, 4]).rename(tmp_path / "live")
    with serving(tmp_path) as address:
        assert outcome(f"{address}/live") == ([1, 2, 3, 5, 6, 7, 8, 9], None)


def test_a_stream_that_ends_without_a_frame_is_an_error(tmp_path: Path) -> None:
    spoil(write_photos(tmp_path / "a.avi"), range(10)).rename(tmp_path / "live")
    with serving(tmp_path) as address, pytest.raises(DataError, match="live: none of its frames can be decoded"):
        list(received(live(f"{address}/live"), time.monotonic, Tally()))


def test_a_stream_of_nothing_but_damage_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "DAMAGED_IN_A_ROW", 3)
    spoil(write_photos(tmp_path / "a.avi"), [0, 1, 2, 4, 6, 7, 8, 9]).rename(tmp_path / "live")
    with serving(tmp_path) as address:
        found, error = outcome(f"{address}/live")
    assert found == [3, 5]
    assert error is not None
    assert error.message.startswith("live: cannot be decoded: Invalid data")


def test_a_stream_without_pictures_is_an_error(tmp_path: Path) -> None:
    video_files.write_sound(tmp_path / "a.mkv").rename(tmp_path / "live")
    with serving(tmp_path) as address:
        found, error = outcome(f"{address}/live")
    assert found == []
    assert error is not None
    assert error.message == "live: has no video stream"


def test_leaving_closes_the_connection(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []

    @contextmanager
    def opened(self: Remote) -> Iterator[tuple[object, object]]:
        frame = SimpleNamespace(time=0.0, width=9, height=9, is_corrupt=False)
        packet = SimpleNamespace(stream=SimpleNamespace(index=0), decode=lambda: [frame])
        container = SimpleNamespace(
            demux=lambda: iter([packet] * 9), duration=None, size=-1, format=SimpleNamespace(flags=0, name="mpegts")
        )
        try:
            yield container, SimpleNamespace(index=0, sample_aspect_ratio=None)
        finally:
            closed.append(True)

    monkeypatch.setattr(Remote, "opened", opened)
    frames = received(live("x"), time.monotonic, Tally())
    next(frames)
    frames.close()
    assert closed == [True]
