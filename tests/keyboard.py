"""Pages used by the keyboard alone."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect


def choose(page: Page, file: Path) -> None:
    """Go to the button `#choose` and choose a file. Someone must have listened to the page's file chooser before."""
    expect(page.locator("#choose")).to_be_enabled()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "choose":
            break
    expect(page.locator("#choose")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([file])
