"""Every component of this repository keeps its contract, as the conformance kit asks anyone's to."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import toolkit_optim
from tests.plugins.data_files import write_image
from tests.shard_files import write_tars, write_video_tars
from tests.tiny_openclip import add_tiny
from tests.tiny_transformers import kept_source
from toolkit.api.clips import Clip
from toolkit.api.contracts import DataSpec
from toolkit.host.registry import discover
from toolkit.kit.testing import Case, conformance, image_folders, video_folders

CLASSES = tuple("abc")
FEW_ITEMS: Mapping[str, Any] = {"sample_images": 30}
ONE_STORE = "MLflow keeps one store for all runs, next to them"


def cifar_folders(folder: Path) -> Path:
    """Images at train/<class>/ and test/<class>/."""
    for number in range(24):
        split, name = ("train", "train", "test")[number % 3], ("cat", "dog")[number // 3 % 2]
        write_image(folder / split / name / f"{number:02}.png", number, height=32)
    return folder


def sets_of_images(folder: Path) -> Path:
    """Images that show a, b, both or nothing, in turn, named in train.csv and Training_set.csv."""
    kinds = ("a", "b", "a|b", "")
    for number in range(32):
        write_image(folder / "train" / f"{number:02}.png", number)
    rows = [(f"{number:02}.png", kinds[number % 4]) for number in range(32)]
    for table, header, place in (("train.csv", "path,labels", "train/"), ("Training_set.csv", "filename,labels", "")):
        lines = [header, *(f"{place}{name},{labels}" for name, labels in rows), ""]
        (folder / table).write_text("\n".join(lines), encoding="utf-8")
    return folder


def sets_of_videos(folder: Path) -> Path:
    """Videos that show 0, 1, both or nothing, in turn, as lines of MMAction2."""
    root = video_folders(folder)
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*"))
    lines = [f"{path}{('', ' 0', ' 1', ' 0 1')[number % 4]}\n" for number, path in enumerate(paths)]
    (root / "train.txt").write_text("".join(lines), encoding="utf-8")
    return root


def numbers_of_images(folder: Path) -> Path:
    """Images with two numbers each, named in train.csv."""
    for number in range(60):
        write_image(folder / f"{number:02}.png", number)
    rows = [f"{number:02}.png,{number * 0.5},{60 - number}" for number in range(60)]
    (folder / "train.csv").write_text("\n".join(["path,age,height", *rows, ""]), encoding="utf-8")
    return folder


SEVERAL: Mapping[str, Any] = {"labels": "several"}
NUMBERED: Mapping[str, Any] = {"numbers": ["age", "height"], "train": "train.csv"}
DATASETS = [
    Case("dataset", "cifar10", FEW_ITEMS),
    Case("dataset", "cifar10", FEW_ITEMS, root=cifar_folders),
    Case("dataset", "har", {"sample_clips": 8}),
    Case("dataset", "har", {"sample_clips": 3}, root=image_folders),
    Case("dataset", "har", {"sample_clips": 3}, root=video_folders),
    Case("dataset", "video_folder", root=video_folders),
    Case("dataset", "image_folder", root=image_folders),
    Case("dataset", "image_folder", {"labels": "none"}, root=image_folders),
    Case("dataset", "image_folder", SEVERAL | {"train": "train.csv"}, root=sets_of_images),
    Case("dataset", "image_folder", NUMBERED, root=numbers_of_images),
    Case("dataset", "har", SEVERAL, root=sets_of_images),
    Case("dataset", "shards", root=lambda folder: write_tars(folder, 3, 40)),
    Case("dataset", "shards", root=lambda folder: write_video_tars(folder / "videos", 2, 12)),
    Case("dataset", "video_folder", SEVERAL | {"train": "train.txt"}, root=sets_of_videos),
]
SETS = DataSpec(tuple("abcde"), size=8, targets="set")
NUMBERS = DataSpec(("age", "height"), size=8, targets="number")
AUGMENTATIONS = [
    Case("augmentation", "timm_mixup"),
    Case("augmentation", "timm_random_erasing", {"p": 0.8, "mode": "const"}),
    Case("augmentation", "timm_random_erasing", {"p": 0.8, "mode": "rand", "max_count": 3}),
    Case("augmentation", "random_crop", identity={"padding": 0}),
    Case("augmentation", "random_resized_crop", identity={"scale": [1.0, 1.0], "ratio": [1.0, 1.0]}),
    Case("augmentation", "horizontal_flip"),
    Case("augmentation", "alternating_flip"),
    Case("augmentation", "color_jitter", identity={"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}),
    Case("augmentation", "random_grayscale"),
    Case("augmentation", "random_erasing"),
    Case("augmentation", "cutout"),
    Case("augmentation", "rand_augment"),
    Case("augmentation", "trivial_augment"),
    Case("augmentation", "mixup"),
    Case("augmentation", "cutmix"),
    Case("augmentation", "mixup", spec=SETS),
    Case("augmentation", "cutmix", spec=SETS),
    Case("augmentation", "random_erasing", spec=SETS),
    Case("augmentation", "mixup", spec=NUMBERS),
    Case("augmentation", "cutmix", spec=NUMBERS),
]
OF_SETS = ["accuracy", "average_precision", "f1", "precision", "recall"]
METRICS = [
    Case("metric", name)
    for name in (
        "accuracy",
        "average_precision",
        "calibration",
        "confusion_matrix",
        "f1",
        "log_loss",
        "mae",
        "median_absolute_error",
        "precision",
        "r2",
        "recall",
        "rmse",
        "top_k",
    )
]
METRICS_OF_NUMBERS = [Case("metric", name, spec=NUMBERS) for name in ("mae", "median_absolute_error", "r2", "rmse")]
METRICS_OF_SETS = [Case("metric", name, spec=SETS) for name in OF_SETS]
TASKS = [
    Case("task", "classification"),
    Case("task", "classification", {"class_weights": "balanced", "label_smoothing": 0.1}),
    Case("task", "classification", spec=DataSpec(CLASSES, size=16, clip=Clip(frames=4))),
    Case("task", "distill", {"teacher": "runs/teacher"}),
    Case("task", "distill", {"teacher": "runs/teacher", "answers": "hard", "labels": 0.5}),
    Case("task", "distill", {"teacher": "runs/teacher", "features": 0.5}),
    Case("task", "simsiam", {"width": 16, "bottleneck": 4}),
    Case("task", "simsiam", {"width": 16, "bottleneck": 4, "layers": 2}, spec=SETS),
    Case("task", "multi_label", spec=SETS),
    Case("task", "regression"),
    *(Case("task", "regression", {"loss": loss, "delta": 0.5}, spec=NUMBERS) for loss in ("l1", "smooth_l1", "huber")),
    Case(
        "task", "regression", {"standardise": False}, spec=DataSpec(("age",), size=16, clip=Clip(4), targets="number")
    ),
    Case("task", "multi_label", {"positive_weights": "balanced", "thresholds": "fixed"}, spec=SETS),
]
TRACKERS = [Case("tracker", "tensorboard"), Case("tracker", "wandb", {"mode": "offline"})]
OPTIMIZERS = [Case("optimizer", name) for name in toolkit_optim.OPTIMIZERS if name != "rprop"]
MUON = Case("optimizer", "muon", excused={"decay": "its filters have a fixed norm, so that a decay has no effect"})
RPROP = Case("optimizer", "rprop", excused={"rates": "it reads the rate once, before its first step"})
SCHEDULES = [
    Case("schedule", "constant"),
    Case("schedule", "cosine", {"final": 0.1}),
    Case("schedule", "linear", {"final": 0.1}),
    Case("schedule", "one_cycle"),
    Case("schedule", "one_cycle", {"shape": "linear", "peak": 1.0}),
    Case("schedule", "plateau", {"patience": 2}),
    Case("schedule", "step", {"every": 2}),
    Case("schedule", "step", {"milestones": [3, 5]}),
]
MLFLOW = Case("tracker", "mlflow", excused={"inside": ONE_STORE})


def of_images(name: str, size: int = 32, **args: Any) -> Case:
    return Case("model", name, args, spec=DataSpec(CLASSES, size=size))


def of_clips(name: str, size: int = 32, frames: int = 4, **args: Any) -> Case:
    return Case("model", name, args, spec=DataSpec(CLASSES, size=size, clip=Clip(frames=frames)))


VIDEOMAE, DINOV2 = kept_source("videomae"), kept_source("dinov2")
WHITENED = Case(
    *("model", "whitened_cnn", {"widths": [8, 8, 8]}),
    spec=DataSpec(CLASSES, size=32),
    excused={"modes": "in evaluation it averages several views"},
)
MODELS = [
    of_images("cnn"),
    WHITENED,
    of_images("shufflenet_v2_x0_5", freeze=True, thaw_epoch=1),
    of_images("timm", size=64, model="test_efficientnet", drop_path=0.1, dropout=0.5, freeze=True),
    of_images("timm", size=64, model="test_vit"),
    of_clips("openclip", model=add_tiny()),
    of_clips("transformers", source=VIDEOMAE, head="attentive", lora={"rank": 2}),
    of_clips("x3d_xs"),
]
FRAMEWISE = [
    of_clips("cnn"),
    of_clips("cnn", head="lstm", head_width=8),
    of_clips("cnn", head="gru", head_width=8),
    of_clips("cnn", head="attention", head_width=64),
]
OF_OTHER_LAYERS = [
    of_images("densenet121"),
    of_images("efficientnet_b0"),
    of_images("mnasnet0_5"),
    of_images("mobilenet_v2"),
    of_images("mobilenet_v3_small"),
    of_images("regnet_x_400mf"),
]
"""Built by the same code as shufflenet_v2: asked only what their own layers could break."""
LIKE_OTHERS = [
    of_images("alexnet", size=64),
    of_images("convnext_tiny"),
    of_images("maxvit_t", size=224),
    of_images("regnet_y_400mf"),
    of_images("resnet18"),
    of_images("resnet50"),
    of_images("resnext50_32x4d"),
    of_images("swin_t"),
    of_images("swin_v2_t"),
    of_images("vgg11"),
    of_images("vit_b_32", size=224),
    of_images("wide_resnet50_2"),
    of_images("wide_resnet", depth=10, width=1),
    of_clips("csn_r101"),
    of_clips("mc3_18", frames=2),
    of_clips("mvit_b"),
    of_clips("r2plus1d_r50"),
    of_clips("resnet18", shift=True),
    of_clips("slow_r50"),
    of_clips("slowfast_r50"),
    of_clips("s3d", frames=8),
    of_clips("swin3d_t", frames=2),
    of_clips("transformers", source=DINOV2, head="attentive", freeze=True),
]
"""Large ones, built by the same code as others."""
OF_LAYERS = ["logits", "gradients", "items"]
EXPORTED = [WHITENED, of_clips("cnn", head="attention", head_width=64), of_clips("mc3_18", frames=2)]
"""An image model, one that sees clips frame by frame, and one of clips. Others are in tests/export."""

test_datasets = conformance(*DATASETS, slow=False)
test_augmentations = conformance(*AUGMENTATIONS)
test_metrics = conformance(*METRICS)
test_metrics_of_sets = conformance(*METRICS_OF_SETS)
test_tasks = conformance(*TASKS, slow=False)
test_trackers = conformance(*TRACKERS)
test_optimizers = conformance(*OPTIMIZERS, RPROP, MUON)
test_schedules = conformance(*SCHEDULES)
test_models = conformance(*MODELS, *FRAMEWISE, slow=False)
test_models_of_other_layers = conformance(*OF_OTHER_LAYERS, only=OF_LAYERS)

# It starts a Python of its own, which imports torch again.
test_datasets_in_other_processes = pytest.mark.slow(conformance(DATASETS[4], only=["processes"]))
# It makes a database with all tables that MLflow has.
test_mlflow = pytest.mark.slow(conformance(MLFLOW))
# Building one and a pass through it take seconds.
test_models_like_others = pytest.mark.long(conformance(*LIKE_OTHERS, only=OF_LAYERS))
# What a layer hardly decides takes as long as what it does.
test_every_rule_of_other_layers = pytest.mark.long(conformance(*OF_OTHER_LAYERS, slow=False))
# Tracing takes seconds, of x3d a dozen.
test_a_large_graph = pytest.mark.long(conformance(of_clips("x3d_xs"), only=["onnx"]))
test_graphs = pytest.mark.slow(conformance(*EXPORTED, *TASKS[:1], TASKS[3], only=["onnx"]))


def real(name: str) -> Callable[[Path], Path]:
    """The root of real data."""
    return lambda _: Path(os.environ["TOOLKIT_DATA"], name)


REAL = [
    Case("dataset", "har", {"sample_clips": 3}, root=real("har-subset")),
    Case("dataset", "har", {"sample_clips": 3}, root=real("fight")),
    Case("dataset", "video_folder", root=real("arid-dark")),
    Case("dataset", "video_folder", root=real("ucf101-fixture")),
]
absent = pytest.mark.skipif(not os.environ.get("TOOLKIT_DATA"), reason="TOOLKIT_DATA names no folder of real data")
test_real_datasets = absent(pytest.mark.real(conformance(*REAL, only=["items", "repeatable", "balance"])))
test_real_splits = absent(pytest.mark.real(conformance(REAL[-1], only=["disjoint"])))
# It decodes every frame of every video.
test_all_real_splits = absent(pytest.mark.long(pytest.mark.real(conformance(*REAL[:-1], only=["disjoint"]))))


def family(name: str) -> str:
    """The letters that a name begins with: swin of swin_v2_t, resnet of resnet18."""
    return re.match(r"[a-z]+", name)[0]  # type: ignore[index]


@pytest.mark.parametrize("kind", ["dataset", "augmentation", "metric", "task", "tracker", "optimizer", "schedule"])
def test_every_component_of_ours_is_examined(kind: str) -> None:
    cases = (*DATASETS, *AUGMENTATIONS, *METRICS, *TASKS, *TRACKERS, MLFLOW, *OPTIMIZERS, RPROP, MUON, *SCHEDULES)
    examined = {case.factory for case in cases if case.kind == kind}
    assert examined == offered(kind)


def test_of_every_family_of_models_one_is_examined() -> None:
    examined = {family(str(case.factory)) for case in (*MODELS, *OF_OTHER_LAYERS, *LIKE_OTHERS)}
    assert examined == {family(name) for name in offered("model")}


installed = cache(discover)


def offered(kind: str) -> set[str]:
    offers = installed().offers(kind)
    return {offer.name for offer in offers if offer.plugin.distribution == "vision-toolkit"}
