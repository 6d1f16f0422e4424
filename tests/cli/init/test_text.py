"""The text of a recipe."""

from __future__ import annotations

import tomllib

from toolkit.cli.init.choices import Choice, Table
from toolkit.cli.init.text import compose


def test_each_choice_has_its_reason_next_to_it_or_above() -> None:
    long = "because " * 20
    tables = [
        Table("[data]", (Choice("name", "x", "found files"), Choice("root", 'C:\\a "b"', long.strip()))),
        Table("[input]", ()),
        Table("[[augment]]", (Choice("name", "flip"),)),
    ]
    text = compose(["First.", "Second."], tables)
    lines = text.splitlines()
    assert lines[:4] == ["# First.", "# Second.", "", "[data]"]
    assert 'name = "x" # found files' in lines
    above = lines[lines.index('root = "C:\\\\a \\"b\\""') - 2 :][:2]
    assert all(line.startswith("# because") and len(line) <= 118 for line in above)
    assert "[input]" not in text
    assert tomllib.loads(text) == {"data": {"name": "x", "root": 'C:\\a "b"'}, "augment": [{"name": "flip"}]}


def test_a_name_with_a_line_break_stays_in_its_comment() -> None:
    text = compose(["classes: a\nseed = 3"], [Table("[data]", (Choice("name", "x", 'file b\n[task]\nname = "y"'),))])
    assert tomllib.loads(text) == {"data": {"name": "x"}}
