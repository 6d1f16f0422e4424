"""Other engines on a recipe's network and items, each process one rank of torchrun: prints the seconds of each epoch.

Pixels lie decoded in memory, so that the engine is what is measured.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from toolkit.build.assemble import assemble, training
from toolkit.build.plan import plan
from toolkit.host.registry import discover
from toolkit.recipe.read import parse
from toolkit.system.device import synchronize
from toolkit.training.asked import Asked
from toolkit.training.state import Setup, State


def lightning(
    state: State,
    setup: Setup,
    items: TensorDataset,
    ranks: int,
    *,
    precision: Literal["32-true", "bf16-mixed"] = "32-true",
    workers: int = 0,
) -> list[float]:
    """By the Trainer of Lightning."""
    import lightning as pl

    class Module(pl.LightningModule):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.network, self.seconds = state.network, list[float]()

        def on_train_epoch_start(self) -> None:
            self._begun = time.perf_counter()

        def on_train_epoch_end(self) -> None:
            self.seconds.append(time.perf_counter() - self._begun)

        def training_step(self, batch: Sequence[Tensor], number: int) -> Tensor:  # noqa: ARG002 - Lightning's signature
            return loss(state, self.network, *batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return state.optimizer

    module = Module()
    trainer = pl.Trainer(
        accelerator="gpu" if state.device.type == "cuda" else "cpu",
        precision=precision,
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        max_epochs=setup.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, _loader(items, setup.batch // ranks, state.device, workers))
    return module.seconds


def plain(state: State, setup: Setup, items: TensorDataset, *, workers: int = 0) -> list[float]:
    """By the loop that a user writes: a DataLoader, the step, and nothing else."""
    loader = _loader(items, setup.batch, state.device, workers)
    seconds = []
    for _ in range(setup.epochs):
        begun = time.perf_counter()
        for batch in loader:
            pixels, targets = (part.to(state.device, non_blocking=True) for part in batch)
            state.optimizer.zero_grad()
            with setup.autocast():
                value = loss(state, state.network, pixels, targets)
            value.backward()
            state.optimizer.step()
        synchronize(state.device)
        seconds.append(time.perf_counter() - begun)
    return seconds


def _loader(items: TensorDataset, size: int, device: torch.device, workers: int) -> DataLoader[Any]:
    return DataLoader(
        items,
        size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
    )


def accelerate(state: State, setup: Setup, items: TensorDataset, ranks: int) -> list[float]:
    """By Accelerate."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    loader = DataLoader(items, setup.batch // ranks, shuffle=True, drop_last=True)
    network, optimizer, batches = accelerator.prepare(state.network, state.optimizer, loader)
    seconds = []
    for _ in range(setup.epochs):
        begun = time.perf_counter()
        for pixels, targets in batches:
            optimizer.zero_grad()
            accelerator.backward(loss(state, network, pixels, targets))
            optimizer.step()
        seconds.append(time.perf_counter() - begun)
    return seconds


ENGINES = {"lightning": lightning, "accelerate": accelerate}


def loss(state: State, network: nn.Module, pixels: Tensor, targets: Tensor) -> Tensor:
    """The mean loss of a batch."""
    return state.objective.loss(Asked(network), pixels, targets) / len(targets)


def main(engine: str, recipe: str, overrides: Sequence[str]) -> None:
    ranks, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    planned = plan(parse(Path(__file__).parents[1] / "recipes" / f"{recipe}.toml", overrides), discover())
    assembly = assemble(planned)
    state, setup = training(assembly)
    state.network.train()
    batch = assembly.train.at(range(len(assembly.train.store)))
    seconds = ENGINES[engine](state, setup, TensorDataset(batch.pixels, batch.targets), ranks)
    if rank == 0:
        print(json.dumps(seconds))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
