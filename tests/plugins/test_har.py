from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import all_ids, class_folders, real_data, refused, splits, write_image, write_video

from toolkit.api.contracts import Data, VideoSplit
from toolkit.api.errors import DataError
from toolkit.recipe.checking import check
from toolkit.recipe.reading import read_signature
from toolkit_folders.image_folder import image_folder
from toolkit_folders.video_folder import video_folder
from toolkit_har import toolkit_datasets
from toolkit_har.dataset import har
from toolkit_har.sample import SHOWN_BY_ONE_FRAME
from toolkit_har.stick_figure import ACTIONS, REVERSED_PAIRS, clip

SHARES = {"valid_share": 0.25, "test_share": 0.25}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """Four images of running and four of sitting, in the Kaggle layout."""
    root = tmp_path / "kaggle"
    for number in range(8):
        write_image(root / "train" / f"Image_{number}.jpg", number)
    return label(root, [f"Image_{number}.jpg,{('running', 'sitting')[number % 2]}" for number in range(8)])


def label(root: Path, rows: list[str], *, header: str = "filename,label", encoding: str = "utf-8") -> Path:
    (root / "Training_set.csv").write_bytes("\n".join([header, *rows, ""]).encode(encoding))
    return root


def side_of(data: Data, item: str) -> int:
    return next(number for number, split in enumerate(splits(data)) if item in split.ids)


def problem(root: Path, dataset: Callable[..., Data] = har, **arguments: object) -> DataError:
    return refused(root, dataset, **arguments)


def test_the_plugin_names_its_dataset():
    assert toolkit_datasets() == {"har": "toolkit_har.dataset:har"}


# The Kaggle layout


def test_the_kaggle_layout_is_read_and_split_by_class(kaggle):
    data = har(kaggle, **SHARES)
    assert data.spec.classes == ("running", "sitting")
    assert (data.spec.size, data.spec.stored, data.spec.sample) == (224, 256, False)
    assert [Counter(split.targets) for split in splits(data)] == [{0: 2, 1: 2}, {0: 1, 1: 1}, {0: 1, 1: 1}]
    assert all_ids(data) == [f"train/Image_{number}.jpg" for number in range(8)]
    assert data.train.read(0).shape == (3, 24, 32)
    assert data.notes == ()
    assert {name: data.protocol[name] for name in ("split", "split_seed", "test_share", "grouping")} == {
        "split": "stratified",
        "split_seed": 0,
        "test_share": 0.25,
        "grouping": "none",
    }


def test_foreign_and_absolute_paths_are_reduced_to_their_names(kaggle):
    places = ("C:\\data\\train\\", "/home/someone/train/", "train\\", "")
    label(kaggle, [f"{places[number % 4]}Image_{number}.jpg,{'ab'[number // 4]}" for number in range(8)])
    assert len(all_ids(har(kaggle))) == 8


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_byte_order_marks_other_line_ends_columns_and_blank_lines_are_read(kaggle, encoding):
    rows = [f"{number},Image_{number}.jpg , {'ab'[number % 2]}\r" for number in range(8)]
    label(kaggle, [*rows, "\r"], header="id,Filename,LABEL\r", encoding=encoding)
    data = har(kaggle)
    assert data.spec.classes == ("a", "b")
    assert len(all_ids(data)) == 8


def test_images_without_a_label_are_skipped_and_reported(kaggle):
    write_image(kaggle / "train" / "Image_9.jpg", 9)
    (kaggle / "train" / "._Image_0.jpg").write_bytes(b"hidden, as macOS leaves them")
    data = har(kaggle)
    assert len(all_ids(data)) == 8
    assert data.notes == ("skipped 1 image without a label: Image_9.jpg", "skipped 1 hidden file: ._Image_0.jpg")


def test_a_row_that_is_repeated_is_reported(kaggle):
    with (kaggle / "Training_set.csv").open("a") as table:
        table.write("Image_0.jpg,running\n")
    data = har(kaggle)
    assert len(all_ids(data)) == 8
    assert data.notes == ("1 file named more than once in Training_set.csv: Image_0.jpg",)


def test_a_row_that_contradicts_another_is_an_error(kaggle):
    with (kaggle / "Training_set.csv").open("a") as table:
        table.write("Image_0.jpg,sitting\n")
    assert problem(kaggle).message.endswith(
        "Training_set.csv: line 10: Image_0.jpg is labelled sitting, earlier running"
    )


def test_rows_whose_files_are_missing_are_an_error(kaggle):
    for number in range(5):
        (kaggle / "train" / f"Image_{number}.jpg").unlink()
    error = problem(kaggle)
    assert error.message.endswith(
        "5 files named in it are not in train/: Image_0.jpg, Image_1.jpg, Image_2.jpg and 2 more; "
        "it holds Image_5.jpg, Image_6.jpg, Image_7.jpg"
    )
    assert error.next_step == "Unpack the archive again, or remove these lines."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"name,class\na,b\n", "line 1: the header has no column filename, label; it reads name,class"),
        (b"", "line 1: the header has no column filename, label; it reads (nothing)"),
        (b"filename,label\n", "has no rows"),
        (b"filename,label\nImage_0.jpg,run\nImage_1.jpg,run\n", "has only one label, run"),
        (b"filename,label\nImage_0.jpg\n", "line 2: label is empty"),
        (b"filename,label\n,run\n", "line 2: filename is empty"),
        (b"filename,label\n\xff,run\n", "line 2: is not UTF-8: invalid start byte"),
        (b'filename,label\n"a"b,run\n', "line 2: is not CSV: ',' expected after '\"'"),
    ],
)
def test_a_table_that_cannot_be_used_is_an_error(kaggle, text, message):
    (kaggle / "Training_set.csv").write_bytes(text)
    error = problem(kaggle)
    assert error.message == f"{kaggle / 'Training_set.csv'}: {message}"


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_table_with_other_separators_is_read(kaggle, separator):
    table = kaggle / "Training_set.csv"
    table.write_text(table.read_text().replace(",", separator))
    assert len(all_ids(har(kaggle))) == 8


def test_files_that_exist_and_cannot_be_read_are_reported_as_such(kaggle):
    for number in range(2):
        (kaggle / "train" / f"Image_{number}.jpg").rename(kaggle / "train" / f"Image_{number}.mp4")
    label(kaggle, [f"Image_{number}.{('mp4', 'jpg')[number > 1]},{'ab'[number % 2]}" for number in range(8)])
    error = problem(kaggle)
    assert error.message.endswith("2 files named in it are not images: Image_0.mp4, Image_1.mp4")
    assert error.next_step == "Convert them, or remove these lines."


def test_labels_that_differ_only_in_case_or_spaces_are_reported(kaggle):
    names = ("running", "sitting down", "Running", "sitting  down")
    label(kaggle, [f"Image_{number}.jpg,{names[number % 4]}" for number in range(8)])
    assert [note for note in har(kaggle).notes if "differ" in note] == [
        "class names differ only in case or spaces: Running and running",
        "class names differ only in case or spaces: sitting  down and sitting down",
    ]


def test_a_table_that_is_a_folder_is_an_error(tmp_path):
    (tmp_path / "root" / "train").mkdir(parents=True)
    (tmp_path / "root" / "Training_set.csv").mkdir()
    assert "cannot be read: expected a regular file, got a folder" in problem(tmp_path / "root").message


def test_a_table_without_its_folder_is_an_error(tmp_path):
    (tmp_path / "root").mkdir()
    label(tmp_path / "root", ["Image_1.jpg,run"])
    assert problem(tmp_path / "root").message.endswith("folder train not found next to Training_set.csv")


# Class folders


def test_class_folders_of_images_are_read(tmp_path):
    data = har(class_folders(tmp_path / "root"), **SHARES)
    assert data.spec.classes == ("run", "sit")
    assert [len(split) for split in splits(data)] == [4, 2, 2]
    assert all_ids(data)[0] == "run/0.png"


def test_another_seed_gives_another_split_with_another_hash(tmp_path):
    root = class_folders(tmp_path / "root", images=10)
    first, again, other = (har(root, split_seed=seed) for seed in (0, 0, 1))
    assert first.test.ids == again.test.ids != other.test.ids
    assert first.protocol == again.protocol
    assert first.protocol["split_hash"] != other.protocol["split_hash"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "does not exist"),
        ((), "is empty"),
        (("a.jpg", "b.jpg"), "has neither Training_set.csv nor class folders with files, only a.jpg, b.jpg"),
        (
            ("run/a.txt", *"abcdef"),
            "has neither Training_set.csv nor class folders with files, only a, b, c, d, e and 2 more",
        ),
        (("run/a.jpg",), "has only one class folder, run"),
        (("train/a.jpg",), "has no Training_set.csv with labels of the images in train/"),
        (("run/a.jpg", "sit/a.mp4"), "holds both images and videos"),
    ],
)
def test_a_root_without_the_data_is_an_error_that_says_what_to_do(tmp_path, names, message):
    root = tmp_path / "root"
    for name in names or ():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    if names == ():
        root.mkdir()
    error = problem(root)
    assert error.message == f"{root}: {message}"
    assert error.next_step


def test_a_missing_root_names_where_the_data_can_be_had(tmp_path):
    assert "https://www.kaggle.com/datasets/meetnagadia" in problem(tmp_path / "gone").next_step


def test_a_root_that_is_a_file_is_an_error(tmp_path):
    assert problem(write_image(tmp_path / "a.png")).message.endswith("is not a folder")


def test_an_empty_class_folder_is_an_error(tmp_path):
    (class_folders(tmp_path / "root") / "walk").mkdir()
    assert "the class folder has no image file, only an empty folder" in problem(tmp_path / "root").message


# Classes, twins and groups


def test_unbalanced_classes_are_reported(tmp_path):
    root = class_folders(tmp_path / "root")
    for number in range(4, 10):
        write_image(root / "run" / f"{number}.png", number)
    assert har(root).notes == ("the classes are unbalanced: 4 of sit, 10 of run",)


# Groups


def test_identical_files_are_kept_on_one_side_whatever_the_seed(tmp_path):
    root = class_folders(tmp_path / "root", images=6)
    write_image(root / "run" / "twin.png", 3)
    write_image(root / "sit" / "twin.png", 104)
    for seed in range(6):
        data = har(root, split_seed=seed)
        assert side_of(data, "run/3.png") == side_of(data, "run/twin.png")
        assert side_of(data, "sit/4.png") == side_of(data, "sit/twin.png")
    assert data.notes[0] == "2 sets of byte-identical files, each kept on one side of the split"


def test_identical_files_under_two_labels_are_reported(tmp_path):
    root = class_folders(tmp_path / "root", images=6)
    write_image(root / "sit" / "twin.png", 3)
    assert (
        har(root)
        .notes[0]
        .endswith(
            "1 set of byte-identical files, each kept on one side of the split; 1 of them under more than one label"
        )
    )


def test_groups_of_the_table_are_kept_on_one_side(tmp_path):
    root = class_folders(tmp_path / "root", images=6)
    rows = [f"{name}/{number}.png,{name},{number // 2}" for name in ("run", "sit") for number in range(6)]
    (root / "groups.csv").write_text("\n".join(["path,label,group", *rows]))
    data = har(root)
    assert data.protocol["grouping"] == "groups.csv"
    for number in range(0, 6, 2):
        sides = {side_of(data, f"{name}/{n}.png") for name in ("run", "sit") for n in (number, number + 1)}
        assert len(sides) == 1


def test_a_group_with_a_twin_elsewhere_takes_it_along(tmp_path):
    root = class_folders(tmp_path / "root", images=6)
    write_image(root / "run" / "twin.png", 1)
    (root / "groups.csv").write_text("path,label,group\nrun/0.png,run,x\n.\\run\\1.png,run,x\n")
    for seed in range(6):
        data = har(root, split_seed=seed)
        assert len({side_of(data, f"run/{name}.png") for name in (0, 1, "twin")}) == 1
    assert any(note.startswith("11 files not in groups.csv, each a group of its own: run/2.png") for note in data.notes)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["run/7.png,run,x", "run/0.png,run,x"], "1 path not among the files: run/7.png"),
        (["run/0.png,sit,x"], "line 2: run/0.png is labelled sit, but its files say run"),
        (["run/0.png,run,x", "run/0.png,run,y"], "line 3: run/0.png is in group y, earlier in x"),
        (["run/0.png,run"], "line 2: group is empty"),
    ],
)
def test_a_table_of_groups_that_does_not_fit_is_an_error(tmp_path, rows, message):
    root = class_folders(tmp_path / "root")
    (root / "groups.csv").write_text("\n".join(["path,label,group", *rows]))
    assert problem(root).message == f"{root / 'groups.csv'}: {message}"


def test_a_pattern_groups_across_classes_and_replaces_the_table(tmp_path):
    root = tmp_path / "root"
    for name in ("run", "sit"):
        for number in range(6):
            write_image(root / name / f"{name}_{number // 2}_{number}.png", hash_of(name, number))
    (root / "groups.csv").write_text("path,label,group\n")
    data = har(root, group_pattern=r"_(\d)_\d\.png$")
    for scene in range(3):
        items = [item for item in all_ids(data) if f"_{scene}_" in item]
        assert len(items) == 4
        assert len({side_of(data, item) for item in items}) == 1
    assert data.protocol["grouping"] == r"pattern _(\d)_\d\.png$"


def hash_of(name: str, number: int) -> int:
    return len(name) * 1000 + ord(name[0]) * 10 + number


def test_a_pattern_that_does_not_fit_every_name_is_an_error(tmp_path):
    error = problem(class_folders(tmp_path / "root"), group_pattern=r"run/(\d)")
    assert "finds no group in 4 paths: sit/0.png, sit/1.png, sit/2.png and 1 more" in error.message
    assert "data.group_pattern" in error.next_step


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"group_pattern": "("}, "group_pattern: invalid regular expression: missing )"),
        ({"group_pattern": "a"}, "group_pattern: must have one group in parentheses, got 0"),
        ({"group_pattern": "(a)(b)"}, "group_pattern: must have one group in parentheses, got 2"),
        (
            {"valid_share": 0.5, "test_share": 0.5},
            "test_share: valid_share + test_share must be below 1, got 0.5 + 0.5",
        ),
    ],
)
def test_arguments_are_checked_before_anything_is_read(tmp_path, arguments, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is compared below)
        har(tmp_path / "gone", **arguments)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("dataset", [har, image_folder, video_folder])
def test_a_wrong_pattern_is_reported_without_making_the_dataset(dataset):
    arguments, problems = check(read_signature(dataset, ("clips",)), {"group_pattern": "("}, "data")
    assert not arguments
    assert [problem.key for problem in problems] == ["data.group_pattern"]
    assert problems[0].message.startswith("invalid regular expression: missing )")


# Videos


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    root = tmp_path / "videos"
    for target, name in enumerate(("run", "sit")):
        for number in range(4):
            write_video(root / name / f"{number}.mp4", shade=8 * target + number)
    return root


def test_frames_of_a_video_stay_on_one_side(videos):
    data = har(videos, frames_per_video=3, **SHARES)
    assert [len(split) for split in splits(data)] == [12, 6, 6]
    assert data.protocol["frames_per_video"] == data.spec.frames_per_video == 3
    for name in ("run", "sit"):
        for number in range(4):
            assert len({side_of(data, f"{name}/{number}.mp4#{frame}") for frame in range(3)}) == 1
    assert len({key for split in splits(data) for key in split.keys}) == 24


def test_frames_are_the_middles_of_equal_parts(videos):
    data = har(videos, frames_per_video=3, valid_share=0.0, test_share=0.0)
    item = data.train.ids.index("run/0.mp4#0")
    levels = [data.train.read(item + frame).float().mean().item() / 16 for frame in range(3)]
    assert levels == pytest.approx([2, 6, 10], abs=0.4)
    assert data.train.read(item).shape == (3, 48, 64)


def test_a_short_video_gives_its_frames_more_than_once(tmp_path):
    root = tmp_path / "short"
    for number, name in enumerate(("run", "sit")):
        write_video(root / name / "a.mp4", frames=2, shade=number)
    data = har(root, frames_per_video=4, valid_share=0.0, test_share=0.0)
    levels = [round(data.train.read(frame).float().mean().item() / 16) for frame in range(4)]
    assert levels == [0, 0, 1, 1]


def test_keys_change_with_the_video_and_the_number_of_frames(videos):
    def keys(frames: int) -> set[str]:
        return set(har(videos, frames_per_video=frames, valid_share=0.0, test_share=0.0).train.keys)

    before = keys(2)
    assert before.isdisjoint(keys(3))
    write_video(videos / "run" / "0.mp4", frames=11, shade=70)
    assert len(before - keys(2)) == 2


def test_frames_and_clips_have_the_same_splits(videos):
    frames, clips = (har(videos, clips=clips, **SHARES) for clips in (False, True))
    for of_frames, of_clips in zip(splits(frames), splits(clips), strict=True):
        assert {item.partition("#")[0] for item in of_frames.ids} == set(of_clips.ids)
    assert frames.protocol == clips.protocol | {"frames_per_video": 4}


def test_clips_are_taken_of_whole_videos(videos):
    data = har(videos, clips=True, **SHARES)
    assert [len(split) for split in splits(data)] == [4, 2, 2]
    assert all(isinstance(split, VideoSplit) for split in splits(data))
    assert list(data.train.times(0)) == pytest.approx([number / 10 for number in range(12)])
    assert [pixels.shape for pixels in data.train.read(0, [0, 11])] == [(3, 48, 64)] * 2


def test_there_are_no_clips_of_images(tmp_path):
    error = problem(class_folders(tmp_path / "root"), clips=True)
    assert error.message == f"{tmp_path / 'root'}: holds images, but clips need videos"
    assert "remove [clip]" in error.next_step


def test_a_broken_video_is_an_error_that_names_it_when_it_is_read(videos):
    broken = videos / "run" / "0.mp4"
    broken.write_bytes(broken.read_bytes()[:300])
    data = har(videos, valid_share=0.0, test_share=0.0)
    with pytest.raises(DataError, match=r"cannot be decoded: ") as caught:
        data.train.read(data.train.ids.index("run/0.mp4#0"))
    assert caught.value.path == broken


def test_ucf101_names_are_grouped_and_reported(tmp_path):
    root = tmp_path / "root"
    for name in ("Run", "Sit"):
        for number in range(6):
            path = root / name / f"v_{name}_g{number // 2 + 1:02d}_c{number % 2 + 1:02d}.avi"
            write_video(path, frames=2, shade=hash_of(name, number) % 100)
    data = har(root, frames_per_video=1)
    assert data.protocol["grouping"] == "UCF101 names"
    assert "file names have the form of UCF101" in data.notes[0]
    assert side_of(data, "Run/v_Run_g01_c01.avi#0") == side_of(data, "Run/v_Run_g01_c02.avi#0")
    assert [len(split) for split in splits(data)] == [4, 4, 4]
    assert har(root, frames_per_video=1, group_pattern="(.+)").notes == ()


# The sample


def test_the_sample_is_marked_and_its_clips_are_not_split():
    data = har(None, sample_clips=4)
    assert data.spec.sample
    assert (data.spec.classes, data.spec.size, data.spec.stored) == (SHOWN_BY_ONE_FRAME, 64, None)
    assert "falling and getting_up, so only the first of each pair is shown" in data.notes[0]
    assert sum(map(len, splits(data))) == len(SHOWN_BY_ONE_FRAME) * 8
    assert all(set(split.targets) == set(range(len(SHOWN_BY_ONE_FRAME))) for split in splits(data))
    clips = [{item.partition("#")[0] for item in split.ids} for split in splits(data)]
    assert sum(map(len, clips)) == len(set.union(*clips)) == len(SHOWN_BY_ONE_FRAME) * 4
    assert data.train.read(0).shape == (3, 64, 64)
    assert data.train.read(0).dtype == torch.uint8


def test_the_sample_has_whole_videos_for_clips():
    frames, clips = (har(None, sample_clips=4, clips=clips) for clips in (False, True))
    assert replace(clips.spec, frames_per_video=2, classes=frames.spec.classes) == frames.spec
    assert clips.spec.classes == ACTIONS
    assert "shown" not in clips.notes[0]
    assert all(isinstance(split, VideoSplit) for split in splits(clips))
    for of_frames, of_clips in zip(splits(frames), splits(clips), strict=True):
        alone = {item.partition("#")[0] for item in of_frames.ids}
        assert all(item.split("/")[0] in SHOWN_BY_ONE_FRAME for item in alone)
        assert len(alone) * len(ACTIONS) == len(of_clips.ids) * len(SHOWN_BY_ONE_FRAME)
        assert set(of_frames.keys).isdisjoint(of_clips.keys)
    times = clips.train.times(0)
    assert list(times) == pytest.approx([number / 12 for number in range(32)])
    first, last = clips.train.read(0, [0, 31])
    action, seed = clips.train.ids[0].split("/")
    whole = torch.from_numpy(clip(action, int(seed), frames=32, size=64))
    assert torch.equal(first, whole[0])
    assert torch.equal(last, whole[31])


def test_the_sample_has_enough_actions_and_pairs_that_one_frame_cannot_distinguish():
    assert len(SHOWN_BY_ONE_FRAME) >= 8
    assert len(REVERSED_PAIRS) >= 2
    assert {action for pair in REVERSED_PAIRS for action in pair} <= set(ACTIONS)


@pytest.mark.parametrize("action", ACTIONS)
def test_a_clip_is_the_same_every_time_and_another_seed_gives_another(action):
    first, again, other = (clip(action, seed, frames=2, size=32) for seed in (1, 1, 2))
    assert first.shape == (2, 3, 32, 32)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 5


def test_the_figure_moves_and_the_room_stays():
    drawn = clip("falling", 3, frames=8, size=64).astype(int)
    assert np.abs(drawn[0] - drawn[-1]).max(axis=0).max() > 60
    assert np.median(np.abs(drawn[0] - drawn[1])) < 25


def test_a_clip_has_the_frames_and_size_asked_for():
    assert clip("waving", 0).shape == (16, 3, 96, 96)
    assert clip("waving", 0, frames=1, size=40).shape == (1, 3, 40, 40)


def test_an_unknown_action_is_refused():
    with pytest.raises(ValueError, match=r"^action: must be one of bowing, .*, got flying$"):
        clip("flying", 0)


# Real data


@pytest.mark.real
def test_the_real_kaggle_subset_loads():
    data = har(real_data("har-subset"))
    assert [len(split) for split in splits(data)] == [1260, 270, 270]
    assert set(Counter(data.test.targets).values()) == {18}
    assert data.test.read(0).dtype == torch.uint8


@pytest.mark.real
def test_the_real_surveillance_clips_load_in_whole_groups():
    root = real_data("fight")
    data = har(root, frames_per_video=1)
    groups = dict(line.split(",")[::2] for line in (root / "groups.csv").read_text().split()[1:])
    sides = [{groups[item.partition("#")[0]] for item in split.ids} for split in splits(data)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == len(set(groups.values()))


@pytest.mark.real
def test_the_real_clips_in_the_dark_load_by_scene():
    data = har(real_data("arid-dark"), frames_per_video=1, group_pattern=r"_(\d+)_\d+\.mp4$")
    scenes = [{item.split("_")[-2] for item in split.ids} for split in splits(data)]
    assert sum(map(len, scenes)) == len(set.union(*scenes))


@pytest.mark.real
def test_the_real_ucf101_clips_load():
    data = har(real_data("ucf101-fixture"), frames_per_video=2)
    assert data.protocol["grouping"] == "UCF101 names"
    assert sum(map(len, splits(data))) == 30
    assert data.train.read(0).shape == (3, 240, 320)
