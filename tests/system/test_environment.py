from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement


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
