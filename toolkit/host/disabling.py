"""Leaving plugins out of a project, and taking them back: `plugins disable` and `plugins enable`.

Neither imports any plugin, so both work with one that breaks the process.
"""

from __future__ import annotations

from toolkit.api.errors import UsageError, unknown_name
from toolkit.host.installed import installed
from toolkit.host.offers import owners
from toolkit.host.project import FILE, VARIABLE, disable, disabled_here, disabled_names, owner


def disable_plugin(name: str) -> str:
    """Disable a plugin (`distribution[entry]`) or a whole distribution from now on; the line to show.

    Raises UsageError for a name that is not installed.
    """
    wanted = _installed(name)
    disabled = disabled_here()
    if wanted in map(owner, disabled):
        return f"{wanted} was already disabled in {FILE}"
    disable([*disabled, wanted])
    return f"{wanted} is disabled in {FILE}"


def enable_plugin(name: str) -> str:
    """Enable a disabled plugin; the line to show.

    Raises UsageError where nothing has the name, or something else than this name disables the plugin.
    """
    wanted = owner(name)
    disabled = disabled_here()
    # of a distribution all entry points
    kept = [one for one in disabled if owner(one) != wanted and not owner(one).startswith(f"{wanted}[")]
    _refuse(wanted, {one: by for one, by in disabled_names().items() if by == VARIABLE or one in map(owner, kept)})
    if kept != disabled:
        disable(kept)
        return f"{wanted} is enabled in {FILE}"
    return f"{_installed(name)} was not disabled"


def _refuse(wanted: str, still: dict[str, str]) -> None:
    """Raise UsageError if `wanted` stays disabled whether or not the file names it."""
    distribution = wanted.partition("[")[0]
    for name in (wanted, distribution):
        if still.get(name) == VARIABLE:
            raise UsageError(f"{wanted} is disabled by {VARIABLE}", next_step=f"remove {name} from {VARIABLE}")
    if distribution in still:
        raise UsageError(
            f"{wanted} is disabled with all of {distribution}",
            next_step=f"python -m toolkit plugins enable {distribution}",
        )


def _installed(name: str) -> str:
    """The plugin or distribution called `name`, normalised. Raises UsageError where none is installed."""
    wanted = owner(name)
    plugins, broken = installed()
    known = sorted({known for plugin in (*plugins, *(one.plugin for one in broken)) for known in owners(plugin)})
    if wanted not in known:
        message = unknown_name(f'no plugin is called "{name}"', wanted, known)
        raise UsageError(message, next_step="python -m toolkit plugins list")
    return wanted
