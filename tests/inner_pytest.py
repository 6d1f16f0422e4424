"""pytest in a process of its own, which no options of the outer one reach."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def inner_pytest(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in `folder`, whose modules it finds first. Warnings are errors; `PYTEST_ADDOPTS` does not count."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, sys.path)])
    command = [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
