"""What a bare machine lacks: packages, from wheels that were carried there, and an installed toolkit."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.gpu.machine import ROOT
from toolkit.api.errors import UsageError

LINES = 10
"""Last lines of pip that an error shows."""


@contextmanager
def importable(wheels: Path | None) -> Iterator[None]:
    """The toolkit of this checkout, its plugins and the packages in the folder `wheels` can be imported inside, also by
    processes that are started there; another checkout that is installed is not measured. Nothing outside a temporary
    folder is changed. Raises UsageError where pip fails."""
    with TemporaryDirectory() as folder:
        site = Path(folder)
        if wheels is not None:
            _install(wheels, site)
        if not _is_installed():
            _declare(site)
        added = [str(ROOT), str(ROOT / "plugins"), str(site)]
        before = os.environ.get("PYTHONPATH")
        sys.path[:0] = added
        os.environ["PYTHONPATH"] = os.pathsep.join([*added, *([before] if before else [])])
        try:
            yield
        finally:
            del sys.path[: len(added)]
            del os.environ["PYTHONPATH"]
            if before is not None:
                os.environ["PYTHONPATH"] = before


def _install(wheels: Path, site: Path) -> None:
    found = sorted(wheels.glob("*.whl"))
    again = "name a folder of wheels, one version of each package: python -m bench gpu --wheels FOLDER"
    if not found:
        raise UsageError(f"--wheels {wheels}: no wheel found there", next_step=again)
    words = ("install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--target", str(site))
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, *map(str, found)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        details = done.stderr.splitlines()[-LINES:]
        raise UsageError(f"--wheels {wheels}: pip cannot install them", details=details, next_step=again)


def _is_installed() -> bool:
    try:
        metadata.distribution("vision-toolkit")
    except metadata.PackageNotFoundError:
        return False
    return True


def _declare(site: Path) -> None:
    """The entry points of this checkout, as an installation writes them: plugins are found by them alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = site / "vision_toolkit-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0\n", encoding="utf-8")
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    lines = [
        line
        for group, entries in groups.items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
