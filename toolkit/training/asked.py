"""The network in training, as its objective asks it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from torch import Tensor, nn

from toolkit.api.contracts import Objective
from toolkit.api.errors import RunFailed
from toolkit.data.loader import Share


@dataclass(frozen=True)
class Asked:
    """A network, asked by its objective: `toolkit.api.contracts.Forward`."""

    trained: nn.Module
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext
    known: Known | None = None
    """What need not be computed again."""

    def __call__(self, pixels: Tensor, network: nn.Module | None = None) -> Tensor:
        return self._asked(network or self.trained, pixels, features=False)

    def features(self, pixels: Tensor, network: nn.Module | None = None) -> Tensor:
        return self._asked(network or self.trained, pixels, features=True)

    def _asked(self, network: nn.Module, pixels: Tensor, *, features: bool) -> Tensor:
        if self.known and self.known.question == Question(pixels, network, features):
            return self.known.answer
        try:
            with self.autocast():
                outputs: Tensor = network(pixels, features=True) if features else network(pixels)
        except ValueError as error:
            if len(pixels) > 1:
                raise
            # Batch norm has no spread to divide by.
            raise RunFailed(
                f"the model cannot be trained on one item at a time: {error}",
                next_step="use larger batches (--set train.batch=...) or fewer parts (--set train.accumulate=...)",
            ) from error
        return outputs.float()


@dataclass(frozen=True, eq=False)
class Question:
    """What an objective asks for once."""

    pixels: Tensor
    network: nn.Module | None
    """None: the network in training."""
    features: bool

    def __eq__(self, other: object) -> bool:
        """Whether the answer is the same because the very same is asked."""
        if not isinstance(other, Question):
            return NotImplemented
        return self.pixels is other.pixels and self.network is other.network and self.features == other.features

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Known:
    """A question whose answer is there."""

    question: Question
    answer: Tensor


@dataclass(frozen=True)
class Recorded(Asked):
    """A network that keeps what its objective has asked for."""

    questions: list[Question] = field(default_factory=list)

    @classmethod
    def of(cls, objective: Objective, trained: nn.Module, batch: Share) -> list[Question]:
        """What the loss of a batch asks for."""
        recorded = cls(trained)
        objective.loss(recorded, batch.pixels, batch.targets)
        return recorded.questions

    def __call__(self, pixels: Tensor, network: nn.Module | None = None) -> Tensor:
        self.questions.append(Question(pixels, network, features=False))
        return super().__call__(pixels, network)

    def features(self, pixels: Tensor, network: nn.Module | None = None) -> Tensor:
        self.questions.append(Question(pixels, network, features=True))
        return super().features(pixels, network)
