"""A comparison as tables: on screen, in Markdown, CSV, LaTeX and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from rich.console import Console

from toolkit.api.answers import number, percent
from toolkit.runs.compare.comparison import Comparison, Estimated, Pair
from toolkit.runs.compare.contender import Contender, flattened
from toolkit.runs.compare.protocols import ABSENT
from toolkit.runs.directory import null_for_nan
from toolkit.runs.repeats import mean_and_deviation
from toolkit.runs.scores import interval_text, is_share, possible, score_text
from toolkit.runs.significance import Interval, over_runs
from toolkit.system.notices import cell, note, say, show

DASH = "—"
Columns: TypeAlias = dict[str, Callable[[Contender], str]]
"""What a column is called, and its text for each contender."""


@dataclass(frozen=True)
class Table:
    """Headings, and rows of as many texts; the first column names the row."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bold: tuple[int, int] | None = None
    """Row and column of the best score, where it is the best beyond chance."""
    spare: int = 0
    """Columns at the end that a screen without room for whole words does without."""

    @property
    def narrow(self) -> Table:
        kept = len(self.headings) - self.spare
        return Table(self.headings[:kept], tuple(row[:kept] for row in self.rows), self.bold)


def main_table(found: Comparison) -> Table:
    """One row a contender: its score and its difference from the first, with 95 % intervals, and what it cost."""
    return _table(found, _judged(found) | _cost(found))


def judged_table(found: Comparison) -> Table:
    """The main table without cost, which a narrow screen has room for."""
    return _table(found, _judged(found))


def cost_table(found: Comparison) -> Table:
    return _table(found, _cost(found))


def _table(found: Comparison, columns: Columns) -> Table:
    named: Columns = {"": lambda one: one.name, **columns}
    rows = tuple(tuple(column(one) for column in named.values()) for one in found.contenders)
    measured = f"{found.split} {found.measure}"
    bold = (
        None
        if found.best is None or measured not in named
        else (found.contenders.index(found.best), list(named).index(measured))
    )
    return Table(tuple(named), rows, bold)


def _judged(found: Comparison) -> Columns:
    return {
        **{key: _value_of(key) for key in _unlike_keys(found)},
        f"{found.split} {found.measure}": lambda one: estimated_text(found.measure, found.measured[one.name]),
        **(_differences(found) if found.pairs else {}),
    }


COST: Columns = {
    "runs": lambda one: str(len(one.runs)),
    "epochs": lambda one: _count_text(one.epochs),
    "training": lambda one: DASH if math.isnan(one.seconds) else f"{one.seconds:,.0f} s",
    "parameters": lambda one: DASH if one.parameters is None else f"{one.parameters:,}",
}
LATENCY: Columns = {"latency": lambda one: DASH if math.isnan(one.latency) else f"{one.latency:.3g} ms"}


def _cost(found: Comparison) -> Columns:
    """With the latency where a side is a bundle."""
    return COST if all(math.isnan(one.latency) for one in found.contenders) else {**COST, **LATENCY}


def _differences(found: Comparison) -> Columns:
    return {
        "difference": lambda one: _difference_text(found, found.against_first(one)),
        "p": lambda one: _p_text(found.against_first(one)),
        "better/worse": lambda one: _flips_text(found.against_first(one)),
    }


def scores_table(found: Comparison) -> Table:
    """One row a score, one column a contender, with 95 % intervals; scores that are equal everywhere share a row."""
    named: dict[tuple[str, ...], list[str]] = {}
    for name, values in found.scores.items():
        texts = tuple(DASH if value is None else estimated_text(name, value) for value in values)
        named.setdefault(texts, []).append(name)
    rows = [(" = ".join(names), *texts) for texts, names in named.items()]
    return Table(("score", *(one.name for one in found.contenders)), tuple(rows))


def runs_table(one: Contender) -> Table:
    """One row a score: mean, standard deviation and interval over the runs, and the value of each."""
    names = [run.directory.path.name for run in one.runs]
    rows = []
    for heading, values in _merged(one.scores).items():
        name = heading.partition(" = ")[0]
        mean, deviation, *each = (_text(name, value) for value in (*mean_and_deviation(values), *values))
        rows.append((heading, mean, deviation, interval_text(name, *possible(name, over_runs(values))) or DASH, *each))
    return Table(("score", "mean", "std", "95 % interval", *names), tuple(rows), spare=len(names))


def _merged(scores: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    """Scores that are equal in every run under one heading."""
    named: dict[tuple[str, ...], list[str]] = {}
    for name, values in scores.items():
        named.setdefault(tuple(_text(name, value) for value in values), []).append(name)
    return {" = ".join(names): scores[names[0]] for names in named.values()}


def _text(name: str, value: float) -> str:
    return DASH if math.isnan(value) else score_text(name, value)


def recipe_table(found: Comparison) -> Table:
    """The keys in which recipes differ."""
    rows = [(key, *map(value_text, values)) for key, values in found.recipes.items()]
    return Table(("recipe", *(one.name for one in found.contenders)), tuple(rows))


def estimated_text(name: str, one: Estimated) -> str:
    """`81.3 % [78.9, 83.5]`; without the interval where it is unknown."""
    if math.isnan(one.value):
        return "undefined"
    if is_share(name):
        return percent(one.value) + _interval_text(one.interval, lambda value: f"{100 * value:.1f}")
    return number(one.value) + _interval_text(one.interval, number)


def value_text(value: Any) -> str:
    """A value of a recipe or a protocol."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _interval_text(interval: Interval, text: Callable[[float], str]) -> str:
    return "" if math.isnan(interval.low) else f" [{text(interval.low)}, {text(interval.high)}]"


def _difference_text(found: Comparison, pair: Pair | None) -> str:
    if pair is None or math.isnan(pair.difference):
        return DASH
    wide = pair.interval if math.isnan(pair.over_runs.low) else pair.over_runs
    if found.shares:
        return f"{100 * pair.difference:+.1f}" + _interval_text(wide, lambda value: f"{100 * value:+.1f}")
    return f"{pair.difference:+.4g}" + _interval_text(wide, lambda value: f"{value:+.4g}")


def _p_text(pair: Pair | None) -> str:
    return DASH if pair is None else f"{pair.corrected:.2g}"


def _flips_text(pair: Pair | None) -> str:
    if pair is None or not (pair.flips.better or pair.flips.worse):
        return DASH
    return f"{len(pair.flips.better):,}/{len(pair.flips.worse):,}"


def _count_text(count: float) -> str:
    return DASH if math.isnan(count) else f"{count:g}"


def _unlike_keys(found: Comparison) -> list[str]:
    """Keys of the protocols that differ, where they are compared nevertheless."""
    if not found.unlike:
        return []
    tables = [flattened(one.protocols[0]) for one in found.contenders]
    keys = dict.fromkeys(key for table in tables for key in table)
    return [key for key in keys if any(table.get(key) != tables[0].get(key) for table in tables)]


def _value_of(key: str) -> Callable[[Contender], str]:
    return lambda one: value_text(flattened(one.protocols[0]).get(key, ABSENT))


def markdown(table: Table) -> str:
    """A table of GitHub's Markdown; bars and angle brackets of names are escaped."""
    lines = [*_texts(table, _safe, "**{}**")]
    lines.insert(1, ["---"] * len(table.headings))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex(table: Table) -> str:
    """A tabular of the package booktabs."""
    headings, *rows = (f"{' & '.join(line)} \\\\\n" for line in _texts(table, _escaped, "\\textbf{{{}}}"))
    return (
        "% \\usepackage{booktabs}\n"
        f"\\begin{{tabular}}{{l{'r' * (len(table.headings) - 1)}}}\n"
        f"\\toprule\n{headings}\\midrule\n{''.join(rows)}\\bottomrule\n"
        "\\end{tabular}\n"
    )


def _texts(table: Table, escape: Callable[[str], str], bold: str) -> Iterator[list[str]]:
    """The headings and the rows, escaped; the best score is put into `bold`."""
    yield [*map(escape, table.headings)]
    for row, texts in enumerate(table.rows):
        yield [
            bold.format(escape(text)) if (row, column) == table.bold else escape(text)
            for column, text in enumerate(texts)
        ]


def comma_separated(table: Table) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([table.headings, *table.rows])
    return file.getvalue()


def as_json(found: Comparison) -> str:
    """All numbers of a comparison: shares 0..1, p-values after Holm's correction."""
    contenders = [
        {
            "name": one.name,
            "runs": [str(run.directory.path) for run in one.runs],
            "measure": _plain(found.measured[one.name]),
            "scores": {name: _plain(values[place]) for name, values in found.scores.items()},
            "values": one.scores,
            "epochs": one.epochs,
            "seconds": one.seconds,
            "parameters": one.parameters,
            "latency_ms": one.latency,
        }
        for place, one in enumerate(found.contenders)
    ]
    pairs = [
        {
            "first": pair.first.name,
            "second": pair.second.name,
            "difference": pair.difference,
            "interval_over_items": pair.interval,
            "interval_over_runs": pair.over_runs,
            "test": pair.test,
            "p_value": pair.p_value,
            "corrected": pair.corrected,
            "significant": pair.significant,
            "items": pair.items,
            "better": pair.flips.better,
            "worse": pair.flips.worse,
        }
        for pair in found.pairs
    ]
    whole = {
        "split": found.split,
        "measure": found.measure,
        "unlike_protocols": found.unlike,
        "contenders": contenders,
        "pairs": pairs,
        "recipes": found.recipes,
        "best": None if found.best is None else found.best.name,
    }
    return json.dumps(null_for_nan(whole), indent=2, ensure_ascii=False, default=str) + "\n"


FORMATS: Mapping[str, Callable[[Comparison], str]] = {
    ".md": lambda found: markdown(main_table(found)),
    ".csv": lambda found: comma_separated(main_table(found)),
    ".tex": lambda found: latex(main_table(found)),
    ".json": as_json,
}
"""What a file holds, by its suffix."""


def print_comparison(found: Comparison, console: Console) -> None:
    """The main table, every score, what differs, and what each pair says."""
    for text in found.unlike:
        note(f"unlike protocols: {text}", console)
    show(f"{found.split} {found.measure}, with 95 % intervals", console=console)
    print_table(judged_table(found), console)
    print_table(cost_table(found), console)
    if found.pairs:
        print_table(scores_table(found), console)
    elif len(found.contenders[0].runs) > 1:
        print_table(runs_table(found.contenders[0]), console)
    if found.recipes:
        print_table(recipe_table(found), console)
    for pair in found.pairs:
        say(pair.sentence, console)


def print_table(table: Table, console: Console) -> None:
    from rich.table import Table as Shown

    if table.spare and _least_width(table) > console.width:
        table = table.narrow
    whole = _least_width(table) <= console.width
    shown = Shown()
    for place, heading in enumerate(table.headings):
        shown.add_column(
            cell(heading), justify="right" if place else "left", overflow="fold", no_wrap=whole and place > 0
        )
    for row in table.rows:
        shown.add_row(*map(cell, row))
    console.print(shown)


def _least_width(table: Table) -> int:
    """Of a screen where nothing but the names of rows takes several lines, and no word of these does."""
    names, *columns = zip(table.headings, *table.rows, strict=True)
    longest_word = max(len(word) for name in names for word in name.split())
    borders = 3 * len(table.headings) + 1
    return longest_word + sum(max(map(len, column)) for column in columns) + borders


def _safe(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


_SPECIAL = {char: f"\\{char}" for char in "&%$#_{}"} | {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "—": "---",
    "±": "$\\pm$",
}


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(char, char) for char in " ".join(text.split()))


def _plain(one: Estimated | None) -> dict[str, Any] | None:
    return None if one is None else {"value": one.value, "interval": one.interval, "over": one.over}
