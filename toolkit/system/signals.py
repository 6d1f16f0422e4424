"""Ctrl-C and SIGTERM: training saves and leaves between two steps; other work stops at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from toolkit.api.errors import EXIT_INTERRUPTED, EXIT_STOPPED, Stopped

HANDLED = (signal.SIGINT, signal.SIGTERM)
_AGAIN_SECONDS = 0.05


class Signalled(KeyboardInterrupt):
    """A signal came while nothing had to be saved first."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_code(number: int) -> int:
    return EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_STOPPED


def how_ended(code: int) -> str:
    """What this exit code says: a person pressed Ctrl-C, or the system ended the process."""
    return "interrupted" if code == EXIT_INTERRUPTED else "stopped by a signal"


@contextmanager
def stopping(kept: str, next_step: str) -> Iterator[None]:
    """Turn a signal that ends the block into Stopped. `kept` says what is kept or lost."""
    try:
        yield
    except (Signalled, Stopped) as stopped:
        code = exit_code(stopped.number) if isinstance(stopped, Signalled) else stopped.exit_code
        raise Stopped(f"{how_ended(code)}; {kept}", exit_code=code, next_step=next_step) from stopped


class Signals:
    """Handles the two signals inside its block; handlers from before come back after it. One that was set inside stays:
    a rank that is about to say why it ends ignores what its launcher sends.

    Inside `deferred` the first signal is only noted in `received`, and raises Signalled at the block's end at the
    latest; a second one, or one outside, raises it at once. With `repeated`, a second one means nothing: a launcher
    passes on what its processes have received as well. Where Python can raise nothing, as in the callback of a weak
    reference, it comes again.
    """

    def __init__(self, *, repeated: bool = False) -> None:
        self.received: int | None = None
        self._repeated = repeated
        self.raised: int | None = None
        """The last signal that was raised, here or in blocks inside; libraries may take it for an error of theirs."""
        self._deferring = False

    def __enter__(self) -> Signals:
        self._before = {number: signal.signal(number, self._handle) for number in HANDLED}
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._come_again
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.unraisablehook = self._unraisable
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)
            outer = getattr(handler, "__self__", None)
            if isinstance(outer, Signals):
                outer.raised = self.raised or outer.raised

    @contextmanager
    def deferred(self) -> Iterator[None]:
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self.received is not None:
            self.raised = self.received
            raise Signalled(self.received)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signal module's signature
        if not self._deferring or (self.received is not None and not self._repeated):
            self.raised = number
            raise Signalled(number)
        self.received = self.received or number

    def _come_again(self, unraisable: sys.UnraisableHookArgs) -> None:
        if isinstance(unraisable.exc_value, Signalled):
            import threading

            # by another thread: what is sent from here arrives in here
            again = threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), unraisable.exc_value.number))
            again.daemon = True
            again.start()
        else:
            self._unraisable(unraisable)
