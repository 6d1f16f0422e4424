"""A toy bundle whose graph makes its squares itself, as exported ones do, so that other runtimes may compute it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx.compose

from tests import toy_bundle
from toolkit.api.clips import Clip
from toolkit.export.preparing import OPSET, preparation
from toolkit.serving.bundle.trust import UNTOUCHED, Trust

SQUARE, SIZE = 16, 8


def write(
    folder: Path, *, clip: Clip | None = None, numbers: bool = False, trust: Trust = UNTOUCHED, **changes: Any
) -> Path:
    """As `toy_bundle.write` makes it, with the preparation of exported graphs in front."""
    toy_bundle.write(folder, square=SQUARE, size=SIZE, clip=clip, numbers=numbers, trust=trust, **changes)
    frames = None if clip is None else clip.frames
    answering = onnx.load(folder / "model.onnx")
    answering.opset_import[0].version = OPSET
    inner = onnx.compose.add_prefix(answering, "toy/", rename_outputs=False)
    preparing = preparation(SQUARE, SIZE, "crop", frames)
    inner.ir_version = preparing.ir_version
    (prepared,) = preparing.graph.output
    outputs = [output.name for output in answering.graph.output]
    model = onnx.compose.merge_models(
        preparing, inner, io_map=[(prepared.name, "toy/frames")], outputs=outputs, name="toy"
    )
    del model.opset_import[1:]
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {prop.key: prop.value for prop in answering.metadata_props})
    onnx.save(model, folder / "model.onnx")

    def digests(claimed: dict[str, Any]) -> None:
        claimed["files"] = toy_bundle.digests(folder)

    return toy_bundle.edit(folder, digests)
