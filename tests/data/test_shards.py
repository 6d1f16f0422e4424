"""Shards: where they lie, their index, and their blocks in the cache."""

from __future__ import annotations

import errno
import json
import os
import re
import tarfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.shard_files import picture, sample, write_parquet, write_tar, write_tars
from tests.shard_servers import http, s3
from toolkit.api.errors import DataError, RunFailed
from toolkit.data.images import decode_image
from toolkit.data.sequences import ArrayTargets, MadeTexts
from toolkit.data.shards import places
from toolkit.data.shards.cache import BlockCache, digest_of
from toolkit.data.shards.images import ShardImages
from toolkit.data.shards.index import ABSENT, Index, read_index, write_index
from toolkit.data.shards.opened import make_index, open_index
from toolkit.data.shards.places import RangeFile, find_shards, read_range
from toolkit.data.shards.reader import BlockReader
from toolkit.data.shards.scan import scan
from toolkit.data.splits import count_classes

BYTES = 6 * 2048
"""Of a block with few samples: a sample of a tar takes 2 KiB here."""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(places, "FIRST_PAUSE", 0.0)


def split_of(index: Index, base: str, limit: int = 1 << 30) -> ShardImages:
    """All images of an index, in blocks behind a cache of `limit` bytes."""
    reader = BlockReader(index, base, BlockCache(limit))
    return ShardImages(index, reader, np.arange(len(index)), np.zeros(len(index), np.uint8))


def failing(do: Callable[[], object], kind: type[Any] = DataError) -> Any:
    with pytest.raises(kind) as raised:
        do()
    assert raised.value.next_step
    return raised.value


# Places ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", ["a/0.tar", "b/10.tar", "b/9.tar"]),
        ("/b", ["10.tar", "9.tar"]),
        ("/b/*.tar", ["10.tar", "9.tar"]),
        ("/b/{9..10}.tar", ["10.tar", "9.tar"]),
        ("/{a/0,b/9}.tar", ["a/0.tar", "b/9.tar"]),
        ("/b/9.tar", ["9.tar"]),
    ],
)
def test_a_place_is_a_folder_a_pattern_or_a_file(tmp_path: Path, pattern: str, found: list[str]) -> None:
    for name in ("a/0.tar", "b/9.tar", "b/10.tar", ".hidden/1.tar", "a/.1.tar"):
        write_tar(tmp_path / name, [])
    (tmp_path / "b" / "readme.txt").touch()
    shards = find_shards(f"{tmp_path}{pattern}")
    assert [shard.name for shard in shards.files] == found
    assert all(Path(shards.base, shard.name).is_file() for shard in shards.files)
    assert all(shard.size == Path(shard.place).stat().st_size for shard in shards.files)


def test_a_range_keeps_the_digits_of_its_start() -> None:
    assert places._expanded("a{008..010}.tar") == ["a008.tar", "a009.tar", "a010.tar"]


def test_a_protocol_that_nobody_knows_is_refused() -> None:
    assert failing(lambda: find_shards("nix://a")).message == "no such protocol: nix://"


def test_a_protocol_without_its_package_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.filesystem", absent)
    places._file_system.cache_clear()
    try:
        error = failing(lambda: find_shards("s3://a"))
        assert (error.message, error.next_step) == (
            "s3:// needs the package s3fs",
            'pip install "vision-toolkit[shards]"',
        )
        assert failing(lambda: find_shards("gs://a")).next_step == "pip install gcsfs"
    finally:
        places._file_system.cache_clear()


def test_a_file_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(250))
    (tmp_path / "a").write_bytes(data)
    monkeypatch.setattr(places, "CHUNK", 16)
    file, held = (RangeFile(str(tmp_path / "a"), 250, held=held) for held in (False, True))
    for one in (file, held):
        assert (one.read(7), one.seek(-3, 2), one.read()) == (data[:7], 247, data[247:])
        assert one.read() == b""
        assert one.between(100, 140) == data[100:140]
        assert one.between(105, 180) == data[105:180]
    assert len(held._data) > 200 > len(file._data)
    held.release(240)
    assert held.between(241, 249) == data[241:249]


class Faulty:
    """A file system whose reads do this, one after the other."""

    protocol = "faulty"

    def __init__(self, *does: Any) -> None:
        self.does = list(does)

    def _strip_protocol(self, place: str) -> str:
        return place

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        done = self.does.pop(0)
        if isinstance(done, Exception):
            raise done
        return bytes(done)


def reading(monkeypatch: pytest.MonkeyPatch, *does: Any) -> Faulty:
    files = Faulty(*does)
    monkeypatch.setattr(places, "file_system", lambda _: files)
    return files


def test_what_breaks_off_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    files = reading(monkeypatch, ConnectionError("reset"), b"ab", b"abcd", b"never")
    assert read_range("faulty://a", 0, 4) == b"abcd"
    assert files.does == [b"never"]


@pytest.mark.parametrize(
    ("does", "message"),
    [
        ([ConnectionError("reset")] * places.TRIES, "faulty://a: cannot be read: reset"),
        ([b"ab"] * places.TRIES, "faulty://a: expected 4 bytes from 0 on, got 2"),
        ([FileNotFoundError("a")], "faulty://a: not found"),
        ([PermissionError("a")], "faulty://a: access denied"),
        ([b"abcdef"], "faulty://a: the server ignores requests for a part of a file"),
    ],
)
def test_what_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, does: list[Any], message: str) -> None:
    files = reading(monkeypatch, *does)
    assert failing(lambda: read_range("faulty://a", 0, 4)).message == message
    assert not files.does


# Index -------------------------------------------------------------------------------------------------------------


def test_blocks_of_a_tar_cover_its_samples(tmp_path: Path) -> None:
    root = write_tars(tmp_path / "data", 2, 20)
    index = scan(find_shards(str(root)), ["cls"], block_bytes=BYTES)
    counts, starts = index.arrays["items"].tolist(), index.arrays["start"].tolist()
    assert sum(counts) == len(index) == 40
    assert len(counts) > 4
    whole = (root / "part-000.tar").read_bytes()
    first = [block for block in range(len(counts)) if index.shard_of(block) == "part-000.tar"]
    for block in first:
        data = whole[starts[block] :][: int(index.arrays["bytes"][block])]
        assert digest_of(data) == index.digest_of(block)
    assert [index.name_of(item) for item in (0, 19, 20)] == [
        "part-000.tar:00000",
        "part-000.tar:00019",
        "part-001.tar:00020",
    ]
    assert index.columns["cls"].values == (0, 1)
    assert index.columns["cls"].codes.tolist() == [0, 1] * 20
    assert index.side == 8


def test_an_index_is_what_was_written(tmp_path: Path) -> None:
    root = write_tars(tmp_path / "data", 2, 5)
    index = scan(find_shards(str(root)), ["cls"], block_bytes=BYTES)
    write_index(index, tmp_path / "a.index")
    found = read_index(tmp_path / "a.index")
    assert found.arrays.keys() == index.arrays.keys()
    for name in index.arrays:
        assert np.array_equal(found.arrays[name], index.arrays[name]), name
    for name in ("kind", "base", "shards", "medium", "content", "side", "notes"):
        assert getattr(found, name) == getattr(index, name)
    assert found.columns["cls"].codes.tolist() == index.columns["cls"].codes.tolist()


def test_all_files_of_a_sample_count_and_long_names_do(tmp_path: Path) -> None:
    path = tmp_path / "data" / "a.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(tmp_path, "folder", recursive=False)
        for key in ("x" * 200, "y/" + "z" * 150):
            for suffix, data in (("cls", b"3"), ("PNG", picture(len(key))), ("json", b'{"a": "b"}')):
                (tmp_path / "member").write_bytes(data)
                tar.add(tmp_path / "member", f"./{key}.{suffix}")
        tar.add(tmp_path / "member", "alone.txt")
    index = scan(find_shards(str(path)), ["cls", "a"])
    assert [index.name_of(item) for item in range(2)] == ["a.tar:" + "x" * 200, "a.tar:y/" + "z" * 150]
    assert index.columns["a"].values == ("b",)
    assert index.notes == ("skipped 1 sample without an image or a video",)
    split = split_of(index, str(path.parent))
    assert torch.equal(split.read(1), decode_image(picture(152)))


def test_a_row_without_a_value_is_absent(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [picture(0), None, picture(2)], ["x", "y", None])
    index = scan(find_shards(str(path)), ["label"])
    assert index.columns["label"].codes.tolist() == [0, int(ABSENT)]
    assert [index.name_of(item) for item in range(2)] == ["a.parquet:0", "a.parquet:2"]
    assert index.notes == ("skipped 1 sample without an image or a video",)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[:700], "cannot be read: unexpected end of data"),
        (lambda data: data[:2048] + b"x" * 512 + data[2560:], "cannot be read: damaged at byte 2,048"),
        (lambda data: b"no tar" * 200, "cannot be read: invalid header"),
        (lambda data: b"", "cannot be read: empty file"),
        (lambda data: bytes(10240), "no image or video found: the shards are empty"),
    ],
    ids=["short", "header", "other", "empty", "zeros"],
)
def test_a_damaged_tar_is_named(tmp_path: Path, damage: Callable[[bytes], bytes], reason: str) -> None:
    path = write_tars(tmp_path, 1, 10) / "part-000.tar"
    path.write_bytes(damage(path.read_bytes()))
    error = failing(lambda: scan(find_shards(str(path)), ["cls"]))
    assert str(tmp_path) in error.message
    assert reason in error.message


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 and no more")
    assert failing(lambda: scan(find_shards(str(path)), [])).message.startswith(f"{path}: cannot be read: ")


def test_parquet_without_its_package_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", [picture(0)], [0])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    error = failing(lambda: scan(find_shards(str(path)), []))
    assert error.message == "Parquet files need the package pyarrow"
    assert error.next_step == 'pip install "vision-toolkit[shards]"'


def test_the_column_of_images_must_be_named_among_several(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [picture(0)], [0], mask=[picture(1)])
    error = failing(lambda: scan(find_shards(str(path)), []))
    assert error.message == f"{path}: 2 columns may hold images or videos; the columns are image, label, mask"
    error = failing(lambda: scan(find_shards(str(path)), [], content="label"))
    assert error.message == f"{path}: column label holds no images or videos; the columns are image, label, mask"
    assert scan(find_shards(str(path)), [], content="mask").content == "mask"


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("score", "column score holds double, expected integers or texts; the columns are image, label, score"),
        ("lable", "column lable not found; the columns are image, label, score"),
    ],
)
def test_a_column_must_hold_labels(tmp_path: Path, column: str, message: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", [picture(0)], [0], score=[0.5])
    error = failing(lambda: scan(find_shards(str(path)), [column]))
    assert error.message == f"{path}: {message}"


def test_numbers_and_texts_in_one_column_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [picture(0)], [0])
    write_parquet(tmp_path / "b.parquet", [picture(1)], ["x"])
    assert failing(lambda: scan(find_shards(str(tmp_path)), ["label"])).message == (
        f"{tmp_path}: column label has numbers and texts"
    )


def test_other_class_names_in_another_file_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [picture(0)], [0], names=("cat",))
    write_parquet(tmp_path / "b.parquet", [picture(1)], [0], names=("dog",))
    assert failing(lambda: scan(find_shards(str(tmp_path)), ["label"])).message == (
        f"{tmp_path}: column label has other class names in other files"
    )


def test_a_label_of_a_json_must_be_plain(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [{"png": picture(0), "json": json.dumps({"label": [1]}).encode()}])
    error = failing(lambda: scan(find_shards(str(path)), ["label"]))
    assert error.message == f"{path}: cannot be read: label holds list, expected integers or texts"


def test_an_index_that_is_no_index_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    other, damaged = tmp_path / "other", tmp_path / "damaged"
    save_file({"a": np.zeros(1)}, other)
    damaged.write_bytes(b"\x10")
    assert failing(lambda: read_index(other)).message == f"{other}: not an index of shards"
    assert failing(lambda: read_index(damaged)).message.startswith(f"{damaged}: damaged: ")
    error = failing(lambda: read_index(tmp_path / "none"))
    assert (error.message, error.next_step) == (f"{tmp_path / 'none'}: not found", "python -m toolkit data index URL")
    save_file({"a": np.zeros(1)}, other, metadata={"toolkit": json.dumps({"format": 0})})
    assert failing(lambda: read_index(other)).message == f"{other}: of another version"


def test_an_index_of_local_shards_is_made_once_and_again_when_they_change(tmp_path: Path) -> None:
    root = write_tars(tmp_path / "data", 1, 5)
    first = make_index(str(root), [""])
    before = first.stat().st_mtime_ns
    assert make_index(f"{root}/", [""]) == first
    assert first.stat().st_mtime_ns == before
    write_tars(root, 1, 7)
    assert len(open_index(str(root), [""])) == 7


# Sequences ---------------------------------------------------------------------------------------------------------


def test_targets_in_an_array_are_integers() -> None:
    targets = ArrayTargets(np.array([2, 0, 2], np.uint8))
    assert [*targets] == [2, 0, 2] == targets[:]
    assert all(type(one) is int for one in [*targets, targets[0], targets[-1]])
    assert np.asarray(targets).dtype == np.uint8
    assert count_classes(targets) == {0: 1, 2: 2}


def test_texts_are_made_when_they_are_asked_for() -> None:
    made: list[int] = []
    texts = MadeTexts(3, lambda at: made.append(at) or f"<{at}>")  # type: ignore[func-returns-value]
    assert (len(texts), texts[-1], texts[:2]) == (3, "<2>", ["<0>", "<1>"])
    assert made == [2, 0, 1]
    with pytest.raises(IndexError):
        texts[3]


# Blocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_each_block_is_fetched_once_though_connections_break(tmp_path: Path, kind: str) -> None:
    if kind == "tar":
        write_tars(tmp_path / "data", 2, 20)
    else:
        write_parquet(tmp_path / "data" / "a.parquet", [picture(row) for row in range(40)], [0] * 40)
    with http(tmp_path / "data", dropped_every=3) as served:
        shards = find_shards(served.url)
        index = scan(shards, [], block_bytes=BYTES)
        served.parts.clear()
        split = split_of(index, served.url)
        split.expect(range(len(split.blocks)))
        with ThreadPoolExecutor(8) as pool:
            pixels = list(pool.map(split.read, range(40)))
    assert served.dropped
    assert all(torch.equal(one, decode_image(picture(row))) for row, one in enumerate(pixels))
    if kind == "tar":
        assert set(served.parts.values()) == {1}
        assert served.parts.total() == len(split.blocks)


def test_shards_are_read_from_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tars(tmp_path / "data", 2, 6)
    with s3(tmp_path / "data") as (url, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        places._file_system.cache_clear()
        index = read_index(make_index(url, [""]))
        split = split_of(index, url)
        assert all(torch.equal(split.read(row), decode_image(picture(row))) for row in range(12))
        assert failing(lambda: find_shards(f"{url}/none")).message == f"{url}/none: no shards found"
        places._file_system.cache_clear()


def test_a_cache_stays_within_its_limit(tmp_path: Path) -> None:
    cache = BlockCache(10_000)
    for number in range(50):
        data = bytes([number]) * 1000
        path = cache.get(digest_of(data), 1000, lambda data=data: data)  # type: ignore[misc]
        assert path.read_bytes() == data
        assert len([*cache.folder.glob("*/[0-9a-f]*")]) <= 10


def test_a_block_is_fetched_by_one_of_many(tmp_path: Path) -> None:
    """Two caches of one folder are those of two ranks."""
    data, fetched, gate = b"x" * 10, list[int](), threading.Event()

    def fetch() -> bytes:
        fetched.append(1)
        gate.wait()
        return data

    caches = [BlockCache(100) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(cache.get, digest_of(data), 10, fetch) for cache in caches]
        gate.set()
        assert len({one.result() for one in asked}) == 1
    assert fetched == [1]


def test_a_block_that_was_removed_is_fetched_again(tmp_path: Path) -> None:
    write_tars(tmp_path / "data", 1, 4)
    with http(tmp_path / "data") as served:
        split = split_of(scan(find_shards(served.url), []), served.url)
        before = split.read(0)
        for path in BlockCache(0).folder.glob("*/[0-9a-f]*"):
            path.unlink()
        assert torch.equal(split.read(0), before)


def test_blocks_that_are_not_expected_any_more_are_not_fetched(tmp_path: Path) -> None:
    write_tars(tmp_path / "data", 12, 1)
    with http(tmp_path / "data") as served:
        split = split_of(scan(find_shards(served.url), []), served.url)
        served.parts.clear()
        split.expect(range(12))
        split.expect([])
        pixels = split.read(11)
    assert torch.equal(pixels, decode_image(picture(11)))
    assert served.parts.total() <= 12


def test_a_shard_that_changed_is_refused(tmp_path: Path) -> None:
    root = write_tars(tmp_path / "data", 1, 4)
    with http(root) as served:
        split = split_of(scan(find_shards(served.url), []), served.url)
        write_tar(root / "part-000.tar", [sample(row) for row in range(10, 14)])
        error = failing(lambda: split.read(0))
    assert error.message == f"{served.url}/part-000.tar: changed since it was indexed"
    assert error.next_step == f"python -m toolkit data index {served.url} --force"


def test_a_cache_too_small_for_a_window_is_refused(tmp_path: Path) -> None:
    write_tars(tmp_path / "data", 4, 4)
    with http(tmp_path / "data") as served:
        split = split_of(scan(find_shards(served.url), []), served.url, limit=10_000)
        error = failing(lambda: split.expect([0, 1, 2, 3]))
    assert re.match(r"4 blocks of 0\.0 MiB are in use at a time, but input\.cache_gb has room for ", error.message)
    assert re.fullmatch(r"make room: --set input\.cache_gb=[\d.e-]+", str(error.next_step))


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("toolkit.data.shards.cache.replaced", full)
    cache = BlockCache(100)
    error = failing(lambda: cache.get(digest_of(b"x"), 1, lambda: b"x"), RunFailed)
    assert error.message == f"{cache.folder}: cannot be written: No space left on device"
    assert error.next_step == "free disk space, or choose another folder: export TOOLKIT_CACHE=FOLDER"


def test_tars_on_a_disk_are_read_in_place(tmp_path: Path) -> None:
    root = write_tars(tmp_path / "data", 2, 4)
    split = split_of(scan(find_shards(str(root)), []), str(root), limit=0)
    split.expect([0, 1])
    assert all(torch.equal(split.read(row), decode_image(picture(row))) for row in range(8))
    assert not BlockCache(0).folder.exists()
