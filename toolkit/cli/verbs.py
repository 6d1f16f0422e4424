"""What other tools call our commands and flags. Data alone; keys of recipes are in `toolkit.recipe.foreign`."""

from __future__ import annotations

from collections.abc import Mapping

VERBS: Mapping[str, str] = {
    "benchmark": "evaluate",
    "bench": "evaluate",
    "build": "run",
    "classify": "predict",
    "components": "plugins list",
    "config": "schema",
    "convert": "export",
    "describe": "plugins show",
    "diff": "compare",
    "deploy": "export",
    "detect": "predict",
    "doctor": "plugins doctor",
    "eval": "evaluate",
    "evaluation": "evaluate",
    "finetune": "run",
    "fit": "run",
    "forecast": "predict",
    "hpo": "tune",
    "hyperopt": "tune",
    "infer": "predict",
    "inference": "predict",
    "info": "plugins show",
    "launch": "run",
    "lint": "check",
    "list": "plugins list",
    "ls": "plugins list",
    "models": "plugins list",
    "onnx": "export",
    "optimize": "tune",
    "optuna": "tune",
    "pack": "export",
    "plot": "report",
    "resume": "run",
    "score": "evaluate",
    "search": "tune",
    "show": "plugins show",
    "start": "run",
    "summary": "report",
    "sweep": "tune",
    "test": "evaluate",
    "tensorrt": "export",
    "torchscript": "export",
    "track": "predict",
    "train": "run",
    "trainer": "run",
    "val": "evaluate",
    "valid": "evaluate",
    "validate": "evaluate",
    "validation": "evaluate",
    "visualize": "report",
}
"""A word of another tool to the command that does it here."""

SUBJECTS = frozenset({"classify", "cls", "detect", "image", "pose", "segment", "video", "yolo"})
"""Words that some tools write before the verb."""

FLAGS: Mapping[str, str] = {
    "checkpointdir": "--runs",
    "defaultrootdir": "--runs",
    "devices": "--ranks",
    "exportdir": "--exports",
    "exportsdir": "--exports",
    "gpus": "--ranks",
    "logdir": "--runs",
    "ngpus": "--ranks",
    "nproc": "--ranks",
    "nprocpernode": "--ranks",
    "output": "--runs",
    "outputdir": "--runs",
    "outputs": "--runs",
    "project": "--runs",
    "resumefrom": "--resume",
    "resumefromcheckpoint": "--resume",
    "runsdir": "--runs",
    "savedir": "--runs",
    "savepath": "--runs",
    "topk": "--top",
    "workdir": "--runs",
}
"""A flag of another tool to one of ours, where the command has that."""

CHOICES: Mapping[str, Mapping[str, str]] = {
    "--device": {"0": "cuda", "cuda:0": "cuda", "engine": "tensorrt", "gpu": "cuda", "trt": "tensorrt"},
    "--format": {
        "onnx": "bundle",
        "tritonserver": "triton",
    },
    "--precision": {"16": "fp16", "32": "fp32", "8": "int8", "float16": "fp16", "float32": "fp32", "half": "fp16"},
}
"""What a flag's value is called elsewhere, to what it is called here."""

ON_COMMAND: Mapping[tuple[str, str], str] = {
    ("evaluate", "train.batch"): "train.eval_batch",
    ("export", "train.precision"): "export.precision",
}
"""A key that a foreign word means on one command, instead of the usual one."""

PLACES: Mapping[str, str] = {
    "bundle": "MODEL",
    "checkpoint": "MODEL",
    "c": "RECIPE",
    "cfg": "RECIPE",
    "ckpt": "RUN",
    "config": "RECIPE",
    "configfile": "RECIPE",
    "images": "INPUT",
    "input": "INPUT",
    "model": "MODEL",
    "recipe": "RECIPE",
    "run": "RUN",
    "source": "INPUT",
    "weights": "MODEL",
}
"""A flag of another tool to the positional argument here."""
