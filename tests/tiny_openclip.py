"""A small CLIP model with an architecture that open_clip does not ship."""

from __future__ import annotations

import atexit
import json
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

NAME = "toolkit-tiny"
SIZE = 32
_CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": SIZE, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def add_tiny() -> str:
    """Its name, known to open_clip for as long as this process runs."""
    import open_clip

    folder = Path(mkdtemp(prefix="toolkit-tiny-"))
    atexit.register(shutil.rmtree, folder)
    (folder / f"{NAME}.json").write_text(json.dumps(_CONFIG), encoding="utf-8")
    open_clip.add_model_config(folder)
    return NAME
