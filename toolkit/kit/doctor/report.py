"""What an examination found, as data that passes between processes, one line of JSON each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from toolkit.host.registry import Registry

HOST, FACTORIES = "what-is-installed", "factories"
"""Sections of docs/plugins.md that tell what is asked here, beside the rules of the conformance kit."""


@dataclass(frozen=True)
class Request:
    """What a process is to examine."""

    plugin: tuple[str, str, str, str]
    """Distribution, version, entry point and its value."""
    offers: tuple[tuple[str, str], ...] | None = None
    """Kind and name of the components to examine; None: only import the plugin."""
    args: dict[str, Any] = field(default_factory=dict)
    """Keys of the component's table."""

    def text(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def read(cls, text: str) -> Request:
        told = json.loads(text)
        offers = told["offers"]
        listed = None if offers is None else tuple((kind, name) for kind, name in offers)
        return cls(tuple(told["plugin"]), listed, told["args"])


@dataclass(frozen=True)
class Imported:
    """How a plugin's import went."""

    seconds: float
    printed: str
    changed: list[str]
    cause: str | None
    """Why the plugin is broken; None: it is not."""
    offers: list[tuple[str, str]]
    """Kind and name of what it offers."""


@dataclass(frozen=True)
class Begun:
    """What is being done from now on: if nothing follows, this did not end."""

    component: str
    rule: str


@dataclass(frozen=True)
class Remark:
    """What was seen of one rule."""

    component: str
    """Kind and name; empty for the plugin as a whole."""
    rule: str
    what: str | None
    """What was seen that should not be; None where the rule holds or was not asked."""
    section: str
    """Of docs/plugins.md."""
    skipped: str | None = None
    """Why the rule was not asked."""
    notice: bool = False
    """Whether it is worth telling and breaks nothing."""

    @property
    def fault(self) -> bool:
        return self.what is not None and not self.notice


@dataclass(frozen=True)
class Done:
    """All that was asked for is told: a process that ends without it was ended."""


Line: TypeAlias = Imported | Begun | Remark | Done
_KINDS: dict[str, type[Line]] = {kind.__name__: kind for kind in (Imported, Begun, Remark, Done)}


def written(line: Line) -> str:
    return json.dumps([type(line).__name__, asdict(line)]) + "\n"


def read_lines(text: str) -> Iterator[Line]:
    """The lines that are whole: a process may have been killed while it wrote."""
    for line in text.splitlines(keepends=True):
        if line.endswith("\n"):
            kind, fields = json.loads(line)
            yield _KINDS[kind](**fields)


def imported(registry: Registry) -> Imported:
    """How the import of the one plugin of `registry` went."""
    (loaded,) = registry.loaded
    return Imported(
        seconds=loaded.seen.seconds,
        printed=loaded.seen.printed,
        changed=list(loaded.seen.changed),
        cause=registry.broken[0].cause if registry.broken else None,
        offers=[(offer.kind, offer.name) for offer in registry.offered],
    )
