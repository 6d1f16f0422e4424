"""The text of a recipe with a comment for each choice."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from toolkit.cli.init.choices import Choice, Table
from toolkit.recipe.write import inline

WIDTH = 118


def compose(title: Sequence[str], tables: Sequence[Table]) -> str:
    """The recipe of these tables; tables without keys are skipped."""
    blocks = [[f"# {line}" for line in title]]
    blocks += [[table.header, *_lines(table.choices)] for table in tables if table.choices]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _lines(choices: Sequence[Choice]) -> Iterator[str]:
    for choice in choices:
        line = f"{choice.key} = {inline(choice.value)}"
        if not choice.why:
            yield line
        elif len(line) + len(choice.why) + 3 <= WIDTH:
            yield f"{line} # {choice.why}"
        else:
            yield from (f"# {part}" for part in textwrap.wrap(choice.why, WIDTH - 2))
            yield line
