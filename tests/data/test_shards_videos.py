"""Videos in shards: the same frames as of files, by blocks, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.test_shards import failing
from tests.shard_files import picture, video, write_parquet, write_tar, write_video_tars
from tests.shard_servers import http
from tests.video_files import number_in, write_video
from toolkit.api.clips import Clip
from toolkit.api.contracts import Blocked, DataSpec, VideoSplit
from toolkit.data.loader import Loader
from toolkit.data.selected import selected
from toolkit.data.shards import part, places
from toolkit.data.shards.cache import BlockCache
from toolkit.data.shards.index import Index
from toolkit.data.shards.places import find_shards
from toolkit.data.shards.reader import BlockReader
from toolkit.data.shards.scan import scan
from toolkit.data.shards.videos import ShardFrames, ShardVideos
from toolkit.data.store.clips import ClipStore
from toolkit.data.videos import FramesOf, VideoFiles

SPEC = DataSpec(("a", "b"), size=16, clip=Clip(frames=2, rate=10))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(places, "FIRST_PAUSE", 0.0)


def indexed(place: str | Path, *columns: str, **how: Any) -> Index:
    return scan(find_shards(str(place)), columns, **how)


def videos_of(index: Index, base: str | Path, limit: int = 1 << 30) -> ShardVideos:
    """All videos of an index."""
    reader = BlockReader(index, str(base), BlockCache(limit))
    return ShardVideos(index, reader, np.arange(len(index)), np.arange(len(index)) % 2)


def as_parquet(folder: Path) -> Path:
    contents = [video(folder.parent, number, "avi") for number in range(4)]
    write_parquet(folder / "a.parquet", contents, [0, 1, 0, 1], rows=3)
    return folder


@pytest.mark.parametrize(
    ("write", "suffix"),
    [
        (lambda folder: write_video_tars(folder, 2, 2), "mp4"),
        (lambda folder: write_video_tars(folder, 2, 2, "avi"), "avi"),
        (as_parquet, "avi"),
    ],
    ids=["mp4 in tars", "avi in tars", "avi in parquet"],
)
def test_times_and_frames_are_those_of_files(tmp_path: Path, write: Callable[[Path], Path], suffix: str) -> None:
    root = write(tmp_path / "data")
    index = indexed(root)
    split = videos_of(index, root)
    assert (index.medium, index.side) == ("video", 48)
    assert isinstance(split, VideoSplit)
    assert isinstance(split, Blocked)
    paths = [write_video(tmp_path / f"{at}.{suffix}", 4, first=4 * at) for at in range(4)]
    names = tuple(map(str, range(4)))
    files = VideoFiles(names, (0,) * 4, names, tuple(paths))
    for at in range(4):
        assert split.times(at) == files.times(at)
        assert split.times(at).end == files.times(at).end
        frames = list(split.read(at, [0, 1, 3]))
        assert [number_in(frame.permute(1, 2, 0)) for frame in frames] == [4 * at, 4 * at + 1, 4 * at + 3]
        assert all(map(torch.equal, frames, files.read(at, [0, 1, 3])))


def test_an_epoch_of_clips_fetches_each_block_about_once_though_connections_break(tmp_path: Path) -> None:
    write_video_tars(tmp_path / "data", 64, 1)
    with http(tmp_path / "data", dropped_every=7) as served:
        index = indexed(served.url)
        needed = int(index.arrays["bytes"].sum())
        split = videos_of(index, served.url, limit=needed * 9 // 10)
        whole = ClipStore(videos_of(indexed(tmp_path / "data"), tmp_path / "data"), SPEC, None, workers=2)
        store = ClipStore(split, SPEC, None, workers=2)
        served.parts.clear()
        batches, local = (
            list(Loader(one, SPEC, torch.device("cpu")).training(8, (), seed=1, epoch=2, start=0))
            for one in (store, whole)
        )
        assert served.parts.total() <= 1.1 * len(split.blocks)
        kept = sum(path.stat().st_size for path in BlockCache(0).folder.glob("*/[0-9a-f]*"))
        assert kept <= needed * 9 // 10
    assert served.dropped
    assert sorted(torch.cat([batch.index for batch in batches]).tolist()) == list(range(64))
    assert all(torch.equal(one.pixels, other.pixels) for one, other in zip(batches, local, strict=True))


def test_an_epoch_of_selected_clips_fetches_each_block_about_once(tmp_path: Path) -> None:
    write_video_tars(tmp_path / "data", 64, 2)
    with http(tmp_path / "data") as served:
        index = indexed(served.url)
        limit = int(index.arrays["bytes"].sum()) * 9 // 10
        split = selected(videos_of(index, served.url, limit=limit), range(0, 128, 2), (0,) * 64)
        store = ClipStore(split, SPEC, None, workers=2)
        served.parts.clear()
        batches = list(Loader(store, SPEC, torch.device("cpu")).training(8, (), seed=1, epoch=2, start=0))
        assert served.parts.total() <= 1.1 * 64
    assert sorted(torch.cat([batch.index for batch in batches]).tolist()) == list(range(64))


def test_evaluation_fetches_blocks_ahead(tmp_path: Path) -> None:
    write_video_tars(tmp_path / "data", 6, 1)
    with http(tmp_path / "data") as served:
        index = indexed(served.url)
        served.parts.clear()
        store = ClipStore(videos_of(index, served.url), SPEC, None, workers=1, training=False)
        seen = [batch.index.tolist() for batch in Loader(store, SPEC, torch.device("cpu")).evaluation(2)]
        assert set(served.parts.values()) == {1}
    assert seen == [[0, 1], [2, 3], [4, 5]]


def test_single_frames_are_those_of_the_videos(tmp_path: Path) -> None:
    root = write_video_tars(tmp_path / "data", 2, 2)
    videos = videos_of(indexed(root), root)
    frames, plain = ShardFrames(videos, 2), FramesOf(videos, 2)
    assert len(frames) == len(plain) == 8
    for what in ("ids", "keys", "targets"):
        assert list(getattr(frames, what)) == list(getattr(plain, what))
    assert frames.sources == plain.sources
    assert frames.sources["part-001.tar:00003#1"] == "part-001.tar:00003"
    assert all(torch.equal(frames.read(at), plain.read(at)) for at in range(8))
    assert isinstance(frames, Blocked)
    assert list(frames.blocks) == [4, 4]
    assert not isinstance(plain, Blocked)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no video at all", "cannot be decoded: Invalid data found when processing input"),
        (b"", "cannot be decoded: Invalid data found when processing input"),
        (picture(0), "cannot be decoded: it is an image (PNG), not a video"),
    ],
    ids=["text", "empty", "image"],
)
def test_what_is_not_a_video_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    write_tar(tmp_path / "data" / "a.tar", [{"mp4": content}])
    split = videos_of(indexed(tmp_path / "data"), tmp_path / "data")
    error = failing(lambda: split.times(0))
    assert error.message == f"a.tar:00000: {reason}"
    assert error.next_step == "repair the shard, or skip such videos with: --set input.on_corrupt=skip"


def test_a_video_names_no_other_file(tmp_path: Path) -> None:
    """A playlist would read whatever it names."""
    secret = write_video(tmp_path / "secret.mp4", 4)
    playlist = f"ffconcat version 1.0\nfile '{secret}'\n".encode()
    write_tar(tmp_path / "data" / "a.tar", [{"mp4": playlist}])
    split = videos_of(indexed(tmp_path / "data"), tmp_path / "data")
    assert failing(lambda: split.times(0)).message.startswith("a.tar:00000: cannot be decoded: ")


def test_an_image_next_to_a_video_is_not_an_item(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [{"jpg": picture(0, form="jpeg"), "mp4": video(tmp_path, 3), "cls": b"1"}])
    index = indexed(tmp_path / "a.tar", "cls")
    assert (index.medium, len(index)) == ("video", 1)
    assert number_in(next(videos_of(index, tmp_path).read(0, [0])).permute(1, 2, 0)) == 12


def test_images_and_videos_together_are_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [{"png": picture(0)}])
    write_tar(tmp_path / "b.tar", [{"png": picture(0)}, {"mp4": video(tmp_path, 0)}])
    error = failing(lambda: indexed(tmp_path))
    assert error.message == f"{tmp_path}: both images (a.tar:00000) and videos (b.tar:00001) found"
    assert error.next_step == "write them into shards of their own, and give one of the two folders"


def test_a_block_beyond_numbers_of_32_bits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", [picture(0), picture(1)], [0, 1])
    monkeypatch.setattr(part, "LARGEST", 300)
    error = failing(lambda: indexed(path))
    size = len(picture(0)) + len(picture(1))
    assert error.message == f"{path}: cannot be read: the block of 1 has {size} bytes, at most 299 work"
