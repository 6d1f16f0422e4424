"""Damage of any file and of any document: what a bad disk, a cut transfer or an editor does."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, -0.0),
    *(float("nan"), float("inf"), 1e308, 1e-320),
    *("", "x", "../x", "/etc/passwd", "./model.onnx", "model.onnx/", "a\0b", "\x1b[2J", "\r\nerror: x", "x" * 100_000),
    *("~nosuchuser/x", "${HOME}", "%s", "é", "e\u0301", "\u202e", "a.b.c", " ", "nan", "1e9", "true"),
    *([], {}, [[]], {"a": {}}, ["a"] * 1000, [1] * 3, {"name": "x"}, [None], [[1, 2], [3]]),
)
"""Values that a key seldom expects."""


def scramble(data: bytes, draw: Random) -> bytes:
    """`data` with flipped bits, noise, a hole, a repeated part, or without its end."""
    start = draw.randrange(len(data))
    end = min(len(data), start + draw.randrange(1, 64))
    kind = draw.randrange(6)
    if kind < 2:
        damaged = bytearray(data)
        for _ in range((1, 8)[kind]):
            damaged[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        return bytes(damaged)
    return (
        data[:start],
        data[:start] + draw.randbytes(end - start) + data[end:],
        data[:start] + data[end:],
        data[:end] + data[start:],
    )[kind - 2]


def places(content: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to each value within a document; of lists the first three items."""
    inner = (
        content.items() if isinstance(content, dict) else enumerate(content[:3]) if isinstance(content, list) else ()
    )
    for key, value in inner:
        yield (*before, key)
        yield from places(value, (*before, key))


def distort(
    content: dict[str, Any], draw: Random, *, values: Sequence[Any] = ODD, without: Collection[str] = ()
) -> None:
    """Remove, rename or replace one or two values within a document, but what stands below the keys `without`."""
    for _ in range(draw.choice([1, 1, 2])):
        *outer, last = draw.choice([place for place in places(content) if place[0] not in without])
        around: Any = content
        for key in outer:
            around = around[key]
        kind = draw.randrange(4)
        if kind == 0:
            del around[last]
        elif kind == 1 and isinstance(around, dict):
            around[str(draw.choice(ODD))[:50]] = around.pop(last)
        else:
            around[last] = draw.choice(values)
        if not content:
            return


KINDS = ("fifo", "device", "dangling", "folder", "sparse", "hard", "missing", "socket", "loop", "empty")


def replace_file(path: Path, draw: Random, kinds: Sequence[str] = KINDS) -> None:
    """Put something else in the place of a file."""
    data, aside = path.read_bytes(), path.parent.with_name(f"{path.parent.name}-{path.name}")
    path.unlink()
    kind = draw.choice(kinds)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "folder":
        path.mkdir()
    elif kind == "sparse":
        path.write_bytes(data)
        os.truncate(path, 200 << 30)
    elif kind == "hard":
        aside.write_bytes(data)
        path.hardlink_to(aside)
    elif kind == "socket":
        _listen_at(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "empty":
        path.touch()


def _listen_at(path: Path) -> None:
    """The name of a socket has a hundred bytes at most, so it is given relative to a descriptor of the folder."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
