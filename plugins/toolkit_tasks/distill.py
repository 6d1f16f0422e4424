"""One class an item, learned from the answers of a trained network as well."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from toolkit.api.contracts import DataSpec, Forward, NetworkOf, TargetForm
from toolkit.api.errors import RunFailed
from toolkit.transfer.vectors import vectors
from toolkit_tasks.classification import Classification

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
DIGEST = 16
"""Bytes that distinguish a teacher from others."""


def distill(
    spec: DataSpec,  # noqa: ARG001 - every task takes it
    *,
    teacher: Path,
    network_of: NetworkOf | None = None,
    answers: Literal["soft", "hard"] = "soft",
    temperature: Positive = 4.0,
    labels: Share = 0.1,
    features: NonNegative = 0.0,
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> Distillation:
    """Each item shows one class, and a teacher has an answer to it (Hinton et al., arXiv 1503.02531).

    The teacher sees the pixels of the batch, augmented as the learner sees them. It may also show its features (Romero
    et al., arXiv 1412.6550), which a learned linear projection of the learner's last features is to match.

    teacher: a run, or a bundle whose run is there, of the same classes and the same input
    answers: soft (all of the teacher's probabilities, by the Kullback-Leibler divergence) or hard (its likeliest class)
    temperature: what logits are divided by, of soft answers; the divergence is multiplied by its square.
    labels: share of the true class in the loss; the rest is the teacher's.
    features: weight of the squared distance between the teacher's features and the projection, each of length 1, which
        is added to the loss; 0: no features are compared.
    label_smoothing: share of a true class that is spread over all classes
    """
    return Distillation(teacher, network_of, answers, temperature, labels, features, label_smoothing)


class Distillation(nn.Module):
    """Targets are int64 `[B]`, or float32 `[B, C]` of shares of classes. The teacher is opened for the first loss, so a
    learner that is evaluated or exported does not need it; checkpoints have its digest alone. The projection is made
    for the first loss too, when both sizes of features are known."""

    targets: TargetForm = "index"
    thresholds = None
    taught_by: Tensor
    projection: nn.Linear | None

    def __init__(
        self,
        teacher: Path,
        network_of: NetworkOf | None,
        answers: Literal["soft", "hard"],
        temperature: float,
        labels: float,
        features: float,
        label_smoothing: float,
    ) -> None:
        super().__init__()
        self.answers, self.temperature, self.labels, self.features = answers, temperature, labels, features
        self.projection = None
        self._true = Classification(label_smoothing, None)
        self._path, self._network_of = teacher, network_of
        self._opened: list[nn.Module] = []  # in a list, so that it is part of no checkpoint
        self.register_buffer("taught_by", torch.zeros(DIGEST, dtype=torch.uint8))

    @property
    def teacher(self) -> nn.Module:
        """Opened when it is first asked for. Raises RunFailed where it is not the one that the run began with."""
        if not self._opened:
            if self._network_of is None:
                raise AssertionError("an objective that is not trained has no teacher")
            network = self._network_of(self._path)
            self._require_same(digest_of(network.state_dict()))
            self._opened.append(network)
        return self._opened[0]

    def loss(self, forward: Forward, pixels: Tensor, targets: Tensor) -> Tensor:
        if not self.features:
            with torch.no_grad():
                taught = forward(pixels, self.teacher)
            return self._of_answers(forward(pixels), taught, targets)
        with torch.no_grad():
            shown = forward.features(pixels, self.teacher)
            taught = forward(shown, self.teacher)
        learned = forward.features(pixels)
        distance = self._distance(vectors(learned, len(pixels)), vectors(shown, len(pixels)))
        return self._of_answers(forward(learned), taught, targets) + self.features * distance

    def _of_answers(self, logits: Tensor, taught: Tensor, targets: Tensor) -> Tensor:
        true = self._true.of_logits(logits, targets)
        return self.labels * true + (1 - self.labels) * self._divergence(logits, taught)

    def _distance(self, learned: Tensor, shown: Tensor) -> Tensor:
        """Squared, of directions `[B, F]`, summed over the items."""
        if self.projection is None:
            self.projection = nn.Linear(learned.shape[1], shown.shape[1], device=learned.device)
        ours, its = (functional.normalize(one, dim=1) for one in (self.projection(learned), shown))
        return (ours - its).square().sum()

    def _divergence(self, logits: Tensor, taught: Tensor) -> Tensor:
        """Summed over the items."""
        if self.answers == "hard":
            return functional.cross_entropy(logits, taught.argmax(1), reduction="sum")
        asked, known = ((one / self.temperature).log_softmax(1) for one in (logits, taught))
        return self.temperature**2 * functional.kl_div(asked, known, reduction="sum", log_target=True)

    def weight(self, targets: Tensor) -> Tensor | int:
        return len(targets)

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of the true classes alone: what scores compare."""
        return functional.cross_entropy(logits, targets)

    def logits(self, outputs: Tensor) -> Tensor:
        return outputs

    def settle(self, logits: Tensor, targets: Tensor) -> None:
        """Nothing to choose: the likeliest class is the answer."""

    def _require_same(self, found: bytes) -> None:
        here = torch.frombuffer(bytearray(found), dtype=torch.uint8).to(self.taught_by.device)
        if bool(self.taught_by.any()) and not torch.equal(self.taught_by, here):
            raise RunFailed(
                f"{self._path}: not the teacher that this run began with: its weights have changed",
                next_step="put back the teacher, or start a new run",
            )
        self.taught_by.copy_(here)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Weights that were opened before a state is loaded are opened again, and compared with its digest."""
        self._opened.clear()
        if self.projection is None and (weight := state_dict.get("projection.weight")) is not None:
            self.projection = nn.Linear(weight.shape[1], weight.shape[0], device=self.taught_by.device)
        return super().load_state_dict(cast(dict[str, Any], state_dict), strict, assign)


def digest_of(state: Mapping[str, Tensor]) -> bytes:
    """Of names and values."""
    digest = blake2b(digest_size=DIGEST)
    for name, value in state.items():
        digest.update(f"\0{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.digest()
