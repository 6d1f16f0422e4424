"""Small networks of transformers, as folders with a configuration and, if asked for, weights of their own making."""

from __future__ import annotations

import atexit
import json
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch

_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_CLIPS = {"image_size": 32, "patch_size": 16, "num_frames": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "videomae": {**_SMALL, **_CLIPS},
    "timesformer": {**_SMALL, **_CLIPS},
    "vivit": {**_SMALL, "image_size": 32, "num_frames": 4, "tubelet_size": [2, 16, 16]},
    "vjepa2": {
        **_SMALL,
        "crop_size": 32,
        "patch_size": 16,
        "frames_per_clip": 4,
        "mlp_ratio": 2.0,
        "num_pooler_layers": 1,
        "pred_hidden_size": 24,
        "pred_num_attention_heads": 2,
        "pred_num_hidden_layers": 1,
    },
    "videoprism_vision_model": {
        **_SMALL,
        "image_size": 36,
        "num_frames": 4,
        "num_spatial_layers": 1,
        "num_temporal_layers": 1,
    },
    "dinov2": {**_SMALL, "image_size": 28, "patch_size": 14},
    "dinov3_vit": {**_SMALL, "image_size": 32, "patch_size": 16},
    "siglip": {"vision_config": {**_SMALL, "image_size": 32, "patch_size": 16}, "text_config": _SMALL},
    "vit": {**_SMALL, "image_size": 32, "patch_size": 16},
    "convnextv2": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "image_size": 32},
}
OF_CLIPS = ("videomae", "timesformer", "vivit", "vjepa2", "videoprism_vision_model")


def write_source(folder: Path, family: str, *, size: int = 32, **others: Any) -> Path:
    """config.json and preprocessor_config.json of a small network."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": family, **FAMILIES[family], **others}
    processor = {
        "crop_size": {"height": size, "width": size},
        "size": {"shortest_edge": size + 4},
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.25, 0.3],
    }
    for name, content in (("config.json", config), ("preprocessor_config.json", processor)):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def kept_source(family: str) -> str:
    """The folder of a small network for as long as this process runs, for cases that are made when it begins."""
    folder = Path(mkdtemp(prefix="toolkit-tiny-"))
    atexit.register(shutil.rmtree, folder)
    return str(write_source(folder, family))


def write_weights(folder: Path) -> Any:
    """model.safetensors of the network in `folder`, as its publisher would save it; the network, in evaluation mode."""
    from toolkit_transformers.networks import library, quiet

    transformers = library()
    with quiet(), torch.random.fork_rng():
        torch.manual_seed(1)
        config = transformers.AutoConfig.from_pretrained(folder)
        makers = (transformers.AutoModelForVideoClassification, transformers.AutoModelForImageClassification)
        maker = next((one for one in makers if type(config) in one._model_mapping), transformers.AutoModel)
        made = maker.from_config(config).eval()
        made.save_pretrained(folder)
    return made
