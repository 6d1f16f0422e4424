"""Packages that a part of the toolkit needs besides the usual ones: an extra installs them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from toolkit.api.errors import UsageError


def require(package: str, *, extra: str, user: str) -> ModuleType:
    """The module `package`, imported now.

    extra: the extra of this distribution that installs it.
    user: who needs it, for the message: `model "timm"`.

    Raises UsageError with the command that installs it, if it is not installed.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.partition(".")[0]:
            raise
        raise UsageError(
            f"{user} needs the package {error.name}, which is not installed",
            next_step=f'pip install "vision-toolkit[{extra}]"',
        ) from error
