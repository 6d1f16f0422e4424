"""What earlier commands have read of the installed plugins: one file an environment, below the cache directory.

It spares time and decides nothing. What it says is used only while Python, the installed distributions and the code
that it was read from are the same; a file that is damaged, or cannot be read or written, is as good as none. It holds
plain values: nothing in it is run.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from toolkit.api.files import cache_place, write_atomically
from toolkit.host.imported import SearchPath, imported_code, imported_modules
from toolkit.host.installed import distributions, installed, state_of
from toolkit.host.offers import Answers, Broken, Loaded, Offer, Plugin
from toolkit.host.seen import Seen
from toolkit.host.stamps import changed_meanwhile, stamped, still

if TYPE_CHECKING:
    from toolkit.api.contracts import Declared, InputDesign
    from toolkit.recipe.signature import Signature

FORMAT = 3
NOTES = DESIGNS = 100
"""Most that are kept, of designs for each plugin: the oldest go first."""
_TOOLKIT = "toolkit=toolkit"
"""Stands among the plugins for what no plugin decides."""


class Cache:
    """Of this environment: which plugins are installed, what each offers, and what signatures say."""

    def __init__(self, path: str | None, environment: list[Any], contents: dict[str, Any]) -> None:
        self._path = path
        self._environment = environment
        self._plugins: list[list[str]] | None = contents.get("plugins")
        self._trees: dict[str, list[Any]] = contents.get("trees", {})
        """Of code: the name of its module and the stamps of its files."""
        self._others: dict[str, list[str]] = contents.get("others", {})
        """All other modules that were imported when something was read, by folder."""
        self._read: dict[str, Any] = contents.get("read", {})
        """By plugin: what it offers, the signatures read so far, and the trees of code that decide both."""
        self._notes: dict[str, list[Any]] = contents.get("notes", {})
        self._signatures: dict[tuple[str, str, str], Signature] = {}
        self._changed: set[str] = {_TOOLKIT} if contents.get("touched") else set()
        self._live: dict[Plugin, Answers] = {}
        self._stamped = cache(stamped)

    @classmethod
    def open(cls) -> Cache:
        """What is known of this environment; nothing where it cannot be read or is out of date."""
        found = distributions()
        if found is None:
            return cls(None, [], {})
        state, changed = state_of(found)
        python = [FORMAT, sys.version, sys.platform, sys.prefix, sys.flags.optimize, __file__]
        environment = [*python, found, state]
        path = None if changed_meanwhile(changed) else _path_of([*python, *found])
        try:
            contents = _contents(path, environment) if path else {}
        except Exception:  # whatever is wrong with the file
            contents = {}
        return cls(path, environment, contents)

    def installed(self) -> tuple[list[Plugin], list[Broken]]:
        """Every plugin that is installed, in order, and every distribution whose entry points cannot be read."""
        with suppress(TypeError):
            if self._plugins is not None:
                return [Plugin(*plugin) for plugin in self._plugins], []
        plugins, broken = installed()
        if not broken:
            self._plugins = [list(plugin) for plugin in plugins]
        return plugins, broken

    def answers(self, plugins: Sequence[Plugin]) -> Answers:
        """What these plugins offer; those of which that is not known are imported and asked."""
        found = [self._known(plugin) or self._ask(plugin) for plugin in plugins]
        self.save()
        return Answers(
            tuple(offer for one in found for offer in one.offered),
            tuple(broken for one in found for broken in one.broken),
            tuple(loaded for one in found for loaded in one.loaded),
        )

    def signature(self, offer: Offer) -> Signature | None:
        """What the signature of a component says, if that is known."""
        key = str(offer.plugin), offer.kind, offer.name
        name, read = f"{offer.kind} {offer.name}", self._read.get(_key(offer.plugin), {})
        if key not in self._signatures and name in read.get("names", ()):
            try:
                self._signatures[key] = _signature(json.dumps(read["signatures"][read["names"][name]]))
            except Exception:  # whatever is wrong with the file
                read |= {"signatures": [], "names": {}}
        return self._signatures.get(key)

    def add_signature(self, offer: Offer, signature: Signature) -> None:
        self._signatures[str(offer.plugin), offer.kind, offer.name] = signature
        read = self._read.get(_key(offer.plugin))
        if read is None:
            return
        with suppress(Exception):  # JSON cannot hold it, or the file was wrong
            plain = signature.plain()
            json.dumps(plain)
            if plain not in read["signatures"]:
                read["signatures"].append(plain)
            read["names"][f"{offer.kind} {offer.name}"] = read["signatures"].index(plain)
            self._changed.add(_key(offer.plugin))

    def design(self, offer: Offer, written: Mapping[str, Any]) -> InputDesign | None:
        """What the model takes for these arguments, if that is known."""
        designs = self._read.get(_key(offer.plugin), {}).get("designs", {})
        with suppress(Exception):  # whatever is wrong with the file
            said = designs[_arguments(offer, written)]
            from toolkit.api.contracts import InputDesign

            return InputDesign(**_with_tuples(said))
        return None

    def add_design(self, offer: Offer, written: Mapping[str, Any], design: InputDesign) -> None:
        read = self._read.get(_key(offer.plugin))
        if read is None:
            return
        with suppress(Exception):  # JSON cannot hold it
            said = json.loads(json.dumps(vars(design)))
            known = list(read["designs"].items())[1 - DESIGNS :]
            read["designs"] = {**dict(known), _arguments(offer, written): said}
            self._changed.add(_key(offer.plugin))

    def note(self, key: str) -> list[Any] | None:
        """Plain values that were read of installed distributions, if they are known."""
        found = self._notes.get(key)
        return found if isinstance(found, list) else None

    def add_note(self, key: str, values: list[Any]) -> None:
        self._notes = {**dict(list(self._notes.items())[1 - NOTES :]), key: values}
        self._changed.add(_TOOLKIT)

    def save(self) -> None:
        """Write what is new, if it may be relied on; without a word where that is not possible."""
        if not self._path or not self._changed:
            return
        from pathlib import Path

        try:
            write_atomically(Path(self._path), self._text())
        except Exception:  # of the disk, or of a file that was wrong
            self._path = None

    def _text(self) -> bytes:
        self._read.setdefault(_TOOLKIT, {"offers": [], "trees": []})
        self._changed.add(_TOOLKIT)
        modules = imported_modules()
        for key in self._changed:
            self._stamp(key, modules)
        self._changed.clear()
        read = {key: read for key, read in self._read.items() if set(read["trees"]) <= self._trees.keys()}
        used = {tree for one in read.values() for tree in one["trees"]}
        contents = {
            "environment": self._environment,
            "plugins": self._plugins,
            "others": self._others,
            "trees": {tree: known for tree, known in self._trees.items() if tree in used},
            "read": read,
            "notes": self._notes if _TOOLKIT in read else {},
        }
        text = json.dumps(contents, separators=(",", ":")).encode()
        return b"%08x\n%s" % (zlib.crc32(text), text)

    def _known(self, plugin: Plugin) -> Answers | None:
        try:
            read = self._read[_key(plugin)]
            offered = tuple(
                KeptOffer(kind, name, plugin, place, declared, self._revived)
                for kind, name, place, declared in read["offers"]
            )
            seconds, printed, changed, file = read["seen"]
            return Answers(offered, loaded=(Loaded(plugin, Seen(seconds, printed, tuple(changed)), file),))
        except Exception:  # nothing is known, or the file is wrong in whatever way
            self._read.pop(_key(plugin), None)
            return None

    def _ask(self, plugin: Plugin) -> Answers:
        answers = self._imported(plugin)
        plain = [_plain_offer(offer) for offer in answers.offered]
        if not answers.broken and None not in plain:
            (loaded,) = answers.loaded
            seen = [loaded.seen.seconds, loaded.seen.printed, loaded.seen.changed, loaded.file]
            self._read[_key(plugin)] = {"offers": plain, "seen": seen, "signatures": [], "names": {}, "trees": []}
            self._read[_key(plugin)]["designs"] = {}
            self._changed.add(_key(plugin))
        return answers

    def _imported(self, plugin: Plugin) -> Answers:
        from toolkit.host.loading import load

        if plugin not in self._live:
            self._live[plugin] = load([plugin])
        return self._live[plugin]

    def _revived(self, offer: Offer) -> Offer:
        """The offer as the plugin makes it, which is imported now."""
        answers = self._imported(offer.plugin)
        for live in answers.offered:
            if (live.kind, live.name) == (offer.kind, offer.name):
                return live
        cause = f": {answers.broken[0].cause}" if answers.broken else ""
        raise offer.failed(f"the plugin no longer offers it{cause}")

    def _stamp(self, key: str, modules: Sequence[tuple[str, str]]) -> None:
        """Note the code of these modules that a plugin's answers were read from. Where it has changed since this
        process began, the answers are forgotten: they may be those of the code before."""
        read = self._read[key]
        places = [key.rpartition("=")[2], *(offer[2] for offer in read["offers"] if offer[2])]
        asked = {place.partition(":")[0].partition(".")[0].strip() for place in places}
        trees, others = imported_code(modules, {*asked, "toolkit"})
        known = {tree: [name, files] for tree, name in trees.items() if (files := self._stamped(tree))}
        if len(known) < len(trees):
            del self._read[key]
            return
        self._trees |= known
        read["trees"] = sorted({*read["trees"], *trees})
        for folder, names in others.items():
            self._others[folder] = sorted({*self._others.get(folder, ()), *names})


@cache
def _signature(text: str) -> Signature:
    """One object for all commands of a process that read the same, since tables are made for an object only once."""
    from toolkit.recipe.signature import Signature

    return Signature.of(json.loads(text))


def _path_of(environment: list[Any]) -> str | None:
    """Text, since pathlib is a large part of what commands import that only print."""
    with suppress(OSError, ValueError, RuntimeError):  # the home folder is unknown, say
        return f"{cache_place()}/plugins/{zlib.crc32(json.dumps(environment).encode()):08x}.json"
    return None


def _contents(file: str, environment: list[Any]) -> dict[str, Any]:
    """What the file holds that is still true. Raises anything where it is not as it was written."""
    with open(file, "rb") as opened:  # noqa: PTH123
        check, _, text = opened.read().partition(b"\n")
    contents = json.loads(text)
    if int(check, 16) != zlib.crc32(text) or contents["environment"] != environment:
        return {}
    path = SearchPath()
    if path.hides(contents["others"]):
        return {}
    trees = {
        tree: [name, now]
        for tree, (name, files) in contents["trees"].items()
        if path.finds(name, tree) and (now := still(tree, files))
    }
    read = {key: read for key, read in contents["read"].items() if set(read["trees"]) <= trees.keys()}
    notes = contents["notes"] if _TOOLKIT in read else {}
    return {**contents, "trees": trees, "read": read, "notes": notes, "touched": trees != contents["trees"]}


def _key(plugin: Plugin) -> str:
    return f"{plugin} {plugin.entry}={plugin.value}"


def _arguments(offer: Offer, written: Mapping[str, Any]) -> str:
    return f"{offer.kind} {offer.name} {json.dumps(written, sort_keys=True)}"


def _plain_offer(offer: Offer) -> list[Any] | None:
    """An offer for JSON; None for one that declares what this toolkit does not know."""
    if offer.declared is None:
        return [offer.kind, offer.name, offer.place, None]
    from toolkit.api import contracts

    if type(offer.declared) not in (contracts.Declared, contracts.Model, contracts.Task):
        return None
    said = {key: value for key, value in vars(offer.declared).items() if key != "factory"}
    if isinstance(said.get("takes"), contracts.InputDesign):
        said["takes"] = vars(said["takes"])
    return [offer.kind, offer.name, offer.place, [type(offer.declared).__name__, said]]


class KeptOffer(Offer):
    """A component as an earlier command has seen it. Its plugin is imported when the factory is needed."""

    def __init__(
        self, kind: str, name: str, plugin: Plugin, place: str | None, said: Any, revived: Callable[[Offer], Offer]
    ) -> None:
        self.kind, self.name, self.plugin = kind, name, plugin
        self._place, self._said, self._revived = place, said, revived

    def load(self) -> Callable[..., Any]:
        return self._revived(self).load()

    @cached_property
    def factory(self) -> Callable[..., Any] | str:
        return self._place or self.load()

    @cached_property
    def declared(self) -> Declared | None:
        if self._said is None:
            return None
        from toolkit.api import contracts

        kind, said = self._said
        if isinstance(said.get("takes"), dict):
            said = {**said, "takes": contracts.InputDesign(**_with_tuples(said["takes"]))}
        declared: Declared = getattr(contracts, kind)(self._place or self.load, **_with_tuples(said))
        return declared

    @property
    def place(self) -> str | None:
        return self._place

    @property
    def imported(self) -> bool:
        return self._place is not None and self._place.partition(":")[0] in sys.modules


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
