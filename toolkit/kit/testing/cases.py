"""What is examined, by which rule, and what was found: data only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from toolkit.api.contracts import DataSpec, Declared

Kind: TypeAlias = Literal["dataset", "model", "augmentation", "metric", "tracker"]


@dataclass(frozen=True)
class Case:
    """One component, as a recipe would use it."""

    kind: Kind
    factory: Callable[..., Any] | str | Declared
    """The factory itself, alone or in a `Model`; or the name of an installed component: `patches`,
    `acme-vision:patches`."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """Its keys in the recipe."""
    root: Path | Callable[[Path], Path] | None = None
    """Of a dataset: the folder of its data, a function that fills an empty folder and returns the root in it
    (`toolkit.kit.testing.image_folders`, say), or None for the built-in sample."""
    spec: DataSpec | None = None
    """What a model, an augmentation or a metric is built for; None: something small. A model is then tried with 64
    pixels first, and with 224 (or what it was designed for) where it does not take those."""
    identity: Mapping[str, Any] | None = None
    """Of an augmentation: arguments at which it changes nothing; None: `p` or `strength` of 0, where it has one."""
    excused: Mapping[str, str] = field(default_factory=dict)
    """Names of rules that the component cannot keep, each with the reason, which is told instead of a verdict."""

    @property
    def given(self) -> Callable[..., Any] | str:
        """`factory` without the data that may stand beside it."""
        return self.factory.factory if isinstance(self.factory, Declared) else self.factory


@dataclass(frozen=True)
class Rule:
    """Something that must hold for every component of a kind."""

    kind: Kind
    name: str
    contract: str
    """One sentence: what must hold."""
    slow: bool = False
    """Whether to ask takes seconds even of a small component."""

    @property
    def section(self) -> str:
        """The anchor in docs/plugins.md where the rule is told."""
        return f"{self.kind}-{self.name}"


@dataclass(frozen=True)
class Finding:
    """What became of one rule for one case: it holds where both `what` and `skipped` are None."""

    case: Case
    rule: Rule
    what: str | None = None
    """What was seen that breaks the contract."""
    skipped: str | None = None
    """Why the rule does not apply, or could not be asked here."""
