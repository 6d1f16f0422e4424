"""Cores and memory of this machine, and of the control groups that limit them."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import pytest

from toolkit.system.machine import (
    allowed_cores,
    has_gpu,
    memory_available,
    physical_cores,
    processor,
    total_memory,
)

FREE = 1 << 30


def written(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text(f"MemTotal: {1 << 30} kB\nMemAvailable:   {FREE // 1024} kB\n")
    return path


def test_the_processor_has_a_name() -> None:
    assert processor()


def test_some_memory_is_available() -> None:
    assert 0 < memory_available() < sys.maxsize


@pytest.mark.parametrize(("limit", "left"), [("1000\n", 500), ("max\n", FREE), ("100\n", 0)])
def test_pages_of_files_count_as_free_in_a_control_group(tmp_path: Path, meminfo: Path, limit: str, left: int) -> None:
    written(tmp_path, memory__max=limit, memory__current="900\n", memory__stat="anon 500\ninactive_file 400\n")
    assert memory_available(tmp_path, meminfo) == left


def test_a_control_group_of_version_1_is_read_too(tmp_path: Path, meminfo: Path) -> None:
    files = {"memory__limit_in_bytes": "1000\n", "memory__usage_in_bytes": "900\n"}
    written(tmp_path / "memory", **files, memory__stat="total_inactive_file 100\n")
    assert memory_available(tmp_path, meminfo) == 200


def test_without_control_groups_there_is_no_limit(tmp_path: Path, meminfo: Path) -> None:
    assert memory_available(tmp_path, meminfo) == FREE


def test_where_the_system_does_not_say_what_is_free_half_is_taken(tmp_path: Path) -> None:
    assert memory_available(tmp_path, tmp_path / "none") == (total_memory() or 0) // 2


def test_cores_are_counted_once_and_within_the_quota(tmp_path: Path) -> None:
    group, topology = tmp_path / "group", tmp_path / "topology"
    group.mkdir()
    allowed = allowed_cores()
    assert allowed == sorted(os.sched_getaffinity(0))
    assert physical_cores(group, topology) == len(allowed)
    for number in allowed:
        (topology / f"cpu{number}/topology").mkdir(parents=True)
        (topology / f"cpu{number}/topology/thread_siblings_list").write_text("0-63\n")
    assert physical_cores(group, topology) == 1
    (group / "cpu.max").write_text("50000 100000\n")
    assert physical_cores(group, tmp_path) == 1
    (group / "cpu.max").write_text("max 100000\n")
    assert physical_cores(group, tmp_path) == len(allowed)
    (group / "cpu.max").unlink()
    (group / "cpu").mkdir()
    (group / "cpu/cpu.cfs_quota_us").write_text("100000\n")
    (group / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert physical_cores(group, tmp_path) == 1


def test_a_gpu_is_seen_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert not has_gpu(tmp_path)
    (tmp_path / "nvidiactl").touch()
    assert not has_gpu(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert has_gpu(tmp_path)
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert not has_gpu(tmp_path)


def test_the_gpus_of_macos_are_not_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert not has_gpu(tmp_path)
