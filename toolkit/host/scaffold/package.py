"""The files of a new package, made from the templates beside this module."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import __version__
from toolkit.api.files import replaced_folder
from toolkit.api.hookspecs import CONTRACT
from toolkit.host.scaffold.naming import check_name, parse_kinds
from toolkit.recipe.kinds import KINDS

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
"""The factory that stands for each kind, in a module named after the kind's plural."""


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
    """Write a package called `name` into a folder of that name; what to tell, with the next commands.

    `kinds` are separated by commas; None: one component of each. Raises UsageError where that cannot be.
    """
    package = Package(name, check_name(name), parse_kinds(kinds), licence, _author() or f"the authors of {name}")
    with replaced_folder(Path(name)) as folder:
        for place, text in _rendered(package).items():
            path = folder / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return [
        f"wrote {name}: {', '.join(f'{kind} {COMPONENTS[kind]}' for kind in package.kinds)}",
        f"next:  pip install -e {shlex.quote(f'{name}[test]')}",
        f"       python -m pytest {name}",
        f"       python -m toolkit run {name}/{package.module}.toml",
    ]


def _rendered(package: Package) -> Mapping[str, str]:
    import jinja2

    environment = jinja2.Environment(  # noqa: S701 - source code, in which nothing is to be escaped
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    names = package.names()
    return {
        place: environment.get_template(f"{made_from}.jinja").render(names) for place, made_from in package.templates()
    }


def _author() -> str | None:
    """The name that git signs commits with, if any."""
    try:
        asked = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S607
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None
