"""The command init: its words, and what it prints."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import UsageError
from toolkit.cli.parser import command_line, without

if TYPE_CHECKING:
    from argparse import Namespace

    from toolkit.cli.init.start import Start
    from toolkit.cli.parser import Parser

KINDS = {
    "images": "labelled images of any kind",
    "videos": "labelled videos of any kind",
    "cifar10": "CIFAR-10, or its sample",
    "har": "human action recognition, or its sample",
}


def fill(parser: Parser) -> None:
    parser.does(_init, ("init images photos", "init videos clips --output fights.toml"))
    listed = "; ".join(f"{name}: {text}" for name, text in KINDS.items())
    parser.add_argument("kind", metavar="KIND", choices=KINDS, help=listed)
    parser.add_argument("folder", metavar="FOLDER", type=Path, nargs="?", help="where the files are")
    parser.add_argument("--output", metavar="FILE", type=Path, help="the recipe (default: named after the folder)")
    parser.add_argument("--force", action="store_true", help="overwrite a recipe that is there")


def _init(options: Namespace) -> None:
    output = options.output or Path(f"{_slug(options.folder) or options.kind}.toml")
    if output.exists() and not options.force:
        again = command_line([*options.words, "--force"])
        raise UsageError(f"{output}: file exists; --force overwrites it, --output FILE names another", next_step=again)
    if output.suffix != ".toml":
        named = command_line([*without(options.words, {"--output": True}), "--output", f"{output}.toml"])
        raise UsageError(f"--output {output}: expected a name that ends in .toml", next_step=named)
    from toolkit.api.files import as_utf8, write_atomically
    from toolkit.cli.init.start import start

    begun = start(options.kind, options.folder, output)
    write_atomically(output, as_utf8(begun.text))
    _show(begun, output)


def _slug(folder: Path | None) -> str:
    """The name of a folder as the name of a file and of a run."""
    return "" if folder is None else re.sub(r"[^a-z0-9]+", "_", folder.resolve().name.lower()).strip("_")


def _show(begun: Start, output: Path) -> None:
    from toolkit.system.notices import note, show

    _show_wrapped(*begun.facts)
    for text in begun.notes:
        note(text)
    _show_wrapped(f"wrote {output}: {begun.summary}")
    recipe = shlex.quote(str(output))
    commands = (
        f"check {recipe}",
        f"run {recipe}",
        f"predict runs/latest {shlex.quote(begun.predicted)}",
    )
    show(*(f"{'next: ' if number == 0 else '      '} python -m toolkit {line}" for number, line in enumerate(commands)))


def _show_wrapped(*lines: str) -> None:
    """Print lines that break between words on a terminal."""
    import sys

    from toolkit.system.notices import show, wrapped

    for line in lines:
        show(*wrapped(line, sys.stdout).splitlines())
