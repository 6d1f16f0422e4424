"""The recipe of airbench94_muon in a bare loop: what someone runs who wants CIFAR-10 to 94 % and nothing else.

Written from its description (K. Jordan, arXiv 2404.00498; its later version with Muon). It shares the network and the
optimizer with `recipes/cifar10_94.toml`, not the loop: pixels are normalised once, the weights are in half precision,
all crops of an epoch are one gather, the loss is a sum. Nothing is checked, shown or saved.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.build.assemble import Assembly
from toolkit.data.loader import Loader
from toolkit.system.device import synchronize
from toolkit_cifar.whitened import WhitenedCnn, whitened_cnn
from toolkit_optim.muon import muon

PADDING = 2
LABEL_SMOOTHING = 0.2
FILTERS, BIASES, HEAD = 0.24, 0.053, 0.67
"""Learning rates, of a summed loss."""
DECAY = 2e-6
"""Times the batch size."""


class Reference:
    """Trains on the images of an assembly, as many epochs in batches as large as its recipe says."""

    def __init__(self, assembly: Assembly) -> None:
        self._spec, self._device = assembly.spec, assembly.device
        self._epochs, self._batch = assembly.recipe.train.epochs, assembly.recipe.train.batch_size
        self._arguments: dict[str, Any] = assembly.recipe.model.args
        self._half = torch.float16 if assembly.device.type == "cuda" else torch.float32
        self._train, self._test = _whole(assembly.train), _whole(assembly.test)
        self._model = self._halved(self._initial())
        # Compiled once: each training begins by loading initial weights.
        self._compiled: Any = torch.compile(self._model) if assembly.device.type == "cuda" else self._model

    def __call__(self, seed: int) -> tuple[float, float]:
        """Seconds, and the percentage of the test images that is right in six views."""
        started = time.perf_counter()
        torch.manual_seed(seed)
        pixels, targets = self._train
        model = self._model.train()
        model.load_state_dict(self._initial().state_dict())
        model.begin_epoch(0)
        optimizer = self._optimizer(model)
        normalised = self._normalised(pixels)
        steps = self._epochs * (len(pixels) // self._batch)
        done = 0
        for epoch, crops in enumerate(epochs(normalised, self._epochs)):
            model.begin_epoch(epoch)
            shuffled = torch.randperm(len(crops), device=self._device)
            for places in shuffled.split(self._batch)[: len(pixels) // self._batch]:
                for group in optimizer.param_groups:
                    group["lr"] = group["base_lr"] * (1 - done / steps)
                optimizer.zero_grad(set_to_none=True)
                logits = self._compiled(crops[places]).float()
                functional.cross_entropy(
                    logits, targets[places], label_smoothing=LABEL_SMOOTHING, reduction="sum"
                ).backward()
                optimizer.step()
                done += 1
        right = self._right()
        synchronize(self._device)
        return time.perf_counter() - started, right

    def _initial(self) -> WhitenedCnn:
        return whitened_cnn(self._spec, examples=lambda count: self._train[0][:count].cpu(), **self._arguments)

    def _halved(self, model: WhitenedCnn) -> WhitenedCnn:
        """In half precision, but for its batch norms."""
        model.to(self._device).to(memory_format=torch.channels_last)
        for module in model.modules():
            if not isinstance(module, nn.BatchNorm2d):
                for own in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                    own.data = own.data.to(self._half)
        return model

    def _optimizer(self, model: WhitenedCnn) -> torch.optim.Optimizer:
        trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
        rates = {name: HEAD if "head" in name else BIASES if one.ndim < 3 else FILTERS for name, one in trained.items()}
        groups = [{"params": [one], "lr": rates[name], "base_lr": rates[name]} for name, one in trained.items()]
        return muon(groups, lr=FILTERS, weight_decay=DECAY * self._batch)

    def _normalised(self, pixels: Tensor) -> Tensor:
        given = (self._spec.mean, self._spec.std)
        mean, std = (torch.tensor(values, device=self._device).view(3, 1, 1) for values in given)
        whole = (pixels.float() / 255 - mean) / std
        return whole.to(self._half, memory_format=torch.channels_last)

    @torch.no_grad()
    def _right(self) -> float:
        pixels, targets = self._test
        self._model.eval()
        answers = [self._model(part).argmax(1) for part in self._normalised(pixels).split(self._batch)]
        return 100 * float((torch.cat(answers) == targets).float().mean())


def epochs(pixels: Tensor, count: int) -> Iterator[Tensor]:
    """Of `[N, 3, H, W]`, the augmented images of each epoch: a random half mirrored at first, then all of them in turn,
    and each cut at a place of its own from its reflected surroundings."""
    size, device = pixels.shape[-1], pixels.device
    mirrored = torch.rand(len(pixels), device=device) < 0.5
    padded = functional.pad(pixels, [PADDING] * 4, mode="reflect").movedim(1, -1)
    along = torch.arange(size, device=device)
    items = torch.arange(len(pixels), device=device)[:, None, None]
    for _ in range(count):
        top, left = torch.randint(0, 2 * PADDING + 1, (2, len(pixels), 1), device=device)
        columns = torch.where(mirrored[:, None], along.flip(0), along) + left
        yield padded[items, (along + top)[:, :, None], columns[:, None, :]].movedim(-1, 1)
        mirrored = ~mirrored


def _whole(loader: Loader) -> tuple[Tensor, Tensor]:
    batch = loader.at(range(len(loader.store)))
    return batch.pixels, batch.targets
