"""What the page and other clients must know to ask a model."""

from __future__ import annotations

from typing import Any

from toolkit.serving.bundle.manifest import Manifest
from toolkit.serving.server.settings import Limits

MOST_FILES = 64
"""Files of one request."""


def listed(manifest: Manifest, setting: str, batch: int) -> dict[str, Any]:
    """A model, which runs in this `setting`, in batches of up to `batch`."""
    clip = manifest.clip
    return {
        "name": manifest.name,
        "created": manifest.created,
        "digest": manifest.digest,
        "setting": setting,
        "form": manifest.form,
        "classes": [*manifest.classes],
        "takes": "images" if clip is None else "clips",
        "frames": manifest.input.frames,
        "span": getattr(manifest.sampling, "span", None),
        "sample": manifest.sample,
        "batch": batch,
        "maps": gives_maps(manifest),
    }


def gives_maps(manifest: Manifest) -> bool:
    """Whether answers to images may have heat maps."""
    return manifest.maps is not None and manifest.clip is None


def shown_limits(limits: Limits) -> dict[str, Any]:
    """What a request may take."""
    return {"bytes": limits.body, "pixels": limits.pixels, "seconds": limits.seconds, "files": MOST_FILES}
