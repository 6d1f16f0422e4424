"""From sources to answers, in order: threads decode ahead while the session answers full batches."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from toolkit.api.errors import DataError, printable
from toolkit.serving.predict.inputs import Source
from toolkit.system.background import read_ahead

if TYPE_CHECKING:
    from numpy.typing import NDArray

ModelInput: TypeAlias = "NDArray[np.uint8]"
"""One input of the model, uint8 `[S, S, 3]`, or of a model of clips `[T, S, S, 3]`."""
Decoded: TypeAlias = tuple[Source, "Sequence[ModelInput] | DataError"]
"""A source with its views, or the error that it has instead."""
Predict: TypeAlias = Callable[[Sequence[ModelInput]], "NDArray[np.float32]"]
"""The probabilities, `[N, C]`, of N views."""
Averaging: TypeAlias = Callable[["NDArray[np.float32]"], "NDArray[np.float32]"]
"""From the probabilities `[V, C]` of the views of one source to the answer `[C]`. Raises DataError where they have no
meaning."""

AHEAD = 2
"""Batches decoded ahead: one that the session takes next, one under way."""


@dataclass(frozen=True)
class Answer:
    """What became of a source: the probabilities of its classes, or why it has no answer."""

    source: Source
    probabilities: NDArray[np.float32] | None
    """`[C]`; where there are several views their average."""
    problem: str = ""


def answer_all(
    decoded: Iterable[Decoded], predict: Predict, average: Averaging, *, batch: int
) -> Generator[Answer, None, None]:
    """One answer for each that is decoded, in their order. All calls of `predict` but the last get `batch` views."""
    waiting: deque[_Open] = deque()
    ready: list[ModelInput] = []
    for source, found in decoded:
        if isinstance(found, DataError):
            waiting.append(_Open(source, 0, found.message))
        else:
            waiting.append(_Open(source, len(found)))
            ready += found
        while len(ready) >= batch:
            _share_out(predict(ready[:batch]), waiting)
            del ready[:batch]
        yield from _finished(waiting, average)
    if ready:
        _share_out(predict(ready), waiting)
    yield from _finished(waiting, average)


def read_sources(
    sources: Iterable[Source],
    read: Callable[[Source, threading.Event], Sequence[ModelInput]],
    *,
    threads: int,
    batch: int,
) -> Generator[Decoded, None, None]:
    """Each source with its views or its error, in order, read by `threads` at a time. Closing it ends them.

    `read` gives at least one view, or raises DataError; it may end early once its event is set. What is read or held at
    a time is bounded by `AHEAD` batches, or by one source a thread where that is more.
    """
    most = max(AHEAD * batch, threads)
    return read_ahead(sources, read, threads=threads, most=most, room=max(most - threads, 1), weight=len)


@dataclass
class _Open:
    """A source some of whose views are not answered yet."""

    source: Source
    missing: int
    problem: str = ""
    rows: list[NDArray[np.float32]] = field(default_factory=list)

    def closed(self, average: Averaging) -> Answer:
        if self.problem:
            return Answer(self.source, None, self.problem)
        try:
            return Answer(self.source, average(np.stack(self.rows)))
        except DataError as error:
            return Answer(self.source, None, f"{printable(self.source.title)}: {error.message}")


def _share_out(probabilities: NDArray[np.float32], waiting: Iterable[_Open]) -> None:
    """Give each row to the first source that misses one."""
    rows = iter(probabilities)
    for item in waiting:
        while item.missing:
            row = next(rows, None)
            if row is None:
                return
            item.rows.append(row)
            item.missing -= 1


def _finished(waiting: deque[_Open], average: Averaging) -> Iterator[Answer]:
    while waiting and not waiting[0].missing:
        yield waiting.popleft().closed(average)
