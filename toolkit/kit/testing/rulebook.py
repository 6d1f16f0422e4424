"""How a rule is written down: a function that yields what it sees broken, its docstring the contract."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from toolkit.kit.testing.case import Case, Kind, Subject
from toolkit.recipe.kinds import KINDS

Look: TypeAlias = Callable[[Subject], Iterator[str]]
"""Yields one text for each thing seen that breaks the contract; raises `DoesNotApply` where there is nothing to ask."""


class DoesNotApply(Exception):  # noqa: N818 - nothing went wrong
    """Why a rule says nothing about a component."""


@dataclass(frozen=True)
class Rule:
    """Something that must hold for every component of a kind."""

    kind: Kind
    name: str
    contract: str
    """One sentence: what must hold."""
    slow: bool
    """Whether to ask takes seconds even of a small component."""
    look: Look = field(repr=False)
    """How to see whether it holds."""

    @property
    def section(self) -> str:
        """The anchor in docs/reference/rules.md where the rule is described."""
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


class Rulebook:
    """The rules of one kind, in the order in which they are written down; `arguments` is the first of every kind."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.rules: list[Rule] = []
        self.rule(arguments)

    def rule(self, look: Look, *, slow: bool = False) -> Look:
        """Add the function's rule: its name, and its docstring as the contract."""
        contract = " ".join((inspect.getdoc(look) or "").split())
        self.rules.append(Rule(self.kind, getattr(look, "__name__", ""), contract, slow, look))
        return look

    def slow_rule(self, look: Look) -> Look:
        """As `rule`, for one that takes seconds even of a small component."""
        return self.rule(look, slow=True)


def arguments(subject: Subject) -> Iterator[str]:
    """Every key of a recipe is a keyword-only argument with a type that TOML knows, and a line in the docstring
    or a text in its annotation."""
    from toolkit.recipe.reading import read_signature

    factory = subject.factory
    if not inspect.getdoc(factory):
        yield "the factory has no docstring"
    parameters = inspect.signature(factory).parameters
    signature = read_signature(factory, KINDS[subject.case.kind].given)
    for one in signature.arguments:
        if parameters[one.name].kind is not inspect.Parameter.KEYWORD_ONLY:
            yield f"{one.name} is not keyword-only"
        elif parameters[one.name].annotation is inspect.Parameter.empty:
            yield f"{one.name} has no annotation"
        elif not one.doc:
            yield f'the docstring has no line "{one.name}: ..."'
    for name, kind in signature.foreign.items():
        yield f"{name} is of type {kind}, which a recipe cannot give"
