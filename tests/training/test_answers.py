"""From logits to answers and back, by the form of targets."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from toolkit.training.answers import ANSWERING, answers_of, averaged, logits_of

LOGITS = torch.tensor([[0.5, -1.0, 2.0], [3.0, 0.0, -2.0]])


@pytest.mark.parametrize("form", ANSWERING)
def test_logits_have_the_answers_they_were_made_of(form: Any) -> None:
    answers = answers_of(LOGITS, form)
    torch.testing.assert_close(answers_of(logits_of(answers, form), form), answers)


def test_numbers_are_their_own_logits_and_views_their_mean() -> None:
    assert torch.equal(answers_of(LOGITS, "number"), LOGITS)
    for average in ("probabilities", "logits"):
        found = averaged(LOGITS, "number", 1, average)  # type: ignore[arg-type]
        torch.testing.assert_close(found, LOGITS.mean(0, keepdim=True))


@pytest.mark.parametrize("form", ANSWERING)
def test_certain_answers_are_right_unless_asked_otherwise(form: Any) -> None:
    right, targets = ANSWERING[form].certain(3, 0)
    wrong, again = ANSWERING[form].certain(3, 1)
    assert torch.equal(targets, again)
    assert not torch.equal(right, wrong)
    decided = right.argmax(1) if form == "index" else right
    assert torch.equal(decided, targets)
