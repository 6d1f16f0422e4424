"""A bundle's model as files of OpenVINO: what programs load that have OpenVINO and not the toolkit.

The model takes squares of the stored size, since OpenVINO resamples in other numbers than the graph. It leaves only if
it answers as the trained model does: the gate of `toolkit.export.gate` asks OpenVINO about the files that were written.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from toolkit.api.errors import BundleError
from toolkit.export.folders import meaning, require_replaceable, write_labels, write_proved
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
ABOUT = "vision_toolkit"
"""The section of the model's runtime information that says what the numbers mean."""


def check_openvino(place: Path) -> None:
    """Raise UsageError where OpenVINO is missing, and where something else than such files is at `place`."""
    library(FORMAT)
    require_replaceable(place, kind="a model of OpenVINO", mark=MODEL)


def write_openvino(bundle: Path, manifest: Manifest, place: Path, gate: Callable[[Bundle], Verdict]) -> Path:
    """Write the model that the bundle prefers to the folder `place`, over earlier files of this kind: model.xml,
    model.bin and labels.txt. `gate` holds it against the trained model.

    Raises UsageError as `check_openvino` does, BundleError where OpenVINO cannot convert the model or the bundle was
    changed, ParityError where the model answers otherwise, RunFailed when the file system refuses."""
    check_openvino(place)
    opened = Bundle.load(bundle, device="cpu")
    verify_files(manifest, bundle, precision=opened.precision)

    def write(folder: Path) -> Bundle:
        _convert(bundle / manifest.models[opened.precision], manifest, folder)
        session = OpenVinoSession(folder / MODEL, manifest, physical_cores())
        return replace(opened, session=session, runtime="openvino")

    return write_proved(place, bundle, f"OpenVINO {installed_version()}", write, gate)


def _convert(model: Path, manifest: Manifest, folder: Path) -> None:
    openvino = library(FORMAT)
    try:
        converted = of_squares(model, manifest)
        for name, value in meaning(manifest).items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            converted.set_rt_info(text, [ABOUT, name])
        openvino.save_model(converted, str(folder / MODEL), compress_to_fp16=False)
    except Exception as error:  # OpenVINO's own errors have no other class in common
        raise BundleError(
            f"{model}: openvino {installed_version()} cannot convert it: {cause_of(error)}",
            next_step=f"export without {FORMAT}",
        ) from error
    write_labels(folder, manifest)
