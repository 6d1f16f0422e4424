from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from toolkit.system.environment import _group_memory, memory_available


def written(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_some_memory_is_available() -> None:
    assert 0 < memory_available() < sys.maxsize


@pytest.mark.parametrize(("limit", "left"), [("1000\n", 500), ("max\n", sys.maxsize)])
def test_pages_of_files_count_as_free_in_a_control_group(tmp_path: Path, limit: str, left: int) -> None:
    written(tmp_path, memory__max=limit, memory__current="900\n", memory__stat="anon 500\ninactive_file 400\n")
    assert _group_memory(tmp_path) == left


def test_a_control_group_of_version_1_is_read_too(tmp_path: Path) -> None:
    files = {"memory__limit_in_bytes": "1000\n", "memory__usage_in_bytes": "900\n"}
    written(tmp_path / "memory", **files, memory__stat="total_inactive_file 100\n")
    assert _group_memory(tmp_path) == 200


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert _group_memory(tmp_path) == sys.maxsize


@pytest.mark.parametrize(
    ("system", "machine", "wanted"),
    [
        ("linux", "x86_64", "onnxruntime-gpu"),
        ("linux", "aarch64", "onnxruntime"),
        ("darwin", "arm64", "onnxruntime"),
    ],
)
def test_every_kind_of_machine_gets_the_one_onnxruntime_that_is_published_for_it(
    system: str, machine: str, wanted: str
) -> None:
    """Two would write into one folder."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    kind = {"sys_platform": system, "platform_machine": machine}
    needed = [Requirement(line) for line in project["dependencies"]]
    taken = [one.name for one in needed if one.marker is None or one.marker.evaluate(kind)]
    assert [name for name in taken if name.startswith("onnxruntime")] == [wanted]
