"""Models that are built without the Hugging Face Hub, for their configurations are written down here: a run on the
sample, a check of a recipe and a run that goes on need no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.api.contracts import InputDesign

_CENTRED = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Published:
    """A model as its publisher's repository describes it."""

    config: Mapping[str, Any]
    """What its config.json has besides the defaults of its `model_type`."""
    takes: InputDesign
    licence: str


def _vit(model_type: str, **others: Any) -> dict[str, Any]:
    return {"model_type": model_type, **others}


_SMALL = {"hidden_size": 384, "num_attention_heads": 6}
PUBLISHED: Mapping[str, Published] = {
    "MCG-NJU/videomae-small-finetuned-kinetics": Published(
        _vit("videomae", **_SMALL, intermediate_size=1536), InputDesign(16, 4, 224, 256), "cc-by-nc-4.0"
    ),
    "MCG-NJU/videomae-base-finetuned-kinetics": Published(
        _vit("videomae"), InputDesign(16, 4, 224, 256), "cc-by-nc-4.0"
    ),
    "facebook/dinov2-base": Published(
        _vit("dinov2", image_size=518, patch_size=14), InputDesign(None, None, 224, 256), "apache-2.0"
    ),
    "facebook/dinov2-small": Published(
        _vit("dinov2", **_SMALL, image_size=518, patch_size=14), InputDesign(None, None, 224, 256), "apache-2.0"
    ),
    "facebook/timesformer-base-finetuned-k400": Published(
        _vit("timesformer"),
        InputDesign(8, 32, 224, 256, (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)),
        "cc-by-nc-4.0",
    ),
    "facebook/vjepa2-vitl-fpc64-256": Published(_vit("vjepa2"), InputDesign(64, 8, 256, 292), "mit"),
    "google/vit-base-patch16-224": Published(_vit("vit"), InputDesign(None, None, 224, 224, *_CENTRED), "apache-2.0"),
    "google/vivit-b-16x2-kinetics400": Published(_vit("vivit"), InputDesign(32, 2, 224, 256, *_CENTRED), "mit"),
}
