"""Files that `predict` is asked about: images, videos and what is neither, whatever their names."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests import tiny, toy_bundle
from tests.odd_images import READ, REFUSED, SEVERAL
from tests.plugins.data_files import write_image, write_video
from toolkit.api.clips import Clip
from toolkit.api.errors import EXIT_DATA, EXIT_DONE, DataError
from toolkit.cli.main import main
from toolkit.data.images import read_image
from toolkit.serving.bundle import Bundle
from toolkit.serving.predict import predict_files


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return toy_bundle.write(tmp_path / "toy")


@pytest.fixture
def clip_bundle(tmp_path: Path) -> Path:
    return toy_bundle.write(tmp_path / "clips", clip=Clip(frames=2, sampling="segments"))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def gif(path: Path, *levels: int) -> Path:
    first, *others = (Image.new("P", (20, 20), level) for level in levels)
    for image in (first, *others):
        image.putpalette([value for level in range(256) for value in (level, level, level)])
    first.save(path, "GIF", save_all=True, append_images=others, duration=100)
    return path


def test_odd_images_are_seen_as_in_training_or_refused_by_name(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {**READ, **{f"refused-{name}": data for name, (data, _) in REFUSED.items()}}
    folder = tmp_path / "odd"
    folder.mkdir()
    for name, data in places.items():
        (folder / name).write_bytes(data)
    given: dict[bytes, tuple[int, ...]] = {}
    square = Bundle.square

    def recorded(self: Bundle, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        given[image.tobytes()] = image.shape
        return square(self, image)

    monkeypatch.setattr(Bundle, "square", recorded)
    out = tmp_path / "out.csv"
    words = [str(folder / name) for name in places]
    assert predict_files(bundle, words, device="cpu", output=out) == EXIT_DATA
    answered = [Path(row["file"]).name for row in rows(out)]
    assert answered == [*READ]
    trained = [read_image(folder / name).permute(1, 2, 0).numpy() for name in READ]
    assert given == {pixels.tobytes(): pixels.shape for pixels in trained}
    said = capsys.readouterr().err
    for name in REFUSED:
        assert f"{folder / f'refused-{name}'}: " in said
    for name, count in SEVERAL.items():
        assert f"{folder / name}: holds {count} pictures; the first is answered\n" in said
    assert said.count("the first is answered") == len(SEVERAL)


def test_a_bundle_is_evaluated_on_odd_images_as_it_answers_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "images"
    for number, name in enumerate(("bright", "dark")):
        write_image(root / "train" / name / "1.png", number)
        (root / "test" / name).mkdir(parents=True)
    for number, (name, data) in enumerate(READ.items()):
        (root / "test" / ("bright", "dark")[number % 2] / name).write_bytes(data)
    for name, (data, _) in REFUSED.items():
        (root / "test" / "dark" / f"refused-{name}").write_bytes(data)
    recipe = tiny.write_recipe(tmp_path, root, text=tiny.RECIPE.replace("cifar10", "image_folder"))
    toy_bundle.write(tmp_path / "toy", classes=("bright", "dark"), recipe=recipe.read_text(encoding="utf-8"))
    skipping = tiny.overridden(["input.on_corrupt=skip", "input.corrupt_limit=0.9", "data.valid_share=0"])
    assert main(["evaluate", "toy", "--device", "cpu", *skipping]) == EXIT_DONE, capsys.readouterr().err
    made = tiny.only_run(tmp_path / "runs", "toy-bundle")
    trained = {row["id"]: row["prediction"] for row in rows(made / "predictions.csv")}
    assert {Path(item).name for item in trained} == READ.keys()
    predict_files(tmp_path / "toy", [str(root / "test")], device="cpu", output=tmp_path / "out.csv")
    answered = {str(Path(row["file"]).relative_to(root)): row["class_1"] for row in rows(tmp_path / "out.csv")}
    assert answered == trained
    listed = {Path(row["path"]).name: row["problem"] for row in rows(made / "files.csv")}
    assert {f"refused-{name}" for name in REFUSED} <= listed.keys()
    assert all(listed[name] == f"holds {count} pictures: the first is read" for name, count in SEVERAL.items())


def test_files_of_a_folder_that_are_neither_are_counted_and_named(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "in" / "a.png")
    for name in ("notes.txt", "code.ts", "README"):
        (tmp_path / "in" / name).write_text("no image", "utf-8")
    assert predict_files(bundle, [str(tmp_path / "in")], device="cpu") == EXIT_DONE
    named = ", ".join(str(tmp_path / "in" / name) for name in ("README", "code.ts", "notes.txt"))
    assert f"note: skipped 3 files, neither images nor videos: {named}\n" in capsys.readouterr().err
    assert predict_files(bundle, [str(tmp_path / "in" / "[aR]*")], device="cpu") == EXIT_DONE
    assert f"skipped 1 file, neither images nor videos: {tmp_path / 'in' / 'README'}\n" in capsys.readouterr().err


def test_files_without_a_suffix_are_what_they_hold(tmp_path: Path, bundle: Path) -> None:
    folder = tmp_path / "in"
    write_image(folder / "a.png").rename(folder / "picture")
    write_video(folder / "b.mp4").rename(folder / "video")
    write_video(folder / "c.avi").rename(folder / "c.dat")
    out = tmp_path / "out.csv"
    assert predict_files(bundle, [str(folder)], device="cpu", output=out) == EXIT_DONE
    assert [Path(row["file"]).name for row in rows(out)] == ["c.dat", "picture", "video"]
    assert predict_files(bundle, [str(folder / "video")], device="cpu", output=out, every=0.2) == EXIT_DONE
    assert len(rows(out)) > 3


def test_a_file_that_is_named_is_opened_whatever_its_suffix_says(tmp_path: Path, bundle: Path) -> None:
    write_image(tmp_path / "a.png").rename(tmp_path / "a.txt")
    write_video(tmp_path / "b.mp4").rename(tmp_path / "b.jpg")
    out = tmp_path / "out.csv"
    words = [str(tmp_path / "a.txt"), str(tmp_path / "b.jpg")]
    assert predict_files(bundle, words, device="cpu", output=out) == EXIT_DONE
    assert len(rows(out)) == 2


def test_in_a_folder_such_files_are_refused_by_name(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    write_image(folder / "a.png").rename(folder / "a.mp4")
    write_video(folder / "b.mp4").rename(folder / "b.jpg")
    write_image(folder / "c.png")
    assert predict_files(bundle, [str(folder)], device="cpu") == EXIT_DATA
    said = capsys.readouterr().err
    assert f"{folder / 'a.mp4'}: cannot be decoded: it is an image (PNG), not a video\n" in said
    assert f"{folder / 'b.jpg'}: cannot be decoded: it is a video (MP4 or MOV), not an image\n" in said


def test_an_animated_gif_is_its_first_frame_where_images_are_answered(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = gif(tmp_path / "a.gif", 0, 250, 255), tmp_path / "out.csv"
    assert predict_files(bundle, [str(path)], device="cpu", output=out) == EXIT_DONE
    assert rows(out)[0]["class_1"] == "dark"
    assert f"{path}: holds 3 pictures; the first is answered" in capsys.readouterr().err


def test_an_animated_gif_is_a_video_where_a_timeline_is_asked_for(tmp_path: Path, bundle: Path) -> None:
    path, out = gif(tmp_path / "a.gif", 0, 250, 255), tmp_path / "out.csv"
    assert predict_files(bundle, [str(path)], device="cpu", output=out, every=0.1) == EXIT_DONE
    assert [row["class_1"] for row in rows(out)] == ["dark", "bright", "bright"]


def test_an_animated_gif_is_a_video_where_clips_are_answered(
    tmp_path: Path, clip_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = gif(tmp_path / "a.gif", 200, 240, 250, 255), tmp_path / "out.csv"
    assert predict_files(clip_bundle, [str(path)], device="cpu", output=out) == EXIT_DONE
    assert rows(out)[0]["class_1"] == "bright"
    assert "the first is answered" not in capsys.readouterr().err
    still = gif(tmp_path / "still.gif", 200)
    with pytest.raises(DataError, match="none of the 1 input could be answered"):
        predict_files(clip_bundle, [str(still)], device="cpu")
    assert f"{still}: an image, but this bundle takes video clips" in capsys.readouterr().err


def test_saved_copies_are_upright(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "a.png").write_bytes(READ["turned.png"])
    saved = tmp_path / "saved"
    assert predict_files(bundle, [str(tmp_path / "a.png")], device="cpu", save=saved) == EXIT_DONE
    with Image.open(next(saved.iterdir())) as copy:
        assert copy.height > copy.width
    shutil.rmtree(saved)
