"""Installs throw-away plugins the way pip would: a module and a `.dist-info` folder on `sys.path`."""

from __future__ import annotations

import textwrap
from pathlib import Path


def install(
    site: Path, distribution: str, modules: dict[str, str], entries: dict[str, str], version: str = "1.0"
) -> None:
    """Put `modules` (name to source) and a distribution with these entry points of group `toolkit` into `site`."""
    for name, source in modules.items():
        (site / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
    info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    lines = [f"{entry} = {value}" for entry, value in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(["[toolkit]", *lines, ""]), encoding="utf-8")
