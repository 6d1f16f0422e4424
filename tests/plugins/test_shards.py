"""The dataset `shards`: splits, labels and messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from tests.shard_files import picture, sample, video, write_parquet, write_tar, write_tars, write_video_tars
from tests.video_files import number_in
from toolkit.api.contracts import Data, Split, VideoSplit
from toolkit.api.errors import DataError
from toolkit.data.fraction import with_fraction
from toolkit.data.images import decode_image
from toolkit.data.shards.opened import make_index
from toolkit.data.videos import FramesOf
from toolkit_shards import sample as drawing
from toolkit_shards.dataset import shards


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))


def sizes(data: Data) -> tuple[int, int, int]:
    return len(data.train), len(data.valid), len(data.test)


def numbers(split: Any) -> set[int]:
    """The numbers of the samples in a split."""
    return {int(name.rpartition(":")[2]) for name in split.ids}


def of_parquet(folder: Path) -> Path:
    for number, name in enumerate(("train", "validation", "test")):
        images = [picture(100 * number + row) for row in range(30)]
        write_parquet(folder / f"{name}-0.parquet", images, [row % 2 for row in range(30)], names=("cat", "dog"))
    return folder


@pytest.mark.parametrize("write", [lambda folder: write_tars(folder, 3, 40), of_parquet], ids=["tar", "parquet"])
def test_pixels_and_labels_are_those_of_the_samples(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    data = shards(write(tmp_path / "data"))
    for split in (data.train, data.valid, data.test):
        for index in (0, len(split) - 1):
            name = split.ids[index]
            row = int(name.rpartition(":")[2])
            first = {"validation-0.parquet": 100, "test-0.parquet": 200}.get(name.partition(":")[0], 0)
            assert torch.equal(cast(Split, split).read(index), decode_image(picture(first + row)))
            assert split.targets[index] == row % 2


def test_splits_are_those_of_the_names_of_shards(tmp_path: Path) -> None:
    data = shards(of_parquet(tmp_path / "data"))
    assert sizes(data) == (30, 30, 30)
    assert data.spec.classes == ("cat", "dog")
    assert data.spec.size == 8
    assert data.protocol["split"] == "names"
    assert "split_seed" not in data.protocol


def test_shares_are_taken_by_content(tmp_path: Path) -> None:
    """Byte-identical images stay on one side, wherever they are."""
    twice = [sample(number % 100) for number in range(200)]
    write_tar(tmp_path / "data" / "all.tar", twice)
    data = shards(tmp_path / "data", valid_share=0.2, test_share=0.3)
    sides = [{number % 100 for number in numbers(split)} for split in (data.train, data.valid, data.test)]
    assert [sum(map(len, sides)), len(set.union(*sides))] == [100, 100]
    assert 40 < sizes(data)[2] < 80
    assert data.protocol["grouping"] == "content"
    assert data.protocol["test_share"] == 0.3


def test_another_seed_gives_other_shares(tmp_path: Path) -> None:
    root = write_tars(tmp_path / "data", 1, 100)
    found = [shards(root, split_seed=seed) for seed in (0, 0, 1)]
    assert numbers(found[0].test) == numbers(found[1].test) != numbers(found[2].test)
    assert len({data.protocol["split_hash"] for data in found}) == 2


def test_groups_stay_on_one_side(tmp_path: Path) -> None:
    write_tar(tmp_path / "data" / "all.tar", [sample(row, patient=f"p{row // 10}") for row in range(200)])
    data = shards(tmp_path / "data", group="patient", test_share=0.3)
    sides = [{row // 10 for row in numbers(split)} for split in (data.train, data.valid, data.test)]
    assert sum(map(len, sides)) == 20
    assert data.protocol["grouping"] == "patient"


def test_a_column_gives_the_splits(tmp_path: Path) -> None:
    words = ("train", "train", "val", "test", "unused")
    write_tar(tmp_path / "data" / "all.tar", [sample(row, split=words[row % 5]) for row in range(50)])
    data = shards(tmp_path / "data", split="split")
    assert sizes(data) == (20, 10, 10)
    assert data.notes == ("skipped 10 images of no split in column split",)
    assert data.protocol["split"] == "column split"


def test_lists_of_shards_give_the_splits(tmp_path: Path) -> None:
    data = shards(write_tars(tmp_path / "data", 4, 10), train="part-00[01].tar", test="part-002*")
    assert numbers(data.test) == set(range(20, 30))
    assert numbers(data.train) | numbers(data.valid) == set(range(20))
    assert data.notes == ("skipped 1 shard of no split: part-003.tar",)


def test_what_no_list_names_is_for_training(tmp_path: Path) -> None:
    data = shards(write_tars(tmp_path / "data", 3, 10), test="part-002.tar", valid_share=0)
    assert sizes(data) == (20, 0, 10)


def test_labels_may_be_texts_of_a_json(tmp_path: Path) -> None:
    named = [
        {"png": picture(row), "json": json.dumps({"animal": ("dog", "cat")[row % 2]}).encode()} for row in range(9)
    ]
    write_tar(tmp_path / "data" / "all.tar", named)
    data = shards(tmp_path / "data", label="animal", valid_share=0, test_share=0)
    assert data.spec.classes == ("cat", "dog")
    assert data.train.targets[0] == 1


def test_classes_that_are_numbers_keep_their_order(tmp_path: Path) -> None:
    write_tar(tmp_path / "data" / "all.tar", [{"png": picture(row), "cls": b"%d" % (row % 11)} for row in range(30)])
    assert shards(tmp_path / "data").spec.classes == tuple(map(str, range(11)))


def test_samples_without_image_or_label_are_skipped(tmp_path: Path) -> None:
    samples = [sample(0), {"cls": b"1"}, {"png": picture(2)}, *map(sample, range(3, 40))]
    write_tar(tmp_path / "data" / "all.tar", samples)
    data = shards(tmp_path / "data")
    assert sum(sizes(data)) == 38
    assert data.notes == ("skipped 1 sample without an image or a video", "skipped 1 image without a label")


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "data" / "all.tar", [{"png": b"no image", "cls": b"0"}, *map(sample, range(1, 9))])
    data = shards(tmp_path / "data", valid_share=0, test_share=0)
    with pytest.raises(DataError, match=r"^all\.tar:00000: cannot be decoded: ") as raised:
        cast(Split, data.train).read(0)
    assert raised.value.next_step == "repair the shard, or skip such images with: --set input.on_corrupt=skip"


def test_videos_are_divided_as_images_are(tmp_path: Path) -> None:
    root = write_video_tars(tmp_path / "data", 3, 6)
    data = shards(root, clips=True, group="scene", test="part-002.tar", valid_share=0.4)
    assert numbers(data.test) == set(range(12, 18))
    sides = [{number // 3 for number in numbers(split)} for split in (data.train, data.valid)]
    assert not set.intersection(*sides)
    assert set.union(*sides) == {0, 1, 2, 3}
    assert data.sources["part-002.tar:00017"] == "s5"
    assert (data.spec.size, data.spec.frames_per_video) == (48, None)
    assert "frames_per_video" not in data.protocol
    (frames,) = cast(VideoSplit, data.test).read(5, [2])
    assert number_in(frames.permute(1, 2, 0)) == 4 * 17 + 2


def test_single_frames_of_videos_are_items_of_one_source(tmp_path: Path) -> None:
    root = write_video_tars(tmp_path / "data", 2, 3)
    data = shards(root, test="part-001.tar", valid_share=0, frames_per_video=2)
    assert sizes(data) == (6, 0, 6)
    assert (data.spec.frames_per_video, data.protocol["frames_per_video"]) == (2, 2)
    assert data.sources["part-001.tar:00004#1"] == "part-001.tar:00004"
    assert shards(root, group="scene", test="part-001.tar").sources["part-001.tar:00004#1"] == "s1"
    half = with_fraction(data, 0.5, seed=0).train
    assert isinstance(half, FramesOf)
    assert len(half) == 4
    assert half.read(0).shape == (3, 48, 64)


def test_clips_of_images_are_refused(tmp_path: Path) -> None:
    root = write_tars(tmp_path / "data", 1, 4)
    error = failing(root, clips=True)
    assert error.message == f"{root}: holds images, but clips need videos"
    assert error.next_step == "give shards of videos, or remove [clip] and choose a model of images"


def test_notes_count_videos(tmp_path: Path) -> None:
    write_tar(tmp_path / "data" / "a.tar", [{"mp4": video(tmp_path, row), "cls": b"0" * (row > 0)} for row in range(3)])
    assert shards(tmp_path / "data", clips=True).notes == ("skipped 1 video without a label",)


@pytest.mark.parametrize("clips", [False, True])
def test_the_sample_is_written_once(clips: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "IMAGES", 8)
    monkeypatch.setattr(drawing, "VIDEOS", 8)
    data = shards(None, clips=clips)
    assert data.spec.sample
    assert sizes(data) == (32, 8, 8)
    assert isinstance(data.train, VideoSplit) == clips
    assert set(data.train.targets) == {0, 1, 2, 3}
    monkeypatch.setattr(drawing, "_write", lambda *_, **__: pytest.fail("written again"))
    assert shards(None, clips=clips).protocol == data.protocol


def failing(root: Path | None, **keys: Any) -> DataError:
    with pytest.raises(DataError) as raised:
        shards(root, **keys)
    assert raised.value.next_step
    return raised.value


def test_an_index_without_a_place_is_refused() -> None:
    error = failing(None, index="a.index")
    assert error.message == "data.index is set, but not where the shards lie"
    assert error.next_step == "set data.root to a folder, or data.url to a URL, of .tar or .parquet files"


def test_two_places_are_refused(tmp_path: Path) -> None:
    assert failing(tmp_path, url="s3://a/b").message == f"data.root ({tmp_path}) and data.url are both set"


def test_a_folder_without_shards_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert failing(tmp_path).message == f"{tmp_path}: no .tar or .parquet file found, only notes.txt"
    assert failing(tmp_path / "none").message == f"{tmp_path / 'none'}: not found"


def test_shards_of_two_kinds_are_refused(tmp_path: Path) -> None:
    of_parquet(write_tars(tmp_path, 1, 2))
    assert failing(tmp_path).message == f"{tmp_path}: both .tar and .parquet files found"


def test_compressed_tars_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").touch()
    error = failing(tmp_path)
    assert error.message == f"{tmp_path}: parts of compressed tars cannot be read: {tmp_path}/a.tar.gz"
    assert error.next_step == "decompress them, images hardly get smaller: gunzip *.tar.gz"


def test_an_absent_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    root = write_tar(tmp_path / "data" / "all.tar", [sample(row, patient="a") for row in range(3)]).parent
    error = failing(root, group="patent")
    assert error.message == f"{root}: no sample has patent; the columns are cls, patient"
    assert f"python -m toolkit data index {root} --column patient" in str(error.next_step)
    error = failing(of_parquet(tmp_path / "parquet"), label="labl")
    assert error.message.endswith("-0.parquet: column labl not found; the columns are image, label")


def test_a_column_of_no_splits_is_refused(tmp_path: Path) -> None:
    error = failing(write_tars(tmp_path, 1, 4), split="cls")
    assert error.message == f"{tmp_path}: column cls holds no split: 0, 1"


def test_a_pattern_that_fits_nothing_is_refused(tmp_path: Path) -> None:
    error = failing(write_tars(tmp_path, 2, 4), test="tests-*")
    assert error.message == f"{tmp_path}: no shard fits data.test = tests-*; there are part-000.tar, part-001.tar"
    assert error.next_step == "use another pattern: --set data.test=PATTERN"


def test_a_shard_of_two_splits_is_refused(tmp_path: Path) -> None:
    error = failing(write_tars(tmp_path, 2, 4), test="part-*", valid="part-001.tar")
    assert error.message == f"{tmp_path}: shard part-001.tar fits data.valid and data.test"


def test_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "test-0.parquet", [picture(0)], [0])
    assert failing(tmp_path).message == f"{tmp_path}: no labelled image to train on"


def test_shares_that_leave_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^test_share: valid_share \+ test_share must be below 1, got 0\.5 \+ 0\.5"):
        shards(tmp_path, valid_share=0.5, test_share=0.5)


def test_a_column_and_lists_are_refused_together(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^split: cannot be combined with train, valid or test"):
        shards(tmp_path, split="split", test="test-*")


def test_a_label_beyond_the_class_names_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [picture(0), picture(1)], [0, 3], names=("cat", "dog"))
    assert failing(tmp_path).message == "label 3 is not one of the 2 classes that the files name: cat, dog"


def test_a_url_needs_an_index(tmp_path: Path) -> None:
    error = failing(None, url="memory://nothing", group="patient")
    assert error.message == "memory://nothing: not indexed yet"
    assert error.next_step == "python -m toolkit data index memory://nothing --column '' --column patient"


def test_an_index_in_a_file_is_used_and_must_have_the_columns(tmp_path: Path) -> None:
    root = write_tars(tmp_path / "data", 1, 40)
    file = make_index(str(root), [""], output=tmp_path / "a.index")
    assert sum(sizes(shards(root, index=str(file)))) == 40
    error = failing(root, index=str(file), group="patient")
    assert error.message == f"{file}: has no column patient"
    assert f"--output {file} --force" in str(error.next_step)
