"""A bundle's model as files of OpenVINO: what programs load that have OpenVINO and not the toolkit.

The model takes squares of the stored size, since OpenVINO resamples in other numbers than the graph. It leaves only if
it answers as the trained model does: the gate of `toolkit.export.gate` asks OpenVINO about the files that were written.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from toolkit.api.errors import BundleError, ParityError, RunFailed, UsageError
from toolkit.api.files import replaced_folder
from toolkit.export.gate import Verdict
from toolkit.serving.bundle import Bundle, Manifest
from toolkit.serving.bundle.integrity import verify_files
from toolkit.serving.bundle.openvino_session import (
    OpenVinoSession,
    cause_of,
    installed_version,
    library,
    of_squares,
)
from toolkit.system.machine import physical_cores

FORMAT = "--format openvino"
MODEL = "model.xml"
LABELS = "labels.txt"
ABOUT = "vision_toolkit"
"""The section of the model's runtime information that says what the numbers mean."""


def check_openvino(place: Path) -> None:
    """Raise UsageError where OpenVINO is missing, and where something else than such files is at `place`."""
    library(FORMAT)
    if place.exists() and not (place / MODEL).is_file() and not (place.is_dir() and not any(place.iterdir())):
        raise UsageError(
            f"{place}: exists and is not a model of OpenVINO (it has no {MODEL})",
            next_step="give another name with --name NAME, or remove it",
        )


def write_openvino(bundle: Path, manifest: Manifest, place: Path, gate: Callable[[Bundle], Verdict]) -> Path:
    """Write the model that the bundle prefers to the folder `place`, over earlier files of this kind: model.xml,
    model.bin and labels.txt. `gate` holds it against the trained model.

    Raises UsageError as `check_openvino` does, BundleError where OpenVINO cannot convert the model or the bundle was
    changed, ParityError where the model answers otherwise, RunFailed when the file system refuses."""
    check_openvino(place)
    opened = Bundle.load(bundle, device="cpu")
    verify_files(manifest, bundle, precision=opened.precision)
    try:
        with replaced_folder(place) as folder:
            _convert(bundle / manifest.models[opened.precision], manifest, folder)
            session = OpenVinoSession(folder / MODEL, manifest, physical_cores())
            verdict = gate(replace(opened, session=session, runtime="openvino"))
            if verdict.problems:
                raise ParityError(
                    f"{place}: not written: OpenVINO {installed_version()} answers otherwise than the trained model",
                    details=verdict.findings(),
                    next_step=f"use the bundle, which ONNX Runtime computes: python -m toolkit predict {bundle} INPUT",
                )
    except OSError as error:
        raise RunFailed(
            f"{place}: cannot be written: {error.strerror or error}", next_step="free disk space or repair the folder"
        ) from error
    return place


def _convert(model: Path, manifest: Manifest, folder: Path) -> None:
    openvino = library(FORMAT)
    facts = {
        "classes": json.dumps(list(manifest.classes), ensure_ascii=False),
        "thresholds": json.dumps(None if manifest.thresholds is None else list(manifest.thresholds)),
        "fit": manifest.input.fit,
        "recipe_digest": manifest.digest,
    }
    try:
        converted = of_squares(model, manifest)
        for name, value in facts.items():
            converted.set_rt_info(value, [ABOUT, name])
        openvino.save_model(converted, str(folder / MODEL), compress_to_fp16=False)
    except Exception as error:  # OpenVINO's own errors have no other class in common
        raise BundleError(
            f"{model}: openvino {installed_version()} cannot convert it: {cause_of(error)}",
            next_step="export without --format openvino",
        ) from error
    labels = "".join(" ".join(name.split()) + "\n" for name in manifest.classes)
    (folder / LABELS).write_text(labels, encoding="utf-8")
