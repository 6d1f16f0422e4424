"""What is installed, as text: the lines of `plugins list` and `plugins show`."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from toolkit.api.errors import PluginError, UsageError, nearest, unknown_name
from toolkit.host.offers import INCLUDED, Offer, Plugin, owners
from toolkit.host.project import owner
from toolkit.host.registry import Registry
from toolkit.recipe.kinds import KINDS
from toolkit.system.notices import columns

if TYPE_CHECKING:
    from toolkit.recipe.signature import Signature
    from toolkit.recipe.values import Argument

WIDTH = 100


def list_components(registry: Registry) -> list[str]:
    """Components by kind and plugin, then what is wrong: names offered twice, components that cannot be used, arguments
    that a recipe cannot give, and plugins that are slow to import, disabled or broken."""
    lines = [line for kind in KINDS for line in _section(f"{kind}s", _kind_lines(registry.offers(kind)))]
    lines += _section("offered more than once", _clashes(registry))
    unusable, ungiven = _examined(registry)
    lines += _section("components that cannot be used", unusable)
    lines += _section("warning: arguments that a recipe cannot give", ungiven)
    slow = sorted((loaded for loaded in registry.loaded if loaded.slow), key=lambda loaded: -loaded.seen.seconds)
    lines += _section("slow to import", (f"{loaded.plugin}: {loaded.took}" for loaded in slow))
    lines += _section("disabled plugins", (str(disabled) for disabled in registry.disabled))
    lines += _section("broken plugins", (str(broken) for broken in registry.broken))
    return lines[:-1] or ["no plugin is installed"]


def show_component(registry: Registry, name: str) -> list[str]:
    """All there is to know of a component (`name` or `distribution:name`) or of a plugin (`distribution[entry]`).

    Raises UsageError for a name that nothing has.
    """
    offers = [offer for kind in KINDS for offer in registry.named(kind, name)]
    plugins = [plugin for plugin in _plugins(registry) if owner(name) in owners(plugin)]
    if not offers and not plugins:
        known = [*(offer.name for offer in registry.offered), *(of for one in _plugins(registry) for of in owners(one))]
        message = unknown_name(f'no component or plugin is called "{name}"', name, known)
        near = nearest(name, known)
        step = f"show {shlex.quote(near)}" if near else "list"
        raise UsageError(message, next_step=f"python -m toolkit plugins {step}")
    shown = [_offer_lines(offer, registry) for offer in offers]
    shown += [_plugin_lines(plugin, registry) for plugin in plugins]
    registry.save()
    return [line for lines in shown for line in [*lines, ""]][:-1]


def _plugins(registry: Registry) -> list[Plugin]:
    """All that are installed, those that could not be read or were not asked among them."""
    unread = [*(broken.plugin for broken in registry.broken), *(disabled.plugin for disabled in registry.disabled)]
    return sorted({*registry.plugins, *unread})


def _section(title: str, lines: Iterable[str]) -> list[str]:
    indented = [f"  {line}" for line in lines]
    return [title, *indented, ""] if indented else []


def _kind_lines(offers: Sequence[Offer]) -> Iterator[str]:
    """The names of each plugin, wrapped: one plugin may offer a hundred."""
    for plugin, own in groupby(sorted(offers, key=lambda offer: offer.plugin), key=lambda offer: offer.plugin):
        yield str(plugin)
        yield from _folded(", ".join(offer.name for offer in own), "  ")


def _clashes(registry: Registry) -> Iterator[str]:
    for (kind, name), group in groupby(registry.offered, key=lambda offer: (offer.kind, offer.name)):
        plugins = [str(offer.plugin) for offer in group]
        if len(plugins) > 1:
            yield f'{kind} "{name}": {" and ".join(plugins)}'


def _examined(registry: Registry) -> tuple[list[str], list[str]]:
    """What is wrong with the signatures of components, those of the toolkit's own plugins excepted: each is read once
    after its plugin has changed."""
    unusable, ungiven = [], []
    for offer in registry.offered:
        if offer.plugin.distribution == INCLUDED:
            continue
        try:
            foreign = registry.signature(offer).foreign
        except PluginError as error:
            unusable.append(error.message)
            continue
        if foreign:
            said = ", ".join(f"{name} ({kind})" for name, kind in foreign.items())
            ungiven.append(f'{offer.kind} "{offer.name}" of {offer.plugin}: {said}')
    registry.save()
    return unusable, ungiven


def _plugin_lines(plugin: Plugin, registry: Registry) -> list[str]:
    """Where a plugin comes from and what it offers, or why it does not."""
    causes = [f"broken: {broken.cause}" for broken in registry.broken if broken.plugin == plugin]
    causes += [f"disabled by {disabled.by}" for disabled in registry.disabled if disabled.plugin == plugin]
    offers = [f"{offer.kind} {offer.name}" for offer in registry.offered if offer.plugin == plugin]
    seen = []
    for loaded in registry.loaded:
        if loaded.plugin == plugin:
            seen += [f"slow to import: {loaded.took}"] if loaded.slow else []
            seen += [f"prints while it is imported: {shortened(loaded.seen.printed)}"] if loaded.seen.printed else []
            seen += [f"changes the process while it is imported: {change}" for change in loaded.seen.changed]
    return [f"plugin {plugin}", *_indented([*_origin(plugin, registry), *seen, *causes, *offers])]


def shortened(text: str) -> str:
    """`text` on one line, cut to a third of it."""
    return textwrap.shorten(text, WIDTH // 3, placeholder="...") or "blank lines"


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" if line else "" for line in lines]


def _origin(plugin: Plugin, registry: Registry) -> list[str]:
    """The entry point and the file that it leads to."""
    files = [loaded.file for loaded in registry.loaded if loaded.plugin == plugin]
    file = next(filter(None, files), plugin.file)
    return [f"entry point {plugin.entry} = {plugin.value}", *([f"file {file}"] if file else [])]


def _offer_lines(offer: Offer, registry: Registry) -> list[str]:
    """A component's origin, description and arguments, or why they cannot be shown."""
    title = f"{offer.kind} {offer.name}, from plugin {offer.plugin}"
    try:
        lines = _signature_lines(offer, registry.signature(offer))
    except PluginError as error:
        lines = [f"broken: {error.message}"]
    return [title, *_indented([*_origin(offer.plugin, registry), *lines])]


def _signature_lines(offer: Offer, signature: Signature) -> list[str]:
    place = offer.place or signature.factory
    place = f"{place} in {signature.source}" if signature.source else place
    description = signature.description or "no description"
    paragraphs = [line for part in description.split("\n\n") for line in [*_folded(part), ""]]
    usual, arguments = [*_licence_lines(offer), *_usual_lines(offer)], _argument_lines(signature.arguments)
    return [f"factory {place}", "", *paragraphs, *usual, *arguments]


def _folded(text: str, indent: str = "") -> list[str]:
    """`text` in lines that fit the terminal, or `WIDTH`, below the indent of what they belong to."""
    width = max(min(columns(WIDTH), WIDTH) - 2, 2 * len(indent), 40)
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _licence_lines(offer: Offer) -> list[str]:
    """The licence of each of a model's published weights."""
    from toolkit.api.contracts import Model

    licences = offer.declared.licences if isinstance(offer.declared, Model) else {}
    if not licences:
        return []
    return ["licences of its weights:", *_indented(f"{word}: {licence}" for word, licence in licences.items()), ""]


def _usual_lines(offer: Offer) -> list[str]:
    """What recipes get by default with a task that says so."""
    from toolkit.api.contracts import Task

    if not isinstance(offer.declared, Task):
        return []
    usual, better = offer.declared, {"maximize": "highest", "minimize": "lowest"}
    metrics = [f"metrics {', '.join(usual.metrics)}"] if usual.metrics else []
    best = f"best epoch: {better[usual.direction]} {usual.metric}"
    return ["unless a recipe says otherwise:", *_indented([*metrics, best]), ""]


def _argument_lines(arguments: Sequence[Argument]) -> list[str]:
    """A table: name, type, default; what each means below it."""
    if not arguments:
        return ["takes no arguments"]
    shown = [*_with_parts(arguments)]
    rows = [("argument", "type", "default")]
    rows += [(name, one.value.words(), "required" if one.required else one.default) for name, one in shown]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {default}" for name, kind, default in rows]
    margin = " " * (widths[0] + 2)
    meanings = [_folded(one.doc, margin) for _, one in shown]
    lines_below = (line for row, meaning in zip(lines[1:], meanings, strict=True) for line in (row, *meaning))
    return [lines[0], *lines_below]


def _with_parts(arguments: Sequence[Argument], above: str = "") -> Iterator[tuple[str, Argument]]:
    """Each argument, and below it the keys of its table, by their dotted names."""
    for one in arguments:
        yield f"{above}{one.name}", one
        yield from _with_parts(one.value.parts(), f"{above}{one.name}.")
