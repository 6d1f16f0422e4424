"""How a rule is written down: a function that yields what it sees broken, its docstring the contract."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from toolkit.kit.testing.cases import Kind, Rule
from toolkit.kit.testing.subject import Subject

Look: TypeAlias = Callable[[Subject], Iterator[str]]
"""Yields one text for each thing seen that breaks the contract; raises `DoesNotApply` where there is nothing to ask."""


class DoesNotApply(Exception):  # noqa: N818 - nothing went wrong
    """Why a rule says nothing about a component."""


@dataclass(frozen=True)
class Check:
    """A rule, and how to look whether it holds."""

    rule: Rule
    look: Look


@dataclass
class Rulebook:
    """The rules of one kind, in the order in which they are written down."""

    kind: Kind
    checks: list[Check] = field(default_factory=list)

    def rule(self, look: Look) -> Look:
        """Add the function's rule: its name, and its docstring as the contract."""
        return self._add(look, slow=False)

    def slow_rule(self, look: Look) -> Look:
        """As `rule`, for one that takes seconds even of a small component."""
        return self._add(look, slow=True)

    def _add(self, look: Look, *, slow: bool) -> Look:
        contract = " ".join((inspect.getdoc(look) or "").split())
        name = getattr(look, "__name__", "")
        self.checks.append(Check(Rule(self.kind, name, contract, slow), look))
        return look
