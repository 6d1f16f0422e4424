"""What a new package may be called, and which kinds of components it gets."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import keyword
import re
import sys
from pathlib import Path

from toolkit.api.errors import UsageError, unknown_name
from toolkit.host.project import normalised
from toolkit.recipe.kinds import KINDS

_TRY = "python -m toolkit plugins new my-vision"


def check_name(name: str) -> str:
    """The name of the module in a distribution called `name`.

    Raises UsageError where one of them cannot be used, or is in use here already.
    """
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
        raise UsageError(
            f'"{name}" is no name for a distribution: letters, digits, and - _ . between them', next_step=_TRY
        )
    module = normalised(name).replace("-", "_")
    if not module.isidentifier() or keyword.iskeyword(module):
        raise UsageError(f'"{name}" gives the module {module}, which Python cannot import', next_step=_TRY)
    found = (one.metadata["Name"] for one in importlib.metadata.distributions() if "Name" in one.metadata)
    if normalised(name) in map(normalised, found):
        raise UsageError(f'a distribution called "{name}" is installed already', next_step=_TRY)
    if module in sys.stdlib_module_names or importlib.util.find_spec(module):
        raise UsageError(f'"{name}" gives the module {module}, which exists here already', next_step=_TRY)
    if Path(name).exists():
        raise UsageError(f"{name} exists already", next_step="choose another name, or remove it")
    return module


def parse_kinds(text: str | None) -> tuple[str, ...]:
    """The kinds that `text` names, separated by commas, in the order in which they are told; None: all."""
    known = tuple(KINDS)
    if text is None:
        return known
    asked = {kind.strip() for kind in text.split(",")}
    for kind in sorted(asked):
        if kind not in known:
            message = unknown_name(f'--kinds: no kind "{kind}"', kind, known)
            raise UsageError(message, next_step=f"--kinds {','.join(known)}")
    return tuple(kind for kind in known if kind in asked)
