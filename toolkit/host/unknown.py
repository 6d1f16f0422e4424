"""A name that no installed plugin offers: the nearest that one does, or who else has it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from toolkit.api.errors import Problem, first_few, nearest
from toolkit.recipe.foreign import plain, value_of
from toolkit.recipe.kinds import KINDS


@dataclass(frozen=True)
class Elsewhere:
    """Who else has names of this pattern: a rule of thumb, since other projects' lists need their packages."""

    kind: str
    pattern: str
    text: str
    command: str = ""


ELSEWHERE = (
    Elsewhere(
        "model",
        r".*(patch\d+|_in\d+k|\.[a-z]+_|_dino|_clip|siglip).*"
        r"|(beit|cait|coat|convmixer|convnextv2|convit|crossvit|cspresnet|darknet|davit|deit|dla|dpn|edgenext|efficientformer"
        r"|efficientvit|eva|fastvit|focalnet|gcvit|ghostnet|hgnet|hiera|hrnet|inception|levit|maxxvit|metaformer|mixer"
        r"|mobilenetv4|mobileone|mobilevit|mvitv2|nasnet|nfnet|nest|pit|poolformer|pvt|regnetz|repvgg|repvit|res2net|resmlp"
        r"|resnest|rexnet|samvit|selecsls|senet|seresne|tiny_?net|tiny_?vit|tnt|tresnet|twins|visformer|vitamin|volo"
        r"|xception|xcit).*",
        'timm has such models: they are name = "timm", model = "{name}"',
        "python -m toolkit plugins show timm",
    ),
    Elsewhere(
        "model",
        r"(videomae|timesformer|vivit|vjepa|v-jepa|dinov|clip|google/|facebook/|microsoft/|openai/|mcg-nju/).*",
        'transformers has such models: they are name = "transformers", source = "organisation/name"',
        "python -m toolkit plugins show transformers",
    ),
    Elsewhere(
        "model",
        r"(yolo|rtdetr|sam|fasterrcnn|maskrcnn|retinanet|fcos|ssd|deeplab|fcn_|lraspp|unet).*",
        "it detects or segments, and this toolkit classifies",
    ),
    Elsewhere(
        "tracker",
        r"(comet|clearml|neptune|aim|csv|dvclive|trackio).*",
        "a plugin of yours can offer it",
        "python -m toolkit plugins new my-tracker --kinds tracker",
    ),
)

_LISTED = "python -m toolkit plugins list"
_SIZES = {"tiny": "t", "small": "s", "base": "b", "large": "l", "huge": "h"}
_CLOSE = 0.75
"""Least similarity of a suggested model."""


def unknown(kind: str, name: str, key: str, known: Collection[str], unasked: str = "") -> Problem:
    """The problem that nothing of this kind is called `name`: with the nearest of the `known`, or with all of them."""
    component = name.rpartition(":")[2]
    other = next((one for one in ELSEWHERE if one.kind == kind and re.fullmatch(one.pattern, component.lower())), None)
    near = _meant(kind, component, known, alike=other is None)
    message = f'unknown {kind} "{name}"{unasked}'
    family = sorted(one for one in {*known} if plain(one).startswith(plain(component)))
    if kind == "model" and near in family and len(family) > 1:
        message += f" (there are {first_few(family)})"
    elif near is None and kind != "model" and known:
        message += f" (there are {first_few(sorted(known), 20)})"
    if other:
        message += f"; {other.text.format(name=component, command=other.command)}"
    command = (other.command if other else "") or ("" if near else _LISTED)
    return Problem(key, message, near, command=command, fault="unknown name", given=name)


def _meant(kind: str, name: str, known: Collection[str], *, alike: bool) -> str | None:
    """The known name that this one most likely meant; one that only looks `alike` where that is asked for."""
    place = KINDS[kind].place
    foreign = value_of(place if KINDS[kind].several else f"{place}.name", name)
    if foreign in known:
        return foreign
    if kind != "model":
        return nearest(name.lower() if KINDS[kind].any_case else name, known)
    written = _short(name)
    if len(written) >= 4 and (family := sorted(one for one in known if _short(one).startswith(written))):
        return family[0]
    if longer := [one for one in known if len(_short(one)) >= 5 and written.startswith(_short(one))]:
        return max(longer, key=len)
    return _closest(written, sorted(known)) if alike else None


def _closest(written: str, known: Sequence[str]) -> str | None:
    """The most similar name that begins with the same letter: another first letter is another family."""
    from difflib import SequenceMatcher

    alike = [
        (SequenceMatcher(None, written, _short(one)).ratio(), one) for one in known if _short(one)[:1] == written[:1]
    ]
    best = max(alike, default=(0.0, ""), key=lambda pair: pair[0])
    return best[1] if best[0] >= _CLOSE else None


def _short(name: str) -> str:
    """A model's name without separators, its size as one letter, its patch as a number: `vitb16`."""
    family, *words = re.split(r"[-_.\s]+", re.sub(r"patch(\d+)", r"\1", name.lower()))
    return "".join([family, *(_SIZES.get(word, word) for word in words)])
