"""The page to try a model: one file with its style and its script, which loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources

_WASM = " blob: 'wasm-unsafe-eval'"


@cache
def page() -> str:
    """Its HTML."""
    return (resources.files("toolkit.serving.server") / "page.html").read_text(encoding="utf-8")


@cache
def policy() -> str:
    """What a browser may do for it (Content-Security-Policy): run its own script and ask this server alone."""
    return rules(page())


def rules(text: str, *, local: bool = False) -> str:
    """The same for the page `text`. A `local` one asks nobody, and computes by WebAssembly of its own."""
    scripts, styles = (_digests(tag, text) for tag in ("script", "style"))
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {scripts}{_WASM if local else ''}",
            f"style-src {styles}",
            "img-src 'self' blob: data:",
            "media-src blob:",
            "connect-src 'none'" if local else "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            *(() if local else ("frame-ancestors 'none'",)),  # of no effect within a page
        )
    )


def _digests(tag: str, text: str) -> str:
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in found)
