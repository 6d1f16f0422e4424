"""The text of a recipe with a comment for each choice."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

from toolkit.api.errors import printable
from toolkit.cli.init.choices import Choice, Table
from toolkit.recipe.write import inline

WIDTH = 118
UNWRITABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
"""Control characters, and bytes of names that are not UTF-8: TOML has neither."""


def compose(title: Sequence[str], tables: Sequence[Table]) -> str:
    """The recipe of these tables; tables without keys are skipped."""
    blocks = [[_comment(line) for line in title]]
    blocks += [[table.header, *_lines(table.choices)] for table in tables if table.choices]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _lines(choices: Sequence[Choice]) -> Iterator[str]:
    for choice in choices:
        line, comment = f"{choice.key} = {inline(choice.value)}", _comment(choice.why)
        if not choice.why:
            yield line
        elif len(line) + len(comment) < WIDTH:
            yield f"{line} {comment}"
        else:
            yield from textwrap.wrap(comment, WIDTH, subsequent_indent="# ")
            yield line


def _comment(text: str) -> str:
    """`text` as a comment of one line: names of files, which it may hold, can have any character."""
    return f"# {printable(text)}"
