"""Imports plugins and asks their hooks, so that none can shadow, wrap or stop another.

Each is loaded behind a plugin manager of its own; what it changes in the process meanwhile is put back. What is wrong
with one is kept as data and reported when a recipe needs it.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

import pluggy

from toolkit.api import hookspecs
from toolkit.api.contracts import Declared
from toolkit.api.errors import Problem, nearest
from toolkit.host.installed import GROUP
from toolkit.host.isolation import isolated
from toolkit.host.offers import Answers, Broken, Loaded, Offer, Plugin, described
from toolkit.recipe.kinds import KINDS

HOOKS = {kind.hook: kind.word for kind in KINDS.values()}


def load(plugins: Iterable[Plugin]) -> Answers:
    """Import these plugins, ask what they offer, and put back what they change in the process."""
    offered: list[Offer] = []
    broken, loaded = [], []
    for plugin in plugins:
        with isolated() as seen:
            try:
                offered += _offers_of(plugin)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                broken.append(Broken(plugin, described(error)))
        loaded.append(Loaded(plugin, seen, plugin.file))
    offered.sort(key=lambda offer: (offer.kind, offer.name, offer.plugin))
    return Answers(tuple(offered), tuple(broken), tuple(loaded))


def _offers_of(plugin: Plugin) -> list[Offer]:
    """Load the plugin and ask its hooks; any exception means that the plugin is broken."""
    entry = importlib.metadata.EntryPoint(plugin.entry, plugin.value, GROUP)
    if not entry.pattern.match(plugin.value):
        raise LookupError(f'invalid entry point "{plugin.value}": expected package.module')
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
            raise TypeError(f"{hook}: invalid component name {name!r}: expected text without a colon")
        if not callable(factory) and not re.fullmatch(r"[\w.]+:[\w.]+", str(factory)):
            raise TypeError(f'{hook}: "{name}" is neither callable nor "package.module:attribute"')
        yield Offer(HOOKS[hook], name, plugin, factory, declared)
