"""A server of toy bundles in a thread of the tests' process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from uvloop import new_event_loop

from toolkit.serving.server.models import Opening
from toolkit.serving.server.running import Running
from toolkit.serving.server.settings import Settings


@contextmanager
def running(bundles: Sequence[Path], settings: Settings) -> Iterator[Running]:
    """A server of these bundles that answers inside the block, and has answered all that it accepted after it."""
    server = Running(settings, Opening("cpu", sessions=settings.sessions))
    server.load(bundles)
    begun, loop, stop = threading.Event(), new_event_loop(), asyncio.Event()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(server.run(stop, begun.set))

    thread = threading.Thread(target=run, name="server")
    thread.start()
    try:
        assert begun.wait(60)
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        assert not thread.is_alive()
