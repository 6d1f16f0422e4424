"""What the items of predictions.csv come from, in `sources.csv`: items of one source are drawn together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from toolkit.api.files import csv_text
from toolkit.runs.directory import RunDirectory

COLUMNS = ("id", "source")


def write_sources(directory: RunDirectory, ids: Iterable[str], sources: Mapping[str, str]) -> None:
    """Write sources.csv for those of the items that have a source; a run without any has none."""
    rows = [(name, sources[name]) for name in ids if name in sources]
    if not rows:
        directory.remove(directory.sources)
        return
    directory.write_text(directory.sources, csv_text([COLUMNS, *rows]))


def read_sources(directory: RunDirectory) -> dict[str, str]:
    """The source of each item by id; empty where there is no such file. Raises DataError where it is damaged."""
    return dict(directory.read_rows(directory.sources, lambda row: (row["id"], row["source"])))
