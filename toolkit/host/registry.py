"""Which plugins are installed, what each offers, and which are broken: found without importing anything heavy.

A plugin is an entry point of group `toolkit`. Each is loaded behind a plugin manager of its own, so none can shadow,
wrap or stop another; what it changes in the process meanwhile is put back. What is wrong with one is kept as data and
told when a recipe needs it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pluggy

from toolkit.api import hookspecs
from toolkit.api.contracts import Declared
from toolkit.api.errors import PluginError, Problem, nearest
from toolkit.host.isolation import Seen, isolated, quiet
from toolkit.host.project import left_out, normalised, owner
from toolkit.host.unknown import unknown
from toolkit.recipe.kinds import KINDS

GROUP = "toolkit"
HOOKS = {kind.hook: kind.word for kind in KINDS.values()}
SLOW_SECONDS = 0.1
"""An import that takes longer is told: it delays every command that needs to know what is installed."""


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
    declared: Declared | None = None
    """What the hook returned, where it declares more than a factory."""

    def load(self) -> Callable[..., Any]:
        """The factory itself, imported now if need be; PluginError if that fails."""
        if not isinstance(self.factory, str):
            return self.factory
        try:
            found = _imported(*self.factory.split(":"))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self.failed(f"cannot import {self.factory}", error) from error
        if callable(found):
            factory: Callable[..., Any] = found
            return factory
        raise self.failed(f"{self.factory} is not callable")

    def failed(self, what: str, error: BaseException | None = None) -> PluginError:
        """What went wrong inside this component, with the plugin to blame."""
        cause = f": {described(error)}" if error else ""
        return PluginError(
            f'{self.kind} "{self.name}" of plugin {self.plugin}: {what}{cause}',
            next_step=f'python -m toolkit plugins show "{self.plugin.distribution}:{self.name}"',
        )


def _imported(module: str, attribute: str) -> Any:
    """What stands at `module:attribute`; what the import prints goes to standard error."""
    if module in sys.modules:
        found: Any = sys.modules[module]
    else:
        with quiet() as printed:
            found = importlib.import_module(module)
        sys.stderr.write("".join(printed))
    for step in attribute.split("."):
        found = getattr(found, step)
    return found


@dataclass(frozen=True)
class Disabled:
    """A plugin that is installed and left out, unread."""

    plugin: Plugin
    by: str
    """The file or the variable that leaves it out."""

    def __str__(self) -> str:
        return f"{self.plugin}: by {self.by}"


@dataclass(frozen=True)
class Loaded:
    """What was seen while a plugin was imported and its hooks were asked."""

    plugin: Plugin
    seen: Seen

    @property
    def slow(self) -> bool:
        return self.seen.seconds > SLOW_SECONDS

    @property
    def took(self) -> str:
        return f"{self.seen.seconds * 1000:.0f} ms"


@dataclass(frozen=True)
class Registry:
    """All that was discovered, sorted."""

    plugins: tuple[Plugin, ...] = ()
    offered: tuple[Offer, ...] = ()
    broken: tuple[Broken, ...] = ()
    disabled: tuple[Disabled, ...] = ()
    loaded: tuple[Loaded, ...] = field(default=(), compare=False)
    """How loading went; no two times are alike, so it is no part of what a registry is."""

    def offers(self, kind: str) -> list[Offer]:
        return [offer for offer in self.offered if offer.kind == kind]

    def named(self, kind: str, name: str) -> list[Offer]:
        """All offers `name` may mean: a component's name, or that after `distribution:` or `distribution[entry]:`."""
        component, offers = name.rpartition(":")[2], self.offers(kind)
        found = [offer for offer in offers if offer.name == component]
        if not found and KINDS[kind].any_case:
            found = [offer for offer in offers if offer.name.lower() == component.lower()]
        return [offer for offer in found if _may_offer(offer.plugin, name)]

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
        disabled = [f"{one.plugin} (by {one.by})" for one in self.disabled if _may_offer(one.plugin, name)]
        unasked = f"; disabled, and so not asked: {', '.join(disabled)}" if disabled else ""
        problem = unknown(kind, name, key, known, unasked)
        suspects = [broken for broken in self.broken if _may_offer(broken.plugin, name)]
        if suspects:
            lines = [str(problem), *(f"  it may belong to a plugin that is broken: {broken}" for broken in suspects)]
            raise PluginError(
                "\n".join(lines), next_step="repair or uninstall it, then: python -m toolkit plugins list"
            )
        return problem


def owners(plugin: Plugin) -> tuple[str, str]:
    """What may stand before the colon of `distribution:component`."""
    return plugin.distribution, plugin.name


def _may_offer(plugin: Plugin, name: str) -> bool:
    before = name.rpartition(":")[0]
    return not before or owner(before) in map(owner, owners(plugin))


def _clash(found: list[Offer], key: str) -> PluginError:
    name, kind = found[0].name, found[0].kind
    distributions = [offer.plugin.distribution for offer in found]
    alone = len(set(distributions)) == len(distributions)
    choices = " or ".join(f'"{owners(offer.plugin)[0 if alone else 1]}:{name}"' for offer in found)
    plugins = " and ".join(str(offer.plugin) for offer in found)
    return PluginError(f'{key}: {kind} "{name}" is offered by {plugins}', next_step=f"choose one: {key} = {choices}")


def described(error: BaseException) -> str:
    """An exception as one line: its type and its text, if it has one that can be read."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def discover(disabled: Mapping[str, str] | None = None) -> Registry:
    """Find and load every installed plugin but the disabled ones, names mapped to what leaves them out (default: those
    that the project's file and `TOOLKIT_DISABLE` name). Raises ProjectError where that file cannot be read."""
    names = left_out() if disabled is None else disabled
    plugins, unreadable = installed()
    wanted, unread = [], []
    for plugin in plugins:
        by = next((names[owner] for owner in owners(plugin) if owner in names), None)
        if by:
            unread.append(Disabled(plugin, by))
        else:
            wanted.append(plugin)
    registry = load(wanted)
    broken = tuple(sorted([*unreadable, *registry.broken], key=lambda item: item.plugin))
    return Registry(registry.plugins, registry.offered, broken, tuple(unread), registry.loaded)


def installed() -> tuple[list[Plugin], list[Broken]]:
    """Every plugin that is installed, unread and in order, and every distribution whose entry points cannot be read."""
    found: dict[tuple[str, str, str], Plugin] = {}
    broken = []
    for distribution in importlib.metadata.distributions():
        try:
            # only distributions that mention the group are parsed, for there may be hundreds
            text = distribution.read_text("entry_points.txt") or ""
            entries = distribution.entry_points.select(group=GROUP) if f"[{GROUP}]" in text else ()
        except Exception as error:  # a line that is no entry point makes importlib.metadata raise almost anything
            broken.append(Broken(Plugin(*_named(distribution), "entry_points.txt", ""), described(error)))
            continue
        if entries:
            name, version = _named(distribution)
            for entry in entries:
                found[name, entry.name, entry.value] = Plugin(name, version, entry.name, entry.value)
    return sorted(found.values()), broken


def load(plugins: Iterable[Plugin]) -> Registry:
    """Import these plugins, ask what they offer, and put back what they change in the process."""
    asked = tuple(plugins)
    offered: list[Offer] = []
    broken, loaded = [], []
    for plugin in asked:
        with isolated() as seen:
            try:
                offered += _offers_of(plugin)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                broken.append(Broken(plugin, described(error)))
        loaded.append(Loaded(plugin, seen))
    offered.sort(key=lambda offer: (offer.kind, offer.name, offer.plugin))
    return Registry(asked, tuple(offered), tuple(broken), loaded=tuple(loaded))


def _named(distribution: importlib.metadata.Distribution) -> tuple[str, str]:
    """Name and version; a distribution's metadata is parsed each time it is asked for, with all of its README."""
    metadata = distribution.metadata
    known = {key: metadata[key] for key in ("Name", "Version") if key in metadata}
    return normalised(known.get("Name", "unknown")), known.get("Version", "unknown")


def _offers_of(plugin: Plugin) -> list[Offer]:
    """Load the plugin and ask its hooks; any exception means that the plugin is broken."""
    entry = importlib.metadata.EntryPoint(plugin.entry, plugin.value, GROUP)
    if not entry.pattern.match(plugin.value):
        raise LookupError(f'"{plugin.value}" is no name of a module')
    module = entry.load()
    _check_contract(module)
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


class ContractError(Exception):
    """A plugin was written for another contract than this toolkit's."""


def _check_contract(module: ModuleType) -> None:
    """A plugin written for this major version works with every minor version from its own on."""
    declared = getattr(module, "toolkit_contract", None)
    if declared is None:
        return
    form = re.fullmatch(r"(\d+)\.(\d+)", declared) if isinstance(declared, str) else None
    if form is None:
        raise ContractError(f'toolkit_contract must be text such as "{_version(hookspecs.CONTRACT)}", not {declared!r}')
    wanted = int(form[1]), int(form[2])
    if wanted[0] != hookspecs.CONTRACT[0] or wanted > hookspecs.CONTRACT:
        older = "vision-toolkit" if wanted > hookspecs.CONTRACT else "the plugin"
        ours = _version(hookspecs.CONTRACT)
        raise ContractError(f"needs contract {declared}, this toolkit has {ours}: upgrade {older}")


def _version(contract: tuple[int, int]) -> str:
    return ".".join(map(str, contract))


def _answers(plugin: Plugin, hook: str, results: list[Any]) -> Iterator[Offer]:
    """pluggy drops None, so no result means that the hook returned nothing."""
    answer = results[0] if results else None
    if not isinstance(answer, Mapping):
        raise TypeError(f"{hook} returned {type(answer).__name__}, not names mapped to factories")
    for name, offered in answer.items():
        declared = offered if isinstance(offered, Declared) else None
        factory = declared.factory if declared else offered
        if not isinstance(name, str) or not name or ":" in name:
            raise TypeError(f"{hook}: {name!r} is no name for a component (text without a colon)")
        if not callable(factory) and not re.fullmatch(r"[\w.]+:[\w.]+", str(factory)):
            raise TypeError(f'{hook}: "{name}" is neither callable nor "package.module:attribute"')
        yield Offer(HOOKS[hook], name, plugin, factory, declared)
