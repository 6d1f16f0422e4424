"""What was seen of code of others while it ran."""

from __future__ import annotations


class Seen:
    """What was seen of some code, filled in when it has run."""

    def __init__(self, seconds: float = 0.0, printed: str = "", changed: tuple[str, ...] = ()) -> None:
        self.seconds = seconds
        """Wall time."""
        self.printed = printed
        """What went to standard output."""
        self.changed = changed
        """What it changed in the process, by the names in `isolation.STATES`, and the threads it left running."""
