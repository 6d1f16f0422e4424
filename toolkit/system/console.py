"""Standard output of commands that work for long."""

from __future__ import annotations

import sys

from rich.console import Console

from toolkit.system.streams import lead_nowhere


class LastingConsole(Console):
    """Goes quiet when nobody reads it any more, as in `run ... | head -1`: the work goes on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        lead_nowhere(sys.stdout)
