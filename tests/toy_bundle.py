"""A bundle made in milliseconds: it answers by the mean brightness of its input, with one class, a set of them, or
numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from toolkit.api.clips import Clip
from toolkit.api.contracts import TargetForm
from toolkit.serving.bundle.manifest import (
    MANIFEST,
    MAPS,
    OUTPUTS,
    ClipSampling,
    FrameSampling,
    Input,
    Manifest,
    Maps,
)
from toolkit.serving.bundle.seal import SEAL, sealed
from toolkit.serving.bundle.trust import DECLINED, PLAUSIBLE, UNTOUCHED, Trust


def write(
    folder: Path,
    *,
    classes: Sequence[str] = ("dark", "bright"),
    square: int = 16,
    size: int = 8,
    fit: Literal["crop", "stretch"] = "crop",
    clip: Clip | None = None,
    precisions: Sequence[str] = ("fp32",),
    thresholds: Sequence[float] | None = None,
    numbers: bool = False,
    trust: Trust = UNTOUCHED,
    maps: int | None = None,
    **changes: Any,
) -> Path:
    """A valid bundle at `folder`, which is made. Class c of C is the answer for a mean between 255 c / C and
    255 (c + 1) / C. With `thresholds` the answer is a set, and the probability of class c is 0.5 for a mean of
    255 (c + 0.5) / C, and more for a brighter input. With `numbers` output c is c + 1 times the mean. It declines and
    has sets as `trust` says; its energy is the highest logit, and its similarity a fourth of that. With `maps`, the
    side of the only frames that it then takes, it gives the brightness of each quarter as a map of each class, darker
    for later ones. `changes` are fields of the manifest; the precisions differ in name alone."""
    folder.mkdir(parents=True)
    frames = None if clip is None else clip.frames
    form: TargetForm = "number" if numbers else "index" if thresholds is None else "set"
    names = {precision: model_name(precision, precisions) for precision in precisions}
    for name in names.values():
        made = model(len(classes), frames, form, trust, maps)
        said = {"classes": json.dumps(list(classes), ensure_ascii=False)}
        if thresholds is not None:
            said["thresholds"] = json.dumps(list(thresholds))
        helper.set_model_props(made, said)
        onnx.save(made, folder / name)
    (folder / "README.md").write_text("# toy\n", encoding="utf-8")
    manifest = Manifest(
        name=folder.name,
        created="2031-02-03T04:05:06+00:00",
        classes=tuple(classes),
        sample=False,
        input=Input(square=square, size=size, fit=fit, frames=frames),
        sampling=FrameSampling(4) if clip is None else ClipSampling(clip, clip.span),
        models=names,
        files=digests(folder),
        recipe='name = "toy"\n',
        digest="0" * 64,
        protocol={"metric": "accuracy"},
        trained_on={"dataset": "toy"},
        scores={"torch": {"accuracy": 1.0}, **{precision: {"accuracy": 1.0} for precision in precisions}},
        form=form,
        thresholds=None if thresholds is None else tuple(thresholds),
        trust=trust,
        maps=None if maps is None else Maps("Grad-CAM", "last", (2, 2) if frames is None else (frames, 2, 2)),
    )
    (folder / MANIFEST).write_text(replace(manifest, **changes).to_json(), encoding="utf-8")
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change what bundle.json says, and its checksum with it."""
    claimed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    del claimed[SEAL]
    change(claimed)
    (folder / MANIFEST).write_text(json.dumps(sealed(claimed)), encoding="utf-8")
    return folder


def model_name(precision: str, precisions: Sequence[str]) -> str:
    return "model.onnx" if precision == precisions[0] else f"model.{precision}.onnx"


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of the bundle but its manifest."""
    return {
        path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir()) if path.name != MANIFEST
    }


def model(
    classes: int,
    frames: int | None = None,
    form: TargetForm = "index",
    trust: Trust = UNTOUCHED,
    maps: int | None = None,
) -> onnx.ModelProto:
    """uint8 `frames` `[N, H, W, 3]` (`[N, T, H, W, 3]`) to float32 `probabilities` or `values` `[N, C]`."""
    axes = [1, 2, 3] if frames is None else [1, 2, 3, 4]
    shape: list[str | int | None] = ["N", *([] if frames is None else [frames]), "H", "W", 3]
    centres = 255 * (np.arange(classes, dtype=np.float32) + 0.5) / classes
    constants = {
        "axes": np.array(axes, np.int64),
        "flat": np.array([-1, 1], np.int64),
        **{
            "index": {"weight": centres[None] / 1000, "bias": -(centres**2) / 2000},
            "set": {"weight": np.full_like(centres, 1 / 40)[None], "bias": -centres / 40},
            "number": {"weight": np.arange(1, classes + 1, dtype=np.float32)[None], "bias": np.zeros_like(centres)},
        }[form],
    }
    last = {"index": "Softmax", "set": "Sigmoid", "number": "Identity"}[form]
    nodes = [
        helper.make_node("Cast", ["frames"], ["real"], "as_real", to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real", "axes"], ["means"], "mean"),
        helper.make_node("Reshape", ["means", "flat"], ["column"], "column"),
        helper.make_node("Gemm", ["column", "weight", "bias"], ["logits"], "head"),
        helper.make_node(last, ["logits"], [OUTPUTS[form]], "last"),
    ]
    outputs = [helper.make_tensor_value_info(OUTPUTS[form], TensorProto.FLOAT, ["N", classes])]
    if trust.reject is not None:
        score: str = trust.reject.score
        constants |= {
            "by_class": np.array([1], np.int64),
            "least": np.array(trust.reject.threshold, np.float32),
            "fourth": np.array(0.25, np.float32),
            "times": np.array(trust.reject.weight, np.float32),
        }
        nodes += [
            helper.make_node("ReduceMax", [OUTPUTS[form], "by_class"], ["confidence"], "sure", keepdims=0),
            helper.make_node("ReduceMax", ["logits", "by_class"], ["energy"], "most", keepdims=0),
            helper.make_node("Mul", ["energy", "fourth"], ["similarity"], "like"),
            helper.make_node("Mul", ["similarity", "times"], ["weighed"], "weigh"),
            helper.make_node("Add", ["confidence", "weighed"], ["both"], "add"),
            helper.make_node("Less", [{"similarity": "both"}.get(score, score), "least"], [DECLINED], "decline"),
        ]
        if trust.scored:
            outputs.append(helper.make_tensor_value_info(trust.scored, TensorProto.FLOAT, ["N"]))
        outputs.append(helper.make_tensor_value_info(DECLINED, TensorProto.BOOL, ["N"]))
    if trust.conformal is not None:
        constants["enough"] = np.array(trust.conformal.threshold, np.float32)
        nodes.append(helper.make_node("GreaterOrEqual", [OUTPUTS[form], "enough"], [PLAUSIBLE], "sets"))
        outputs.append(helper.make_tensor_value_info(PLAUSIBLE, TensorProto.BOOL, ["N", classes]))
    if maps is not None:
        clip = () if frames is None else (frames,)
        constants |= {
            "quarters": np.array([-1, 1, *clip, 2, maps // 2, 2, maps // 2 * 3], np.int64),
            "within": np.array([-3, -1], np.int64),
            "shares": (1 / np.arange(1, classes + 1, dtype=np.float32)).reshape(1, -1, *(1 for _ in clip), 1, 1),
        }
        nodes.append(helper.make_node("Reshape", ["real", "quarters"], ["apart"], "apart"))
        nodes.append(helper.make_node("ReduceMean", ["apart", "within"], ["brightness"], "brightness", keepdims=0))
        nodes.append(helper.make_node("Mul", ["brightness", "shares"], [MAPS], "map"))
        outputs.append(helper.make_tensor_value_info(MAPS, TensorProto.FLOAT, ["N", classes, *clip, 2, 2]))
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, shape)],
        outputs,
        [numpy_helper.from_array(value.astype(value.dtype), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
