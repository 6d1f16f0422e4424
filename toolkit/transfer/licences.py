"""Licences of published weights, as model hubs name them: which a recipe allows, decided before anything is fetched."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Annotated, TypeAlias

from pydantic import Field

from toolkit.api.errors import WeightsError

Licences: TypeAlias = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    Field(min_length=1),
    "the licences that published weights may have, as model hubs name them; unset: those that permit commercial use. "
    "Weights with another licence are refused before they are fetched.",
]
"""Type of an argument `licences`."""

FREE = ("apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc0-1.0", "mit")
"""Allowed unless a recipe says otherwise: those that permit commercial use without further terms."""
UNKNOWN = "unknown"
"""The licence of weights whose publisher names none. A recipe has to allow it by this word."""


class LicenceError(WeightsError):
    """The recipe does not allow the licence of the weights."""


def check_licence(licence: str, allowed: Sequence[str] | None, source: str) -> None:
    """Raise LicenceError unless `licence` is one of `allowed`, in any case; None: of `FREE`.

    source: the weights, for the message.
    """
    permitted = FREE if allowed is None else allowed
    if licence.lower() in {one.lower() for one in permitted}:
        return
    whose = "name no licence" if licence == UNKNOWN else f'have the licence "{licence}"'
    value = json.dumps([*(allowed or ()), licence])
    raise LicenceError(
        f"{source} {whose}; model.licences allows {', '.join(permitted)}",
        next_step=f"to accept that licence: --set {shlex.quote(f'model.licences={value}')}",
    )
