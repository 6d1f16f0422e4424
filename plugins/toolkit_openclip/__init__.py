"""CLIP models of open_clip: zero-shot classification by the names of the classes."""

from __future__ import annotations

from toolkit import hookimpl
from toolkit.api.contracts import Model


@hookimpl
def toolkit_models() -> dict[str, Model]:
    return {"openclip": Model("toolkit_openclip.models:zero_shot", takes="toolkit_openclip.names:design", settled=True)}
