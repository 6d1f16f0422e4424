"""The process in which one plugin is examined, so that nothing it does ends the doctor: `python -m` this module."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from toolkit.api.errors import DataError, PluginError
from toolkit.host.registry import Offer, Plugin, described, load
from toolkit.kit.doctor.report import FACTORIES, Begun, Done, Line, Remark, Request, imported, written
from toolkit.recipe import signature as arguments
from toolkit.recipe.signature import GIVEN_BY_CORE

KNOWN_STATE = ("numpy.random", "torch")
"""Imported before the plugin whose components are examined, so that it is seen when it changes their global state."""
OF_RULES = {
    "model": (
        *("toolkit.kit.testing.models", "toolkit.export.graph", "onnx", "onnxruntime"),
        *("torch._dynamo", "onnxscript.function_libs.torch_lib"),
    )
}
"""What the rules of a kind import, for seconds each time it is not done once for all examinations."""


def needs(request: Request) -> Sequence[str]:
    """The modules that the rules import by which the components of `request` are examined."""
    kinds = {kind for kind, _ in request.offers or ()}
    return [module for kind in sorted(kinds) for module in OF_RULES.get(kind, ())]


def main(words: Sequence[str]) -> None:
    """`words` are the request and the file to which what is found is written, line by line."""
    request, report = Request.read(words[0]), Path(words[1])
    with report.open("a", encoding="utf-8", buffering=1) as file:
        for line in examined(request):
            file.write(written(line))
        file.write(written(Done()))


def examined(request: Request) -> Iterator[Line]:
    """Import the plugin, then examine those of its components that are asked for."""
    if request.offers is not None:
        for name in KNOWN_STATE:
            importlib.import_module(name)
    yield Begun("", "import")
    registry = load([Plugin(*request.plugin)])
    yield imported(registry)
    for kind, name in request.offers or ():
        for offer in registry.offers(kind):
            if offer.name == name:
                yield from _component(offer, request.args)


def _component(offer: Offer, given: dict[str, Any]) -> Iterator[Line]:
    about = f"{offer.kind} {offer.name}"
    yield Begun(about, "loads")
    try:
        factory = offer.load()
    except PluginError as error:
        yield Remark(about, "loads", _cause(error), FACTORIES)
        return
    yield Remark(about, "loads", None, FACTORIES)
    yield from Examined(offer.kind, about, factory, given).remarks()


def _cause(error: PluginError) -> str:
    """The error without the component in front, which stands above it."""
    return error.message.partition(": ")[2]


@dataclass(frozen=True)
class Examined:
    """A component that could be imported."""

    kind: str
    about: str
    factory: Callable[..., Any]
    given: Mapping[str, Any]
    """Keys of its table, and of a dataset the folder of its data, `root`."""

    def remarks(self) -> Iterator[Line]:
        """On the signature, then the rules of the kit, where they can be asked."""
        try:
            known = arguments.describe(self.factory, skip=self._given_by_core)
            checked, problems = arguments.check(self.factory, self.args, "--set", skip=self._given_by_core)
        except (TypeError, ValueError) as error:
            yield self._remark("signature", described(error))
            return
        yield self._remark("signature", None)
        if missing := [one.name for one in known if one.required and one.name not in self.args]:
            yield self._not_asked(f"it needs {' '.join(f'--set {name}=...' for name in missing)}")
        elif problems:
            yield self._remark("arguments", "; ".join(map(str, problems)))
        elif lacking := self._lacks_sample(checked):
            yield self._not_asked(f"{lacking}; give --set root=FOLDER")
        else:
            yield from self._rules()

    @property
    def args(self) -> dict[str, Any]:
        return {name: value for name, value in self.given.items() if name != "root" or self.kind != "dataset"}

    @property
    def root(self) -> Path | None:
        named = self.given.get("root") if self.kind == "dataset" else None
        return Path(str(named)) if named else None

    @property
    def _given_by_core(self) -> tuple[str, ...]:
        return GIVEN_BY_CORE.get(self.kind, ())

    def _remark(self, rule: str, what: str | None) -> Remark:
        return Remark(self.about, rule, what, FACTORIES)

    def _not_asked(self, why: str) -> Remark:
        return Remark(self.about, "rules", None, FACTORIES, skipped=f"not examined: {why}")

    def _lacks_sample(self, checked: Mapping[str, Any]) -> str | None:
        """Why a dataset cannot be had without a folder; None where it can, or fails in a way that a rule will tell."""
        if self.kind != "dataset" or self.root is not None:
            return None
        yet_to_tell = (Exception, SystemExit)
        try:
            self.factory(None, **checked)
        except DataError as error:
            return error.message
        except yet_to_tell:
            return None
        return None

    def _rules(self) -> Iterator[Line]:
        from toolkit.kit.testing import Case, examine, rules

        order = [rule.name for rule in rules(self.kind)]
        following = dict(pairwise(order))
        yield Begun(self.about, order[0])
        case = Case(self.kind, self.factory, self.args, root=self.root)  # type: ignore[arg-type]
        for finding in examine(case):
            rule = finding.rule
            yield Remark(self.about, rule.name, finding.what, rule.section, skipped=finding.skipped)
            yield Begun(self.about, following.get(rule.name, rule.name))


if __name__ == "__main__":
    main(sys.argv[1:])
