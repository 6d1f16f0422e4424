"""`plugins new`: a complete package with working components, tests, a recipe, a licence and a workflow for CI."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import keyword
import re
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import __version__
from toolkit.api.errors import UsageError, unknown_name
from toolkit.api.files import replaced_folder
from toolkit.api.hookspecs import CONTRACT
from toolkit.host.project import normalised
from toolkit.recipe.kinds import KINDS
from toolkit.system.machine import ask_git

_TRY = "python -m toolkit plugins new my-vision"
COMPONENTS = {
    "dataset": "shapes",
    "model": "small_conv",
    "augmentation": "brightness",
    "metric": "reciprocal_rank",
    "task": "poly",
    "tracker": "epoch_table",
    "optimizer": "lion",
    "schedule": "hold_and_fall",
}
"""The factory that is written for each kind, in a module named after the kind's plural."""


@dataclass(frozen=True)
class Package:
    """A package to be written."""

    name: str
    module: str
    kinds: tuple[str, ...]
    licence: str
    author: str

    def templates(self) -> Iterator[tuple[str, str]]:
        """Where each file goes, and the template that it is made from."""
        yield from {
            "pyproject.toml": "pyproject.toml",
            "README.md": "README.md",
            ".gitignore": "gitignore",
            ".github/workflows/test.yml": "workflow.yml",
            f"{self.module}.toml": "recipe.toml",
            f"src/{self.module}/__init__.py": "package/__init__.py",
            f"src/{self.module}/py.typed": "package/py.typed",
            "tests/test_components.py": "tests/test_components.py",
        }.items()
        yield from ((f"src/{self.module}/{kind}s.py", f"package/{kind}s.py") for kind in self.kinds)
        if self.licence != "none":
            yield "LICENSE", f"licences/{self.licence}"

    def names(self) -> dict[str, Any]:
        """What the templates may speak of."""
        return {
            "package": self,
            "hooks": {kind: KINDS[kind].hook for kind in self.kinds},
            "components": {kind: COMPONENTS[kind] for kind in self.kinds},
            "toolkit_version": ".".join(__version__.split(".")[:2]),
            "contract": ".".join(map(str, CONTRACT)),
            "year": time.localtime().tm_year,
        }


def write_package(name: str, *, kinds: str | None = None, licence: str = "MIT") -> list[str]:
    """Write a package called `name` into a folder of that name; the lines to show, with the next commands.

    `kinds` are separated by commas; None: one component of each. Raises UsageError where that cannot be.
    """
    import jinja2

    author = ask_git("config", "user.name") or f"the authors of {name}"
    package = Package(name, check_name(name), parse_kinds(kinds), licence, author)
    environment = jinja2.Environment(  # noqa: S701 - source code, in which nothing is to be escaped
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    with replaced_folder(Path(name)) as folder:
        for place, template in package.templates():
            path = folder / place
            path.parent.mkdir(parents=True, exist_ok=True)
            text = environment.get_template(f"{template}.jinja").render(package.names())
            path.write_text(text, encoding="utf-8")
    return [
        f"wrote {name}: {', '.join(f'{kind} {COMPONENTS[kind]}' for kind in package.kinds)}",
        f"next:  pip install -e {shlex.quote(f'{name}[test]')}",
        f"       python -m pytest {name}",
        f"       python -m toolkit run {name}/{package.module}.toml",
    ]


def check_name(name: str) -> str:
    """The name of the module in a distribution called `name`.

    Raises UsageError where one of them cannot be used, or is in use here already.
    """
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
        raise UsageError(
            f'invalid distribution name "{name}": use letters and digits, with - _ . between them', next_step=_TRY
        )
    module = normalised(name).replace("-", "_")
    if not module.isidentifier() or keyword.iskeyword(module):
        raise UsageError(f'"{name}" gives the module {module}, which Python cannot import', next_step=_TRY)
    found = (one.metadata["Name"] for one in importlib.metadata.distributions() if "Name" in one.metadata)
    if normalised(name) in map(normalised, found):
        raise UsageError(f'a distribution called "{name}" is installed already', next_step=_TRY)
    if module in sys.stdlib_module_names or importlib.util.find_spec(module):
        raise UsageError(f'"{name}" gives the module {module}, which exists here already', next_step=_TRY)
    if Path(name).exists():
        raise UsageError(f"{name} exists already", next_step="choose another name, or remove it")
    return module


def parse_kinds(text: str | None) -> tuple[str, ...]:
    """The kinds that `text` names, separated by commas, in the order in which they are listed; None: all."""
    known = tuple(KINDS)
    if text is None:
        return known
    asked = {kind.strip() for kind in text.split(",")}
    for kind in sorted(asked):
        if kind not in known:
            message = unknown_name(f'--kinds: no kind "{kind}"', kind, known)
            raise UsageError(message, next_step=f"--kinds {','.join(known)}")
    return tuple(kind for kind in known if kind in asked)
