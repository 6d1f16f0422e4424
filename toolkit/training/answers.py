"""From logits to answers and back, by the form of targets: a softmax over classes, a sigmoid for each, or numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from toolkit.api.clips import Averaged
from toolkit.api.contracts import TargetForm


class Answering(Protocol):
    """How one form of targets is answered."""

    def answers(self, logits: Tensor) -> Tensor:
        """What is shown, exported and compared, `[..., C]`, of logits `[..., C]`."""

    def logits(self, answers: Tensor) -> Tensor:
        """Finite logits whose answers are these: those of a bundle, which gives answers."""

    def mean_answer(self, logits: Tensor) -> Tensor:
        """Logits `[N, C]` of the mean answer over V views, of logits `[N, V, C]`."""

    def certain(self, outputs: int, wrong_by: int) -> tuple[Tensor, Tensor]:
        """Answers and targets of a few items: right ones, or where `wrong_by` is not 0, ones that are that many classes
        or units away from the target."""


class _OneClass:
    """Probabilities that sum to 1."""

    def answers(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)

    def logits(self, answers: Tensor) -> Tensor:
        return answers.clamp(min=torch.finfo(torch.float32).tiny).log()

    def mean_answer(self, logits: Tensor) -> Tensor:
        # In logarithms, so that a class that no view holds probable keeps its rank.
        return logits.log_softmax(-1).logsumexp(1) - math.log(logits.shape[1])

    def certain(self, outputs: int, wrong_by: int) -> tuple[Tensor, Tensor]:
        shown = torch.eye(outputs)
        return shown.roll(wrong_by, dims=1), shown.argmax(1)


class _SetOfClasses:
    """An independent probability for each class."""

    def answers(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def logits(self, answers: Tensor) -> Tensor:
        return answers.logit(eps=torch.finfo(torch.float32).eps)

    def mean_answer(self, logits: Tensor) -> Tensor:
        return self.logits(logits.sigmoid().mean(1))

    def certain(self, outputs: int, wrong_by: int) -> tuple[Tensor, Tensor]:
        shown = torch.eye(outputs)
        return shown.roll(wrong_by, dims=1), shown


class _Numbers:
    """Numbers in the unit of the targets: logits are the answer."""

    def answers(self, logits: Tensor) -> Tensor:
        return logits

    def logits(self, answers: Tensor) -> Tensor:
        return answers

    def mean_answer(self, logits: Tensor) -> Tensor:
        return logits.mean(1)

    def certain(self, outputs: int, wrong_by: int) -> tuple[Tensor, Tensor]:
        numbers = torch.arange(4.0)[:, None].expand(-1, outputs)
        return numbers + wrong_by, numbers


ANSWERING: Mapping[TargetForm, Answering] = {"index": _OneClass(), "set": _SetOfClasses(), "number": _Numbers()}


def answers_of(logits: Tensor, form: TargetForm) -> Tensor:
    """Answers `[..., C]` of logits `[..., C]`."""
    return ANSWERING[form].answers(logits)


def logits_of(answers: Tensor, form: TargetForm) -> Tensor:
    """Finite logits `[..., C]` whose answers are these."""
    return ANSWERING[form].logits(answers)


def averaged(logits: Tensor, form: TargetForm, items: int, average: Averaged) -> Tensor:
    """Logits `[items, C]` of logits `[items * V, C]`: of V views of each item, one item after the other, the mean of
    the logits or of the answers they stand for (which have logits again)."""
    views = logits.view(items, -1, logits.shape[-1])
    if views.shape[1] == 1 or average == "logits":
        return views.mean(1)
    return ANSWERING[form].mean_answer(views)
