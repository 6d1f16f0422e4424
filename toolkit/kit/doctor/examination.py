"""The process in which one plugin is examined, so that nothing it does ends the doctor: `python -m` this module."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from toolkit.api.errors import DataError, PluginError
from toolkit.host.registry import Offer, Plugin, described, load
from toolkit.kit.doctor.report import FACTORIES, Begun, Done, Line, Remark, Request, imported, written
from toolkit.recipe import signature as arguments
from toolkit.recipe.kinds import KINDS

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


def _component(offer: Offer, given: Mapping[str, Any]) -> Iterator[Line]:
    """Remarks on the factory and its signature, then on the rules of the kit, where they can be asked. `given` are keys
    of the component's table, and of a dataset the folder of its data, `root`."""
    about = f"{offer.kind} {offer.name}"
    yield Begun(about, "loads")
    try:
        factory = offer.load()
    except PluginError as error:
        cause = error.message.partition(": ")[2]  # the component in front of it stands above it
        yield Remark(about, "loads", cause, FACTORIES)
        return
    yield Remark(about, "loads", None, FACTORIES)
    args, skip = dict(given), KINDS[offer.kind].given
    named = args.pop("root", None) if offer.kind == "dataset" else None
    root = Path(str(named)) if named else None
    try:
        known = arguments.describe(factory, skip=skip)
        checked, problems = arguments.check(factory, args, "--set", skip=skip)
    except (TypeError, ValueError) as error:
        yield Remark(about, "signature", described(error), FACTORIES)
        return
    yield Remark(about, "signature", None, FACTORIES)
    if missing := [f"--set {one.name}=..." for one in known if one.required and one.name not in args]:
        yield _not_asked(about, f"it needs {' '.join(missing)}")
    elif problems:
        yield Remark(about, "arguments", "; ".join(map(str, problems)), FACTORIES)
    elif offer.kind == "dataset" and root is None and (lacking := _lacks_sample(factory, checked)):
        yield _not_asked(about, f"{lacking}; give --set root=FOLDER")
    else:
        yield from _rules(about, offer.kind, factory, args, root)


def _not_asked(about: str, why: str) -> Remark:
    return Remark(about, "rules", None, FACTORIES, skipped=f"not examined: {why}")


def _lacks_sample(factory: Callable[..., Any], args: Mapping[str, Any]) -> str | None:
    """Why a dataset cannot be had without a folder; None where it can, or fails in a way that a rule will find."""
    try:
        factory(None, **args)
    except DataError as error:
        return error.message
    except (Exception, SystemExit):
        return None
    return None


def _rules(
    about: str, kind: str, factory: Callable[..., Any], args: Mapping[str, Any], root: Path | None
) -> Iterator[Line]:
    from toolkit.kit.testing import Case, examine, rules

    order = [rule.name for rule in rules(kind)]
    following = dict(pairwise(order))
    yield Begun(about, order[0])
    for finding in examine(Case(kind, factory, args, root=root)):  # type: ignore[arg-type]
        rule = finding.rule
        yield Remark(about, rule.name, finding.what, rule.section, skipped=finding.skipped)
        yield Begun(about, following.get(rule.name, rule.name))


if __name__ == "__main__":
    main(sys.argv[1:])
