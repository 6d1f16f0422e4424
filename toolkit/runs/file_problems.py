"""Every file that a run's notes are about, in `files.csv`: a note has room for a few of them."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.api.contracts import FileProblem
from toolkit.api.files import csv_text
from toolkit.runs.directory import RunDirectory

COLUMNS = ("path", "problem", "other")


def write_file_problems(directory: RunDirectory, problems: Sequence[FileProblem]) -> None:
    """Write files.csv; a run without problems has none."""
    if not problems:
        directory.remove(directory.file_problems)
        return
    rows = [COLUMNS, *((one.path, one.problem, one.other) for one in problems)]
    directory.write_text(directory.file_problems, csv_text(rows))


def read_file_problems(directory: RunDirectory) -> list[FileProblem]:
    """The rows of files.csv; none where there is no such file. Raises DataError where it is damaged."""
    return directory.read_rows(
        directory.file_problems, lambda row: FileProblem(*(row[column] or "" for column in COLUMNS))
    )
