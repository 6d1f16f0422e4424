"""The screen: one line per epoch in a log, a live line on a terminal, the scores at the end; all fit any width."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from toolkit.api.contracts import EpochRecord
from toolkit.cli import parser
from toolkit.runs.screen import Screen, epoch_line, memory_used, print_scores, speed, step_facts
from toolkit.training.features import Featuring
from toolkit.training.fit import Event, StepDone, Validating

CPU = torch.device("cpu")
WIDTHS = (60, 80, 100, 140)


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


def shown(events: list[Event], *, terminal: bool, width: int = 140, epochs: int = 2) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=width, highlight=False, color_system=None)
    with Screen(console, epochs, "accuracy", CPU) as screen:
        for event in events:
            screen.show(event)
            screen._progress.refresh()
    return file.getvalue()


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


LINE = (
    "epoch 1/2  loss 1.5000  valid loss 1.2500  accuracy 50.0 %  lr up to 0.1  16 images/s  data wait 20 %  2.5 s  "
    "best\n"
)


def test_a_log_gets_one_line_per_epoch_and_no_control_codes() -> None:
    again = record(2, best=False)
    text = shown([*EPOCH, step(1, epoch=2, items=6), again], terminal=False)
    assert text == LINE + LINE.replace("1/2", "2/2").replace("  best", "").replace("16 images", "3.0 images")


def test_a_terminal_gets_a_live_line_too() -> None:
    text = plain(shown(EPOCH, terminal=True))
    assert LINE.strip() in text
    assert re.search(r"epoch 1/2 .* loss 1\.2500  16 images/s  data wait 20 %  memory \d+\.\d GiB", text)
    assert "validating 6/6" in text


def test_features_are_reported_on_one_line() -> None:
    computing = [Featuring(1, done, 1620, 41.2) for done in (512, 1024, 1620)]
    line = "features of 1,620 images computed once, in 41 s  (the backbone is frozen)"
    assert shown(computing, terminal=False).splitlines() == [line]
    kept = Featuring(1, 1620, 1620, 0.1, Path("cache/features/0a.safetensors"))
    read = "features of 1,620 images read from cache/features/0a.safetensors  (the backbone is frozen)"
    assert shown([kept], terminal=False).splitlines() == [read]
    live = shown(computing[:2], terminal=True)
    assert "features" in live
    assert "1,024/1,620" in live


def test_several_ranks_are_counted_and_the_slowest_is_named() -> None:
    facts = step_facts(step(2, slowest=3), "16 images/s", "1.0 GiB", None, width=140, ranks=4)
    assert facts == "loss 1.2500  4 ranks  16 images/s  data wait 20 % (rank 3)  memory 1.0 GiB"
    assert "4 ranks" not in step_facts(step(2, slowest=3), "16 images/s", "1.0 GiB", None, width=60, ranks=4)
    line = epoch_line(record(rank_waiting=[0.1, 0.0, 0.2]), 2, "accuracy", "16 images/s", width=140)
    assert "data wait 20 % (rank 2)" in line


def lines_of_a_long_run(width: int, *, terminal: bool) -> list[str]:
    """Of a run whose numbers have as many digits as they get."""
    events: list[Event] = [
        *(step(n, epoch=100, steps=10_000, items=1_234_567, seconds=99.8 * n, waited=0.1) for n in range(1, 5)),
        Validating(100, 49_999, 50_000),
        record(100, train_loss=12.3456, lr={"backbone": 5.8912e-05, "head": 0.0005891}, seconds=1234.5),
    ]
    text = plain(shown(events, terminal=terminal, width=width, epochs=200))
    return [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]


def facts(lines: list[str]) -> set[str]:
    """What stands on the lines, without the bar."""
    return {part.strip() for line in lines for part in re.split(r"  +|[━╸╺ ]{4,}", line)} - {""}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("terminal", [False, True])
def test_every_line_fits_its_width_and_breaks_no_word(
    width: int, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.runs.screen.REFRESH_SECONDS", 0.0)
    monkeypatch.setattr("toolkit.runs.screen.memory_used", lambda device: "139.9 GiB")
    lines = lines_of_a_long_run(width, terminal=terminal)
    assert max(map(len, lines)) <= width
    assert all(line.startswith("epoch 100/200") for line in lines), "a line is continued on the next"
    assert [line for line in lines if "loss 12.3456" in line]
    assert facts(lines) <= facts(lines_of_a_long_run(200, terminal=terminal)), "a word is cut"


def test_the_score_and_the_time_fit_80_columns() -> None:
    line = epoch_line(record(100), 200, "accuracy", "1,234 images/s", width=80)
    assert line == "epoch 100/200  loss 1.5000  valid loss 1.2500  accuracy 50.0 %  2.5 s  best"


def test_what_is_shown_does_not_depend_on_the_epoch() -> None:
    """Columns stay where they are while digits come and go."""
    first, later = (
        epoch_line(replace(record(number), seconds=seconds, best=best), 200, "accuracy", rate, width=100)
        for number, seconds, best, rate in ((9, 9.8, True, "9,876 images/s"), (10, 10.2, False, "10,012 images/s"))
    )
    assert [part.split(" ")[0] for part in first.split("  ") if "9.8" not in part and part != "best"]
    assert ("images/s" in first, "lr" in first) == ("images/s" in later, "lr" in later)


def test_a_starved_run_says_so_before_its_speed() -> None:
    starved, fed = (epoch_line(record(waiting=share), 2, "accuracy", "16 images/s", width=90) for share in (0.3, 0.01))
    assert "data wait 30 %" in starved
    assert "images/s" not in starved
    assert "images/s" in fed
    assert "data wait" not in fed


def test_the_speed_of_an_epoch_that_was_resumed_is_that_of_its_own_steps() -> None:
    """Steps 1 to 3 took 1.5 s before the stop, the fourth 0.5 s after it."""
    assert "  16 images/s" in shown([step(4), record()], terminal=False)


def test_the_live_line_says_how_much_time_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.runs.screen.REFRESH_SECONDS", 0.0)
    text = plain(shown([step(number, seconds=30.0 * number) for number in (1, 2, 3)], terminal=True))
    assert "2 min left" in text  # the last of the first epoch's four steps, and the second epoch's: 150 s


def test_a_line_leaves_room_for_what_a_terminal_writes_at_an_interrupt() -> None:
    lines = re.split(r"[\r\n]", plain(shown(EPOCH[:4], terminal=True, width=80)))
    assert 60 < max(map(len, lines)) <= 76


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
    without = epoch_line(record(valid={}), 2, "accuracy", "8 images/s", width=140)
    assert "valid" not in without
    assert "best" not in without, "every epoch would be the best"
    assert epoch_line(record(), 2, "loss", "8 images/s", width=140).count("loss") == 2


def test_no_time_causes_no_division_by_zero() -> None:
    assert "data wait 0 %" in step_facts(step(1, seconds=0.0, waited=0.0), "0 images/s", "", None, width=140)
    assert speed(0, 0.0, "images") == "0.0 images/s"


@pytest.mark.parametrize(("items", "text"), [(24, "12 clips/s"), (5, "2.5 clips/s"), (5000, "2,500 clips/s")])
def test_speed_has_as_many_digits_as_it_needs(items: int, text: str) -> None:
    assert speed(items, 2.0, "clips") == text


def test_memory_is_shown_in_gib() -> None:
    amount, unit = memory_used(CPU).split()
    assert 0.05 < float(amount) < 200
    assert unit == "GiB"


SCORES = {
    "valid": {"loss": 0.5, "accuracy": 0.5, "recall_macro": 0.5, "f1_macro": float("nan"), "matrix": [[1.0]]},
    "test": {"loss": 0.25, "accuracy": 0.25, "recall_macro": 0.25, "f1_macro": 0.125},
}


def table(width: int, title: str = "mine") -> str:
    file = io.StringIO()
    print_scores(SCORES, Console(file=file, width=width), title=title)
    return file.getvalue()


def test_the_table_has_scalars_only_a_column_per_split_and_no_row_twice() -> None:
    rows = [re.split(r"  +", re.sub("[^ -~]", "  ", line).strip()) for line in table(80).splitlines()]
    assert [row for row in rows if row != [""]] == [
        ["scores of mine"],
        ["score", "valid", "test"],
        ["loss", "0.5000", "0.2500"],
        ["accuracy = recall_macro", "50.0 %", "25.0 %"],
        ["f1_macro", "undefined", "12.5 %"],
    ]


def test_a_title_longer_than_the_table_is_not_broken() -> None:
    assert table(80, "har_resnet50_tsn (SAMPLE data)").splitlines()[0] == "scores of har_resnet50_tsn (SAMPLE data)"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("variable", ["", "NO_COLOR", "CI"])
def test_no_control_codes_where_nobody_looks_or_where_they_are_not_wanted(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a file whatever the variables say; on a terminal with one of them."""
    for name in ("NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "140")
    file = Terminal() if variable else io.StringIO()
    if variable:
        monkeypatch.setenv(variable, "1")
    monkeypatch.setattr("sys.stdout", file)
    output = parser.console()
    with Screen(output, 2, "accuracy", CPU) as screen:
        for event in EPOCH:
            screen.show(event)
    print_scores(SCORES, output, title="mine")
    assert file.getvalue().startswith(LINE + "scores of mine\n")
    assert "\x1b" not in file.getvalue()


def test_a_terminal_gets_the_live_line_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("sys.stdout", Terminal())
    assert parser.console().is_interactive
