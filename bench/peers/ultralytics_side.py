"""By Ultralytics' trainer of classifiers. Its head is one convolution larger than a ResNet-18's."""

from __future__ import annotations

import yaml
from ultralytics import settings
from ultralytics.models.yolo.classify import ClassificationTrainer

from bench.peers.setting import BATCH, DECAY, MOMENTUM, RATE, SCALE, SIDE, WORKERS, Setting

CHANNELS = 512
"""Of torchvision's resnet18, without its last two layers."""


def main(setting: Setting) -> None:
    settings.update(mlflow=False, tensorboard=False, wandb=False)
    model = {
        "nc": sum(1 for _ in (setting.data / "train").iterdir()),
        "backbone": [[-1, 1, "TorchVision", [CHANNELS, "resnet18", None, True, 2]]],
        "head": [[-1, 1, "Classify", ["nc"]]],
    }
    file = setting.output / "resnet18-cls.yaml"
    file.write_text(yaml.safe_dump(model), encoding="utf-8")
    ClassificationTrainer(
        overrides={
            "model": str(file),
            "data": str(setting.data),
            "project": str(setting.output),
            "epochs": setting.epochs,
            "imgsz": SIDE,
            "batch": BATCH,
            "workers": WORKERS,
            "device": "cpu",
            "pretrained": False,
            "optimizer": "SGD",
            "lr0": RATE,
            "momentum": MOMENTUM,
            "weight_decay": DECAY,
            "scale": SCALE[0],
            "auto_augment": None,
            "erasing": 0.0,
            "hsv_h": 0.0,
            "hsv_s": 0.0,
            "hsv_v": 0.0,
        }
    ).train()


if __name__ == "__main__":
    main(Setting.given())
