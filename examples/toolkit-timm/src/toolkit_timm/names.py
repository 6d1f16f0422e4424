"""What timm calls its models and their weights, and what was meant by a name that it does not know."""

from __future__ import annotations

import timm
from timm.models import PretrainedCfg, get_pretrained_cfg
from toolkit.api.errors import nearest


def published(name: str) -> PretrainedCfg | None:
    """What timm knows of the weights of a model: `resnet50`, or `resnet50.a1_in1k` for particular ones.

    Raises ValueError where timm has no such model or no such weights.
    """
    architecture, _, tag = name.partition(".")
    known = timm.list_models()
    if architecture not in known:
        raise ValueError(f'model: timm {timm.__version__} has no model "{architecture}"{_meant(architecture, known)}')
    tags = [one.partition(".")[2] for one in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise ValueError(f'model: timm {timm.__version__} has no weights "{tag}" of {architecture}{_meant(tag, tags)}')
    return get_pretrained_cfg(name)


def _meant(name: str, known: list[str]) -> str:
    found = nearest(name, known)
    return f'; did you mean "{found}"?' if found else f"; it has {', '.join(known[:5])}" if len(known) <= 5 else ""
