"""Evaluation: answers in order, scores over all of them, and a network left as it was."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests import small
from toolkit import device as devices
from toolkit.contracts import Batch
from toolkit.errors import DataError
from toolkit.evaluate import answering, evaluate, score


class Brightness(nn.Module):
    """Logits from the mean pixel; remembers the mode it answered in."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2, bias=False)
        nn.init.constant_(self.layer.weight, 0.01)
        self.modes: list[bool] = []

    def forward(self, pixels: Tensor) -> Tensor:
        self.modes.append(self.training)
        mean = pixels.float().mean(dim=(1, 2, 3), keepdim=False)[:, None]
        logits: Tensor = self.layer(mean - 110) * torch.tensor([-1.0, 1.0])
        return logits


def batches(*sizes: int) -> list[Batch]:
    split, made, start = small.Squares(sum(sizes)), [], 0
    for size in sizes:
        places = range(start, start + size)
        pixels = torch.stack([split.read(i) for i in places]) if size else torch.empty(0, 3, 8, 8, dtype=torch.uint8)
        targets = torch.tensor([split.targets[i] for i in places], dtype=torch.int64)
        made.append(Batch(pixels, targets, torch.tensor(list(places), dtype=torch.int64)))
        start += size
    return made


def test_batches_of_any_size_give_one_evaluation() -> None:
    network = Brightness()
    whole = evaluate(network, batches(9), small.metrics(), nullcontext)
    parts = evaluate(network, batches(4, 0, 4, 1), small.metrics(), nullcontext)
    assert parts.index.tolist() == list(range(9))
    assert parts.targets.tolist() == [0, 1] * 4 + [0]
    assert torch.allclose(parts.logits, whole.logits)
    assert parts.scalars() == pytest.approx(whole.scalars())
    assert parts.scores["accuracy"] == 1.0
    assert parts.scores["loss"] == pytest.approx(float(functional.cross_entropy(whole.logits, whole.targets)))


@pytest.mark.parametrize("training", [False, True])
def test_it_answers_in_evaluation_mode_and_restores_the_mode(training: bool) -> None:
    network = Brightness().train(training)
    evaluate(network, batches(2, 2), [], nullcontext)
    assert network.modes == [False, False]
    assert network.training is training


def test_the_mode_is_restored_when_the_caller_leaves() -> None:
    network = Brightness().train()
    answers = answering(network, batches(2, 2), [], nullcontext)
    assert next(answers) == 2
    assert not network.training
    answers.close()
    assert network.training


def test_progress_counts_items() -> None:
    assert list(answering(Brightness(), batches(3, 0, 2), [], nullcontext)) == [3, 5]


def test_logits_are_float32_on_the_cpu_in_any_precision() -> None:
    evaluation = evaluate(Brightness(), batches(3), [], partial(devices.autocast, small.CPU, "bf16"))
    assert evaluation.logits.dtype == torch.float32
    assert not evaluation.logits.requires_grad


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(DataError, match="nothing can be scored") as caught:
        evaluate(Brightness(), batches(0, 0), [], nullcontext)
    assert caught.value.next_step == "repair the data"


def test_scalars_leave_out_lists() -> None:
    evaluation = evaluate(Brightness(), batches(4), small.metrics(), nullcontext)
    assert set(evaluation.scores) == {"loss", "accuracy", "pairs"}
    assert set(evaluation.scalars()) == {"loss", "accuracy"}


def test_the_loss_is_the_mean_cross_entropy() -> None:
    logits, targets = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])
    assert score(logits, targets, [])["loss"] == pytest.approx((0.126928 + 0.693147) / 2, abs=1e-5)
