"""Factories of many names that share one function, some of which lack a key that others have."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any, TypeVar

T = TypeVar("T")


def variant(build: Callable[..., T], name: str, doc: str, *, without: Collection[str] = ()) -> Callable[..., T]:
    """`build` as the factory `name` with the docstring `doc`.

    without: names of arguments of `build` that this factory does not take: a recipe with such a key is refused, and
        nothing shows it. `build` gets their defaults.
    """
    signature = inspect.signature(build)
    kept = [one for key, one in signature.parameters.items() if key not in without]

    @functools.wraps(build)
    def factory(*args: Any, **given: Any) -> T:
        for key in given:
            if key in without:
                raise TypeError(f"{name}() got an unexpected keyword argument '{key}'")
        return build(*args, **given)

    factory.__name__ = factory.__qualname__ = name
    factory.__doc__ = doc
    factory.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    return factory
