"""A million items in shards: what a run holds in memory, and how often it reads each block."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shard_files import picture, write_parquet

PICTURES = [picture(number, side=4) for number in range(200)]
FILES, ROWS, GROUP = 20, 50_000, 2_500
"""Of the large set: a million items in 400 row groups."""
STEPS = 30
MORE = 300
"""MiB that a run on all files may take above one on the first ten thousand items."""


def write(folder: Path, files: int, rows: int) -> Path:
    """Items that repeat, in blocks of which no two are equal."""
    for number in range(files):
        images = [PICTURES[(row * (number + 1)) % len(PICTURES)] for row in range(rows)]
        write_parquet(folder / f"train-{number:03}.parquet", images, [row % 2 for row in range(rows)], rows=GROUP)
    return folder


def read(root: str) -> tuple[int, int, int]:
    """Trains no model: MiB at most in memory, and the blocks that the first steps, and an epoch's order, need."""
    import torch

    from toolkit.data.loader import Loader
    from toolkit.data.store.images import ImageStore
    from toolkit_shards.dataset import shards

    data = shards(Path(root), valid_share=0, test_share=0)
    loader = Loader(ImageStore(data.train, data.spec, None, 2), data.spec, torch.device("cpu"))
    batches = loader.training(256, (), seed=0, epoch=0, start=0)
    for _ in range(STEPS):
        next(batches)
    numbers = loader._numbers(256, seed=0, epoch=0)
    needed = 0
    before: set[int] = set()
    for step in range(len(numbers) - 1):
        now = set(numbers.blocks(step, slice(0, 256)))  # type: ignore[attr-defined]
        needed += len(now - before)
        before = now
    blocks = len(data.train.blocks)  # type: ignore[union-attr]
    (peak,) = re.findall(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(peak) >> 10, needed, blocks


@pytest.mark.long  # indexes a million items
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_million_items_take_little_memory_and_each_block_is_read_about_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    few, all_of_them = write(tmp_path / "few", 1, 10_000), write(tmp_path / "all", FILES, ROWS)
    for root in (few, all_of_them):
        subprocess.run([sys.executable, "-m", "toolkit", "data", "index", str(root)], check=True, capture_output=True)
    found = []
    for root in (few, all_of_them):
        asked = f"from tests.plugins.test_shards_large import read; print(*read({str(root)!r}))"
        printed = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
        found.append([int(word) for word in printed.split()])
    (small, _, _), (large, needed, blocks) = found
    print(f"{small} MiB for 10,000 items, {large} MiB for a million; {needed} of {blocks} blocks read in an epoch")
    assert large - small <= MORE
    assert blocks <= needed <= 1.1 * blocks
