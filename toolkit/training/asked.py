"""The network in training, as its objective asks it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from torch import Tensor, nn

from toolkit.api.contracts import Objective
from toolkit.api.errors import RunFailed
from toolkit.data.loader import Share
from toolkit.system.device import at_least_float32


@dataclass(frozen=True)
class Asked:
    """A network, asked by its objective: `toolkit.api.contracts.Forward`."""

    trained: Callable[..., Tensor]
    """The network, or its method `forward`, which is neither compiled nor has hooks."""
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext
    known: Known | None = None
    """What need not be computed again."""

    def __call__(self, pixels: Tensor, network: nn.Module | None = None) -> Tensor:
        return self._asked(self.trained if network is None else network, Question(pixels, network, features=False))

    def features(self, pixels: Tensor, network: nn.Module | None = None) -> Tensor:
        return self._asked(self.trained if network is None else network, Question(pixels, network, features=True))

    def _asked(self, network: Callable[..., Tensor], question: Question) -> Tensor:
        if self.known and self.known.question == question:
            return self.known.answer
        try:
            with self.autocast():
                outputs = network(question.pixels, features=True) if question.features else network(question.pixels)
        except ValueError as error:
            if len(question.pixels) > 1:
                raise
            # Batch norm has no spread to divide by.
            raise RunFailed(
                f"the model cannot be trained on one item at a time: {error}",
                next_step="use larger batches (--set train.batch=...) or fewer parts (--set train.accumulate=...)",
            ) from error
        return at_least_float32(outputs)


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
    def of(cls, objective: Objective, trained: Callable[..., Tensor], batch: Share) -> list[Question]:
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
