"""What open_clip calls its models and their weights, and what it says of them."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator

from toolkit.api.contracts import InputDesign
from toolkit.api.errors import first_few, nearest
from toolkit.api.extras import require
from toolkit.transfer.hub import Repository

FILES = ("open_clip_model.safetensors", "model.safetensors")


def library() -> ModuleType:
    """open_clip, imported now: that takes seconds. Raises UsageError if it is not installed."""
    return require("open_clip", extra="openclip", user='model "openclip"')


def with_place(template: str) -> str:
    """The template itself, if it has one place for a name."""
    if template.count("{}") != 1:
        raise ValueError(f'must have one {{}} where the name of the class goes, got "{template}"')
    return template


Template: TypeAlias = Annotated[str, AfterValidator(with_place)]


@dataclass(frozen=True)
class Named:
    """`ViT-B-32`, or `ViT-B-32:laion2b_s34b_b79k` with particular weights."""

    model: str
    tag: str

    @classmethod
    def of(cls, text: str) -> Named:
        """Raises ValueError where open_clip has no such model or no such weights."""
        model, _, tag = text.partition(":")
        known = library().list_models()
        if model not in known:
            raise ValueError(_unknown(f'open_clip has no model "{model}"', model, known))
        tags = library().list_pretrained_tags_by_model(model)
        if tag and tag not in tags:
            raise ValueError(_unknown(f'open_clip has no weights "{tag}" of {model}', tag, tags))
        return cls(model, tag)

    @property
    def side(self) -> int:
        """Pixels that it was trained with."""
        side: Any = library().get_model_config(self.model)["vision_cfg"].get("image_size", 224)
        return int(side[0] if isinstance(side, list | tuple) else side)

    @property
    def about(self) -> dict[str, Any]:
        """What open_clip knows of the weights."""
        return dict(library().get_pretrained_cfg(self.model, self.tag) or {}) if self.tag else {}

    @property
    def repository(self) -> Repository:
        """That of the weights. Raises ValueError where no weights are named, or none are on the Hugging Face Hub."""
        place = str(self.about.get("hf_hub", "")).strip("/")
        if place.count("/") != 1:
            known = library().list_pretrained_tags_by_model(self.model)
            raise ValueError(
                f"model: name weights on the Hugging Face Hub, as {self.model}:TAG; tags: {first_few(known)}"
            )
        return Repository(place, extra="openclip", files=FILES)


def design(*, model: str, **_: object) -> InputDesign:
    """Images of the side that the model was trained with, and their mean and std."""
    named = Named.of(model)
    about = named.about
    mean = about.get("mean") or library().OPENAI_DATASET_MEAN
    std = about.get("std") or library().OPENAI_DATASET_STD
    return InputDesign(None, None, named.side, named.side, mean=tuple(mean), std=tuple(std))


def _unknown(text: str, name: str, known: list[str]) -> str:
    found = nearest(name, known)
    return f'model: {text}; did you mean "{found}"?' if found else f"model: {text}; there are {first_few(known)}"
