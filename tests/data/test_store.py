"""Decoding once: storages hold what was decoded, survive cuts, and keep to their size; corrupt items are reported."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from tests import small
from toolkit.api.errors import DataError
from toolkit.data import store as module
from toolkit.data.damage import Damage
from toolkit.data.store.corrupt import Corrupt
from toolkit.data.store.images import ImageStore
from toolkit.data.store.resampling import to_square
from toolkit.data.store.storage import Mapped, Memory, cache_key, make_room, open_storage
from toolkit.data.videos import FramesOf

GIB = 2**30
ITEM = 8 * 8 * 3
SHAPE = (24, 8, 8, 3)
LARGER = (24, 64, 64, 3)

reserves = pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room cannot be reserved here")


def stored(split: small.Squares, storage: module.Storage | None, **corrupt: object) -> ImageStore:
    return ImageStore(split, small.SPEC, storage, workers=2, corrupt=Corrupt(**corrupt))  # type: ignore[arg-type]


def everything(pixels: ImageStore) -> torch.Tensor:
    return pixels.fetch(torch.arange(len(pixels)))[0]


def failing(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def sparse(path: Path) -> None:
    """A file as long as all `LARGER` items, as truncating leaves it: it has the room of the first only."""
    path.write_bytes(bytes([7]) * ITEM)
    os.truncate(path, int(np.prod(LARGER)))


def taken(path: Path) -> int:
    """Bytes of the disk."""
    return path.stat().st_blocks * 512


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pixels"


@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 32), st.sampled_from(["crop", "stretch"]))
def test_every_image_becomes_a_square(height: int, width: int, side: int, fit: module.Fit) -> None:
    image = torch.full((3, height, width), 77, dtype=torch.uint8)
    square = to_square(image, side, fit)
    assert square.shape == (3, side, side)
    assert square.dtype == torch.uint8
    assert (square == 77).all()


def test_crop_keeps_the_aspect_and_the_centre() -> None:
    image = torch.zeros(3, 10, 30, dtype=torch.uint8)
    image[:, :, 10:20] = 255
    assert (to_square(image, 10, "crop") == 255).all()
    assert float(to_square(image, 10, "stretch").float().mean()) == pytest.approx(85, abs=2)


def test_resampling_is_antialiased_bilinear() -> None:
    image = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    wanted = functional.interpolate(image[None].float(), size=(16, 16), mode="bilinear", antialias=True)[0]
    assert (to_square(image, 16, "crop").float() - wanted).abs().max() <= 1


def test_all_frames_of_a_clip_become_squares() -> None:
    clip = torch.randint(0, 256, (5, 3, 20, 30), dtype=torch.uint8)
    squares = to_square(clip, 10, "crop")
    assert squares.shape == (5, 3, 10, 10)
    assert torch.equal(squares[2], to_square(clip[2], 10, "crop"))


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_each_item_is_decoded_once(kind: str, squares: small.Squares, tmp_path: Path) -> None:
    shape = (24, 8, 8, 3)
    pixels = stored(squares, Memory(shape) if kind == "memory" else Mapped(tmp_path / "a.u8", shape))
    assert not pixels.complete
    first, again = everything(pixels), everything(pixels)
    assert torch.equal(first, again)
    assert torch.equal(first[3], squares.read(3))
    assert pixels.complete
    assert sorted(squares.reads) == sorted([*range(24), 3])


def test_without_room_every_fetch_decodes(squares: small.Squares) -> None:
    pixels = stored(squares, None)
    assert torch.equal(everything(pixels), everything(pixels))
    assert len(squares.reads) == 48


def test_a_cache_file_outlives_the_process(squares: small.Squares, tmp_path: Path) -> None:
    first = everything(stored(squares, Mapped(tmp_path / "a.u8", (24, 8, 8, 3))))
    squares.reads.clear()
    again = everything(stored(squares, Mapped(tmp_path / "a.u8", (24, 8, 8, 3))))
    assert torch.equal(first, again)
    assert squares.reads == []


def test_an_item_cut_short_is_decoded_again(squares: small.Squares, tmp_path: Path) -> None:
    path = tmp_path / "a.u8"
    whole = everything(stored(squares, Mapped(path, (24, 8, 8, 3))))
    content = bytearray(path.read_bytes())
    content[5 * ITEM : 5 * ITEM + 20] = bytes(20)
    path.write_bytes(content)
    squares.reads.clear()
    assert torch.equal(everything(stored(squares, Mapped(path, (24, 8, 8, 3)))), whole)
    assert squares.reads == [5]


def test_storage_is_chosen_by_size(squares: small.Squares) -> None:
    def kind(memory: int, cache: int) -> type:
        return type(open_storage(squares, small.SPEC, memory_bytes=memory, cache_bytes=cache))

    assert kind(24 * ITEM, 0) is Memory
    assert kind(24 * ITEM - 1, GIB) is Mapped
    assert kind(0, 24 * ITEM - 1) is type(None)


@reserves
def test_a_cache_file_takes_its_whole_room_at_once(squares: small.Squares, cache: Path) -> None:
    open_storage(squares, small.SPEC, memory_bytes=0, cache_bytes=GIB)
    assert sorted(path.suffix for path in cache.iterdir()) == [".sums", ".u8"]
    assert all(taken(path) >= path.stat().st_size > 0 for path in cache.iterdir())


@reserves
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_without_room_on_the_disk_nothing_is_kept_and_that_is_reported_once(
    number: int,
    squares: small.Squares,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", failing(number))
    for split in (squares, small.Squares(30)):
        assert open_storage(split, small.SPEC, memory_bytes=0, cache_bytes=GIB) is None
    assert list(cache.iterdir()) == []
    assert capsys.readouterr().err == (
        f"warning: {cache}: cannot be written: {os.strerror(number)}; what is not cached is decoded again each "
        "time: free disk space, fix the permissions, or set TOOLKIT_CACHE\n"
    )


def test_a_disk_is_not_filled_by_what_does_not_fit(
    squares: small.Squares, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4000))
    assert open_storage(squares, small.SPEC, memory_bytes=0, cache_bytes=GIB) is None
    assert list(cache.iterdir()) == []
    assert os.strerror(errno.ENOSPC) in capsys.readouterr().err


@reserves
def test_the_second_of_two_files_finding_no_room_takes_the_first_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = os.posix_fallocate

    def small_only(file: int, offset: int, size: int) -> None:
        reserve(file, offset, size) if size < 24 * ITEM else failing(errno.ENOSPC)()

    monkeypatch.setattr(os, "posix_fallocate", small_only)
    with pytest.raises(OSError, match="No space left"):
        Mapped(tmp_path / "a.u8", SHAPE)
    assert list(tmp_path.iterdir()) == []


@reserves
def test_room_is_reserved_around_what_a_file_holds_and_only_where_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.u8"
    sparse(path)
    before = path.read_bytes()
    Mapped(path, LARGER)
    assert path.read_bytes() == before
    assert taken(path) >= len(before)
    monkeypatch.setattr(os, "posix_fallocate", failing(errno.ENOSPC))
    Mapped(path, LARGER)


@reserves
def test_a_file_that_others_may_use_stays_where_it_finds_no_more_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sparse(tmp_path / "a.u8")
    monkeypatch.setattr(os, "posix_fallocate", failing(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        Mapped(tmp_path / "a.u8", LARGER)
    assert [path.name for path in tmp_path.iterdir()] == ["a.u8"]


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_that_reserves_nothing_keeps_pixels_all_the_same(
    number: int, squares: small.Squares, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", failing(number), raising=False)
    assert torch.equal(everything(stored(squares, Mapped(tmp_path / "a.u8", SHAPE)))[3], squares.read(3))
    assert (tmp_path / "a.u8").stat().st_size == 24 * ITEM


@pytest.mark.parametrize("place", ["cache", "cache/pixels"])
def test_a_cache_that_cannot_be_written_keeps_nothing(
    place: str, squares: small.Squares, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("in its place")
    assert open_storage(squares, small.SPEC, memory_bytes=0, cache_bytes=GIB) is None
    assert f"warning: {cache}: cannot be written: " in capsys.readouterr().err


def test_a_cache_file_that_another_run_removes_meanwhile_loses_nothing(
    squares: small.Squares, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.u8"

    def removed(_: object) -> None:
        path.unlink()
        failing(errno.ENOENT)()

    monkeypatch.setattr(os, "utime", removed)
    assert torch.equal(everything(stored(squares, Mapped(path, SHAPE)))[3], squares.read(3))


def test_the_cache_key_depends_on_contents_order_and_resampling(squares: small.Squares) -> None:
    class Other(small.Squares):
        @property
        def keys(self) -> list[str]:
            return super().keys[::-1]

    spec = small.SPEC
    keys = [
        cache_key(squares, spec),
        cache_key(small.Squares(24, side=9), spec),
        cache_key(Other(24), spec),
        cache_key(squares, replace(spec, size=9)),
        cache_key(squares, replace(spec, fit="stretch")),
    ]
    assert len(set(keys)) == len(keys)
    assert cache_key(small.Squares(24), spec) == keys[0]


def test_room_is_made_by_removing_what_was_used_longest_ago(tmp_path: Path) -> None:
    for age, name in enumerate(["new", "old", "older"]):
        for path in (tmp_path / f"{name}.u8", tmp_path / f"{name}.sums"):
            path.write_bytes(bytes(8192))
            os.utime(path, (1000 - age, 1000 - age))
    make_room(tmp_path, keep=tmp_path / "none.u8", limit=2 * 8192)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.sums", "new.u8", "old.sums", "old.u8"]


def test_room_is_made_while_another_run_makes_it(tmp_path: Path) -> None:
    (tmp_path / "kept.u8").write_bytes(bytes(8192))
    (tmp_path / "gone.u8").symlink_to(tmp_path / "nothing")  # found in the folder, and not there when it is looked at
    make_room(tmp_path, keep=tmp_path / "none.u8", limit=8192)
    assert (tmp_path / "kept.u8").exists()


def test_a_corrupt_item_is_an_error_that_names_it() -> None:
    pixels = stored(small.Squares(24, broken=frozenset({7})), Memory((24, 8, 8, 3)))
    with pytest.raises(DataError, match=r"square/007.png: cannot be decoded") as failure:
        everything(pixels)
    assert failure.value.next_step is not None
    assert "input.on_corrupt=skip" in failure.value.next_step


@pytest.mark.parametrize("kept", [True, False])
def test_corrupt_items_are_skipped_counted_and_listed(kept: bool) -> None:
    split = small.Squares(24, broken=frozenset({7, 9}))
    pixels = stored(split, Memory((24, 8, 8, 3)) if kept else None, skip=True, limit=0.1)
    fetched, index = pixels.fetch(torch.tensor([6, 7, 8, 9]))
    assert index.tolist() == [6, 8]
    assert torch.equal(fetched[1], split.read(8))
    assert set(pixels.skipped.reasons) == {7, 9}
    assert "square/007.png" in pixels.skipped.reasons[7]


def test_an_image_of_a_video_that_is_damaged_is_noted_or_skipped() -> None:
    frames = FramesOf(small.Reels(4, bad={1: frozenset({3}), 2: frozenset(range(8))}), 2)
    pixels = stored(frames, None, skip=True, limit=0.3)
    assert pixels.fetch(torch.arange(8))[1].tolist() == [0, 1, 2, 3, 5, 6, 7]
    assert pixels.skipped.damaged == {2: Damage(1, 12)}
    assert (
        pixels.skipped.reasons[4] == "reel/002.mp4#0: 8 of 12 frames cannot be decoded, and input.damaged_share = 0.5"
    )


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_skipped_once_stays_skipped(kept: bool) -> None:
    split = small.Squares(24, broken=frozenset({7}))
    pixels = stored(split, Memory(SHAPE) if kept else None, skip=True, limit=0.1)
    pixels.fetch(torch.tensor([7]))
    split.broken = frozenset()
    fetched, index = pixels.fetch(torch.tensor([6, 7, 8]))
    assert index.tolist() == [6, 8]
    assert torch.equal(fetched, torch.stack([split.read(6), split.read(8)]))


def test_what_is_begun_is_decoded_once_and_its_error_waits_for_who_asks() -> None:
    squares = small.Squares(6, broken=frozenset({5}))
    pixels = stored(squares, Memory((6, 8, 8, 3)))
    for batch in ([4, 1], [5, 0], [4, 1]):
        pixels.begin(torch.tensor(batch))
    fetched, index = pixels.fetch(torch.tensor([4, 1]))
    assert index.tolist() == [4, 1]
    with pytest.raises(DataError, match=r"005\.png"):
        pixels.keep(torch.tensor([5, 0]))
    assert sorted(squares.reads) == [0, 1, 4, 5]
    assert torch.equal(fetched[1], squares.read(1))


def test_too_many_corrupt_items_stop_the_run() -> None:
    pixels = stored(small.Squares(24, broken=frozenset({1, 2, 3})), Memory((24, 8, 8, 3)), skip=True, limit=0.1)
    with pytest.raises(DataError, match=r"3 of 24 items cannot be read, more than input.corrupt_limit = 0.1 allows"):
        everything(pixels)


def test_pixels_are_handed_out_channels_last(squares: small.Squares) -> None:
    fetched = everything(stored(squares, Memory((24, 8, 8, 3))))
    assert fetched.shape == (24, 3, 8, 8)
    assert fetched.is_contiguous(memory_format=torch.channels_last)


def test_sums_of_items_are_never_zero(tmp_path: Path) -> None:
    storage = Mapped(tmp_path / "a.u8", (1, 2, 2, 3))
    assert not storage.has(0)
    storage.put(0, torch.zeros(2, 2, 3, dtype=torch.uint8))
    assert storage.has(0)
    assert np.fromfile(tmp_path / "a.sums", dtype=np.uint64)[0] != 0
