"""Pages in the browser of the person who works here."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from toolkit.system.notices import note


def open_page(page: Path) -> None:
    """Show a page in the default browser. Where no browser is found, as on a server, a note names the file."""
    try:
        shown = webbrowser.open(page.resolve().as_uri())
    except webbrowser.Error:
        shown = False
    if not shown:
        note(f"no browser found on this machine: open {page} on another one")
