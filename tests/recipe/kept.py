"""Signatures as a later command finds them."""

from __future__ import annotations

import json
from typing import Any

from toolkit.recipe.reading import read_signature
from toolkit.recipe.signature import Signature


def kept(factory: Any, given: tuple[str, ...] = ()) -> Signature:
    """The signature of `factory`, written to JSON and read again where JSON can hold it."""
    signature = read_signature(factory, given)
    try:
        return Signature.of(json.loads(json.dumps(signature.plain())))
    except TypeError:
        return signature
