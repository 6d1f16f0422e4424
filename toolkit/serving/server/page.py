"""The page to try a model: one file with its style and its script, which loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources


@cache
def page() -> str:
    """Its HTML."""
    return (resources.files("toolkit.serving.server") / "page.html").read_text(encoding="utf-8")


@cache
def policy() -> str:
    """What a browser may do for it (Content-Security-Policy): run its own script and ask this server alone."""
    scripts, styles = (_digests(tag) for tag in ("script", "style"))
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {scripts}",
            f"style-src {styles}",
            "img-src 'self' blob: data:",
            "media-src blob:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _digests(tag: str) -> str:
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", page(), re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in found)
