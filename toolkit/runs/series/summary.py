"""What a series ends with: a table on screen, in Markdown, CSV, LaTeX and JSON, and one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from toolkit.runs.compare.comparison import compare
from toolkit.runs.compare.contender import members_compared
from toolkit.runs.compare.page import write_page
from toolkit.runs.compare.tables import FORMATS, print_comparison
from toolkit.runs.directory import RunDirectory
from toolkit.runs.series.members import Member
from toolkit.system.notices import note, show

TABLE, PAGE = "table", "series.html"


def summarise(folder: Path, members: Sequence[Member], failures: Mapping[str, str], console: Console) -> None:
    """Print and write the summary of the runs that ended; nothing where none did."""
    sides = members_compared(folder, members)
    if not sides:
        return
    found = compare(sides)
    print_comparison(found, console)
    for run in failures:
        note(f"{run} failed and is not part of the summary", console)
    for suffix, text in FORMATS.items():
        path = (folder / TABLE).with_suffix(suffix)
        RunDirectory(folder).write_text(path, text(found))
        show(f"table {path}", console=console)
    show(f"report {write_page(found, folder / PAGE, command='run')}", console=console)
