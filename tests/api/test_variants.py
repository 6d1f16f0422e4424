"""Factories that share one function: each has its own name, text and keys."""

from __future__ import annotations

import inspect

import pytest

from toolkit.api.variants import variant
from toolkit.recipe.reading import read_signature


def build(spec: object, *, width: int = 8, depth: int = 2, shift: bool = False) -> tuple[object, ...]:
    """Shared."""
    return spec, width, depth, shift


def test_a_variant_has_its_own_name_and_text_and_lacks_what_it_is_said_to() -> None:
    small = variant(build, "small", "A small one.\n\ndepth: layers", without=["width", "shift"])
    signature = read_signature(small)
    assert [(one.name, one.doc) for one in signature.arguments] == [("depth", "layers")]
    assert (signature.factory, signature.description) == ("small", "A small one.")
    assert signature.source == inspect.getsourcefile(build)
    assert small("spec", depth=3) == ("spec", 8, 3, False)
    assert build.__doc__ == "Shared."


@pytest.mark.parametrize("key", ["width", "unheard"])
def test_a_key_that_a_variant_lacks_is_unexpected(key: str) -> None:
    with pytest.raises(TypeError, match=rf"\(\) got an unexpected keyword argument '{key}'"):
        variant(build, "small", "", without=["width"])("spec", **{key: 1})


def test_a_variant_may_lack_nothing() -> None:
    whole = variant(build, "whole", "All of it.")
    assert inspect.signature(whole) == inspect.signature(build)
    assert whole("spec", width=1, depth=1, shift=True) == ("spec", 1, 1, True)
