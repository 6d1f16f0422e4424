"""What others read of a recipe or a run says nothing of the folders of this machine: an absolute path is shown as its
last name."""

from __future__ import annotations

import html
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.recipe.write import tables_to_toml

if TYPE_CHECKING:
    from toolkit.recipe.tables import Recipe

PATHS = frozenset({"root", "exclude", "relabel", "metadata"})
"""Keys of `[data]` whose values are paths."""
_NAME = r"[^\s/\"'`<>&|,;:()\[\]{}\\]+"
_PATH = re.compile(rf"(?:(?<![\w/.+~<-])|(?<=:/)|(?<=://)|(?<=:///))/({_NAME})(?:/{_NAME})+/?")
"""An absolute path of at least two names in a text; not the later part of a relative one, of a URL or of base64."""


def shared_toml(recipe: Recipe) -> str:
    """The recipe as TOML for others: without the metadata, a file that they need not have and that changes no score."""
    tables = recipe.tables()
    tables["data"].pop("metadata", None)
    return tables_to_toml(_shortened(tables, root=False))


def places(toml: str) -> list[str]:
    """The absolute paths that a recipe's text names, longest first; none of a text that cannot be read."""
    try:
        tables = tomllib.loads(toml)
    except tomllib.TOMLDecodeError:
        return []
    return sorted(_absolute(tables), key=len, reverse=True)


def without_places(text: str, known: Iterable[str] = ()) -> str:
    """`text`, which may be HTML, with each path of `known` (longest first), and every other absolute path whose first
    folder exists here, as its last name."""
    for place in known:
        for form in dict.fromkeys((place, html.escape(place))):
            text = text.replace(form, Path(form).name)
    return _PATH.sub(lambda found: _last_name(found[0]) if _exists(found[1]) else found[0], text)


def shared(value: Any, known: Iterable[str] = ()) -> Any:
    """`value`, of mappings, sequences and texts, with every text as `without_places` gives it."""
    if isinstance(value, str):
        return without_places(value, known)
    if isinstance(value, Mapping):
        return {key: shared(inner, known) for key, inner in value.items()}
    return [shared(inner, known) for inner in value] if isinstance(value, (list, tuple)) else value


def _shortened(value: Any, *, root: bool) -> Any:
    """`root` is whether the key says that the value is a path, whether or not its folder is on this machine."""
    if isinstance(value, Mapping):
        return {key: _shortened(inner, root=key in PATHS) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shortened(inner, root=root) for inner in value]
    if not isinstance(value, str):
        return value
    return _last_name(value) if _is_place(value, root=root) else without_places(value)


def _absolute(value: Any, *, root: bool = False) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _absolute(inner, root=key in PATHS)
    elif isinstance(value, list):
        for inner in value:
            yield from _absolute(inner, root=root)
    elif isinstance(value, str) and _is_place(value, root=root):
        yield value


def _is_place(text: str, *, root: bool) -> bool:
    """Whether a value is an absolute path as a whole; a pattern that begins with a slash is not one."""
    path = Path(text)
    return path.is_absolute() and len(path.parts) > 1 and (root or _exists(path.parts[1]))


@lru_cache(maxsize=256)
def _exists(top: str) -> bool:
    return Path("/", top).is_dir()


def _last_name(path: str) -> str:
    return Path(path).name
