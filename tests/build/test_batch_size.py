"""`train.batch = "auto"`: which batch is chosen, and that it stays."""

from __future__ import annotations

import json
import tomllib
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch

from tests import tiny
from tests.ranks import together
from toolkit.build import batch_size
from toolkit.build.batch_size import halved_until, settled
from toolkit.build.kept import Kept
from toolkit.build.plan import plan
from toolkit.cli.main import main
from toolkit.host.registry import discover
from toolkit.recipe.read import parse
from toolkit.system.ranks import Ranks


def chosen(folder: Path, *overrides: str) -> int:
    recipe = tiny.write_recipe(folder)
    draft = parse(recipe, ["train.batch=auto", "data.sample_images=20", *overrides])
    return settled(plan(draft, discover()), Kept()).resolved.train.batch_size


def test_an_epoch_keeps_enough_steps(tmp_path: Path) -> None:
    # 160 training items: 16 steps of 8 fit into an epoch, 16 of 16 do not
    assert chosen(tmp_path) == 8


def test_the_memory_of_a_step_is_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, "STEPS", 1)
    free = chosen(tmp_path)
    assert free == 128
    monkeypatch.setattr(batch_size, "memory_available", lambda: 2 * 1_000_000)
    tight = chosen(tmp_path)
    assert 2 <= tight < free
    monkeypatch.setattr(batch_size, "memory_available", lambda: 2 * 2_000_000)
    assert chosen(tmp_path) == 2 * tight


def _chosen(ranks: Ranks, *, folder: Path) -> Any:
    """Rank 1 has memory for a single item."""
    draft = parse(tiny.write_recipe(folder / str(ranks.rank)), ["train.batch=auto", "data.sample_images=20"])
    free = 10**9 if ranks.leads else 0
    with patch.object(batch_size, "STEPS", 1), patch.object(batch_size, "memory_available", lambda: free):
        return settled(plan(draft, discover()), Kept(), ranks).resolved.train.batch_size


def test_ranks_agree_on_what_the_smallest_takes(tmp_path: Path) -> None:
    for rank in "01":
        (tmp_path / rank).mkdir()
    assert together(partial(_chosen, folder=tmp_path), 2) == [8, 8]


def test_each_part_of_a_step_has_two_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, "memory_available", lambda: 0)
    assert chosen(tmp_path, "train.accumulate=4") == 8


def test_a_gpu_tries_half_as_many_until_a_step_fits() -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= 16

    assert halved_until(fits, 128, 2) == 16
    assert tried == [128, 64, 32, 16]
    assert halved_until(lambda _: False, 128, 4) == 4


class Gpu:
    """An allocator of `total` bytes, of which others hold `taken`: an item takes one byte, rounded up to `block`."""

    def __init__(self, total: int, taken: int = 0, block: int = 1) -> None:
        self.total, self.taken, self.block = total, taken, block
        self.reserved = self.peak = 0
        self.tried: list[int] = []
        self.emptied = 0

    def step(self, _state: object, _setup: object, size: int) -> None:
        self.tried.append(size)
        wanted = -(-size // self.block) * self.block
        if wanted > self.total - self.taken:
            raise torch.OutOfMemoryError(f"tried to allocate {wanted} bytes")
        self.reserved = max(self.reserved, wanted)
        self.peak = max(self.peak, self.reserved)

    def empty_cache(self) -> None:
        self.reserved = 0
        self.emptied += 1

    def reset(self, _device: object) -> None:
        self.peak = self.reserved


def on(gpu: Gpu, items: int, monkeypatch: pytest.MonkeyPatch, folder: Path, *overrides: str) -> int:
    """The batch that is chosen on a made-up GPU, of so many items to train on."""
    cleared: list[bool] = []
    state = SimpleNamespace(optimizer=SimpleNamespace(zero_grad=lambda *, set_to_none: cleared.append(set_to_none)))
    built = SimpleNamespace(device=torch.device("cuda"), train=SimpleNamespace(training_items=items))
    monkeypatch.setattr(batch_size, "assemble", lambda *_, **__: built)
    monkeypatch.setattr(batch_size, "training", lambda _: (state, None))
    monkeypatch.setattr(batch_size, "train_step", gpu.step)
    monkeypatch.setattr(batch_size, "training_noise", lambda _, size: size)
    monkeypatch.setattr(batch_size, "synchronize", lambda _: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (gpu.total - gpu.taken - gpu.reserved, gpu.total))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: gpu.reserved)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: gpu.peak)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", gpu.reset)
    monkeypatch.setattr(torch.cuda, "empty_cache", gpu.empty_cache)
    found = chosen(folder, *overrides)
    assert cleared == [True] * len(gpu.tried)
    assert gpu.emptied == len(gpu.tried)
    return found


@pytest.mark.parametrize(
    ("gpu", "batch", "tried"),
    [
        (Gpu(10_000), 1024, [1024]),
        (Gpu(1024), 512, [1024, 512]),  # all of it fits, but nine tenths are the limit
        (Gpu(10_000, taken=9_900), 64, [1024, 512, 256, 128, 64]),
        (Gpu(10_000, taken=9_900, block=100), 2, [1024, 512, 256, 128, 64, 32, 16, 8, 4]),
        (Gpu(1), 2, [1024, 512, 256, 128, 64, 32, 16, 8, 4]),
    ],
    ids=["enough", "a full GPU", "another process", "large blocks", "nothing fits"],
)
def test_a_gpu_takes_the_largest_batch_whose_step_leaves_room(
    gpu: Gpu, batch: int, tried: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert on(gpu, 10**6, monkeypatch, tmp_path) == batch
    assert gpu.tried == tried


def test_an_epoch_keeps_enough_steps_on_a_gpu_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert on(Gpu(10_000), 16 * 40, monkeypatch, tmp_path) == 32
    small = Gpu(10_000)
    assert on(small, 10, monkeypatch, tmp_path, "train.accumulate=2") == 4
    assert small.tried == []


def test_a_run_records_its_batch_and_resumes_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tiny.write_recipe(tmp_path, tiny.write_images(tmp_path / "images"))
    assert tiny.run(recipe, tmp_path / "runs", "train.batch=auto", "train.epochs=1") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "batch 2, chosen as the largest that fits; the learning rate stays 0.05" in printed
    run = next(path for path in (tmp_path / "runs" / "tiny").iterdir() if not path.is_symlink())
    assert tomllib.loads((run / "recipe.toml").read_text("utf-8"))["train"]["batch"] == 2
    assert json.loads((run / "facts.json").read_text("utf-8"))["changed"]["train.batch"] == "2"
    # its own recipe still says auto
    sets = tiny.overridden(["train.batch=auto", "train.epochs=1"])
    assert main(["run", str(recipe), "--resume", str(run), *sets]) == 0


@pytest.mark.parametrize("space", ["train.epochs = {low = 1, high = 2}", "train.batch = {choices = [8, 'auto']}"])
def test_a_study_needs_numbers(space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tune = f"[tune]\ntrials = 2\n[tune.space]\n{space}\n"
    recipe = tiny.write_recipe(tmp_path, text=tiny.RECIPE + tune)
    assert main(["check", str(recipe), "--recipe-only", "--set", "train.batch=auto"]) == 2
    assert '"auto" could choose another batch on each worker' in capsys.readouterr().err
