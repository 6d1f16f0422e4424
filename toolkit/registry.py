"""Which plugins are installed, what each offers, and which are broken: found without importing anything heavy.

A plugin is an entry point of group `toolkit`. Each is loaded behind a plugin manager of its own, so none can shadow,
wrap or stop another; what is wrong with one is kept as data and told when a recipe needs it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pluggy

from toolkit import hookspecs
from toolkit.errors import PluginError, Problem, nearest

GROUP = "toolkit"
HOOKS = {
    "toolkit_datasets": "dataset",
    "toolkit_models": "model",
    "toolkit_augmentations": "augmentation",
    "toolkit_metrics": "metric",
    "toolkit_trackers": "tracker",
}


@dataclass(frozen=True, order=True)
class Plugin:
    """What is known of a plugin before it is loaded; `distribution` is normalised as package indexes do."""

    distribution: str
    version: str
    entry: str
    value: str

    @property
    def name(self) -> str:
        return f"{self.distribution}[{self.entry}]"

    @property
    def file(self) -> str | None:
        """The file the plugin was loaded from; None if it was not."""
        return getattr(sys.modules.get(self.value.partition(":")[0].strip()), "__file__", None)

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Broken:
    """A plugin that cannot be used, and why."""

    plugin: Plugin
    cause: str

    def __str__(self) -> str:
        return f"{self.plugin}: {self.cause}"


@dataclass(frozen=True)
class Offer:
    """One component: its factory, or where to import it from."""

    kind: str
    name: str
    plugin: Plugin
    factory: Callable[..., Any] | str

    def load(self) -> Callable[..., Any]:
        """The factory itself, imported now if need be; PluginError if that fails."""
        if not isinstance(self.factory, str):
            return self.factory
        module, _, attribute = self.factory.partition(":")
        try:
            found = importlib.import_module(module)
            for step in attribute.split("."):
                found = getattr(found, step)
        except (Exception, SystemExit) as error:
            raise self.failed(f"cannot import {self.factory}", error) from error
        if not callable(found):
            raise self.failed(f"{self.factory} is not callable")
        return found

    def failed(self, what: str, error: BaseException | None = None) -> PluginError:
        """What went wrong inside this component, with the plugin to blame."""
        cause = f": {described(error)}" if error else ""
        return PluginError(
            f'{self.kind} "{self.name}" of plugin {self.plugin}: {what}{cause}',
            next_step=f'python -m toolkit plugins show "{self.plugin.distribution}:{self.name}"',
        )


@dataclass(frozen=True)
class Registry:
    """All that was discovered, sorted."""

    plugins: tuple[Plugin, ...] = ()
    offered: tuple[Offer, ...] = ()
    broken: tuple[Broken, ...] = ()

    def offers(self, kind: str) -> list[Offer]:
        return [offer for offer in self.offered if offer.kind == kind]

    def named(self, kind: str, name: str) -> list[Offer]:
        """All offers `name` may mean: a component's name, or that after `distribution:` or `distribution[entry]:`."""
        owner, _, component = name.rpartition(":")
        found = [offer for offer in self.offers(kind) if offer.name == component]
        return [offer for offer in found if not owner or owner in owners(offer.plugin)]

    def find(self, kind: str, name: str, key: str) -> Offer | Problem:
        """The one offer `name` means, or the problem at `key` if nothing like it is installed.

        Raises PluginError when several plugins offer it, or when none does but a broken plugin might have.
        """
        found = self.named(kind, name)
        if len(found) > 1:
            raise _clash(found, key)
        if found:
            return found[0]
        known = [offer.name for offer in self.offers(kind)]
        problem = Problem(key, f'unknown {kind} "{name}"', nearest(name.rpartition(":")[2], known))
        suspects = [broken for broken in self.broken if _may_offer(broken.plugin, name)]
        if suspects:
            raise _perhaps_broken(problem, suspects)
        return problem


def owners(plugin: Plugin) -> tuple[str, str]:
    """What may stand before the colon of `distribution:component`."""
    return plugin.distribution, plugin.name


def _may_offer(plugin: Plugin, name: str) -> bool:
    owner = name.rpartition(":")[0]
    return not owner or owner in owners(plugin)


def _clash(found: list[Offer], key: str) -> PluginError:
    name, kind = found[0].name, found[0].kind
    distributions = [offer.plugin.distribution for offer in found]
    alone = len(set(distributions)) == len(distributions)
    choices = " or ".join(f'"{owners(offer.plugin)[0 if alone else 1]}:{name}"' for offer in found)
    plugins = " and ".join(str(offer.plugin) for offer in found)
    return PluginError(f'{key}: {kind} "{name}" is offered by {plugins}', next_step=f"choose one: {key} = {choices}")


def _perhaps_broken(problem: Problem, suspects: list[Broken]) -> PluginError:
    lines = [str(problem), *(f"  it may belong to a plugin that is broken: {broken}" for broken in suspects)]
    return PluginError("\n".join(lines), next_step="repair or uninstall it, then: python -m toolkit plugins list")


def described(error: BaseException) -> str:
    """An exception as one line: its type and its text."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def disabled_plugins() -> frozenset[str]:
    """The names in `TOOLKIT_DISABLE`, separated by commas: `distribution` or `distribution[entry]`."""
    names = os.environ.get("TOOLKIT_DISABLE", "").split(",")
    return frozenset(name.strip() for name in names if name.strip())


def discover(disabled: frozenset[str] | None = None) -> Registry:
    """Find and load every installed plugin but the disabled ones (default: those `TOOLKIT_DISABLE` names)."""
    left_out = disabled_plugins() if disabled is None else disabled
    found: dict[tuple[str, str, str], Plugin] = {}
    broken = []
    for item in _installed():
        if isinstance(item, Broken):
            broken.append(item)
        else:
            found[item.distribution, item.entry, item.value] = item
    wanted = sorted(plugin for plugin in found.values() if left_out.isdisjoint(owners(plugin)))
    offered = []
    for plugin in wanted:
        try:
            offered += _offers_of(plugin)
        except (Exception, SystemExit) as error:
            broken.append(Broken(plugin, described(error)))
    offered.sort(key=lambda offer: (offer.kind, offer.name, offer.plugin))
    return Registry(tuple(wanted), tuple(offered), tuple(sorted(broken, key=lambda item: item.plugin)))


def _installed() -> Iterator[Plugin | Broken]:
    """Every entry point of the group; only distributions that mention it are parsed, for there may be hundreds."""
    for distribution in importlib.metadata.distributions():
        try:
            text = distribution.read_text("entry_points.txt") or ""
            entries = distribution.entry_points.select(group=GROUP) if f"[{GROUP}]" in text else ()
        except (OSError, ValueError) as error:
            yield Broken(_plugin(distribution, "entry_points.txt", ""), described(error))
        else:
            yield from (_plugin(distribution, entry.name, entry.value) for entry in entries)


def _plugin(distribution: importlib.metadata.Distribution, entry: str, value: str) -> Plugin:
    known = {key: distribution.metadata[key] for key in ("Name", "Version") if key in distribution.metadata}
    name = re.sub(r"[-_.]+", "-", known.get("Name", "unknown")).lower()
    return Plugin(name, known.get("Version", "unknown"), entry, value)


def _offers_of(plugin: Plugin) -> list[Offer]:
    """Load the plugin and ask its hooks; any exception means that the plugin is broken."""
    module = importlib.metadata.EntryPoint(plugin.entry, plugin.value, GROUP).load()
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module, plugin.name)
    callers = manager.get_hookcallers(module) or []
    misspelt = [caller.name for caller in callers if not caller.has_spec()]
    if misspelt:
        raise LookupError(str(Problem("", f"unknown hook {misspelt[0]}", nearest(misspelt[0], HOOKS))))
    manager.check_pending()
    if not callers:
        raise LookupError("has no hook: nothing in it is marked with toolkit.hookimpl")
    return [offer for caller in callers for offer in _answers(plugin, caller.name, caller())]


def _answers(plugin: Plugin, hook: str, results: list[Any]) -> Iterator[Offer]:
    """pluggy drops None, so no result means that the hook returned nothing."""
    answer = results[0] if results else None
    if not isinstance(answer, Mapping):
        raise TypeError(f"{hook} returned {type(answer).__name__}, not names mapped to factories")
    for name, factory in answer.items():
        if not isinstance(name, str) or not name or ":" in name:
            raise TypeError(f"{hook}: {name!r} is no name for a component (text without a colon)")
        if not callable(factory) and not re.fullmatch(r"[\w.]+:[\w.]+", str(factory)):
            raise TypeError(f'{hook}: "{name}" is neither callable nor "package.module:attribute"')
        yield Offer(HOOKS[hook], name, plugin, factory)
