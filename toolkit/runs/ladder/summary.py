"""What a ladder ends with: a table on screen and in files, and one page that compares its steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from toolkit.runs.compare.comparison import compare
from toolkit.runs.compare.contender import Contender
from toolkit.runs.compare.page import write_page
from toolkit.runs.compare.tables import DASH, Table, comma_separated, estimated_text, latex, markdown, print_table
from toolkit.runs.directory import RunDirectory
from toolkit.runs.ladder.steps import STEPS, Climb, Cost
from toolkit.system.notices import say, show

PAGE, TABLE = "ladder.html", "table"


def summarise(folder: Path, done: Sequence[Contender], climb: Climb, console: Console) -> None:
    """Print and write what the steps are worth."""
    found = compare(done)
    titles = {step.name: step.title for step in STEPS}
    measured = f"{found.split} {found.measure}"
    rows = []
    for place, one in enumerate(done):
        cost = climb.costs.get(one.name, Cost(math.nan, 0, math.nan))
        gain = DASH
        if place:
            pair = next(pair for pair in found.pairs if pair.first is done[place - 1] and pair.second is one)
            gain = f"{100 * pair.gain:+.1f} (p = {pair.corrected:.2g})"
        score = estimated_text(found.measure, found.measured[one.name])
        rows.append((one.name, titles[one.name], score, gain, *_texts(cost)))
    headings = ("step", "what is trained", measured, "points gained", "seconds", "memory", "one item")
    table = Table(headings, tuple(rows))
    print_table(_without(table, 1), console)  # which was printed as each step began
    if found.best is not None:
        say(f"best, beyond chance: {found.best.name}", console)
    directory = RunDirectory(folder)
    for suffix, text in ((".md", markdown), (".csv", comma_separated), (".tex", latex)):
        path = (folder / TABLE).with_suffix(suffix)
        directory.write_text(path, text(table))
        show(f"table {path}", console=console)
    show(f"report {write_page(found, folder / PAGE, main=table, command='ladder')}", console=console)


def _texts(cost: Cost) -> tuple[str, str, str]:
    seconds = DASH if math.isnan(cost.seconds) else f"{cost.seconds:,.1f}"
    memory = f"{cost.memory / 2**30:.2f} GiB" if cost.memory else DASH
    answer = DASH if math.isnan(cost.latency) else f"{1000 * cost.latency:.1f} ms"
    return seconds, memory, answer


def _without(table: Table, column: int) -> Table:
    rows = [(*row[:column], *row[column + 1 :]) for row in (table.headings, *table.rows)]
    return Table(rows[0], tuple(rows[1:]))
