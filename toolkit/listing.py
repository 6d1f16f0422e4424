"""What is installed, as text: the lines of `plugins list` and `plugins show`."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from toolkit.errors import UsageError, nearest
from toolkit.registry import HOOKS, Offer, Plugin, Registry, owners

if TYPE_CHECKING:
    from toolkit.arguments import Argument

WIDTH = 100


def list_components(registry: Registry) -> list[str]:
    """Components by kind and plugin, then names offered twice, then broken plugins with their cause."""
    lines = [line for kind in HOOKS.values() for line in _kind_lines(kind, registry.offers(kind))]
    lines += _section("offered more than once", _clashes(registry))
    lines += _section("broken plugins", (str(broken) for broken in registry.broken))
    return lines[:-1] or ["no plugin is installed"]


def show_component(registry: Registry, name: str) -> list[str]:
    """All there is to know of a component (`name` or `distribution:name`) or of a plugin (`distribution[entry]`).

    Raises UsageError for a name that nothing has, PluginError if the component cannot be imported.
    """
    offers = [offer for kind in HOOKS.values() for offer in registry.named(kind, name)]
    plugins = [plugin for plugin in registry.plugins if name in owners(plugin)]
    if not offers and not plugins:
        known = [known for offer in registry.offered for known in (offer.name, *owners(offer.plugin))]
        raise _unknown(name, known)
    shown = [*(_offer_lines(offer) for offer in offers), *(_plugin_lines(plugin, registry) for plugin in plugins)]
    return [line for lines in shown for line in [*lines, ""]][:-1]


def _unknown(name: str, known: Sequence[str]) -> UsageError:
    suggestion = nearest(name, known)
    hint = f'; did you mean "{suggestion}"?' if suggestion else ""
    return UsageError(f'no component or plugin is called "{name}"{hint}', next_step="python -m toolkit plugins list")


def _section(title: str, lines: Iterable[str]) -> list[str]:
    indented = [f"  {line}" for line in lines]
    return [title, *indented, ""] if indented else []


def _kind_lines(kind: str, offers: Sequence[Offer]) -> list[str]:
    """The names of each plugin, wrapped: one plugin may offer a hundred."""
    by_plugin = groupby(sorted(offers, key=lambda offer: offer.plugin), key=lambda offer: offer.plugin)
    return _section(f"{kind}s", (line for plugin, own in by_plugin for line in _names(plugin, list(own))))


def _names(plugin: Plugin, offers: Sequence[Offer]) -> list[str]:
    names = textwrap.wrap(", ".join(offer.name for offer in offers), WIDTH - 4, break_on_hyphens=False)
    return [str(plugin), *(f"  {line}" for line in names)]


def _clashes(registry: Registry) -> Iterator[str]:
    for (kind, name), group in groupby(registry.offered, key=lambda offer: (offer.kind, offer.name)):
        plugins = [str(offer.plugin) for offer in group]
        if len(plugins) > 1:
            yield f'{kind} "{name}": {" and ".join(plugins)}'


def _plugin_lines(plugin: Plugin, registry: Registry) -> list[str]:
    """Where a plugin comes from and what it offers, or why it is broken."""
    causes = [f"broken: {broken.cause}" for broken in registry.broken if broken.plugin == plugin]
    offers = [f"{offer.kind} {offer.name}" for offer in registry.offered if offer.plugin == plugin]
    return [
        f"plugin {plugin}",
        f"  entry point {plugin.entry} = {plugin.value}",
        *_file(plugin),
        *_section_of(causes + offers),
    ]


def _section_of(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _file(plugin: Plugin) -> list[str]:
    return [f"  file {plugin.file}"] if plugin.file else []


def _offer_lines(offer: Offer) -> list[str]:
    from toolkit.arguments import GIVEN_BY_CORE, describe

    factory = offer.load()
    try:
        arguments = describe(factory, skip=GIVEN_BY_CORE.get(offer.kind, ()))
    except (TypeError, ValueError) as error:
        raise offer.failed("has an unusable signature", error) from error
    return [
        f"{offer.kind} {offer.name}, from plugin {offer.plugin}",
        *_file(offer.plugin),
        *_section_of((inspect.getdoc(factory) or "no description").splitlines()),
        *_argument_lines(arguments),
    ]


def _argument_lines(arguments: Sequence[Argument]) -> list[str]:
    """A table: name, type, default."""
    if not arguments:
        return ["", "  takes no arguments"]
    rows = [("argument", "type", "default")]
    rows += [(one.name, one.type, "required" if one.required else one.default) for one in arguments]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return ["", *(f"  {name:<{widths[0]}}  {kind:<{widths[1]}}  {default}" for name, kind, default in rows)]
