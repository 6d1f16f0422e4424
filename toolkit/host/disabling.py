"""Leaving plugins out of a project, and taking them back: `plugins disable` and `plugins enable`.

Neither imports any plugin, so both work with one that breaks the process.
"""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.api.errors import UsageError, unknown_name
from toolkit.host.project import FILE, VARIABLE, disable, disabled_here, left_out, owner
from toolkit.host.registry import installed, owners


def disable_plugin(name: str) -> str:
    """Leave out a plugin (`distribution[entry]`) or all of a distribution from now on; what to tell of it.

    Raises UsageError for a name that is not installed.
    """
    wanted = owner(name)
    known = _installed_owners()
    if wanted not in known:
        raise _unknown(name, wanted, known)
    disabled = disabled_here()
    if wanted in map(owner, disabled):
        return f"{wanted} was already disabled in {FILE}"
    disable([*disabled, wanted])
    return f"{wanted} is disabled in {FILE}"


def enable_plugin(name: str) -> str:
    """Take a disabled plugin back; what to tell of it.

    Raises UsageError where the name stands for nothing, or something else than this name leaves the plugin out.
    """
    wanted = owner(name)
    disabled = disabled_here()
    kept = [one for one in disabled if not _within(owner(one), wanted)]
    _refuse(wanted, {one: by for one, by in left_out().items() if by == VARIABLE or one in map(owner, kept)})
    if kept != disabled:
        disable(kept)
        return f"{wanted} is enabled in {FILE}"
    known = _installed_owners()
    if wanted not in known:
        raise _unknown(name, wanted, known)
    return f"{wanted} was not disabled"


def _refuse(wanted: str, still: dict[str, str]) -> None:
    """Raise UsageError if `wanted` stays left out whatever becomes of its own name in the file."""
    distribution = wanted.partition("[")[0]
    for name in (wanted, distribution):
        if still.get(name) == VARIABLE:
            raise UsageError(f"{wanted} is disabled by {VARIABLE}", next_step=f"take {name} out of {VARIABLE}")
    if distribution in still:
        raise UsageError(
            f"{wanted} is disabled with all of {distribution}",
            next_step=f"python -m toolkit plugins enable {distribution}",
        )


def _within(name: str, other: str) -> bool:
    """Whether `name` is `other` or, where that is a distribution, one of its entry points."""
    return name == other or name.startswith(f"{other}[")


def _installed_owners() -> list[str]:
    plugins, broken = installed()
    every = [*plugins, *(one.plugin for one in broken)]
    return sorted({name for plugin in every for name in owners(plugin)})


def _unknown(name: str, wanted: str, known: Sequence[str]) -> UsageError:
    message = unknown_name(f'no plugin is called "{name}"', wanted, known)
    return UsageError(message, next_step="python -m toolkit plugins list")
