"""Videos in class folders and lists, as both datasets of videos read them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from data_files import real_data, write_image, write_video
from hypothesis import given
from hypothesis import strategies as st

from tests.odd_images import READ
from toolkit.api.contracts import Data, FileProblem, VideoSplit
from toolkit.api.errors import DataError
from toolkit.data.folders import Listing
from toolkit.data.labels import SEVERAL
from toolkit.data.sources import suggest_source
from toolkit_folders.image_folder import image_folder
from toolkit_folders.video_folder import video_folder
from toolkit_har.dataset import har

BOTH = pytest.mark.parametrize("dataset", [har, video_folder])
NOTHING_CUT = {"valid_share": 0.0, "test_share": 0.0}


def make(root: Path, names: Iterable[str]) -> Path:
    """Files of different bytes with these names. What they hold matters only to those who read them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def folders(root: Path, *, videos: int = 4, classes: tuple[str, ...] = ("run", "sit")) -> Path:
    return make(root, (f"{name}/{name}{chr(97 + number)}.mp4" for name in classes for number in range(videos)))


def written(path: Path, *lines: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path.name


def ids(data: Data) -> list[list[str]]:
    return [list(split.ids) for split in (data.train, data.valid, data.test)]


def labels(data: Data) -> dict[str, str]:
    """The class of each video."""
    return {
        item: data.spec.classes[target]
        for split in (data.train, data.valid, data.test)
        for item, target in zip(split.ids, split.targets, strict=True)
    }


def problem(act: Callable[[], object]) -> DataError:
    with pytest.raises(DataError) as caught:
        act()
    assert caught.value.next_step
    return caught.value


# The folder


def test_class_folders_of_videos_are_read(tmp_path):
    for target, name in enumerate(("run", "sit")):
        for number in range(4):
            write_video(tmp_path / name / f"{number}.mp4", shade=8 * target + number)
    data = video_folder(tmp_path, clips=True, valid_share=0.25, test_share=0.25)
    assert data.spec.classes == ("run", "sit")
    assert [len(split) for split in (data.train, data.valid, data.test)] == [4, 2, 2]
    assert isinstance(data.train, VideoSplit)
    assert len(list(data.train.read(0, range(12)))) == len(data.train.times(0)) == 12
    frames = video_folder(tmp_path, valid_share=0.25, test_share=0.25, frames_per_video=3)
    assert len(frames.train) == 12
    assert frames.train.read(0).shape == (3, 48, 64)
    assert frames.protocol["frames_per_video"] == 3


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "does not exist"),
        ((), "is empty"),
        (("a.mp4",), "no class folders found, only a.mp4"),
        (("run/a.jpg",), "the class folder has no video file, only a.jpg"),
        (("run/a.mp4",), "has only one class folder, run"),
    ],
)
def test_a_root_without_videos_is_an_error(tmp_path, names, message):
    root = tmp_path / "root"
    if names is not None:
        root.mkdir()
        make(root, names)
    assert message in problem(lambda: video_folder(root)).message


def test_a_folder_that_is_missing_says_where_data_is():
    assert "https://www.crcv.ucf.edu/data/UCF101.php" in problem(lambda: video_folder(Path("gone"))).next_step


def test_there_is_no_sample():
    error = problem(lambda: video_folder(None, clips=True))
    assert error.message == "video_folder has no built-in sample"
    assert error.next_step.startswith("Set data.root. ")


def test_groups_of_the_table_are_kept_on_one_side(tmp_path):
    folders(tmp_path, videos=6)
    rows = [
        f"{name}/{name}{letter}.mp4,{name},{'abcdef'.index(letter) // 2}"
        for name in ("run", "sit")
        for letter in "abcdef"
    ]
    written(tmp_path / "groups.csv", "path,label,group", *rows)
    for seed in range(4):
        for names in ids(video_folder(tmp_path, clips=True, split_seed=seed)):
            assert {name[-5] for name in names} in ({"a", "b"}, {"c", "d"}, {"e", "f"}, set())


# Lists


@BOTH
def test_lists_of_paths_and_labels_give_the_splits(tmp_path, dataset):
    folders(tmp_path)
    written(tmp_path / "train.txt", "run/runa.mp4 run", "sit/sita.mp4 sit", "", "  run/runb.mp4   run  ")
    written(tmp_path / "val.txt", "run/runc.mp4 run")
    written(tmp_path / "lists" / "test.txt", "sit/sitb.mp4 sit")
    data = dataset(tmp_path, train="train.txt", valid="val.txt", test="lists/test.txt", clips=True)
    assert ids(data) == [["run/runa.mp4", "run/runb.mp4", "sit/sita.mp4"], ["run/runc.mp4"], ["sit/sitb.mp4"]]
    assert all(name.startswith(label) for name, label in labels(data).items())
    assert data.protocol["split"] == "lists"
    assert not {"split_seed", "valid_share", "test_share"} & set(data.protocol)


@BOTH
def test_a_table_of_paths_and_labels_is_a_list(tmp_path, dataset):
    make(tmp_path, ("videos/a, 1.mp4", "videos/b.mp4", "videos/c.mp4"))
    written(tmp_path / "train.csv", "Label,split,Path", 'do it,train,"videos/a, 1.mp4"', "rest,train,videos\\b.mp4")
    written(tmp_path / "test.csv", "path,label", f"{tmp_path.resolve()}/videos/c.mp4,rest")
    data = dataset(tmp_path, train="train.csv", test="test.csv", clips=True, valid_share=0.0)
    assert labels(data) == {"videos/a, 1.mp4": "do it", "videos/b.mp4": "rest", "videos/c.mp4": "rest"}
    assert ids(data)[1] == []


def test_paths_of_lines_may_hold_blanks_and_commas(tmp_path):
    make(tmp_path, ("my videos/a, b.mp4", "my videos/c d.mp4"))
    written(tmp_path / "train.csv", "my videos/c d.mp4 1", "my videos/a, b.mp4 0")
    data = video_folder(tmp_path, train="train.csv", clips=True, **NOTHING_CUT)
    assert labels(data) == {"my videos/a, b.mp4": "0", "my videos/c d.mp4": "1"}


def test_labels_that_are_numbers_are_in_their_order(tmp_path):
    make(tmp_path, [f"{number}.mp4" for number in range(12)])
    written(tmp_path / "train.txt", *(f"{number}.mp4 {number}" for number in range(12)))
    data = video_folder(tmp_path, train="train.txt", clips=True, **NOTHING_CUT)
    assert data.spec.classes == tuple(str(number) for number in range(12))


def test_paths_are_found_below_the_root_wherever_they_end_like_that(tmp_path):
    make(tmp_path, ("data/UCF-101/Run/a.avi", "data/UCF-101/Sit/a.avi"))
    written(tmp_path / "train.txt", "Run/a.avi 0", "Sit/a.avi 1")
    data = video_folder(tmp_path, train="train.txt", clips=True, **NOTHING_CUT)
    assert ids(data)[0] == ["data/UCF-101/Run/a.avi", "data/UCF-101/Sit/a.avi"]


def test_a_path_that_two_files_end_with_is_an_error(tmp_path):
    make(tmp_path, ("x/a.avi", "y/a.avi", "b.avi"))
    written(tmp_path / "train.txt", "a.avi 0", "b.avi 1")
    message = problem(lambda: video_folder(tmp_path, train="train.txt")).message
    assert message.endswith("a.avi may be any of x/a.avi, y/a.avi")


def test_splits_that_no_list_gives_are_taken_from_those_to_train_on(tmp_path):
    folders(tmp_path, videos=20)
    train = [f"{name}/{name}{chr(97 + n)}.mp4 {name}" for name in ("run", "sit") for n in range(16)]
    test = [f"{name}/{name}{chr(97 + n)}.mp4 {name}" for name in ("run", "sit") for n in range(16, 20)]
    written(tmp_path / "train.txt", *train)
    written(tmp_path / "test.txt", *test)
    data = video_folder(tmp_path, train="train.txt", test="test.txt", valid_share=0.25, clips=True)
    assert [len(names) for names in ids(data)] == [24, 8, 8]
    assert set(ids(data)[2]) == {line.partition(" ")[0] for line in test}
    assert data.protocol["valid_share"] == 0.25
    assert "test_share" not in data.protocol
    both = video_folder(tmp_path, train="train.txt", valid_share=0.25, test_share=0.25, clips=True)
    assert [len(names) for names in ids(both)] == [16, 8, 8]
    assert data.protocol["split_hash"] != both.protocol["split_hash"]


def test_what_is_taken_keeps_groups_together_and_passes_over_files_in_no_list(tmp_path):
    folders(tmp_path, videos=9)
    rows = [f"{name}/{name}{chr(97 + n)}.mp4,{name},{n // 2}" for name in ("run", "sit") for n in range(9)]
    written(tmp_path / "groups.csv", "path,label,group", *rows)
    written(
        tmp_path / "train.txt", *(f"{name}/{name}{chr(97 + n)}.mp4 {name}" for name in ("run", "sit") for n in range(8))
    )
    data = video_folder(tmp_path, train="train.txt", clips=True, valid_share=0.25, test_share=0.25)
    groups = [{(ord(name[-5]) - 97) // 2 for name in names} for names in ids(data)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 4


PATHS = "Correct the paths: they are relative to {}, or the end of one path below it."


@pytest.mark.parametrize(
    ("lists", "message", "step"),
    [
        (
            {"train": ["run/runa.mp4 run", "sit/sitz.mp4 sit"]},
            "train.txt: 1 video named there not found: sit/sitz.mp4",
            PATHS,
        ),
        (
            {"train": ["run/gone.mp4 run", "sit/gone.mp4 sit"], "test": ["c.mp4 run"]},
            "train.txt: 2 videos named there not found: run/gone.mp4, sit/gone.mp4; "
            "test.txt: 1 video named there not found: c.mp4",
            PATHS,
        ),
        (
            {"train": ["run/runa.mp4 run", "run/runa.mp4 sit"]},
            "1 video in more than one label: run/runa.mp4",
            f"Keep one line of each video. {SEVERAL}",
        ),
        (
            {"train": ["run/runa.mp4 run", "sit/sita.mp4 sit"], "test": ["run/runa.mp4 run"]},
            "1 video in more than one split: run/runa.mp4",
            "Keep each video in one list only.",
        ),
        (
            {"train": ["run/runa.mp4 run"]},
            "1 label to train on, expected at least 2",
            "Add videos of another class.",
        ),
        (
            {"train": ["run/runa.mp4 0", "sit/sita.mp4 1"], "test": ["run/runb.mp4 run"]},
            "1 label not among those to train on: run",
            "Correct these labels, or add videos with them to those to train on.",
        ),
        (
            {"train": ["run/runa.mp4 0", "sit/sita.mp4 1"], "test": ["run/runa.mp4 0", "run/runb.mp4 run"]},
            "1 video in more than one split: run/runa.mp4; 1 label not among those to train on: run",
            "Keep each video in one list only. Correct these labels, or add videos with them to those to train on.",
        ),
    ],
)
def test_lists_that_do_not_fit_are_an_error_that_says_how(tmp_path, lists, message, step):
    folders(tmp_path)
    named = {split: written(tmp_path / f"{split}.txt", *lines) for split, lines in lists.items()}
    error = problem(lambda: video_folder(tmp_path, **named))
    assert error.message == f"{tmp_path}: {message}"
    assert error.next_step == step.format(tmp_path)


def test_a_list_that_is_not_there_is_an_error_that_names_those_that_are(tmp_path):
    folders(tmp_path)
    error = problem(lambda: video_folder(tmp_path, train="gone.txt"))
    assert error.message == f"{tmp_path / 'gone.txt'}: file not found"
    assert error.next_step == "Correct its name, or write this file."
    written(tmp_path / "train.txt", "run/runa.mp4 run")
    error = problem(lambda: video_folder(tmp_path, train="gone.txt"))
    assert error.next_step == "Correct its name; the folder has train.txt."


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("train.txt", [], "names no items"),
        ("train.txt", ["run/runa.mp4 run", "run/runb.mp4"], "line 2: has no label, only run/runb.mp4"),
        ("train.csv", ["file,label", "a.mp4,run"], "line 1: the header has no column path; it reads file,label"),
        (
            "train.csv",
            ["label,youtube_id,time_start,time_end,split", "run,abc,soon,10,train"],
            "line 2: time_start and time_end must be seconds, got soon,10",
        ),
        ("train.csv", ["label,youtube_id", "run,abc"], "line 1: the header has no column time_start, time_end"),
    ],
)
def test_a_list_that_cannot_be_read_is_an_error_that_names_it(tmp_path, name, lines, message):
    folders(tmp_path)
    written(tmp_path / name, *lines)
    with pytest.raises(DataError) as caught:
        video_folder(tmp_path, train=name)
    assert caught.value.message.startswith(f"{tmp_path / name}: {message}")


def test_a_list_of_extracted_frames_is_recognised(tmp_path):
    make(tmp_path, ("run/1.mp4",))
    (tmp_path / "train.txt").write_text("run/one 120 0\nsit/two 96 1\n")
    error = problem(lambda: video_folder(tmp_path, train="train.txt"))
    assert "2 videos named there not found: run/one 120, sit/two 96" in error.message
    assert "MMAction2's lists of extracted frames" in error.next_step


@pytest.mark.parametrize("header", ["path,label", "label,youtube_id,time_start,time_end,split"])
def test_a_table_that_names_no_videos_is_an_error(tmp_path, header):
    folders(tmp_path)
    train = written(tmp_path / "train.txt", "run/runa.mp4 run", "sit/sita.mp4 sit")
    valid = written(tmp_path / "valid.csv", header)
    error = problem(lambda: video_folder(tmp_path, train=train, valid=valid))
    assert error.message == f"{tmp_path / 'valid.csv'}: names no items"


def test_a_list_that_is_not_text_is_an_error(tmp_path):
    folders(tmp_path)
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe\x00")
    assert (
        "train.txt: line 1: is not UTF-16: truncated data"
        in problem(lambda: video_folder(tmp_path, train="train.txt")).message
    )


def test_a_video_named_twice_is_reported_and_used_once(tmp_path):
    folders(tmp_path)
    written(tmp_path / "train.txt", "run/runa.mp4 run", "sit/sita.mp4 sit", "run/runa.mp4 run")
    data = video_folder(tmp_path, train="train.txt", clips=True, **NOTHING_CUT)
    assert len(data.train) == 2
    assert data.notes == ("1 video named more than once: run/runa.mp4",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test": "a.txt"}, "train: required with test"),
        ({"official_split": 1, "train": "a.txt"}, "official_split: cannot be combined with train"),
        ({"group_pattern": "("}, "group_pattern: invalid regular expression"),
        ({"valid_share": 0.5, "test_share": 0.5}, "test_share: valid_share + test_share must be below 1"),
    ],
)
@BOTH
def test_arguments_are_checked_before_anything_is_read(tmp_path, dataset, arguments, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is compared below)
        dataset(tmp_path / "gone", **arguments)
    assert str(caught.value).startswith(message)


# Kinetics


def kinetics(root: Path) -> Path:
    make(root, ("train/run/abc_000010_000020.mp4", "train/sit/-d_e_000001_000011.mp4", "val/run/x_000000_000010.mp4"))
    header = "label,youtube_id,time_start,time_end,split"
    rows = ("run,abc,10,20,train", "sit,-d_e,1,11,train")
    written(root / "train.csv", header, *rows, "sit,removed,5,15,train")
    written(root / "val.csv", header, "run,x,0,10,val")
    return root


def test_the_tables_of_kinetics_name_files(tmp_path):
    data = video_folder(kinetics(tmp_path), train="train.csv", valid="val.csv", clips=True, test_share=0.0)
    assert ids(data) == [
        ["train/run/abc_000010_000020.mp4", "train/sit/-d_e_000001_000011.mp4"],
        ["val/run/x_000000_000010.mp4"],
        [],
    ]
    assert set(data.spec.classes) == {"run", "sit"}


def test_videos_that_are_missing_from_kinetics_are_reported(tmp_path):
    data = video_folder(kinetics(tmp_path), train="train.csv", clips=True, **NOTHING_CUT)
    assert data.notes == ("train.csv: 1 video named there not found: removed_000005_000015.mp4; skipped",)
    assert data.files == (FileProblem("removed_000005_000015.mp4", "skipped: not found", "train.csv"),)


def test_a_table_of_kinetics_without_any_of_its_videos_is_an_error(tmp_path):
    kinetics(tmp_path)
    for path in tmp_path.rglob("*.mp4"):
        path.unlink()
    message = problem(lambda: video_folder(tmp_path, train="train.csv")).message
    assert "train.csv: 3 videos named there not found: abc_000010_000020.mp4" in message


# Official splits


def ucf101(root: Path) -> Path:
    names = [
        f"v_{name}_g{group:02d}_c{clip:02d}.avi" for name in ("Run", "Sit") for group in range(1, 7) for clip in (1, 2)
    ]
    make(root / "UCF-101", (f"{name.split('_')[1]}/{name}" for name in names))
    written(root / "ucfTrainTestlist" / "classInd.txt", "1 Run", "2 Sit")
    for number in (1, 2):
        test = [name for name in names if f"_g{number:02d}_" in name]
        train = [name for name in names if name not in test]
        folder = root / "ucfTrainTestlist"
        written(folder / f"testlist0{number}.txt", *(f"{name.split('_')[1]}/{name}" for name in test))
        written(
            folder / f"trainlist0{number}.txt",
            *(f"{name.split('_')[1]}/{name} {1 + ('Sit' in name)}" for name in train),
        )
    return root


@BOTH
@pytest.mark.parametrize("number", [1, 2])
def test_official_splits_of_ucf101(tmp_path, dataset, number):
    data = dataset(ucf101(tmp_path), official_split=number, clips=True, valid_share=0.2)
    train, valid, test = ids(data)
    assert [len(names) for names in (train, valid, test)] == [16, 4, 4]
    assert {name.split("_g")[1][:2] for name in test} == {f"{number:02d}"}
    assert {name.rpartition("_")[0] for name in train}.isdisjoint(name.rpartition("_")[0] for name in valid)
    assert data.spec.classes == ("Run", "Sit")
    assert data.protocol["split"] == f"official split {number}"
    assert data.protocol["grouping"] == "UCF101 names"
    assert {"valid_share", "split_seed"} <= set(data.protocol)


@BOTH
def test_videos_of_lists_may_lie_behind_links(tmp_path, dataset):
    real, root = ucf101(tmp_path / "real"), tmp_path / "root"
    root.mkdir()
    for folder in real.iterdir():
        (root / folder.name).symlink_to(folder)
    names = [ids(dataset(one, official_split=1, clips=True, valid_share=0.2)) for one in (real, root)]
    assert names[0] == names[1]


def hmdb51(root: Path) -> Path:
    names = {name: [f"Reel{n}_{name}_u_nm_np1_{n}.avi" for n in range(6)] for name in ("brush_hair", "wave")}
    for name, videos in names.items():
        make(root, (f"{name}/{video}" for video in videos))
        lines = (f"{video} {(1, 1, 1, 2, 2, 0)[number]} " for number, video in enumerate(videos))
        written(root / "testTrainMulti_7030_splits" / f"{name}_test_split3.txt", *lines)
    return root


@BOTH
def test_official_splits_of_hmdb51(tmp_path, dataset):
    data = dataset(hmdb51(tmp_path), official_split=3, clips=True, valid_share=0.0)
    assert data.spec.classes == ("brush_hair", "wave")
    numbers = [sorted({int(name[-5]) for name in names}) for names in ids(data)]
    assert numbers == [[0, 1, 2], [], [3, 4]]
    assert data.protocol["split"] == "official split 3"


def test_hidden_files_next_to_official_ones_are_skipped(tmp_path):
    root = hmdb51(tmp_path)
    (root / "testTrainMulti_7030_splits" / "._wave_test_split3.txt").write_bytes(b"\xa3Mac OS X")
    assert video_folder(root, official_split=3, clips=True).spec.classes == ("brush_hair", "wave")


def test_official_splits_that_are_not_there_are_an_error(tmp_path):
    error = problem(lambda: video_folder(folders(tmp_path), official_split=2))
    assert "has no official split 2: neither trainlist02.txt and testlist02.txt of UCF101 nor" in error.message
    assert "UCF101TrainTestSplits-RecognitionTask.zip" in error.next_step


def test_videos_that_miss_from_an_official_split_are_an_error(tmp_path):
    (ucf101(tmp_path) / "UCF-101" / "Run" / "v_Run_g03_c01.avi").unlink()
    message = problem(lambda: video_folder(tmp_path, official_split=1)).message
    assert "1 video named there not found: Run/v_Run_g03_c01.avi" in message


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("ucfTrainTestlist/trainlist01.txt", "a.avi 1", "line 1: must name a class folder and a video, got a.avi 1"),
        ("run_test_split1.txt", "a.avi 3", "line 1: must name a video and 0, 1 or 2, got a.avi 3"),
        ("run_test_split1.txt", "a.avi", "line 1: must name a video and 0, 1 or 2, got a.avi"),
    ],
)
def test_official_files_that_are_damaged_are_an_error(tmp_path, file, line, message):
    if file.startswith("ucf"):
        ucf101(tmp_path)
    written(tmp_path / file, line)
    with pytest.raises(DataError) as caught:
        video_folder(tmp_path, official_split=1)
    assert caught.value.message == f"{tmp_path / file}: {message}"


def test_an_official_split_in_which_nothing_is_to_be_trained_on_is_an_error(tmp_path):
    make(tmp_path, ("run/a.avi",))
    written(tmp_path / "run_test_split1.txt", "a.avi 0")
    assert "0 labels to train on" in problem(lambda: video_folder(tmp_path, official_split=1)).message


# What names show


def suggested(note: str) -> str:
    """The pattern of a note, read as the line of TOML that it is."""
    line = re.search(r"set data\.(group_pattern = '.*')$", note).group(1)
    return tomllib.loads(line)["group_pattern"]


SHAPES = {
    "arid": (
        [f"{name}/{name}_{scene}_{n}.mp4" for name in ("Run", "Sit") for scene in range(1, 6) for n in range(4)],
        5,
    ),
    "kth": (
        [f"{name}/person{n:02d}_{name}_d{d}_uncomp.avi" for name in ("box", "walk") for n in range(6) for d in (1, 2)],
        6,
    ),
    "hmdb": (
        [f"{name}/Film_{n}_{name}_u_cm_np1_{d}.avi" for name in ("kick", "wave") for n in range(6) for d in (0, 1, 2)],
        12,
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_names_that_show_sources_are_warned_of(tmp_path, shape):
    names, sources = SHAPES[shape]
    data = video_folder(make(tmp_path, names), clips=True)
    (note,) = [note for note in data.notes if "sources" in note]
    assert re.match(rf"file names suggest {sources} sources \(.*\), \d+ of them in more than one split, ", note)
    pattern = suggested(note)
    grouped = video_folder(tmp_path, clips=True, group_pattern=pattern)
    assert not [note for note in grouped.notes if "sources" in note]
    found = [{re.search(pattern, name).group(1) for name in split} for split in ids(grouped)]
    assert sum(map(len, found)) == len(set.union(*found)) == sources


@pytest.mark.parametrize(
    "names",
    [
        [f"{name}/{n:03d}.mp4" for name in ("run", "sit") for n in range(9)],
        [f"{name}/{name}_{n}.mp4" for name in ("run", "sit") for n in range(9)],
        [f"{name}/{name[0]}{n}x_{n:06d}_{n + 10:06d}.mp4" for name in ("run", "sit") for n in range(9)],
        [f"{name}/clip_{n}.mp4" for name in ("run", "sit") for n in range(9)],
    ],
)
def test_names_that_show_none_are_not(tmp_path, names):
    assert video_folder(make(tmp_path, names), clips=True).notes == ()


def test_no_warning_where_no_source_is_divided(tmp_path):
    names, _ = SHAPES["arid"]
    assert video_folder(make(tmp_path, names), clips=True, **NOTHING_CUT).notes == ()


def test_images_that_show_sources_are_warned_of(tmp_path):
    for name in ("run", "sit"):
        for scene in range(4):
            for number in range(3):
                write_image(tmp_path / name / f"{name}_{scene}_{number}.png", ord(name[0]) * 100 + scene * 10 + number)
    assert "file names suggest 4 sources (the first number)" in har(tmp_path).notes[0]


def test_names_of_classes_are_no_sources_where_a_split_is_named_otherwise(tmp_path):
    for number, name in enumerate(("n01440764", "n01443537")):
        for image in range(6):
            seed = 10 * number + image
            write_image(tmp_path / "train" / name / f"{name}_{seed}.JPEG", seed)
            write_image(tmp_path / "val" / name / f"ILSVRC2012_val_{seed:08d}.JPEG", 100 + seed)
    assert image_folder(tmp_path, test_share=0.25).notes == ()


def test_lists_that_divide_groups_give_a_warning(tmp_path):
    folders(tmp_path)
    rows = [f"{name}/{name}{letter}.mp4,{name},{letter in 'ab'}" for name in ("run", "sit") for letter in "abcd"]
    written(tmp_path / "groups.csv", "path,label,group", *rows)
    written(tmp_path / "train.txt", "run/runa.mp4 run", "sit/sita.mp4 sit")
    written(tmp_path / "test.txt", "run/runb.mp4 run", "sit/sitc.mp4 sit")
    data = video_folder(tmp_path, train="train.txt", test="test.txt", clips=True, valid_share=0.0)
    assert data.notes == (
        "the given splits divide 1 group (groups.csv), so scores can show the source instead of the class",
    )


def test_lists_that_divide_identical_files_give_a_warning(tmp_path):
    folders(tmp_path)
    (tmp_path / "run" / "runb.mp4").write_bytes((tmp_path / "run" / "runa.mp4").read_bytes())
    written(tmp_path / "train.txt", "run/runa.mp4 run", "sit/sita.mp4 sit")
    written(tmp_path / "test.txt", "run/runb.mp4 run")
    data = video_folder(tmp_path, train="train.txt", test="test.txt", clips=True, valid_share=0.0)
    assert data.notes[0] == "1 set of byte-identical files, 1 of them in more than one split"


@given(st.lists(st.from_regex(r"\A[ab]/[a-z0-9_]{1,12}\.(mp4|avi)\Z"), min_size=1, max_size=30, unique=True))
def test_whatever_the_names_a_suggestion_fits_them_all(names):
    names = sorted(names)
    listing = Listing(Path("root"), tuple(names), tuple("ab".index(name[0]) for name in names), ("a", "b"))
    source = suggest_source(listing, range(len(names)))
    if source:
        assert tuple(re.search(source.pattern, name).group(1) for name in names) == source.names
        assert 1 < len(set(source.names)) < len(names)
        assert "'" not in source.pattern


# Real data


@pytest.mark.real
def test_the_real_clips_in_the_dark_are_warned_of():
    root = real_data("arid-dark")
    (note,) = video_folder(root, clips=True).notes
    assert re.match(r"file names suggest 11 sources \(the first number\), \d+ of them in more than one split", note)
    grouped = video_folder(root, clips=True, group_pattern=suggested(note))
    scenes = [{name.split("_")[-2] for name in names} for names in ids(grouped)]
    assert sum(map(len, scenes)) == len(set.union(*scenes)) == 11


@pytest.mark.real
def test_the_real_surveillance_clips_are_grouped_by_their_table():
    data = video_folder(real_data("fight"), clips=True)
    assert data.protocol["grouping"] == "groups.csv"
    assert data.notes == ()
    assert sum(len(names) for names in ids(data)) == 120
    assert data.test.times(0)


NAMES = (
    "a.ts",
    "a.mts",
    "a.M2TS",
    "a.3gp",
    "a.flv",
    "a.gif",
    "a.wmv",
    "a.vob",
    "a.ogv",
    "a.mxf",
    "a",
    "a.dat",
    "a.VID",
)


@BOTH
@pytest.mark.parametrize("name", NAMES)
def test_every_video_is_found_whatever_its_suffix(tmp_path: Path, dataset: Callable[..., Data], name: str) -> None:
    root = folders(tmp_path)
    if name == "a.gif":
        (root / "run" / name).write_bytes(READ["animated.gif"])
    else:
        write_video(tmp_path / "made.mpg" if name.endswith("vob") else tmp_path / "made.mp4").rename(
            root / "run" / name
        )
    listed = {item.partition("#")[0] for split in ids(dataset(root, **NOTHING_CUT)) for item in split}
    assert f"run/{name}" in listed
    assert len(listed) == 9


@BOTH
@pytest.mark.parametrize("name", ["code.ts", "still.gif", "picture", "a.jpg", "notes"])
def test_what_is_no_video_is_skipped_and_reported(tmp_path: Path, dataset: Callable[..., Data], name: str) -> None:
    root = folders(tmp_path)
    content = {"still.gif": READ["P.gif"], "picture": READ["RGB.png"], "a.jpg": READ["RGB.jpg"]}
    (root / "run" / name).write_bytes(content.get(name, b"export const answer = 42;"))
    if dataset is har and name in content:
        assert "holds both images and videos" in problem(lambda: dataset(root)).message
        return
    data = dataset(root, **NOTHING_CUT)
    assert FileProblem(f"run/{name}", "skipped: not a video") in data.files
    assert f"skipped 1 file that is not a video: run/{name}" in data.notes
