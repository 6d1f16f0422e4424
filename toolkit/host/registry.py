"""All that is installed and what it offers, as recipes ask for it: by kind and name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from toolkit.api.errors import PluginError, Problem
from toolkit.host.offers import Broken, Disabled, Loaded, Offer, Plugin, owners
from toolkit.host.project import disabled_names, owner
from toolkit.recipe.kinds import KINDS

if TYPE_CHECKING:
    from toolkit.api.contracts import InputDesign
    from toolkit.host.cache import Cache
    from toolkit.recipe.signature import Signature


class Registry(NamedTuple):
    """All that was discovered, sorted."""

    plugins: tuple[Plugin, ...] = ()
    offered: tuple[Offer, ...] = ()
    broken: tuple[Broken, ...] = ()
    disabled: tuple[Disabled, ...] = ()
    loaded: tuple[Loaded, ...] = ()
    """How loading went."""
    cache: Cache | None = None

    def signature(self, offer: Offer) -> Signature:
        """What the signature of a component says; its factory is imported only where no earlier command has read it.

        Raises PluginError where the factory cannot be imported or its signature cannot be used.
        """
        kept = self.cache.signature(offer) if self.cache else None
        if kept is not None:
            return kept
        factory = offer.load()
        from toolkit.recipe.reading import read_signature

        try:
            signature = read_signature(factory, KINDS[offer.kind].given)
        except (TypeError, ValueError) as error:
            raise offer.failed("has an unusable signature", error) from error
        if self.cache:
            self.cache.add_signature(offer, signature)
        return signature

    def design(
        self, offer: Offer, written: Mapping[str, Any], ask: Callable[[], InputDesign | None]
    ) -> InputDesign | None:
        """What a model that is settled takes for arguments as a recipe writes them: what an earlier command has
        learned, or what `ask` returns."""
        if self.cache is None:
            return ask()
        known = self.cache.design(offer, written)
        if known is not None:
            return known
        found = ask()
        if found is not None:
            self.cache.add_design(offer, written, found)
            self.cache.save()
        return found

    def kept(self, key: str, read: Callable[[], list[Any]]) -> list[Any]:
        """What `read` returns, or has returned to an earlier command: plain values that this key, the toolkit and the
        installed distributions decide."""
        if self.cache is None:
            return read()
        found = self.cache.note(key)
        if found is None:
            found = read()
            self.cache.add_note(key, found)
            self.cache.save()
        return found

    def knows(self, offer: Offer) -> bool:
        """Whether `signature` needs no import."""
        return offer.imported or (self.cache is not None and self.cache.signature(offer) is not None)

    def save(self) -> None:
        """Let later commands know the signatures that were read."""
        if self.cache:
            self.cache.save()

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
        from toolkit.host.unknown import unknown

        known = [offer.name for offer in self.offers(kind)]
        disabled = [f"{one.plugin} (by {one.by})" for one in self.disabled if _may_offer(one.plugin, name)]
        unasked = f"; disabled: {', '.join(disabled)}" if disabled else ""
        problem = unknown(kind, name, key, known, unasked)
        suspects = [broken for broken in self.broken if _may_offer(broken.plugin, name)]
        if suspects:
            raise PluginError(
                str(problem),
                details=[f"it may belong to a plugin that is broken: {broken}" for broken in suspects],
                next_step="repair or uninstall it, then: python -m toolkit plugins list",
            )
        return problem


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


def discover(disabled: Mapping[str, str] | None = None) -> Registry:
    """Find every installed plugin and ask all but the disabled ones what they offer, those alone that no earlier
    command has asked since they changed.

    `disabled` maps names to what disables them (default: those that the project's file and `TOOLKIT_DISABLE` name).
    Raises ProjectError where that file cannot be read.
    """
    from toolkit.host.cache import Cache

    names = disabled_names() if disabled is None else disabled
    cache = Cache.open()
    plugins, unreadable = cache.installed()
    wanted, unread = [], []
    for plugin in plugins:
        by = next((names[owner] for owner in owners(plugin) if owner in names), None)
        if by:
            unread.append(Disabled(plugin, by))
        else:
            wanted.append(plugin)
    answers = cache.answers(wanted)
    offered = sorted(answers.offered, key=lambda offer: (offer.kind, offer.name, offer.plugin))
    broken = sorted([*unreadable, *answers.broken], key=lambda item: item.plugin)
    return Registry(tuple(wanted), tuple(offered), tuple(broken), tuple(unread), answers.loaded, cache)
