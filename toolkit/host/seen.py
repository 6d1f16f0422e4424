"""What was seen of code of others while it ran."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Seen:
    """What was seen of some code, filled in when it has run."""

    seconds: float = 0.0
    """Wall time."""
    printed: str = ""
    """What went to standard output."""
    changed: tuple[str, ...] = ()
    """What it changed in the process, by the names in `isolation.STATES`, and the threads it left running."""
