"""Signals: at once where nothing must be saved, at the block's end where something must, and as before afterwards."""

from __future__ import annotations

import os
import signal
import sys
import threading
import weakref
from contextlib import suppress

import pytest

from toolkit.api.errors import Stopped
from toolkit.system.signals import Signalled, Signals, exit_code, stopping


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_is_raised_at_once_and_handlers_come_back(number: int, code: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Signalled) as raised, Signals():
        send(number)
    assert raised.value.number == number
    assert exit_code(number) == code
    assert signal.getsignal(number) is before


def test_a_deferred_signal_is_noted_and_raised_at_the_end() -> None:
    noted = []

    def work(signals: Signals) -> None:
        with signals.deferred():
            send(signal.SIGTERM)
            noted.append(signals.received)

    with pytest.raises(Signalled) as raised, Signals() as signals:
        work(signals)
    assert noted == [signal.SIGTERM]
    assert raised.value.number == signal.SIGTERM


def test_a_second_signal_is_raised_at_once() -> None:
    survived = []

    def work(signals: Signals) -> None:
        with signals.deferred():
            for number in (signal.SIGTERM, signal.SIGINT):
                send(number)
                survived.append(number)

    with pytest.raises(Signalled) as raised, Signals() as signals:
        work(signals)
    assert survived == [signal.SIGTERM]
    assert raised.value.number == signal.SIGINT


def test_an_error_in_a_deferred_block_goes_first() -> None:
    def fail() -> None:
        send(signal.SIGTERM)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"), Signals() as signals, signals.deferred():
        fail()


def test_after_a_deferred_block_signals_are_raised_at_once_again() -> None:
    def work(signals: Signals) -> None:
        with signals.deferred():
            pass
        send(signal.SIGINT)

    with pytest.raises(Signalled), Signals() as signals:
        work(signals)


def test_a_signal_that_python_cannot_raise_comes_again() -> None:
    """An exception in the callback of a weak reference ends there."""

    class Thing: ...

    def work() -> None:
        thing = Thing()
        watched = weakref.ref(thing, lambda _: send(signal.SIGTERM))
        del thing
        assert watched() is None
        assert threading.Event().wait(60), "the signal was lost"

    hook = sys.unraisablehook
    with pytest.raises(Signalled), Signals() as signals:
        work()
    assert signals.raised == signal.SIGTERM
    assert sys.unraisablehook is hook


def test_a_block_knows_of_a_signal_in_one_inside() -> None:
    with Signals() as outer:
        with suppress(Signalled), Signals():
            send(signal.SIGTERM)
        assert outer.raised == signal.SIGTERM


@pytest.mark.parametrize(
    ("number", "message"),
    [(signal.SIGINT, "interrupted; the study is kept"), (signal.SIGTERM, "stopped by a signal; the study is kept")],
)
def test_the_message_says_whether_a_person_or_the_system_ended_the_work(number: int, message: str) -> None:
    with pytest.raises(Stopped) as stopped, stopping("the study is kept", "the same again"), Signals():
        send(number)
    assert (stopped.value.message, stopped.value.exit_code) == (message, exit_code(number))
    assert stopped.value.next_step == "the same again"


def test_a_handler_that_was_set_inside_stays() -> None:
    """A launcher sends SIGTERM to a rank that has yet to say why it ends."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        with Signals(), Signals():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
