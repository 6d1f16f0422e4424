"""Videos: the networks of PyTorchVideo for clips."""

from __future__ import annotations

from toolkit import hookimpl
from toolkit_video.names import MODELS


@hookimpl
def toolkit_models() -> dict[str, str]:
    return {name: f"toolkit_video.models:{name}" for name in MODELS}
