"""What timm calls its models and their weights, what it says of them, and what a name meant that it does not know."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from toolkit.api.contracts import InputDesign
from toolkit.api.errors import nearest
from toolkit.api.extras import require
from toolkit.transfer.licences import UNKNOWN

SIDE = 224
"""Pixels, for a model of which timm knows no published weights."""


def timm() -> ModuleType:
    """The library, imported now: that takes seconds. Raises UsageError if it is not installed."""
    return require("timm", extra="timm", user='model "timm"')


def published(name: str) -> Any:
    """What timm knows of the weights of a model, a `PretrainedCfg`: of `resnet50`, or of `resnet50.a1_in1k` for
    particular ones. None where it knows nothing.

    Raises ValueError where timm has no such model or no such weights.
    """
    library = timm()
    architecture, _, tag = name.partition(".")
    known = library.list_models()
    if architecture not in known:
        text = f'model: timm {library.__version__} has no model "{architecture}"'
        raise ValueError(f"{text}{_meant(architecture, known)}")
    tags = [one.partition(".")[2] for one in library.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        text = f'model: timm {library.__version__} has no weights "{tag}" of {architecture}'
        raise ValueError(f"{text}{_meant(tag, tags)}")
    return library.models.get_pretrained_cfg(name)


def design(*, model: str, **_: object) -> InputDesign:
    """The data config of these weights: images of the side that they were trained with, and their mean and std."""
    about = published(model)
    if about is None:
        return InputDesign(None, None, SIDE, SIDE)
    side = about.input_size[-1]
    stored = max(side, round(side / about.crop_pct))
    return InputDesign(None, None, side, stored, mean=tuple(about.mean), std=tuple(about.std))


def licence(about: Any) -> str | None:
    """That of the weights by timm's own table; None where it has none, and the model card decides."""
    return None if about is None or about.license in (None, UNKNOWN) else str(about.license).lower()


def _meant(name: str, known: list[str]) -> str:
    found = nearest(name, known)
    return f'; did you mean "{found}"?' if found else f"; it has {', '.join(known[:5])}" if len(known) <= 5 else ""
