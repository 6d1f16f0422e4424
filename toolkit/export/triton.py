"""A bundle as a model repository of NVIDIA Triton Inference Server.

The fields of config.pbtxt are those of `protobuf/model_config.proto` in github.com/triton-inference-server/common;
its `parameters` are the ones that github.com/triton-inference-server/onnxruntime_backend reads, and `thresholds`, which
clients read.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from toolkit.api.errors import BundleError, UsageError, unknown_name
from toolkit.export.folders import LABELS, placed, require_replaceable, write_labels
from toolkit.serving.bundle.manifest import INPUT, Manifest
from toolkit.serving.bundle.trust import DECLINED, PLAUSIBLE, SCORES
from toolkit.serving.bundle.wire import AGAIN

CONFIGURATION = "config.pbtxt"
MODEL = "model.onnx"
VERSION = "1"
THRESHOLDS = "thresholds"
"""The parameter that has one of each class, as a list in JSON, where answers are sets of classes."""


def write_triton(
    bundle: Path, manifest: Manifest, repository: Path, *, max_batch: int = 32, precision: str | None = None
) -> Path:
    """Put the model of the bundle at `bundle` into the model repository `repository` and return its folder there,
    `<repository>/<name>/`: config.pbtxt, labels.txt and version `1`. A model of that name is replaced as a whole.

    precision: which of the bundle's models; None: the one it prefers.
    max_batch: most inputs that Triton may put into one batch.

    Raises UsageError for a name or precision that cannot be served and where something else has that name,
    BundleError where a file is not the one that the manifest names, and RunFailed when the file system refuses.
    """
    if max_batch < 1:
        raise UsageError(f"max_batch: must be at least 1, got {max_batch}", next_step="give the largest batch to form")
    chosen = _chosen(manifest, precision)
    target = place_in(repository, manifest.name)
    with placed(target) as folder:
        _copy_model(bundle, manifest, chosen, folder / VERSION)
        write_labels(folder, manifest)
        (folder / CONFIGURATION).write_text(configuration(manifest, max_batch=max_batch), encoding="utf-8")
    return target


def place_in(repository: Path, name: str) -> Path:
    """The folder of the model `name` in a model repository. Raises UsageError for a name that cannot be served, and
    where the folder holds something else than a model."""
    target = repository / _servable(name)
    separate = "name a separate folder for the model repository, or remove this one"
    require_replaceable(target, kind="a model of Triton", mark=CONFIGURATION, next_step=separate)
    return target


def configuration(manifest: Manifest, *, max_batch: int = 32) -> str:
    """The text of config.pbtxt: one instance on each GPU, which Triton gives batches of up to `max_batch` inputs."""
    shape = manifest.input
    layout = "" if shape.frames else "\n    format: FORMAT_NHWC"
    square = list(shape.square_shape)
    name = manifest.name.replace("\\", "\\\\").replace('"', '\\"')
    meaning, limits = "The probability of each class; together they are 1", ""
    if manifest.form == "number":
        meaning = f"The number of each output, in the order of {LABELS}"
    if manifest.thresholds is not None:
        meaning = "The probability of each class on its own; at or above its threshold the class is present"
        limits = f"""
# The thresholds, in the order of {LABELS}. Clients find them in the model's configuration.
parameters {{ key: "{THRESHOLDS}" value {{ string_value: "{json.dumps(list(manifest.thresholds))}" }} }}"""
    cautions = "".join(_caution(name, len(manifest.classes)) for name in manifest.trust.outputs)
    warm = ",\n".join(_warm_up(size, square) for size in sorted({1, max_batch}))
    return f"""\
name: "{name}"
backend: "onnxruntime"
default_model_filename: "{MODEL}"
max_batch_size: {max_batch}
input [
  {{
    name: "{INPUT}"
    data_type: TYPE_UINT8{layout}
    dims: {[*shape.clip_shape, -1, -1, 3]}
  }}
]
# {meaning}.
output [
  {{
    name: "{manifest.output}"
    data_type: TYPE_FP32
    dims: [{len(manifest.classes)}]
    label_filename: "{LABELS}"
  }}{cautions}
]
# Requests whose frames have one size share a batch. A longer delay makes larger batches, and slower answers.
dynamic_batching {{
  max_queue_delay_microseconds: 500
}}
# A server without a GPU refuses the model. To serve it on CPUs, write KIND_CPU.
instance_group [
  {{
    count: 1
    kind: KIND_GPU
  }}
]
# How cuDNN chooses its algorithms: 0 tries all of them, once for each batch size, 1 estimates. Batch sizes vary here.
parameters {{ key: "cudnn_conv_algo_search" value {{ string_value: "1" }} }}{limits}
# The smallest and the largest batch are run before the model counts as ready: no request waits for what starts once.
model_warmup [
{warm}
]
"""


def _caution(name: str, classes: int) -> str:
    """An output that says how far an answer goes. One number an input has no dimension of its own, which Triton has no
    word for: it is reshaped."""
    shape = f"dims: [{classes}]" if name == PLAUSIBLE else "dims: [1]\n    reshape { shape: [] }"
    return f""",
  # {_MEANINGS[name]}.
  {{
    name: "{name}"
    data_type: {"TYPE_FP32" if name in SCORES else "TYPE_BOOL"}
    {shape}
  }}"""


_MEANINGS = {
    **{name: meaning[0].upper() + meaning[1:] for name, meaning in SCORES.items()},
    DECLINED: "Whether the answer is declined: the input counts as unknown",
    PLAUSIBLE: "Which classes are in the set that holds the truth",
}


def _warm_up(batch: int, dims: list[int]) -> str:
    return f"""\
  {{
    name: "batch of {batch}"
    batch_size: {batch}
    inputs {{
      key: "{INPUT}"
      value {{ data_type: TYPE_UINT8 dims: {dims} zero_data: true }}
    }}
  }}"""


def _servable(name: str) -> str:
    """`name`, which is a folder of the repository and a part of the URL."""
    if not name or Path(name).name != name or name.startswith(".") or "\\" in name or not name.isprintable():
        raise UsageError(
            f"{name!r} cannot be the name of a model in Triton: it names a folder",
            next_step="export under another name with: --name NAME",
        )
    return name


def _chosen(manifest: Manifest, precision: str | None) -> str:
    """The file name of the model of this precision."""
    if precision is None:
        return next(iter(manifest.models.values()))
    if precision not in manifest.models:
        message = f'the bundle has no precision "{precision}", only {", ".join(manifest.models)}'
        raise UsageError(
            unknown_name(message, precision, manifest.models),
            next_step=f"export the run again with export.precision={precision}",
        )
    return manifest.models[precision]


def _copy_model(bundle: Path, manifest: Manifest, model: str, version: Path) -> None:
    """Copy the model, and the file of weights next to it where it did not fit into one file."""
    version.mkdir()
    _copy_checked(bundle, manifest, model, version / MODEL)
    for name in manifest.files:
        if name.startswith(f"{model}."):
            _copy_checked(bundle, manifest, name, version / Path(name).name)


def _copy_checked(bundle: Path, manifest: Manifest, name: str, target: Path) -> None:
    source = bundle / name
    if not source.is_file():
        raise BundleError(f"{source}: missing", next_step=AGAIN)
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != manifest.files[name]:
        raise BundleError(f"{source}: not the file that was exported (its SHA-256 differs)", next_step=AGAIN)
