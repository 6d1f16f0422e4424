"""The file of a GPU's figures: it grows by a part at a time, and a later call goes on with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.gpu.parts import PARTS
from bench.gpu.rows import Row
from bench.gpu.schedule import Outcome, Part, rows_of
from toolkit.api.errors import DataError, UsageError
from toolkit.api.files import write_atomically

LABEL = "REHEARSAL"
"""Stands wherever a figure of a rehearsal does."""
HEADER = ("part", "what", "value", "95 % interval", "A/A", "n", "memory", "remarks")


class Results:
    """The figures in one folder, of one machine and one source."""

    def __init__(self, path: Path, about: Mapping[str, Any], parts: dict[str, Outcome]) -> None:
        self.path, self._about, self.parts = path, about, parts

    @classmethod
    def open(cls, folder: Path, *, rehearsal: bool, machine: Mapping[str, Any], source: str) -> Results:
        """Those in `folder`, none so far in a new one. Raises UsageError where it holds figures of another machine or
        source, as a table of both would compare what does not compare, and where the folder cannot be made."""
        path = folder / ("rehearsal.json" if rehearsal else "gpu.json")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"--output {folder}: {error.strerror}", next_step="python -m bench gpu --output FOLDER"
            ) from error
        about = {**({"label": LABEL} if rehearsal else {}), "source": source, "machine": dict(machine)}
        if not path.exists():
            return cls(path, about, {})
        found, parts = _read(path)
        for name, was, now in _of_what(found, about):
            if was != now:
                raise UsageError(
                    f"{path}: figures of another {name}: expected {now}, got {was}",
                    next_step="keep them, and use a new folder: python -m bench gpu --output FOLDER",
                )
        return cls(path, about, parts)

    def keep(self, part: Part, outcome: Outcome) -> None:
        self.parts[part.name] = outcome
        kept = {name: {**asdict(one), "found": _as_json(one)} for name, one in self.parts.items()}
        text = json.dumps({**self._about, "parts": kept}, indent=1, ensure_ascii=False)
        write_atomically(self.path, text.encode())

    def due(self, parts: tuple[Part, ...]) -> list[Part]:
        """Those that are not done: the ones never tried first, then those that failed."""
        unfinished = [part for part in parts if part.name not in self.parts or self.parts[part.name].state != "done"]
        return sorted(unfinished, key=lambda part: part.name in self.parts)


def table(path: Path) -> str:
    """The Markdown of the figures at `path`, as docs/results.md has them. Raises DataError for any other file."""
    found, parts = _read(path)
    machine, label = found["machine"], found.get("label")
    packages = machine["environment"]["packages"]
    named = [f"{name} {packages[name]}" for name in ("torch", "onnxruntime-gpu", "onnxruntime") if name in packages]
    cuda = machine["environment"]["hardware"].get("cuda")
    git = machine["environment"]["git"] or {}
    where = [machine["device"], *named, *([f"CUDA {cuda}"] if cuda else []), f"source {found['source']}"]
    where += [f"commit {git['commit'][:7]}{' with changes' if git['changed'] else ''}"] if git else []
    title = f"{label}: tiny sizes on a CPU, no figure here is a result. " if label else ""
    order = [part.name for part in PARTS]
    names = sorted(parts, key=lambda name: order.index(name) if name in order else len(order))
    lines = [_line(HEADER), _line(["---"] * len(HEADER))]
    for name in names:
        lines += [_line([f"{label} {name}" if label else name, *row.cells()]) for row in rows_of(parts[name])]
    return "\n".join([f"{title}{', '.join(where)}", "", *lines])


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _as_json(outcome: Outcome) -> list[dict[str, Any]]:
    return [row.as_json() for row in outcome.found]


def _of_what(found: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    yield "source", found["source"], now["source"]
    yield "device", found["machine"]["device"], now["machine"]["device"]
    versions = [one["machine"]["environment"]["packages"].get("torch") for one in (found, now)]
    yield "torch", *versions


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Outcome]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        parts = {
            name: Outcome(
                state=one["state"],
                seconds=one["seconds"],
                found=tuple(map(Row.read, one["found"])),
                cause=one["cause"],
                details=tuple(one["details"]),
            )
            for name, one in found["parts"].items()
        }
        list(_of_what(found, found))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        cause = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise DataError(
            f"not a file of figures: {cause}",
            path=path,
            next_step="name a gpu.json or rehearsal.json that python -m bench gpu wrote",
        ) from error
    return found, parts
