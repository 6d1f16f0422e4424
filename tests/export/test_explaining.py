"""`explain` on files, and maps added to a run that has ended."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests import tiny, toy_bundle
from tests.runs.test_report import read_page
from tests.video_files import write_video
from toolkit.api.clips import Clip
from toolkit.api.errors import EXIT_DATA, EXIT_DONE, EXIT_USAGE
from toolkit.cli.main import main
from toolkit.export.explaining import over_whole
from toolkit.export.explaining_bundle import _of_frames
from toolkit.runs.directory import RunDirectory
from toolkit.runs.embedding import FEWEST, draw_embedding, read_embedding
from toolkit.runs.files import read_run

CLIPS = """
[data]
name = "video_folder"
test_share = 0.4
valid_share = 0.0

[clip]
frames = 2
rate = 1
fps = 10

[input]
size = 32

[model]
name = "cnn"
widths = [4, 4]

[train]
epochs = 1
batch = 8
device = "cpu"
precision = "fp32"

[train.optimizer]
name = "sgd"
lr = 0.05
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explained")
    recipe = tiny.write_recipe(folder, tiny.write_images(folder / "images"))
    assert tiny.run(recipe, folder / "runs", "train.epochs=1") == EXIT_DONE
    return tiny.only_run(folder / "runs")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "tiny" / "run"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "wide.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8)).save(path)
    return path


def explain(*words: object) -> int:
    return main(["explain", *map(str, words)])


def facts(run: Path) -> object:
    return json.loads(RunDirectory(run).facts.read_text(encoding="utf-8")).get("maps", "nothing")


def test_a_picture_keeps_its_size_above_its_answer(
    run: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(run, picture, "--save", tmp_path / "maps") == EXIT_DONE
    with Image.open(tmp_path / "maps" / "wide.png") as drawn:
        assert drawn.width == 500
        assert drawn.height > 300
        pixels = np.asarray(drawn)
    assert pixels[:300, :90].max() < 100  # what the centre crop leaves is dark
    assert pixels[:300, 100:400].max() > 150
    shown = capsys.readouterr()
    assert f"{picture}  " in shown.out
    assert " %  Grad-CAM of " in shown.out
    assert shown.err.endswith(f"{tmp_path / 'maps'}: 1 picture\n")


def test_small_pictures_are_enlarged_and_folders_are_read(run: Path, trained: Path, tmp_path: Path) -> None:
    assert explain(run, trained.parents[2] / "images" / "test" / "red", "--save", tmp_path / "maps") == EXIT_DONE
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == [f"0{number}.png" for number in range(4)]
    with Image.open(tmp_path / "maps" / "00.png") as drawn:
        assert drawn.width == 256


def test_the_map_is_about_the_class_that_is_named(
    run: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in tiny.CLASSES:
        assert explain(run, picture, "--class", name, "--save", tmp_path / name) == EXIT_DONE
        assert f"Grad-CAM of {name}\n" in capsys.readouterr().out


def test_without_a_folder_the_next_free_one_is_used(
    run: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert explain(run, picture) == explain(run, picture) == EXIT_DONE
    assert (tmp_path / "explained" / "wide.png").is_file()
    assert (tmp_path / "explained-2" / "wide.png").is_file()


def test_a_video_for_a_model_of_images_is_explained_by_its_middle_frame(run: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "bars.mp4", 12)
    assert explain(run, video, "--save", tmp_path / "maps") == EXIT_DONE
    assert (tmp_path / "maps" / "bars.png").is_file()


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_explained(
    run: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    words = (run, tmp_path / "broken.png", tmp_path / "gone.png", picture, "--save", tmp_path / "maps")
    assert explain(*words) == EXIT_DATA
    shown = capsys.readouterr().err
    assert f"note: {tmp_path / 'broken.png'}: " in shown
    assert f"note: {tmp_path / 'gone.png'}: no such file or folder" in shown
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["wide.png"]


def test_where_no_file_can_be_read_that_is_an_error(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert explain(run, tmp_path / "broken.png", "--save", tmp_path / "maps") == EXIT_DATA
    assert "error: none of the 1 input could be explained" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "error", "next_step"),
    [
        (["--class", "gren"], '--class gren: the model has no such class; did you mean "green"?', "choose from blue"),
        (["0"], "explain: camera 0 does not end", "give 0 alone"),
        (["--set", "data.valid=1"], "data.valid", "next:"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    run: Path, picture: Path, words: list[str], error: str, next_step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(run, picture, *words) == EXIT_USAGE
    shown = capsys.readouterr().err
    assert error in shown
    assert next_step in shown


def test_what_does_not_end_is_for_predict(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(run, "0") == EXIT_USAGE
    shown = capsys.readouterr().err
    assert "explain: takes images and videos from files, not camera 0" in shown
    assert f"next:  python -m toolkit predict {run} 0" in shown


def test_a_folder_that_holds_something_stays_as_it_is(
    run: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(run, picture, "--save", run) == EXIT_USAGE
    assert "the folder is not empty, and nothing in it is replaced" in capsys.readouterr().err


def quarters(place: Path, **changes: Any) -> Path:
    """A bundle that maps the brightness of each quarter, of which the whole square is seen."""
    return toy_bundle.write(place, square=16, size=16, maps=16, **changes)


def lit(place: Path, corner: tuple[slice, slice]) -> Path:
    pixels = np.zeros((300, 500, 3), np.uint8)
    pixels[corner] = 220
    Image.fromarray(pixels).save(place)
    return place


def test_a_bundle_is_explained_by_its_own_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = quarters(tmp_path / "toy")
    picture = lit(tmp_path / "photo.png", (slice(0, 150), slice(0, 250)))
    assert explain(bundle, picture, "--class", "bright", "--save", tmp_path / "maps") == EXIT_DONE
    assert f"{picture}  dark " in capsys.readouterr().out
    with Image.open(tmp_path / "maps" / "photo.png") as drawn:
        seen, *others = (drawn.getpixel(place) for place in ((150, 50), (350, 50), (150, 250), (350, 250)))
        unseen = drawn.getpixel((50, 50))
    assert seen[0] > 200 > 2 * seen[2] - 200  # warm
    assert max(map(max, others)) < 20  # black, and cold
    assert unseen[0] == unseen[2] < 80  # grey: the model does not look there


def test_a_clip_of_a_bundle_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = Clip(frames=4, rate=1, fps=10)
    bundle = quarters(tmp_path / "toy", clip=clip, classes=("dark", "bright"))
    video = write_video(tmp_path / "bars.mp4", 12)
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(image)
    assert explain(bundle, video, image, "--save", tmp_path / "maps") == EXIT_DATA
    shown = capsys.readouterr()
    assert "Grad-CAM of " in shown.out
    assert "deciding frames at " in shown.out
    assert "an image, but this bundle takes video clips" in shown.err
    with Image.open(tmp_path / "maps" / "bars.png") as drawn:
        assert drawn.width > 2 * (drawn.height - 80)


def test_of_a_video_a_bundle_of_images_sees_the_middle_frame(tmp_path: Path) -> None:
    video = write_video(tmp_path / "bars.mp4", 12)
    assert explain(quarters(tmp_path / "toy"), video, "--save", tmp_path / "maps") == EXIT_DONE
    assert (tmp_path / "maps" / "bars.png").is_file()


@pytest.mark.parametrize(("maps", "frames"), [(2, 4), (4, 4), (1, 3)])
def test_maps_of_a_clip_are_linear_in_time(maps: int, frames: int) -> None:
    levels = np.linspace(0, 1, maps, dtype=np.float32)
    found = _of_frames(np.broadcast_to(levels[:, None, None], (maps, 2, 2)), frames, 4)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(levels)[None, None], size=frames, mode="linear", align_corners=False
    )
    np.testing.assert_allclose(found[:, 0, 0], expected.flatten().numpy(), atol=1e-6)
    assert found.shape == (frames, 4, 4)


def test_a_bundle_is_explained_without_torch(tmp_path: Path) -> None:
    bundle, picture = quarters(tmp_path / "toy"), lit(tmp_path / "photo.png", (slice(0, 1), slice(0, 1)))
    words = ["explain", str(bundle), str(picture), "--save", str(tmp_path / "maps")]
    code = (
        f"import sys; from toolkit.cli.main import main; assert main({words!r}) == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_bundle_without_maps_says_which_export_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the run that it was exported from, not of the latest one."""
    monkeypatch.chdir(tmp_path)
    for made in (Path("runs/tiny/first"), Path("runs/tiny/later")):
        made.mkdir(parents=True)
        (made / "recipe.toml").touch()
        (made / "best.pt").touch()
    toy_bundle.write(tmp_path / "toy", trained_on={"run": "first"})
    assert explain("toy", picture) == EXIT_USAGE
    shown = capsys.readouterr().err
    assert "error: toy: has no heat maps, which an export makes with export.maps=true" in shown
    assert "next:  python -m toolkit export runs/tiny/first --set export.maps=true" in shown
    shutil.rmtree("runs")  # the bundle came from another machine: where the run was
    assert explain("toy", picture) == EXIT_USAGE
    assert "next:  python -m toolkit export runs/toy/first --set export.maps=true" in capsys.readouterr().err


def test_a_bundle_has_no_recipe_to_override(tmp_path: Path, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(quarters(tmp_path / "toy"), picture, "--set", "input.size=8") == EXIT_USAGE
    assert "is a bundle, which has no recipe to override" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_and_its_bundle_have_the_same_map(run: Path, picture: Path, tmp_path: Path) -> None:
    words = ["export", str(run), "--exports", str(tmp_path), "--name", "toy", "--set", "export.maps=true"]
    assert main(words) == EXIT_DONE
    drawn = []
    for place in (run, tmp_path / "toy"):
        assert explain(place, picture, "--save", tmp_path / f"maps-{place.name}") == EXIT_DONE
        with Image.open(tmp_path / f"maps-{place.name}" / "wide.png") as image:
            drawn.append(np.asarray(image).astype(int))
    assert np.abs(drawn[0] - drawn[1]).max() <= 8


def test_a_model_without_gradients_says_so(
    run: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("toolkit.export.explaining_run.explain", lambda *_: None)
    assert explain(run, picture) == EXIT_USAGE
    assert "the model cnn has no map: no gradient of its answers reaches the pixels" in capsys.readouterr().err


def test_a_run_comes_with_maps_of_the_items_it_shows(trained: Path) -> None:
    figures = RunDirectory(trained).figures
    shown = sorted(path.name for path in (figures / "items").iterdir())
    assert shown == sorted(path.name for path in (figures / "maps").iterdir())
    assert facts(trained) == {"method": "Grad-CAM", "layer": "backbone.1", "clips": False}
    page = read_page(RunDirectory(trained).report)
    assert "bright places are where the answer comes from: Grad-CAM of backbone.1." in page.text
    maps = [image for image in page.of("img") if image["alt"] == "Where the answer comes from"]
    assert len(maps) == len(shown)


def test_maps_are_added_to_a_run_without_them(run: Path) -> None:
    directory = RunDirectory(run)
    shutil.rmtree(directory.figures)
    directory.write_json(directory.facts, {**directory.read_json(directory.facts), "maps": None})
    assert main(["report", str(run)]) == EXIT_DONE
    assert not (directory.figures / "maps").exists()
    assert main(["report", str(run), "--explain"]) == EXIT_DONE
    assert any((directory.figures / "maps").iterdir())
    assert facts(run) == {"method": "Grad-CAM", "layer": "backbone.1", "clips": False}
    ids = [row.id for row in read_run(run).rows]
    assert [*read_embedding(directory)] == ids
    assert all(0 <= side <= 1 for point in read_embedding(directory).values() for side in point)
    page = read_page(directory.report)
    titles = page.text.count("red/00.png: ")
    assert "Map of the items" in page.text
    assert len(page.of("circle")) == len(ids) + 3  # and the legend
    assert titles >= 1


def test_a_map_of_few_items_is_not_drawn(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.write_text(directory.embedding, "id,x,y\n")
    draw_embedding(directory, None, None, ["a"] * (FEWEST - 1), range(FEWEST - 1))  # type: ignore[arg-type]
    assert not directory.embedding.exists()


def test_a_damaged_map_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunDirectory(run).embedding.write_text("id,x,y\na,1,far\n", encoding="utf-8")
    assert main(["report", str(run)]) == EXIT_DATA
    assert "embedding.csv: line 2: could not convert string to float: 'far'" in capsys.readouterr().err


def test_a_run_whose_model_has_no_map_says_so(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.runs.sheets.explain", lambda *_: None)
    assert main(["report", str(run), "--explain"]) == EXIT_DONE
    assert facts(run) is None
    assert not any((RunDirectory(run).figures / "maps").iterdir())
    assert "no gradient of this model's answers reaches the pixels" in read_page(RunDirectory(run).report).text


def test_a_run_without_answers_cannot_be_explained(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunDirectory(run).predictions.unlink()
    assert main(["report", str(run), "--explain"]) == EXIT_USAGE
    shown = capsys.readouterr().err
    assert "no answer to explain: the run has no predictions.csv" in shown
    assert f"next:  python -m toolkit evaluate {run}" in shown


def test_items_that_the_data_no_longer_has_are_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = RunDirectory(run).predictions
    file.write_text(file.read_text(encoding="utf-8").replace("test/red/00.png", "test/red/gone.png"), encoding="utf-8")
    assert main(["report", str(run), "--explain"]) == EXIT_DATA
    assert "the test split no longer has test/red/gone.png" in capsys.readouterr().err


def test_of_a_video_frames_stand_side_by_side_above_how_much_they_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, first in (("early", 0), ("late", 100)):
        for number in range(5):
            write_video(tmp_path / "videos" / name / f"{number}.mp4", 12, first=first + 12 * number)
    recipe = tiny.write_recipe(tmp_path, tmp_path / "videos", text=CLIPS, name="clips")
    assert tiny.run(recipe, tmp_path / "runs") == EXIT_DONE
    run = tiny.only_run(tmp_path / "runs", "clips")
    assert facts(run) == {"method": "Grad-CAM", "layer": "backbone.1.1", "clips": True}
    assert "The longer the bar below a frame, the more it counts." in read_page(RunDirectory(run).report).text
    video = write_video(tmp_path / "bars.mp4", 12)
    assert explain(run, video, "--save", tmp_path / "maps") == EXIT_DONE
    shown = capsys.readouterr().out
    assert "deciding frames at " in shown or "no frame speaks for it" in shown
    with Image.open(tmp_path / "maps" / "bars.png") as drawn:
        assert drawn.width > 1.8 * (drawn.height - 80)
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "image.png")
    assert explain(run, tmp_path / "image.png", "--save", tmp_path / "more") == EXIT_DATA
    assert "an image, but this model takes video clips" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fit", "stored", "seen"),
    [
        ("crop", 16, (slice(0, 40), slice(20, 60))),
        ("crop", 20, (slice(4, 36), slice(24, 56))),
        ("stretch", 16, (slice(0, 40), slice(0, 80))),
    ],
)
def test_a_map_lies_where_the_model_looks(fit: str, stored: int, seen: tuple[slice, slice]) -> None:
    heat = over_whole(np.ones((16, 16), np.float32), 40, 80, fit, 16 / stored)  # type: ignore[arg-type]
    wanted = np.full((40, 80), np.nan, np.float32)
    wanted[seen] = 1
    assert np.allclose(heat, wanted, equal_nan=True)
