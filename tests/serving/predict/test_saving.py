"""Copies with answers drawn on them: real pictures and videos, read again with Pillow and PyAV."""

from __future__ import annotations

import shlex
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests import toy_bundle
from tests.plugins.data_files import write_video
from toolkit.api.clips import Clip
from toolkit.api.errors import EXIT_DATA, EXIT_DONE, EXIT_USAGE, UsageError
from toolkit.cli.main import main
from toolkit.data.decoding import timeline
from toolkit.serving.predict import predict_files
from toolkit.serving.predict.captions import Layout, Line, caption
from toolkit.serving.predict.inputs import Source
from toolkit.serving.predict.saving import Names, check_save, free_name


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return toy_bundle.write(tmp_path / "toy")


def grey(path: Path, level: int, size: tuple[int, int] = (400, 300)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level,) * 3).save(path)
    return path


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def test_a_picture_keeps_its_pixels_but_for_the_caption(tmp_path, bundle) -> None:
    path = grey(tmp_path / "in" / "a.png", 90)
    before = path.read_bytes()
    assert predict_files(bundle, [str(path)], save=tmp_path / "out", device="cpu") == EXIT_DONE
    assert path.read_bytes() == before
    saved = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    assert saved.shape == (300, 400, 3)
    assert (saved[150:] == 90).all()
    assert len(np.unique(saved[:80, :160])) > 20


def test_a_small_picture_is_not_enlarged_and_its_caption_is_below(tmp_path, bundle) -> None:
    path = grey(tmp_path / "in" / "a.png", 90, size=(32, 24))
    assert predict_files(bundle, [str(path)], save=tmp_path / "out", device="cpu") == EXIT_DONE
    saved = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    left = (saved.shape[1] - 32) // 2
    assert saved.shape[0] > 24
    assert (saved[:24, left : left + 32] == 90).all()


def test_a_turned_picture_is_saved_upright(tmp_path, bundle) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (400, 300)).save(tmp_path / "a.JPG", "JPEG", exif=exif)
    assert predict_files(bundle, [str(tmp_path / "a.JPG")], save=tmp_path / "out", device="cpu") == EXIT_DONE
    with Image.open(tmp_path / "out" / "a.jpg") as saved:
        assert (saved.format, saved.size) == ("JPEG", (300, 400))


def test_every_copy_has_a_name_of_its_own(tmp_path, bundle) -> None:
    for name in ("x/1.png", "y/1.png", "y/1.webp"):
        grey(tmp_path / "in" / name, 10)
    words = [str(tmp_path / "in"), str(tmp_path / "in" / "x" / "1.png")]
    assert predict_files(bundle, words, save=tmp_path / "out", device="cpu") == EXIT_DONE
    names = ["x__1-2.png", "x__1.png", "y__1-2.png", "y__1.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names


@pytest.mark.parametrize(
    ("name", "place", "expected"),
    [
        ("-rf ../$(x) y.png", "/a/-rf ..$(x) y.png", "rf_.._x_y.png"),
        (".png", "/a/.png", "png.png"),
        ("http://host/a/b.mp4?key=1", "http://host/a/b.mp4?key=1", "host_a_b.mp4.png"),
        ("é" * 200 + ".png", "/a/" + "é" * 200 + ".png", "é" * 75 + ".png"),
    ],
)
def test_names_are_harmless(name: str, place: str, expected: str) -> None:
    source = Source(name, "image", place)
    assert Names([source]).take(source, ".png") == expected


def test_names_differ_in_more_than_case() -> None:
    names = Names([])
    upper, lower = Source("http://h/A", "image", "http://h/A"), Source("http://h/a", "image", "http://h/a")
    assert [names.take(source, ".png") for source in (upper, lower)] == ["h_A.png", "h_a-2.png"]


def test_a_folder_that_holds_something_is_refused_with_one_that_does_not(tmp_path) -> None:
    grey(tmp_path / "out" / "a.png", 1)
    with pytest.raises(UsageError) as caught:
        check_save(tmp_path / "out", [], stream=False)
    assert caught.value.next_step == f"save to a new folder: --save {tmp_path / 'out-2'}"
    (tmp_path / "empty").mkdir()
    check_save(tmp_path / "empty", [], stream=False)


@pytest.mark.parametrize("taken", ["my out", "my out/b.png"])
def test_the_next_step_of_a_folder_that_is_taken_works_as_typed(tmp_path, bundle, capsys, taken: str) -> None:
    picture = grey(tmp_path / "a b.png", 1)
    grey(tmp_path / taken, 1) if "/" in taken else (tmp_path / taken).touch()
    words = ["predict", str(bundle), "--save", str(tmp_path / "my out"), str(picture), "--device", "cpu"]
    assert main(words) == EXIT_USAGE
    whole = "python -m toolkit "
    step = capsys.readouterr().err.splitlines()[-1].partition(whole)[2]
    assert main(shlex.split(step)) == EXIT_DONE
    assert [path.name for path in (tmp_path / "my out-2").iterdir()] == ["a_b.png"]


def test_a_free_name_is_the_first_that_is(tmp_path) -> None:
    assert free_name(tmp_path / "a.csv") == tmp_path / "a.csv"
    for name in ("a.csv", "a-2.csv"):
        (tmp_path / name).touch()
    assert free_name(tmp_path / "a.csv") == tmp_path / "a-3.csv"


def test_what_is_followed_is_not_saved(tmp_path, bundle) -> None:
    path = write_video(tmp_path / "a.mp4")
    with pytest.raises(UsageError, match="not a video that is followed with --stream") as caught:
        predict_files(bundle, [str(path)], save=tmp_path / "out", stream=True)
    assert caught.value.next_step == "remove --stream"


@pytest.mark.parametrize("every", [None, 0.5])
def test_a_video_shows_the_answer_of_each_moment(tmp_path, bundle, every) -> None:
    path = write_video(tmp_path / "in" / "a.mkv", frames=16)
    before = timeline(path)
    assert predict_files(bundle, [str(path)], save=tmp_path / "out", every=every, device="cpu") == EXIT_DONE
    saved = tmp_path / "out" / "a.mp4"
    assert timeline(saved).times == pytest.approx(before.times, abs=1e-3)
    strips = [frame[-30:].astype(int) for frame in frames_of(saved)]
    changes = [abs(after - strip).mean() for strip, after in pairwise(strips)]
    assert max(changes) > 2 * min(changes)


def test_the_video_of_a_clip_model_is_saved(tmp_path) -> None:
    bundle = toy_bundle.write(tmp_path / "toy", clip=Clip(frames=2, rate=1, fps=10.0))
    path = write_video(tmp_path / "in" / "a.mp4", frames=12)
    assert predict_files(bundle, [str(path)], save=tmp_path / "out", device="cpu") == EXIT_DONE
    assert len(frames_of(tmp_path / "out" / "a.mp4")) == 12


def test_timelines_of_several_videos_are_each_saved(tmp_path, bundle) -> None:
    first, second = (write_video(tmp_path / "in" / name) for name in ("a.mp4", "b.mp4"))
    words = [str(first), str(first), str(second)]
    assert predict_files(bundle, words, save=tmp_path / "out", every=0.5, device="cpu") == EXIT_DONE
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a-2.mp4", "a.mp4", "b.mp4"]


def test_what_cannot_be_read_is_not_saved_and_the_rest_is(tmp_path, bundle, capsys) -> None:
    grey(tmp_path / "in" / "a.png", 10)
    (tmp_path / "in" / "b.png").write_bytes(b"no picture")
    assert predict_files(bundle, [str(tmp_path / "in")], save=tmp_path / "out", device="cpu") == EXIT_DATA
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]
    assert f"{tmp_path / 'out'}: 1 annotated file\n" in capsys.readouterr().err


def test_the_caption_of_a_set_has_all_its_classes(tmp_path) -> None:
    from toolkit.serving.bundle import read_manifest

    folder = toy_bundle.write(tmp_path / "sets", classes=("a", "b", "c"), thresholds=(0.5, 0.5, 0.3), sample=True)
    manifest, answer = read_manifest(folder), np.array([0.6, 0.9, 0.2], np.float32)
    assert [line.text for line in caption(manifest, answer, 1)] == ["b  90.0 %", "a  60.0 %", "SAMPLE model"]
    assert caption(manifest, np.zeros(3, np.float32), 1)[0].text == "(none)"


def test_a_long_name_is_cut_and_the_layout_of_a_video_has_even_sides() -> None:
    layout = Layout.of((33, 21), [[Line("x" * 30)]], even=True)
    assert [side % 2 for side in layout.size] == [0, 0]
    assert layout.draw(Image.new("RGB", (33, 21), "white"), [Line("x")]).size == layout.size
