"""The process in which one plugin is examined, so that nothing it does ends the doctor: `python -m` this module.

What it is asked and what it finds pass between processes as JSON, one line each.
"""

from __future__ import annotations

import importlib
import json
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

from toolkit.api.errors import DataError, PluginError
from toolkit.host.loading import load
from toolkit.host.offers import Answers, Offer, Plugin, described
from toolkit.recipe.checking import check
from toolkit.recipe.kinds import KINDS
from toolkit.recipe.reading import read_signature
from toolkit.recipe.write import tables_to_toml

HOST, FACTORIES = "plugins", "factories"
"""Sections of docs/reference/rules.md about the checks here, which come on top of the conformance kit's rules."""
KNOWN_STATE = ("numpy.random", "torch")
"""Imported before the plugin whose components are examined, so that it is seen when it changes their global state."""
OF_RULES = {
    "model": (
        *("toolkit.kit.testing.models", "toolkit.export.graph", "onnx", "onnxruntime"),
        *("torch._dynamo", "onnxscript.function_libs.torch_lib"),
    )
}
"""What the rules of a kind import, for seconds each time it is not done once for all examinations."""


@dataclass(frozen=True)
class Request:
    """What a process is to examine."""

    plugin: tuple[str, str, str, str]
    """Distribution, version, entry point and its value."""
    offers: tuple[tuple[str, str], ...] | None = None
    """Kind and name of the components to examine; None: only import the plugin."""
    args: dict[str, Any] = field(default_factory=dict)
    """Keys of the component's table."""

    def text(self) -> str:
        return json.dumps(asdict(self) | {"args": tables_to_toml(self.args)})

    @classmethod
    def read(cls, text: str) -> Request:
        fields = json.loads(text)
        offers = fields["offers"]
        listed = None if offers is None else tuple((kind, name) for kind, name in offers)
        return cls(tuple(fields["plugin"]), listed, tomllib.loads(fields["args"]))


@dataclass(frozen=True)
class Imported:
    """How a plugin's import went."""

    seconds: float
    printed: str
    changed: list[str]
    cause: str | None
    """Why the plugin is broken; None: it is not."""
    offers: list[tuple[str, str]]
    """Kind and name of what it offers."""


@dataclass(frozen=True)
class Begun:
    """What is being done from now on: if nothing follows, this did not end."""

    component: str
    rule: str


@dataclass(frozen=True)
class Remark:
    """What was seen of one rule."""

    component: str
    """Kind and name; empty for the plugin as a whole."""
    rule: str
    what: str | None
    """What was seen that should not be; None where the rule holds or was not asked."""
    section: str
    """Of docs/reference/rules.md."""
    skipped: str | None = None
    """Why the rule was not asked."""
    notice: bool = False
    """Whether it is reported, but breaks no rule."""

    @property
    def fault(self) -> bool:
        return self.what is not None and not self.notice


@dataclass(frozen=True)
class Done:
    """The report is complete: a process that ends without it was ended."""


Line: TypeAlias = Imported | Begun | Remark | Done
_KINDS: dict[str, type[Line]] = {kind.__name__: kind for kind in (Imported, Begun, Remark, Done)}


def written(line: Line) -> str:
    return json.dumps([type(line).__name__, asdict(line)]) + "\n"


def read_lines(text: str) -> Iterator[Line]:
    """The lines that are whole: a process may have been killed while it wrote."""
    for line in text.splitlines(keepends=True):
        if line.endswith("\n"):
            kind, fields = json.loads(line)
            yield _KINDS[kind](**fields)


def imported(answers: Answers) -> Imported:
    """How the import of the one plugin that was asked went."""
    (loaded,) = answers.loaded
    return Imported(
        seconds=loaded.seen.seconds,
        printed=loaded.seen.printed,
        changed=list(loaded.seen.changed),
        cause=answers.broken[0].cause if answers.broken else None,
        offers=[(offer.kind, offer.name) for offer in answers.offered],
    )


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
    answers = load([Plugin(*request.plugin)])
    yield imported(answers)
    for component in request.offers or ():
        for offer in answers.offered:
            if (offer.kind, offer.name) == tuple(component):
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
    args = dict(given)
    named = args.pop("root", None) if offer.kind == "dataset" else None
    root = Path(str(named)) if named else None
    try:
        signature = read_signature(factory, KINDS[offer.kind].given)
        checked, problems = check(signature, args, "--set")
    except (TypeError, ValueError) as error:
        yield Remark(about, "signature", described(error), FACTORIES)
        return
    yield Remark(about, "signature", None, FACTORIES)
    if missing := [f"--set {one.name}=..." for one in signature.arguments if one.required and one.name not in args]:
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
    """Why a dataset cannot be made without a folder; None where it can, or fails in a way that a rule will find."""
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
