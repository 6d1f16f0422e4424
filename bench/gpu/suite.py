"""The tests that need a GPU, by pytest in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from bench.gpu.machine import ROOT
from bench.gpu.rows import Row
from bench.gpu.schedule import Setting

MARK = "pytest.mark.gpu"


def marked(setting: Setting) -> Iterator[Row]:
    """How many of the marked tests pass. A rehearsal runs those of one file, which skip where no GPU is found."""
    files = sorted(path for path in (ROOT / "tests").rglob("test_*.py") if MARK in path.read_text(encoding="utf-8"))
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = ("-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", f"--junitxml={report}")
        chosen = files[:1] if setting.rehearsal else files
        done = subprocess.run([sys.executable, *words, *map(str, chosen)], cwd=ROOT, check=False)
        if not report.exists():
            raise SystemExit(f"pytest wrote no report: exit code {done.returncode}")
        yield counted(report, rehearsal=setting.rehearsal)


def counted(report: Path, *, rehearsal: bool) -> Row:
    """The row of a JUnit report: a test that skips on a GPU has not passed."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    ended = {"failed": ("failure", "error"), "skipped": ("skipped",)}
    named = {
        how: [str(case.get("name")) for case in cases if any(case.find(tag) is not None for tag in tags)]
        for how, tags in ended.items()
    }
    passed = len(cases) - sum(map(len, named.values()))
    facts = tuple(f"{how}: {', '.join(names)}" for how, names in named.items() if names)
    goal = None if rehearsal else max(len(cases), 1)
    return Row("tests passed", passed, "tests", len(cases), at_least=goal, facts=facts)
