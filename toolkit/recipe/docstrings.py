"""What a docstring says of arguments: lines `name: text`, continued by deeper indented lines."""

from __future__ import annotations

import re
from collections.abc import Collection

_DOCUMENTED = re.compile(r"^( *)`?(\w+)`?: +(\S.*(?:\n\1 +\S.*)*)", flags=re.MULTILINE)


def documented(docstring: str) -> dict[str, str]:
    """What a docstring says of each argument."""
    return {found[2]: re.sub(r"\s+", " ", found[3]) for found in _DOCUMENTED.finditer(docstring)}


def without_arguments(docstring: str, names: Collection[str]) -> str:
    """A docstring without what it says of these arguments."""
    kept = _DOCUMENTED.sub(lambda found: "" if found[2] in names else found[0], docstring)
    return re.sub(r"\n{3,}", "\n\n", kept).strip()
