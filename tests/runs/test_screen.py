"""The screen: one line an epoch in a log, a live line on a terminal, the scores at the end."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
import torch
from rich.console import Console

from toolkit.api.contracts import EpochRecord
from toolkit.runs.screen import Screen, epoch_line, memory_used, score_table, speed, step_facts
from toolkit.training.fit import Event, StepDone, Validating

CPU = torch.device("cpu")


def step(number: int, **changes: Any) -> StepDone:
    values: dict[str, Any] = {
        "epoch": 1,
        "step": number,
        "steps": 4,
        "items": 8 * number,
        "loss": torch.tensor(1.25),
        "lr": 0.1,
        "seconds": 0.5 * number,
        "waited": 0.1 * number,
    }
    return StepDone(**(values | changes))


def record(epoch: int = 1, **changes: Any) -> EpochRecord:
    values: dict[str, Any] = {
        "epoch": epoch,
        "step": 4 * epoch,
        "train_loss": 1.5,
        "valid": {"loss": 1.25, "accuracy": 0.5},
        "lr": {"backbone": 0.01, "head": 0.1},
        "seconds": 2.0,
        "valid_seconds": 0.5,
        "waiting": 0.2,
        "best": True,
    }
    return EpochRecord(**(values | changes))


EPOCH: list[Event] = [*(step(number) for number in range(1, 5)), Validating(1, 3, 6), Validating(1, 6, 6), record()]


def shown(events: list[Event], *, terminal: bool) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=140, highlight=False, color_system=None)
    with Screen(console, 2, "accuracy", CPU) as screen:
        for event in events:
            screen.show(event)
    return file.getvalue()


LINE = "epoch 1/2  loss 1.5000  valid loss 1.2500  accuracy 0.5000  lr 0.1  16 images/s  waiting 20%  2.5 s  best\n"


def test_a_log_gets_one_line_an_epoch() -> None:
    again = record(2, best=False)
    text = shown([*EPOCH, step(1, epoch=2, items=6), again], terminal=False)
    assert text == LINE + LINE.replace("1/2", "2/2").replace("  best", "").replace("16 images", "3.0 images")


def test_a_terminal_gets_a_live_line_too() -> None:
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown(EPOCH, terminal=True))
    assert LINE.strip() in text
    assert re.search(r"epoch 1/2 .* loss 1\.2500  16 images/s  waiting 20%  \d+\.\d GiB", text)
    assert "validating 6/6" in text


def test_the_speed_of_an_epoch_that_was_resumed_is_that_of_its_own_steps() -> None:
    """Steps 1 to 3 took 1.5 s before the stop, the fourth 0.5 s after it."""
    assert "  16 images/s" in shown([step(4), record()], terminal=False)


def test_the_live_line_has_an_eta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the first of two epochs took 10 s: 30 s are left."""
    now = 100.0
    monkeypatch.setattr("toolkit.runs.screen.REFRESH_SECONDS", 0.0)
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=140, get_time=lambda: now, color_system=None)
    with Screen(console, 2, "accuracy", CPU) as screen:
        for number in (1, 2, 3):
            screen.show(step(number))
            now += 5.0
        screen._progress.refresh()
    assert "00:25" in file.getvalue()


def test_the_terminal_is_given_back_after_an_error() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=140)

    def fail(screen: Screen) -> None:
        screen.show(step(4))
        raise ValueError

    with pytest.raises(ValueError), Screen(console, 2, "accuracy", CPU) as screen:  # noqa: PT011 - raised above
        fail(screen)
    hidden, visible = (file.getvalue().rfind(code) for code in ("\x1b[?25l", "\x1b[?25h"))
    assert 0 <= hidden < visible


def test_a_line_without_validation_and_one_that_watches_the_loss() -> None:
    assert "valid" not in epoch_line(record(valid={}), 2, "accuracy", "8 images/s")
    assert epoch_line(record(), 2, "loss", "8 images/s").count("loss") == 2


def test_no_time_is_no_division_by_zero() -> None:
    assert "waiting 0%" in step_facts(step(1, seconds=0.0, waited=0.0), "0 images/s", "")
    assert speed(0, 0.0, "images") == "0.0 images/s"


@pytest.mark.parametrize(("items", "told"), [(24, "12 clips/s"), (5, "2.5 clips/s"), (5000, "2,500 clips/s")])
def test_speed_has_as_many_digits_as_it_needs(items: int, told: str) -> None:
    assert speed(items, 2.0, "clips") == told


def test_memory_is_told_in_gib() -> None:
    amount, unit = memory_used(CPU).split()
    assert 0.05 < float(amount) < 200
    assert unit == "GiB"


def test_the_table_has_scalars_only_and_a_column_a_split() -> None:
    file = io.StringIO()
    scores = {"valid": {"accuracy": 0.5, "matrix": [[1.0]]}, "test": {"accuracy": 0.25, "f1": float("nan")}}
    Console(file=file, width=80).print(score_table(scores, title="mine"))
    rows = [re.findall(r"[\w.]+", line) for line in file.getvalue().splitlines()]
    assert [row for row in rows if row] == [
        ["mine"],
        ["score", "valid", "test"],
        ["accuracy", "0.5000", "0.2500"],
        ["f1", "undefined"],
    ]
