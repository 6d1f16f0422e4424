"""By timm's parts, in the order of its train script, which its package does not contain."""

# timm has few types, and does not say what its packages export.
# mypy: disable-error-code="attr-defined, no-untyped-call"

from __future__ import annotations

import logging
from typing import Any

import torch
from timm.data import create_dataset, create_loader
from timm.models import create_model
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, CheckpointSaver, accuracy, setup_default_logging
from torch import nn

from bench.peers.setting import BATCH, DECAY, MEAN, MOMENTUM, RATE, SCALE, SIDE, STD, WORKERS, Setting

LOG = logging.getLogger("train")
LOG_STEPS = 50


def main(setting: Setting) -> None:
    setup_default_logging()
    device = torch.device("cpu")
    train, valid = (_loader(setting, name, device) for name in ("train", "valid"))
    network = create_model("resnet18", pretrained=False, num_classes=len(train.dataset.reader.class_to_idx))
    network.to(device).to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(network, opt="sgd", lr=RATE, weight_decay=DECAY, momentum=MOMENTUM)
    scheduler, _ = create_scheduler_v2(optimizer, sched="cosine", num_epochs=setting.epochs)
    saver = CheckpointSaver(network, optimizer, checkpoint_dir=str(setting.output), max_history=1)
    for epoch in range(setting.epochs):
        _train_one_epoch(epoch, network, train, optimizer)
        top1 = _validate(network, valid)
        saver.save_checkpoint(epoch, metric=top1)
        scheduler.step(epoch + 1, top1)


def _loader(setting: Setting, name: str, device: torch.device) -> Any:
    return create_loader(
        create_dataset("", str(setting.data / name)),
        input_size=(3, SIDE, SIDE),
        batch_size=BATCH,
        is_training=name == "train",
        scale=SCALE,
        hflip=0.5,
        color_jitter=0.0,
        interpolation="bilinear",
        mean=MEAN,
        std=STD,
        num_workers=WORKERS,
        crop_pct=1.0,
        pin_memory=False,
        device=device,
        use_prefetcher=False,
        persistent_workers=True,
    )


def _train_one_epoch(epoch: int, network: nn.Module, batches: Any, optimizer: torch.optim.Optimizer) -> None:
    network.train()
    losses, criterion = AverageMeter(), nn.CrossEntropyLoss()
    for step, (pixels, targets) in enumerate(batches):
        laid_out = pixels.contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad()
        loss = criterion(network(laid_out), targets)
        loss.backward()
        optimizer.step()
        if step % LOG_STEPS == 0:
            losses.update(loss.item(), len(pixels))
            LOG.info("epoch %d step %d loss %.3f", epoch + 1, step, losses.avg)


@torch.inference_mode()
def _validate(network: nn.Module, batches: Any) -> float:
    network.eval()
    meter = AverageMeter()
    for pixels, targets in batches:
        (top1,) = accuracy(network(pixels.contiguous(memory_format=torch.channels_last)), targets)
        meter.update(top1.item(), len(pixels))
    LOG.info("top-1 %.2f", meter.avg)
    return float(meter.avg)


if __name__ == "__main__":
    main(Setting.given())
