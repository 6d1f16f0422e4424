"""The parts of the reference that the code knows: ``python -m tests.reference`` writes them into the pages.

A page marks such a part with ``<!-- generated: NAME WORDS -->`` and ``<!-- end -->``. A test compares it with the code.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

from pydantic import BaseModel
from pydantic.fields import FieldInfo

import toolkit
from toolkit.api.contracts import InputDesign, Model
from toolkit.cli.commands import parser
from toolkit.cli.parser import Parser
from toolkit.host.registry import Offer, Registry, discover
from toolkit.kit.testing import rules
from toolkit.recipe import tables
from toolkit.recipe.annotations import value_of
from toolkit.recipe.complaints import shown
from toolkit.recipe.descriptions import descriptions
from toolkit.recipe.kinds import KINDS
from toolkit.recipe.reading import read_signature
from toolkit.recipe.values import Argument

ROOT = Path(toolkit.__file__).parents[1]
OURS = "vision-toolkit"
MARKED = re.compile(r"^<!-- generated: (.+?) -->\n(.*?)^<!-- end -->$", flags=re.MULTILINE | re.DOTALL)

TABLES: dict[str, type[BaseModel]] = {
    "Top level": tables.Recipe,
    "`[data]`": tables.DataTable,
    "`[input]`": tables.InputTable,
    "`[clip]`": tables.ClipTable,
    "`[model]`, `[[augment]]`, `[[metrics]]`, `[[trackers]]`": tables.Use,
    "`[task]`": tables.TaskTable,
    "`[train]`": tables.TrainTable,
    "`[train.optimizer]`": tables.OptimizerTable,
    "`[train.optimizer.parts.NAME]`": tables.PartRates,
    "`[train.schedule]`": tables.ScheduleTable,
    "`[train.fixres]`": tables.FixresTable,
    "`[export]`": tables.ExportTable,
    "`[export.segments]`": tables.SegmentsTable,
    "`[export.PRECISION]`": tables.Limits,
    "`[export.reject]`": tables.RejectTable,
    "`[export.conformal]`": tables.ConformalTable,
    "`[tune]`": tables.TuneTable,
}
"""The headings of the recipe's page, and the model of each table."""


@functools.cache
def own_plugins() -> Registry:
    """What this project's own plugins offer, whatever else is installed here."""
    found = discover({})
    return Registry(found.plugins, tuple(offer for offer in found.offered if offer.plugin.distribution == OURS))


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [[*header]]
    lines += [["---"] * len(lines[0]), *([*row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n".replace("|  |", "| |") for line in lines)


def cell(text: str) -> str:
    """Text for a cell: a vertical bar would end it, and `<class>` would be HTML."""
    return escaped(text.replace("|", "&#124;"))


def escaped(text: str) -> str:
    """Outside of code, `<` would begin HTML."""
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(text.split("`")))


# Recipe


def keys(model: type[BaseModel]) -> str:
    """A table's keys."""
    meanings = descriptions()[model.__name__]
    fields = {name: field for name, field in model.model_fields.items() if field.exclude is not True}
    rows = ((*key_row(name, field), cell(" ".join(meanings[name].split()))) for name, field in fields.items())
    return table(("key", "type", "default", "meaning"), rows)


def key_row(name: str, field: FieldInfo) -> tuple[str, str, str]:
    kind = value_of(field.rebuild_annotation()).words()
    return f"`{name}`", "array of tables" if kind == "array of table" else kind, default_text(field)


def default_text(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if default is None:
        return "unset"
    if isinstance(default, tables.Use):
        return f"`{shown(default.name)}`"
    if isinstance(default, BaseModel):
        return "optional"
    plain = [one.name for one in default] if isinstance(default, tuple) else default
    return f"`{shown(plain, limit=200)}`"


# Components


def components(kind: str) -> str:
    """Every component of a kind; those that share a signature stand under one heading."""
    groups: dict[object, list[Offer]] = {}
    for offer in own_plugins().offers(kind):
        groups.setdefault(arguments_of(offer) or offer.name, []).append(offer)
    return "\n".join(component(offers, arguments_of(offers[0])) for offers in groups.values())


Row: TypeAlias = tuple[str, str, str, str]


def arguments_of(offer: Offer) -> tuple[Row, ...]:
    """Name, type, default and meaning of each argument, as cells."""
    found = read_signature(offer.load(), KINDS[offer.kind].given).arguments
    return tuple((f"`{one.name}`", cell(one.value.words()), default_of(one), cell(one.doc)) for one in found)


def component(offers: list[Offer], arguments: tuple[Row, ...]) -> str:
    named = {offer.name: offer for offer in offers}
    first = next((named[name] for name in ("resnet50", "densenet121", "x3d_s") if name in named), offers[0])
    description = read_signature(first.load(), KINDS[first.kind].given).description
    lines = [f"### `{first.name}`", paragraphs(description)]
    if len(offers) > 1:
        others = ", ".join(f"`{name}`" for name in named if name != first.name)
        lines.append(f"{others} take the same arguments.")
    if arguments:
        lines.append(table(("argument", "type", "default", "meaning"), arguments).rstrip())
    return "\n\n".join(lines) + "\n"


def default_of(one: Argument) -> str:
    if one.default != "unset":
        return f"`{one.default}`"
    return "required" if one.required else "unset"


def paragraphs(text: str) -> str:
    return "\n\n".join(escaped(" ".join(part.split())) for part in text.split("\n\n"))


def designs() -> str:
    """What each model of clips takes."""
    declared = {offer.name: offer.declared for offer in own_plugins().offers("model")}
    takes = {
        name: one.takes
        for name, one in declared.items()
        if isinstance(one, Model) and isinstance(one.takes, InputDesign)
    }
    rows = ((f"`{name}`", f"{one.frames} x {one.rate}", str(one.size), str(one.stored)) for name, one in takes.items())
    return table(("model", "`frames` x `rate`", "`size`", "`stored`"), rows)


def odd_files(what: str) -> str:
    """What becomes of odd files: the table in the docstring of the module that reads them."""
    text = str(import_module(f"toolkit.data.{what}").__doc__)
    found = re.search(r"^\|.*\n(?:\|.*\n?)+", text, flags=re.MULTILINE)
    assert found, what
    return found[0].replace("`DataError`", "an error")


# Commands


def commands(parser: Parser, name: str = "") -> Iterator[tuple[str, str, Parser]]:
    """Name, help and parser of every command that does something itself."""
    for word, inner in parser.actions.items():
        whole = f"{name} {word}".strip()
        yield from list(commands(inner, whole)) or [(whole, inner.text, inner)]


def command_reference() -> str:
    return "\n".join(one_command(name, text, found) for name, text, found in commands(parser()))


def one_command(name: str, text: str, parser: Parser) -> str:
    places, flags = parser._get_positional_actions(), parser._get_optional_actions()
    usage = " ".join([name, *(place(one) for one in places)])
    lines = [f"## `{name}`", f"{text[0].upper()}{text[1:]}.", f"```text\npython -m toolkit {usage}\n```"]
    rows = [(f"`{one.metavar}`", one) for one in places if one.help]
    rows += [(f"`{flag_text(one)}`", one) for one in flags if one.dest not in {"help", "debug"}]
    if rows:
        lines.append(table(("argument", "meaning"), ((shown, cell(help_of(one))) for shown, one in rows)).rstrip())
    if parser.epilog:
        lines.append(f"```text\n{inspect.cleandoc(parser.epilog)}\n```")
    return "\n\n".join(lines) + "\n"


def place(one: argparse.Action) -> str:
    return {"?": f"[{one.metavar}]", "*": f"[{one.metavar} ...]", "+": f"{one.metavar} ..."}.get(
        str(one.nargs), str(one.metavar)
    )


def flag_text(one: argparse.Action) -> str:
    return " ".join(filter(None, (one.option_strings[0], str(one.metavar) if one.metavar else "")))


def help_of(one: argparse.Action) -> str:
    return (one.help or "").replace("%(default)s", str(one.default)).replace("%%", "%")


def exit_codes() -> str:
    """As the epilog of ``--help`` lists them."""
    epilog = " ".join((parser().epilog or "").split())
    listed = re.search(r"Exit codes: ([^.]*)\.", epilog)
    assert listed, epilog
    return table(("exit code", "meaning"), (part.split(" ", 1) for part in listed[1].split(", ")))


# Rules


def rules_of(kind: str) -> str:
    return "".join(
        f'- <a id="{rule.section}"></a>`{rule.name}`{" (slow)" if rule.slow else ""}: {cell(rule.contract)}\n'
        for rule in rules(kind)
    )


PARTS: dict[str, Callable[[str], str]] = {
    "keys": lambda words: keys(TABLES[words]),
    "components": components,
    "rules": rules_of,
    "odd-files": odd_files,
    "designs": lambda _: designs(),
    "commands": lambda _: command_reference(),
    "exit-codes": lambda _: exit_codes(),
}
"""What writes a part, from the words after its name."""


def regenerated(text: str) -> str:
    def part(found: re.Match[str]) -> str:
        what, _, words = found[1].partition(" ")
        return f"<!-- generated: {found[1]} -->\n\n{PARTS[what](words).strip()}\n\n<!-- end -->"

    return MARKED.sub(part, text)


def main() -> None:
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        new = regenerated(text)
        if new != text:
            page.write_text(new, encoding="utf-8")
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
