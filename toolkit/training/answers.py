"""From logits to answers and back, by the form of targets: a softmax over classes, or a sigmoid for each."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from toolkit.api.clips import Averaged
from toolkit.api.contracts import TargetForm


def answers_of(logits: Tensor, form: TargetForm) -> Tensor:
    """Probabilities `[..., C]` of logits `[..., C]`: what is shown, exported and compared."""
    return logits.sigmoid() if form == "set" else logits.softmax(-1)


def logits_of(answers: Tensor, form: TargetForm) -> Tensor:
    """Finite logits `[..., C]` whose answers are these: those of a bundle, which gives probabilities."""
    if form == "set":
        return answers.logit(eps=torch.finfo(torch.float32).eps)
    return answers.clamp(min=torch.finfo(torch.float32).tiny).log()


def averaged(logits: Tensor, form: TargetForm, items: int, average: Averaged) -> Tensor:
    """Logits `[items, C]` of logits `[items * V, C]`: of V views of each item, one item after the other, the mean of
    the logits or of the answers they stand for (which have logits again)."""
    views = logits.view(items, -1, logits.shape[-1])
    if views.shape[1] == 1 or average == "logits":
        return views.mean(1)
    if form == "set":
        return logits_of(views.sigmoid().mean(1), form)
    # In logarithms, so that a class that no view holds probable keeps its rank.
    return views.log_softmax(-1).logsumexp(1) - math.log(views.shape[1])
