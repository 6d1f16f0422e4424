"""Videos: the networks of PyTorchVideo for clips."""

from __future__ import annotations

from toolkit import hookimpl
from toolkit.api.contracts import Model
from toolkit_video.designs import DESIGNS, LICENCES


@hookimpl
def toolkit_models() -> dict[str, Model]:
    return {
        name: Model(f"toolkit_video.models:{name}", takes=design.takes, licences=LICENCES[design.library])
        for name, design in DESIGNS.items()
    }
