"""Answers that need no training by steps: the most frequent class, and logistic regression on frozen features."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from toolkit.api.contracts import Data
from toolkit.build.assemble import Assembly
from toolkit.training.network import Network

STRENGTHS = tuple(10.0**power for power in range(-4, 3))
"""Values of C, the inverse strength of the L2 penalty, that cross-validation chooses from."""
FOLDS = 5
ITERATIONS = 1000
ABSENT = -30.0
"""Logit of a class that training has no item of."""


class Majority(nn.Module):
    """Answers every item with the shares of the classes among the training items."""

    logits: Tensor

    def __init__(self, targets: Sequence[int], classes: int) -> None:
        super().__init__()
        counts = Counter(targets)
        shares = torch.tensor([counts[number] / len(targets) for number in range(classes)])
        self.register_buffer("logits", shares.clamp(min=torch.finfo(torch.float32).tiny).log())

    def forward(self, pixels: Tensor) -> Tensor:
        """`[B, C]`, the same for all items."""
        return self.logits.expand(len(pixels), -1)


class Probe(nn.Module):
    """A linear layer on the features of a network's backbone."""

    def __init__(self, network: Network, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.network = network
        self.linear = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            self.linear.weight.copy_(weight)
            self.linear.bias.copy_(bias)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits `[B, C]` of uint8 pixels; the linear layer works in float32."""
        features = self.network.features(pixels)
        with torch.autocast(pixels.device.type, enabled=False):
            logits: Tensor = self.linear(features.float().flatten(1))
        return logits


def fit_probe(assembly: Assembly, features: Tensor) -> tuple[Probe, float]:
    """The probe with the best C by cross-validation, and that C. `features` are `[N, ...]` of the training items, in
    order; several of one video stand together. Items of one source are in one fold."""
    data = assembly.data
    each = len(features) // len(data.train)
    inputs = features.float().flatten(1).cpu().numpy()
    targets = np.repeat(np.asarray(data.train.targets), each)
    mean, deviation = inputs.mean(0), inputs.std(0)
    deviation[deviation == 0] = 1
    inputs = (inputs - mean) / deviation
    strength = _best_strength(inputs, targets, _sources(data, each))
    weight, bias = _fitted(inputs, targets, strength, len(assembly.spec.classes))
    weight = weight / deviation
    probe = Probe(assembly.network, torch.from_numpy(weight), torch.from_numpy(bias - weight @ mean))
    return probe.to(assembly.device), strength


def _best_strength(inputs: NDArray[np.float32], targets: NDArray[np.int64], sources: Sequence[str]) -> float:
    """The C whose answers to held-out items are likeliest; the largest where the data cannot be divided."""
    losses = [_held_out(inputs, targets, *parts) for parts in _divided(targets, sources)]
    if not losses:
        return 1.0
    return STRENGTHS[int(np.mean(losses, axis=0).argmin())]


def _held_out(
    inputs: NDArray[np.float32], targets: NDArray[np.int64], kept: NDArray[np.int64], held: NDArray[np.int64]
) -> list[float]:
    """The mean log loss on the held-out items for each C, all of them fitted to the kept ones."""
    losses = []
    count = int(targets.max()) + 1
    for strength in STRENGTHS:
        weight, bias = _fitted(inputs[kept], targets[kept], strength, count)
        logits = torch.from_numpy(inputs[held] @ weight.T + bias)
        losses.append(float(nn.functional.cross_entropy(logits, torch.from_numpy(targets[held]))))
    return losses


def _divided(
    targets: NDArray[np.int64], sources: Sequence[str]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(FOLDS, len({*sources}))
    if folds < 2:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class that has fewer items than there are folds
        parts = StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(targets, targets, sources)
        yield from (one for one in parts if len(np.unique(targets[one[0]])) > 1)


def _fitted(
    inputs: NDArray[np.float32], targets: NDArray[np.int64], strength: float, classes: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights `[C, F]` and biases `[C]` of all classes."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    weight = np.zeros((classes, inputs.shape[1]), np.float32)
    bias = np.full(classes, ABSENT, np.float32)
    present = np.unique(targets)
    if len(present) < 2:
        bias[present] = 0
        return weight, bias
    model = LogisticRegression(C=strength, max_iter=ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a weak penalty: cross-validation judges what was found
        model.fit(inputs, targets)
    if len(present) == 2:  # one row, for the second class
        weight[present[1]], bias[present] = model.coef_[0], (0, model.intercept_[0])
    else:
        weight[present], bias[present] = model.coef_, model.intercept_
    return weight, bias


def _sources(data: Data, each: int) -> list[str]:
    return [data.sources.get(name, name) for name in data.train.ids for _ in range(each)]
