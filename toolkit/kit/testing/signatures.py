"""The rule that components of every kind share: what a factory's signature must tell."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from toolkit.kit.testing.subject import Subject
from toolkit.recipe.signature import GIVEN_BY_CORE, describe


def arguments(subject: Subject) -> Iterator[str]:
    """Every key of a recipe is a keyword-only argument with a type that TOML knows and a line in the docstring."""
    factory = subject.factory
    if not inspect.getdoc(factory):
        yield "the factory has no docstring"
    parameters = inspect.signature(factory).parameters
    for one in describe(factory, skip=GIVEN_BY_CORE.get(subject.case.kind, ())):
        if parameters[one.name].kind is not inspect.Parameter.KEYWORD_ONLY:
            yield f"{one.name} is not keyword-only"
        elif parameters[one.name].annotation is inspect.Parameter.empty:
            yield f"{one.name} has no annotation"
        elif not one.doc:
            yield f'the docstring has no line "{one.name}: ..."'
