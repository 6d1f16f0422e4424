"""`predict --segments` as a whole: events in joined clips, the files that show them, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from tests import toy_bundle
from toolkit.api.clips import Clip
from toolkit.cli.main import main
from toolkit.data.decoding import read_frames, timeline
from toolkit.serving.bundle import Rejection, Trust
from toolkit.serving.predict import segments as module
from toolkit.serving.predict.inputs import find_sources
from toolkit.serving.predict.segment_files import Video, as_page, clock
from toolkit.system.segmentation import Segmentation

RATE = 10


def joined(path: Path, *parts: tuple[int, int], flicker: bool = False) -> Path:
    """A video of parts, each so many seconds of one grey level; every ninth frame may be of the other level."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.gop_size = 32, 32, "yuv420p", 5
        levels = [level for level, seconds in parts for _ in range(seconds * RATE)]
        for number, level in enumerate(levels):
            shown = 255 - level if flicker and number % 9 == 4 else level
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), shown, np.uint8), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    return toy_bundle.write(
        tmp_path / "clips", clip=Clip(frames=4, rate=2), segments=Segmentation(smooth=1.0, shortest=0.8)
    )


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return toy_bundle.write(tmp_path / "images")


def rows(path: Path) -> Iterator[tuple[str, float, float]]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield row["class"], float(row["start"]), float(row["end"])


DARK, BRIGHT = 20, 235
PARTS = (DARK, 4), (BRIGHT, 3), (DARK, 5)
BORDERS = [("dark", 0, 4), ("bright", 4, 7), ("dark", 7, 12)]


@pytest.fixture
def declining(tmp_path: Path) -> Path:
    """One whose graph gives an energy behind its probabilities."""
    return toy_bundle.write(tmp_path / "declining", trust=Trust(reject=Rejection("energy", 8.0, 0.05)))


@pytest.mark.parametrize("kind", ["clips", "images", "declining"])
def test_the_borders_of_joined_clips_are_found(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    video = joined(tmp_path / "a.mp4", *PARTS)
    output = tmp_path / "segments.csv"
    bundle = request.getfixturevalue(kind)
    assert main(["predict", str(bundle), str(video), "--segments", "--device", "cpu", "--output", str(output)]) == 0
    found = [*rows(output)]
    assert [label for label, _, _ in found] == [label for label, _, _ in BORDERS]
    for (_, *times), (_, *expected) in zip(found, BORDERS, strict=True):
        assert times == pytest.approx(expected, abs=0.5)


def truth(path: Path, name: str = "a") -> Path:
    annotations = [{"label": label, "segment": [start, end]} for label, start, end in BORDERS]
    path.write_text(json.dumps({"database": {name: {"annotations": annotations}, "other": {"annotations": []}}}))
    return path


def test_segments_score_better_than_single_answers(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a flickering video: without smoothing and a shortest length, each flicker is a border."""
    video, annotated = joined(tmp_path / "a.mp4", *PARTS, flicker=True), truth(tmp_path / "truth.json")
    naive = toy_bundle.write(tmp_path / "naive", segments=Segmentation(smooth=0, high=0.5, low=0.5, shortest=0))
    scores = {}
    for bundle in (images, naive):
        words = ["predict", str(bundle), str(video), "--segments", "--every", "0.1", "--device", "cpu"]
        assert main([*words, "--truth", str(annotated)]) == 0
        lines = capsys.readouterr().err.splitlines()
        assert "annotated: 1 video of 1" in lines
        scores[bundle.name] = {line.split()[3]: line.split()[4] for line in lines if line.startswith("mAP")}
    assert scores["images"] == {"0.3:": "100.0", "0.5:": "100.0", "0.7:": "100.0"}
    assert float(scores["naive"]["0.5:"]) < 20


def test_files_of_every_format_say_the_same(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = joined(tmp_path / "a <b>.mp4", (DARK, 2), (BRIGHT, 2))
    for suffix in ("json", "vtt", "edl", "html"):
        words = ["predict", str(images), str(video), "--segments", "--device", "cpu"]
        assert main([*words, "--output", str(tmp_path / f"out.{suffix}")]) == 0
    shown = capsys.readouterr().out.splitlines()[:2]
    assert [line.split()[-1] for line in shown] == ["dark", "bright"]
    found = json.loads((tmp_path / "out.json").read_text())["results"]["a <b>"]
    assert [one["label"] for one in found] == ["dark", "bright"]
    border = found[0]["segment"][1]
    assert border == pytest.approx(2, abs=0.5)
    vtt = (tmp_path / "out.vtt").read_text()
    assert vtt.startswith(f"WEBVTT\n\n00:00:00.000 --> 0{clock(border)}\ndark ")
    edl = (tmp_path / "out.edl").read_text().splitlines()
    assert edl[:2] == ["TITLE: a <b>", "FCM: NON-DROP FRAME"]
    assert edl[3].startswith("001  AX       V     C        00:00:00:00 00:00:0")
    page = (tmp_path / "out.html").read_text()
    assert 'src="a%20%3Cb%3E.mp4"' in page
    assert "<b>" not in page
    assert page.count("<rect ") == 2


def test_a_page_plays_a_remote_video_from_its_url_without_the_password(tmp_path: Path) -> None:
    (source,) = find_sources(["https://me:secret@host/a%20b.mp4?x=1&y=2"], ()).sources
    page = as_page([Video(source, 2.0, [])], tmp_path / "out.html")
    assert 'src="https://host/a%20b.mp4?x=1&amp;y=2"' in page
    assert "secret" not in page


def test_parts_are_copied_without_encoding_them_again(images: Path, tmp_path: Path) -> None:
    video = joined(tmp_path / "a.mp4", *PARTS)
    words = ["predict", str(images), str(video), "--segments", "--device", "cpu", "--cut", str(tmp_path / "cut")]
    assert main(words) == 0
    parts = sorted((tmp_path / "cut").iterdir())
    assert len(parts) == 3
    for part, (label, start, end) in zip(parts, BORDERS, strict=True):
        assert part.stem.endswith(f"_{label}")
        line = timeline(part)
        assert len(line.times) / RATE == pytest.approx(end - start, abs=1.1)
        middle = next(iter(read_frames(part, line, [len(line.times) // 2]))).mean()
        assert (middle > 127) == (label == "bright")
        with av.open(str(part)) as file:
            assert file.streams.video[0].codec_context.name == "mpeg4"


def test_memory_does_not_grow_with_the_video(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    add = module.Segments.add

    def watched(self: module.Segments, *answer: object) -> object:
        held.append(len(self._near))
        return add(self, *answer)  # type: ignore[arg-type]

    monkeypatch.setattr(module.Segments, "add", watched)
    video = joined(tmp_path / "a.mp4", (DARK, 60))
    assert main(["predict", str(images), str(video), "--segments", "--every", "0.1", "--device", "cpu"]) == 0
    assert len(held) == 600
    assert max(held) <= 11


@pytest.mark.parametrize(
    ("words", "says", "next_step"),
    [
        (["--stream"], "--segments: cannot go with --stream", "remove --stream"),
        (["--save", "out"], "--segments: cannot go with --save", "remove --save"),
        (["--output", "a.txt"], '--output a.txt: unknown format of segments ".txt"', "end the name with .csv, .json,"),
        (["a.mp4", "--output", "a.vtt"], "--output a.vtt: a .vtt file is about one video, got 2", "write a .csv or"),
        (["--cut", "."], "--cut .: exists and is not an empty folder", "use a new folder: python -m toolkit predict "),
        (["http://h/b.mp4", "--cut", "new"], "--cut: http://h/b.mp4 is not a file of this machine", "download it"),
        (["--truth", "no.json"], "--truth no.json: No such file or directory", "name a file of annotations"),
        (["--truth", "bad.json"], "--truth bad.json: not annotations of ActivityNet's form: KeyError", "expected {"),
        (["--truth", "odd.json"], '--truth odd.json: the model has no class "cat"', "its classes are dark, bright"),
        (["--truth", "back.json"], "ValueError: segment [5, 2]", "expected {"),
        (["0"], "predict: camera 0 does not end", "give 0 alone"),
    ],
)
def test_what_has_no_meaning_is_refused(
    words: list[str], says: str, next_step: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    joined(tmp_path / "a.mp4", (DARK, 1))
    Path("bad.json").write_text("{}")
    for name, label, times in (("odd", "cat", [0, 1]), ("back", "dark", [5, 2])):
        content = {"database": {"a": {"annotations": [{"label": label, "segment": times}]}}}
        Path(f"{name}.json").write_text(json.dumps(content))
    assert main(["predict", str(images), "a.mp4", *words, "--segments", "--device", "cpu"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert any(says in line for line in lines), lines
    assert next_step in lines[-1]


@pytest.mark.parametrize("flag", ["--cut", "--truth"])
def test_flags_of_segments_need_them(flag: str, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(images), "a.mp4", flag, "x"]) == 2
    assert f"error: {flag}: has no meaning without --segments" in capsys.readouterr().err


def test_an_image_has_no_segments(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert main(["predict", str(images), str(tmp_path / "a.png"), "--segments"]) == 2
    assert "is not a video file" in capsys.readouterr().err


def test_a_video_that_cannot_be_read_is_named_and_the_others_are_answered(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(50))
    words = [str(tmp_path / "bad.mp4"), str(joined(tmp_path / "a.mp4", (DARK, 2)))]
    assert main(["predict", str(images), *words, "--segments", "--device", "cpu"]) == 3
    said = capsys.readouterr()
    assert "warning: " in said.err
    assert "bad.mp4" in said.err
    assert said.out.rstrip().endswith("dark")
    assert main(["predict", str(images), words[0], "--segments", "--device", "cpu"]) == 3
    assert "none of the videos could be answered" in capsys.readouterr().err
