"""From where this process has imported its code, and whether the next one would import the same.

Code of an installed distribution is known by the distribution's version. All other code (of the plugins in question, of
packages that are installed to be edited, of folders on `PYTHONPATH`) is known by its trees: see `toolkit.host.stamps`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from types import ModuleType
from typing import TypeAlias

Names: TypeAlias = Mapping[str, list[str]]
"""Names of top-level modules, by their folder."""


def imported_modules() -> list[tuple[str, str]]:
    """Names and places of the top-level modules that this process has imported; a namespace package has several."""
    return [
        (name, place)
        for name, module in list(sys.modules.items())
        if "." not in name and name != "__main__" and getattr(module, "__name__", name) == name  # no alias
        for place in _places(module)
    ]


def imported_code(
    modules: Sequence[tuple[str, str]], asked: Collection[str]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The trees of code that is known by no version, those of the modules `asked` in any case; and the names of all
    other modules."""
    installed = _installed_folders()
    trees: dict[str, str] = {}
    others: dict[str, list[str]] = {}
    for name, place in modules:
        if name in asked or not place.startswith(installed):
            trees[place] = name
        else:
            others.setdefault(os.path.dirname(place), []).append(name)  # noqa: PTH120 (a thousand modules)
    return trees, others


class SearchPath:
    """Where Python looks for modules, as it is now."""

    def __init__(self) -> None:
        self._folders = [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100 (a Path a module costs time)
        self._names: dict[str, frozenset[str]] = {}

    def finds(self, name: str, tree: str) -> bool:
        """Whether `import name` would import this tree."""
        folder = os.path.dirname(tree)  # noqa: PTH120
        for entry in self._folders:
            if entry == folder:
                return True
            if name in self._names_in(entry):
                return False
        from importlib.util import find_spec

        try:
            spec = find_spec(name)
        except (ImportError, ValueError):
            return False
        places = [spec.origin or "", *(spec.submodule_search_locations or ())] if spec else []
        return any(place == tree or place.startswith(f"{tree}{os.sep}") for place in places)

    def hides(self, others: Names) -> bool:
        """Whether another module of one of these names lies where no installed distribution puts it."""
        known = {name for names in others.values() for name in names}
        return any(not known.isdisjoint(self._names_in(folder)) for folder in self._folders)

    def _names_in(self, folder: str) -> frozenset[str]:
        """Names of modules in a folder; of one with installed distributions none, which are known by their versions."""
        if folder not in self._names:
            installed = f"{folder}{os.sep}".startswith(_installed_folders())
            self._names[folder] = frozenset() if installed else frozenset(_module_names(folder))
        return self._names[folder]


def _module_names(folder: str) -> Iterator[str]:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith((".py", ".so", ".pyd")):
                yield entry.name.partition(".")[0]
            elif "." not in entry.name and entry.is_dir():
                yield entry.name


def _places(module: ModuleType) -> Iterator[str]:
    file = getattr(module, "__file__", None)
    if file is None:
        yield from map(os.path.abspath, getattr(module, "__path__", ()))  # of a namespace package
        return
    folder, base = os.path.split(os.path.abspath(file))  # noqa: PTH100
    yield folder if base.startswith("__init__.") else os.path.join(folder, base)  # noqa: PTH118


@cache
def _installed_folders() -> tuple[str, ...]:
    """The folders of Python's own modules and those of installed distributions."""
    import site

    folders = [os.path.dirname(os.__file__), *site.getsitepackages(), site.getusersitepackages()]  # noqa: PTH120
    return tuple(f"{folder}{os.sep}" for folder in folders)
