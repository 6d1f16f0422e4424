"""Clips of videos: decoded once, kept whole, cut by one rule, and the same whether they are kept or not."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import small
from toolkit.api.clips import Clip
from toolkit.api.contracts import Batch, DataSpec
from toolkit.api.errors import DataError
from toolkit.data.damage import Damage
from toolkit.data.loader import Loader
from toolkit.data.store.clips import ClipStore, VideoCache
from toolkit.data.store.corrupt import Corrupt

GIB = 2**30
CLIP = Clip(frames=4, rate=2, fps=10)
SPEC = replace(small.SPEC, clip=CLIP)


def clip_store(split: small.Reels, cache: VideoCache | None, spec: DataSpec = SPEC, **corrupt: object) -> ClipStore:
    return ClipStore(split, spec, cache, workers=2, corrupt=Corrupt(**corrupt))  # type: ignore[arg-type]


def asked_twice(store: ClipStore, items: Sequence[int]) -> torch.Tensor:
    """What is fetched of videos that are kept now."""
    store.fetch(torch.tensor(items))
    return store.fetch(torch.tensor(items))[0]


def levels(clips: torch.Tensor) -> list[list[int]]:
    """The level of each frame's first pixel."""
    found: list[list[int]] = clips[..., 0, 0, 0].tolist()
    return found


def test_a_clip_is_the_middle_of_its_video(tmp_path: Path) -> None:
    clips, index = clip_store(small.Reels(2), VideoCache(tmp_path, GIB)).fetch(torch.tensor([1, 0]))
    assert clips.shape == (2, 4, 3, 8, 8)
    assert levels(clips) == [[22, 24, 26, 28], [2, 4, 6, 8]]
    assert index.tolist() == [1, 0]


def test_a_video_is_decoded_once_for_all_processes(tmp_path: Path) -> None:
    reels = small.Reels(2)
    store = clip_store(reels, VideoCache(tmp_path, GIB))
    first = store.fetch(torch.tensor([0, 1]))[0]
    assert sorted(reels.reads) == [(0, [2, 4, 6, 8]), (1, [2, 4, 6, 8])]
    reels.reads.clear()
    for _ in range(3):
        assert torch.equal(store.fetch(torch.tensor([0, 1]))[0], first)
    assert sorted(reels.reads) == [(0, list(range(12))), (1, list(range(12)))]
    again = clip_store(reels, VideoCache(tmp_path, GIB)).fetch(torch.tensor([0, 1]))[0]
    assert len(reels.reads) == 2
    assert torch.equal(first, again)


def test_without_room_only_what_a_clip_sees_is_decoded(tmp_path: Path) -> None:
    reels = small.Reels(1)
    kept = asked_twice(clip_store(reels, VideoCache(tmp_path, GIB)), [0])
    reels.reads.clear()
    for cache in (VideoCache(tmp_path / "none", 0), None):
        bare = clip_store(reels, cache)
        assert all(torch.equal(bare.fetch(torch.tensor([0]))[0], kept) for _ in range(3))
    assert [read for read in reels.reads if read[1] == [2, 4, 6, 8]] == [(0, [2, 4, 6, 8])] * 6
    assert not (tmp_path / "none").exists()


def test_a_file_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    reels = small.Reels(1)
    whole = asked_twice(clip_store(reels, VideoCache(tmp_path, GIB)), [0])
    (kept,) = tmp_path.glob("*/*.npy")
    for content in (b"", kept.read_bytes()[:-100]):
        kept.write_bytes(content)
        reels.reads.clear()
        assert torch.equal(asked_twice(clip_store(reels, VideoCache(tmp_path, GIB)), [0]), whole)
        assert len(reels.reads) == 2


def test_a_kill_leaves_no_half_made_file(tmp_path: Path) -> None:
    code = f"""
import os, signal, torch
from pathlib import Path
from tests import small
from tests.data.test_clips import SPEC
from toolkit.data.store.clips import ClipStore, VideoCache

class Dying(small.Reels):
    def read(self, index, frames):
        for number, frame in enumerate(super().read(index, frames)):
            if number == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            yield frame

store = ClipStore(Dying(1), SPEC, VideoCache(Path({str(tmp_path)!r}), 2**30), workers=1)
for _ in range(2):
    store.fetch(torch.tensor([0]))
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2])
    assert ended.returncode == -9
    assert not [path for path in tmp_path.glob("*/*.npy") if not path.name.startswith(".")]
    store = clip_store(small.Reels(1), VideoCache(tmp_path, GIB))
    assert levels(asked_twice(store, [0])) == [[2, 4, 6, 8]]


def test_the_cache_keeps_to_its_limit_and_removes_what_was_used_longest_ago(tmp_path: Path) -> None:
    for age in range(4):
        old = tmp_path / "aa" / f"{age}.npy"
        old.parent.mkdir(exist_ok=True)
        old.write_bytes(bytes(4000))
        os.utime(old, (1000 - age, 1000 - age))
    one = 12 * 8 * 8 * 3
    asked_twice(clip_store(small.Reels(2), VideoCache(tmp_path, 12000)), [0, 1])
    sizes = [path.stat().st_size for path in tmp_path.glob("*/*.npy")]
    assert sum(sizes) <= 12000
    assert sum(size > one for size in sizes) >= 2
    assert not (tmp_path / "aa" / "3.npy").exists()


def test_a_run_keeps_no_more_than_the_limit(tmp_path: Path) -> None:
    one = 12 * 8 * 8 * 3
    reels = small.Reels(3)
    clips = asked_twice(clip_store(reels, VideoCache(tmp_path, 3 * one - 1)), [0, 1, 2])
    assert len(list(tmp_path.glob("*/*.npy"))) == 2
    assert levels(clips)[2] == [42, 44, 46, 48]


@pytest.mark.parametrize("place", ["cache", "cache/videos"])
def test_a_cache_that_cannot_be_written_keeps_nothing_and_that_is_reported_once(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("in its place")
    cache, reels = VideoCache(tmp_path / "cache" / "videos", GIB), small.Reels(3)
    wanted = clip_store(small.Reels(3), None).fetch(torch.arange(3))[0]
    for store in (clip_store(reels, cache), clip_store(reels, cache)):
        assert all(torch.equal(store.fetch(torch.arange(3))[0], wanted) for _ in range(3))
    assert capsys.readouterr().err.count(f"warning: {cache.folder}: cannot be written: ") == 1


def test_on_a_full_disk_videos_are_decoded_again_and_count_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cache, reels = VideoCache(tmp_path, GIB), small.Reels(2)
    store = clip_store(reels, cache)
    with monkeypatch.context() as patched:
        patched.setattr("numpy.lib.format.write_array_header_1_0", full)
        assert levels(asked_twice(store, [0])) == [[2, 4, 6, 8]]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert cache.taken == 0
    assert "No space left on device; what is not cached is decoded again" in capsys.readouterr().err
    reels.reads.clear()
    assert levels(store.fetch(torch.tensor([0]))[0]) == [[2, 4, 6, 8]]
    assert reels.reads == [(0, [2, 4, 6, 8])]
    asked_twice(store, [1])
    assert len(list(tmp_path.glob("*/*.npy"))) == 1


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EROFS])
def test_a_kept_video_is_seen_though_its_use_cannot_be_noted(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run has removed it since it was opened, or the cache is only to be read."""
    reels = small.Reels(1)
    wanted = asked_twice(clip_store(reels, VideoCache(tmp_path, GIB)), [0])
    reels.reads.clear()

    def fail(path: Path) -> None:
        path.unlink()
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "utime", fail)
    assert torch.equal(clip_store(reels, VideoCache(tmp_path, GIB)).fetch(torch.tensor([0]))[0], wanted)
    assert reels.reads == []


def test_training_draws_come_from_seed_and_item_alone(tmp_path: Path) -> None:
    reels = small.Reels(8, length=60)
    kept, bare = clip_store(reels, VideoCache(tmp_path, GIB)), clip_store(reels, None)
    index = torch.arange(2)
    asked_twice(kept, [0, 1])
    first = kept.drawn(index, seed=0)[0]
    assert torch.equal(first, bare.drawn(index, seed=0)[0])
    assert torch.equal(first[:1], kept.drawn(index[:1], seed=0)[0])
    starts = {levels(kept.drawn(index[:1], seed=epoch)[0])[0][0] for epoch in range(12)}
    assert len(starts) > 4
    assert {levels(kept.drawn(index[:1], seed=100 + seed)[0])[0][0] for seed in range(12)} != starts


def test_several_clips_of_a_video_share_one_opening() -> None:
    reels = small.Reels(2, length=60)
    spec = replace(SPEC, clip=replace(CLIP, clips_per_video=3))
    clips, index = clip_store(reels, None, spec).drawn(torch.tensor([3, 4, 5, 0]), seed=0)
    assert len(clips) == 4
    assert index.tolist() == [3, 4, 5, 0]
    assert [item for item, _ in sorted(reels.reads)] == [0, 1]
    assert len({tuple(clip) for clip in levels(clips[:3])}) > 1


def test_views_are_clips_by_crops_along_the_long_side() -> None:
    spec = replace(SPEC, clip=replace(CLIP, clips=2, crops=3))
    views, index = clip_store(small.Reels(1, size=(8, 20), wide=True), None, spec).views(torch.tensor([0]))
    assert views.shape == (6, 4, 3, 8, 8)
    assert levels(views) == [[0] * 4, [6] * 4, [12] * 4] * 2
    assert index.tolist() == [0]
    assert levels(clip_store(small.Reels(1, size=(8, 20), wide=True), None, spec).fetch(torch.tensor([0]))[0]) == [
        [6] * 4
    ]


def test_training_sees_the_whole_long_side() -> None:
    wide = clip_store(small.Reels(1, size=(8, 20), wide=True), None)
    places = {levels(wide.drawn(torch.tensor([0]), seed=epoch)[0])[0][0] for epoch in range(60)}
    assert min(places) == 0
    assert max(places) == 11  # 12 itself is never drawn


def test_stretching_leaves_nothing_to_cut() -> None:
    spec = replace(SPEC, fit="stretch")
    clips, _ = clip_store(small.Reels(1, size=(16, 40), wide=True), None, spec).fetch(torch.tensor([0]))
    assert clips.shape[-2:] == (8, 8)
    assert clips[0, 0, 0, 0, -1] > 30


def test_clips_are_handed_out_channels_last(tmp_path: Path) -> None:
    clips = asked_twice(clip_store(small.Reels(1), VideoCache(tmp_path, GIB)), [0])
    assert clips.movedim(-3, -1).is_contiguous()


def test_a_broken_video_is_an_error_or_skipped(tmp_path: Path) -> None:
    reels = small.Reels(12, broken=frozenset({1}))
    with pytest.raises(DataError, match=r"reel/001\.mp4: cannot be decoded") as failure:
        clip_store(reels, VideoCache(tmp_path, GIB)).fetch(torch.arange(3))
    assert "input.on_corrupt=skip" in (failure.value.next_step or "")
    skipping = clip_store(reels, None, skip=True, limit=0.1)
    for _ in range(2):
        clips, index = skipping.fetch(torch.arange(3))
        assert index.tolist() == [0, 2]
        assert [clip[0] for clip in levels(clips)] == [2, 42]
    assert list(skipping.skipped.reasons) == [1]
    clips, index = skipping.drawn(torch.tensor([1, 1]), seed=0)
    assert (len(clips), len(index)) == (0, 0)


def test_a_video_that_is_damaged_in_part_is_noted_and_kept_with_its_damage(tmp_path: Path) -> None:
    reels = small.Reels(3, bad={1: frozenset({4, 11})})
    store = clip_store(reels, VideoCache(tmp_path, GIB))
    assert levels(asked_twice(store, [0, 1])) == [[2, 4, 6, 8], [22, 24, 26, 28]]
    assert store.skipped.damaged == {1: Damage(2, 12)}
    reels.reads.clear()
    again = clip_store(reels, VideoCache(tmp_path, GIB))  # another run: it decodes neither
    assert torch.equal(again.fetch(torch.tensor([0, 1]))[0], store.fetch(torch.tensor([0, 1]))[0])
    assert (reels.reads, again.skipped.damaged, again.skipped.reasons) == ([], {1: Damage(2, 12)}, {})


def test_a_video_with_too_much_damage_is_an_error_or_skipped() -> None:
    reels = small.Reels(12, bad={1: frozenset(range(6, 12))})
    with pytest.raises(
        DataError, match=r"reel/001\.mp4: 6 of 12 frames cannot be decoded, and input.damaged_share = 0.5"
    ):
        clip_store(reels, None).fetch(torch.arange(3))
    skipping = clip_store(reels, None, skip=True, limit=0.1)
    assert skipping.fetch(torch.arange(3))[1].tolist() == [0, 2]
    assert (list(skipping.skipped.reasons), skipping.skipped.damaged) == ([1], {})
    accepting = clip_store(reels, None, damaged_share=0.6)
    assert accepting.fetch(torch.arange(3))[1].tolist() == [0, 1, 2]


@pytest.mark.parametrize("kept", ["never", "now", "before"])
def test_what_is_kept_does_not_decide_when_a_video_is_refused(tmp_path: Path, kept: str) -> None:
    """Only the clip that meets the damage is refused: not the attempt to keep the video, of which all is decoded."""
    reels = small.Reels(2, bad={0: frozenset(range(1, 12, 2))})  # clips of evaluation see even frames only
    if kept == "before":
        asked_twice(clip_store(reels, VideoCache(tmp_path, GIB), damaged_share=1), [0, 1])
    store = clip_store(reels, None if kept == "never" else VideoCache(tmp_path, GIB))
    for _ in range(3):
        assert levels(store.fetch(torch.tensor([0, 1]))[0]) == [[2, 4, 6, 8], [22, 24, 26, 28]]
    with pytest.raises(DataError, match=r"reel/000\.mp4: 6 of 12 frames cannot be decoded"):
        _ = [store.drawn(torch.tensor([0]), epoch) for epoch in range(50)]


def test_all_files_are_whole_while_threads_write_them(tmp_path: Path) -> None:
    reels, cache = small.Reels(6), VideoCache(tmp_path, GIB)
    stores = [clip_store(reels, cache) for _ in range(4)]
    threads = [threading.Thread(target=asked_twice, args=(store, range(6))) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.load(path).shape == (12, 8, 8, 3) for path in tmp_path.glob("*/*.npy"))
    assert len(list(tmp_path.glob("*/*.npy"))) == 6


def test_headers_are_read_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11 fails now and then where two threads are in its parser, by which NumPy reads them."""
    store, load, reading = clip_store(small.Reels(6), VideoCache(tmp_path, GIB)), np.load, threading.Lock()

    def loading(*args: object, **named: object) -> object:
        assert reading.acquire(blocking=False), "two threads read a header"
        time.sleep(0.01)
        reading.release()
        return load(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(np, "load", loading)
    assert len(asked_twice(store, range(6))) == 6


def test_the_path_depends_on_contents_and_resampling(tmp_path: Path) -> None:
    cache = VideoCache(tmp_path, GIB)
    specs = [SPEC, replace(SPEC, stored=9), replace(SPEC, fit="stretch")]
    assert len({cache.path(key, spec, training=True) for key in ("a", "b") for spec in specs}) == 6
    longer = replace(SPEC, clip=replace(CLIP, frames=9))
    assert cache.path("a", SPEC, training=True) == cache.path("a", longer, training=True)
    assert cache.path("a", SPEC, training=False) != cache.path("a", longer, training=False)


def test_of_what_is_only_evaluated_no_other_frame_is_kept(tmp_path: Path) -> None:
    reels = small.Reels(1, length=40)
    spec = replace(SPEC, clip=replace(CLIP, clips=2))
    store = ClipStore(reels, spec, VideoCache(tmp_path, GIB), workers=1, training=False)
    first = store.views(torch.tensor([0]))[0]
    assert torch.equal(store.views(torch.tensor([0]))[0], first)
    assert reels.reads[-1] == (0, [0, 2, 4, 6, 32, 34, 36, 38])
    assert levels(store.fetch(torch.tensor([0]))[0]) == [[32, 34, 36, 38]]


@pytest.mark.parametrize("size", [1, 3, 6])
def test_the_clips_of_an_epoch_are_the_same_in_batches_of_any_size(size: int) -> None:
    spec = replace(SPEC, clip=replace(CLIP, clips_per_video=4))
    loader = Loader(clip_store(small.Reels(3, length=60), None, spec), spec, small.CPU)

    def batches(size: int, start: int = 0) -> list[Batch]:
        return list(loader.training(size, [], seed=0, epoch=0, start=start))

    (whole,), found = batches(12), batches(size)
    assert torch.equal(torch.cat([batch.pixels for batch in found]), whole.pixels)
    assert torch.equal(torch.cat([batch.index for batch in found]), whole.index)
    assert all(len({tuple(clip) for clip in levels(clips)}) > 2 for clips in whole.pixels.split(4))
    for step, batch in enumerate(found):
        assert torch.equal(loader.places(size, seed=0, epoch=0, step=step), batch.index)
    assert torch.equal(batches(size, start=1)[0].pixels, found[1].pixels)


def test_a_loader_gives_clips_of_every_video(tmp_path: Path) -> None:
    spec = replace(SPEC, clip=replace(CLIP, clips=2, clips_per_video=3))
    loader = Loader(clip_store(small.Reels(5), VideoCache(tmp_path, GIB), spec), spec, small.CPU)
    batches = list(loader.training(4, [], seed=0, epoch=0, start=0))
    assert [len(batch.index) for batch in batches] == [4, 4, 4]
    assert loader.training_items == 15
    resumed = list(loader.training(4, [], seed=0, epoch=0, start=2))
    assert torch.equal(resumed[0].pixels, batches[2].pixels)
    shown = list(loader.evaluation(4))
    assert [len(batch.index) for batch in shown] == [2, 2, 1]
    assert [len(batch.pixels) for batch in shown] == [4, 4, 2]
    assert loader.at([0]).pixels.shape == (1, 4, 3, 8, 8)
    assert loader.views([0]).pixels.shape == (2, 4, 3, 8, 8)
