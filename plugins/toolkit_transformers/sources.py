"""A source of the recipe, `organisation/name` or a folder: its configuration and what its input is like.

Configurations are data: the code that a repository may bring is never read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from toolkit.api.contracts import InputDesign
from toolkit.api.errors import WeightsError, nearest
from toolkit.transfer.hub import MAIN, NAME, AbsentError, Repository, read_json
from toolkit.transfer.licences import check_licence
from toolkit_transformers.published import PUBLISHED

RATES = {"timesformer": 32, "videomae": 4, "videoprism_vision_model": 4, "vivit": 2, "vjepa2": 8}
"""Of video transformers by `model_type`, in frames at 30 a second: no configuration says it, their papers do."""
_PROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
_STORED = 8 / 7
"""Side that is kept, as a share of the side that is seen, where the processor does not resize before it crops."""


@dataclass(frozen=True)
class Source:
    """What `model.source` names."""

    name: str
    revision: str | None = None

    def __post_init__(self) -> None:
        if self.folder is None and not NAME.fullmatch(self.name):
            meant = nearest(self.name, PUBLISHED)
            text = f'source: expected a folder, or organisation/name of the Hugging Face Hub, got "{self.name}"'
            raise ValueError(f'{text}; did you mean "{meant}"?' if meant else text)
        if self.folder and self.revision:
            raise ValueError(f"revision: {self.name} is a folder, which has none")

    @cached_property
    def folder(self) -> Path | None:
        path = Path(self.name).expanduser()
        return path if path.is_dir() else None

    @cached_property
    def repository(self) -> Repository:
        """That of the Hub; raises ValueError for a folder."""
        if self.folder:
            raise ValueError(f"source: {self.name} is a folder")
        known = PUBLISHED.get(self.name)
        licence = known.licence if known and self.revision is None else None
        return Repository(self.name, self.revision or MAIN, key="model.source", known_licence=licence)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The contents of config.json. Raises WeightsError, as `Repository.file` does."""
        if self.name in PUBLISHED and self.folder is None:
            return PUBLISHED[self.name].config
        try:
            return read_json(self._file("config.json"))
        except AbsentError as error:
            raise WeightsError(f"{self.name}: has no config.json", next_step="name a model of transformers") from error

    @cached_property
    def takes(self) -> InputDesign:
        """Frames, size, mean and std of the processor; the rate is that of its paper. Raises as `config` does."""
        if self.name in PUBLISHED and self.folder is None:
            return PUBLISHED[self.name].takes
        said = self._processor()
        config = self.config
        model_type = str(config.get("model_type"))
        config = config.get("vision_config", config)
        size = _side(said.get("crop_size") if said.get("do_center_crop", True) else None) or _side(said.get("size"))
        size = size or _side(config.get("image_size", config.get("crop_size"))) or 224
        stored = max(size, _side(said.get("size")) or round(size * _STORED))
        frames = config.get("num_frames", config.get("frames_per_clip")) if model_type in RATES else None
        if model_type in RATES and frames is None:
            frames = _default(model_type, "num_frames", "frames_per_clip")
        mean, std = (_colour(said.get(key), key, self.name) for key in ("image_mean", "image_std"))
        return InputDesign(frames, RATES.get(model_type), size, stored, mean=mean, std=std)

    def _processor(self) -> Mapping[str, Any]:
        for name in _PROCESSORS:
            try:
                said = read_json(self._file(name))
            except AbsentError:
                continue
            return next((said[key] for key in ("image_processor", "video_processor") if key in said), said)
        raise WeightsError(
            f"{self.name}: has no {_PROCESSORS[0]}, so the size, mean and std of its input are unknown",
            next_step="copy it from the repository of the model",
        )

    def _file(self, name: str) -> Path:
        if self.folder is None:
            return self.repository.file(name)
        if not (self.folder / name).is_file():
            raise AbsentError(f"{self.name}: has no file {name}")
        return self.folder / name


def design(
    *,
    source: str,
    revision: str | None = None,
    weights: str = "none",
    licences: Sequence[str] | None = None,
    **_: object,
) -> InputDesign:
    """What the model at `source` takes. The licence of weights that are asked for is checked before a file is read."""
    named = Source(source, revision)
    if weights == "pretrained" and named.folder is None:
        check_licence(named.repository.licence, licences, f"weights {named.repository}")
    return named.takes


def _default(model_type: str, *keys: str) -> int:
    """What a configuration has that does not say it."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(model_type).to_dict()
    return int(next(config[key] for key in keys if key in config))


def _side(value: Any) -> int | None:
    """Of a size as processors write it: 224, {height, width} or {shortest_edge}."""
    if isinstance(value, Mapping):
        value = value.get("height", value.get("shortest_edge"))
    return value if isinstance(value, int) else None


def _colour(value: Any, key: str, name: str) -> tuple[float, float, float]:
    if isinstance(value, list) and len(value) == 3 and all(isinstance(one, int | float) for one in value):
        return (float(value[0]), float(value[1]), float(value[2]))
    raise WeightsError(f"{name}: expected three numbers as {key} of its processor, got {value!r}")
