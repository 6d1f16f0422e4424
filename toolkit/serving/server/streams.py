"""Cameras and live URLs that the server follows, for clients that listen.

The server's owner names them, since a client must not choose what is opened inside the server's network. One source is
read once for each model, however many listen: from the first listener to the last. So what is read and computed is
bounded by the sources, and a listener that is slow loses answers of its own alone.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from toolkit.api.errors import DataError, ToolkitError, UsageError, printable
from toolkit.serving.predict.clock import Clock
from toolkit.serving.predict.following import Smoothing, keeping, usual_windows
from toolkit.serving.predict.inputs import Source, find_sources
from toolkit.serving.predict.job import PredictionJob
from toolkit.serving.predict.live import Ring, Window, followed
from toolkit.serving.predict.reconnecting import Reconnecting
from toolkit.serving.predict.rows import written_date
from toolkit.serving.server.models import Models, Served
from toolkit.serving.server.refusals import BUSY, NOT_FOUND, NOT_READY, Refused
from toolkit.serving.server.uploads import described_row
from toolkit.system.notices import warn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_LISTENERS = 64
"""Requests that listen at a time."""
HELD = 16
"""Events that wait for one listener; of more the oldest are dropped."""
QUIET = 15.0
"""Seconds after which a comment is sent where nothing happened, so that a proxy keeps the connection."""
EVERY = 0.5
"""Seconds from one answer of a model of images to the next; clips overlap by half."""
AGAIN = 5000
"""Milliseconds after which browsers listen again where the connection was lost."""
_NAME = re.compile(r"[\w.-]{1,64}")


@dataclass(frozen=True)
class Event:
    """What a listener is sent: `answer`, `note` or `end`."""

    kind: str
    say: Callable[[int], Mapping[str, Any]]
    """Its content, with so many classes."""

    def encoded(self, top: int, dropped: int) -> bytes:
        said = {**self.say(top), **({"dropped": dropped} if dropped else {})}
        return f"event: {self.kind}\ndata: {json.dumps(said, ensure_ascii=False)}\n\n".encode()


def _note(text: str) -> Event:
    return Event("note", lambda _: {"message": printable(text)})


def _end(text: str, *, failed: bool) -> Event:
    return Event("end", lambda _: {"message": printable(text), "failed": failed})


class Listener:
    """The events of one request. All methods are for the event loop's thread."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._came = asyncio.Event()
        self._dropped = 0

    def put(self, event: Event) -> None:
        if len(self._events) >= HELD:
            self._events.popleft()
            self._dropped += 1
        self._events.append(event)
        self._came.set()

    async def next(self) -> tuple[Event, int]:
        """The next event, and how many were dropped before it."""
        while not self._events:
            self._came.clear()
            await self._came.wait()
        dropped, self._dropped = self._dropped, 0
        return self._events.popleft(), dropped


def sources_of(texts: Sequence[str]) -> dict[str, Source]:
    """The cameras and live URLs that `--source NAME=PLACE` names. Raises UsageError."""
    found: dict[str, Source] = {}
    for text in texts:
        name, equals, place = text.partition("=")
        if not (equals and place and _NAME.fullmatch(name)):
            raise UsageError(
                f"--source: expected NAME=CAMERA or NAME=URL, got {printable(text)}",
                next_step="use --source door=rtsp://camera.local/1",
            )
        if name in found:
            raise UsageError(f"--source: {name} is named twice", next_step="give each source a name of its own")
        if not (re.fullmatch(r"[0-9]{1,4}", place) or "://" in place):
            raise UsageError(
                f"--source {name}: {printable(place)} is neither a camera's number nor a URL",
                next_step=f"send files to /v1/predict, or use --source {name}=rtsp://camera.local/1",
            )
        (source,) = find_sources([place], (), command="serve").sources
        found[name] = source if source.endless else replace(source, kind="stream")
    return found


class Streams:
    """The sources of a server, and who listens. All methods are for the event loop's thread."""

    def __init__(self, models: Models, sources: Mapping[str, Source], attempts: float = math.inf) -> None:
        """`attempts`: how often in a row a lost source is opened again."""
        self._models, self.sources, self._attempts = models, sources, attempts
        self._following: dict[tuple[str, str], _Following] = {}
        self._closing = False

    @property
    def listeners(self) -> int:
        """Those of all sources."""
        return sum(len(one.listeners) for one in self._following.values())

    def check(self, name: str) -> None:
        """Raise Refused unless somebody may listen to the source of this name now."""
        if name not in self.sources:
            named = f"there are {', '.join(self.sources)}" if self.sources else "see serve --source"
            raise Refused(NOT_FOUND, f'source: none is called "{printable(name)}"; {named}')
        if self._closing:
            raise Refused(NOT_READY, "the server is about to end")
        if self.listeners >= MOST_LISTENERS:
            raise Refused(BUSY, f"{MOST_LISTENERS} requests listen already", retry_after=1)

    async def events(self, name: str, served: Served, top: int) -> AsyncIterator[bytes]:
        """Server-sent events: the answers of a model to a source, until this ends or the client is gone."""
        key = name, served.name
        listener = Listener()
        following = self._following.get(key)
        if following is None or following.over:
            following = self._following[key] = _Following(self._models, served, self.sources[name], self._attempts)
            following.start()
        following.listeners.add(listener)
        try:
            yield f"retry: {AGAIN}\n\n".encode()
            while True:
                try:
                    async with asyncio.timeout(QUIET):
                        event, dropped = await listener.next()
                except TimeoutError:
                    yield b": nothing new\n\n"
                    continue
                yield event.encoded(top, dropped)
                if event.kind == "end":
                    return
        finally:
            following.listeners.discard(listener)
            if not following.listeners:
                following.stop()
                if self._following.get(key) is following:
                    del self._following[key]

    async def close(self) -> None:
        """End all that is followed, and let all who listen know."""
        self._closing = True
        every = [*self._following.values()]
        for following in every:
            following.end("the server ends")
        await asyncio.gather(*(following.joined() for following in every))


@dataclass(eq=False)
class _Following:
    """One source, answered by one model for all who listen. A thread of its own reads it."""

    models: Models
    served: Served
    source: Source
    attempts: float
    listeners: set[Listener] = field(default_factory=set)
    over: bool = False
    """Whether it has sent its last event."""

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = threading.Event()
        self._ring: Ring[Any] | None = None
        self._thread = threading.Thread(target=self._follow, name=f"follow {self.source.name}", daemon=True)
        bundle = self.served.bundle
        every = None if bundle.manifest.clip is not None else EVERY
        batch = self.served.batcher.batch
        self._job = PredictionJob(bundle, [self.source], every, True, None, None, None, 1, batch, None)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end; what it waits for ends too."""
        self._stopping.set()
        if self._ring is not None:
            self._ring.close()

    def end(self, reason: str, *, failed: bool = False) -> None:
        """Send the last event to all who listen."""
        if not self.over:
            self.over = True
            self._send(_end(reason, failed=failed))
        self.stop()

    async def joined(self) -> None:
        await self._loop.run_in_executor(None, self._thread.join)

    def _send(self, event: Event) -> None:
        for listener in self.listeners:
            listener.put(event)

    def _soon(self, act: Callable[..., object], *given: object) -> None:
        """Let the event loop do it; a loop that has ended has nobody who listens."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(act, *given)

    def _follow(self) -> None:
        """The thread: windows of the source to answers, until it ends or is stopped."""
        job, clock = self._job, Clock()
        reconnecting = Reconnecting(self.attempts, lambda text: self._soon(self._send, _note(text)))
        rule = usual_windows(job)
        smoothing = Smoothing(rule.span if job.bundle.manifest.clip else 0.0)
        end: Callable[[], None] = partial(self.end, f"{self.source.name}: it ended")
        try:
            with followed(self.source, rule, keeping(job), clock, reconnecting, job.damages) as ring:
                self._ring = ring
                while not self._stopping.is_set() and (window := ring.take()) is not None:
                    if self.models[self.served.name] is not self.served:
                        end = partial(self.end, "the model was replaced; listen again")
                        break
                    self._answer(window, smoothing, clock)
        except ToolkitError as error:
            end = partial(self.end, error.message, failed=True)
        except Exception as error:  # whatever it is, those who listen must not wait for ever
            warn(printable(f"{self.source.name}: {error!r}"))
            end = partial(self.end, "the server failed; its log says why", failed=True)
        self._soon(end)

    def _answer(self, window: Window[Any], smoothing: Smoothing, clock: Clock) -> None:
        """Answer one window; where the model is busy with requests, or its answer has no meaning, nothing is sent."""
        from toolkit.serving.bundle.views import inputs

        job = self._job
        clips = job.bundle.manifest.clip is not None
        views = inputs(window.frames, clips=True) if clips else [job.bundle.square(window.frames[0]())]
        try:
            asked = asyncio.run_coroutine_threadsafe(self.served.ask(views), self._loop)
            row = smoothing.add(job.average(asked.result()), window.moment[1], window.part)
        except DataError as error:
            self._soon(self._send, _note(error.message))
            return
        except Refused:
            return
        (start, end), shown = window.moment, written_date(clock.date(window.shown))
        moment = {"start": round(start, 3), "end": round(end, 3), "time": shown}
        self._soon(self._send, Event("answer", self._described(row, moment)))

    def _described(self, row: NDArray[np.float32], moment: Mapping[str, Any]) -> Callable[[int], Mapping[str, Any]]:
        return lambda top: {**moment, **described_row(self.served, row, top)}
