"""From a recipe back to TOML, and to the digest of what it computes."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping
from datetime import date, time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.recipe.tables import Recipe

_NOT_COMPUTED = {
    "": ("trackers", "export", "tune"),
    "data": ("root", "metadata"),
    "input": ("memory_gb", "cache_gb", "workers", "on_corrupt", "corrupt_limit", "damaged_share"),
    "train": ("device", "threads", "strategy", "rank_timeout", "checkpoint_minutes"),
}


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML that loads as an equal one (under the same name)."""
    return tables_to_toml(recipe.tables())


def tables_to_toml(tables: Mapping[str, Any]) -> str:
    return "\n".join(_table("", tables)).lstrip("\n") + "\n"


def digest(recipe: Recipe) -> str:
    """SHA-256 (hex) of everything that decides what is computed; give it the resolved recipe, so defaults count.

    What only says where and how fast does not count: where the data lies, which device, how many threads, how ranks
    share the work, how much is kept in memory or cache, how often state is saved, which trackers follow, what is
    exported or tuned. So a run may be resumed on another machine, but not with another batch size. What becomes of
    corrupt items does not count either: a run they stopped may continue without them. The data itself is identified by
    its split hash, not by its folder.
    """
    return hashlib.sha256(json.dumps(computed(recipe), sort_keys=True, default=str).encode()).hexdigest()


def computed(recipe: Recipe) -> dict[str, Any]:
    """The tables of what `digest` counts."""
    tables = copy.deepcopy(recipe.tables())
    for table, keys in _NOT_COMPUTED.items():
        holder = tables[table] if table else tables
        for key in keys:
            holder.pop(key, None)
    return tables


def _table(name: str, table: Mapping[str, Any]) -> list[str]:
    """Values first, then tables and arrays of tables: what follows a header belongs to it."""
    lines = [f"{_key(key)} = {inline(value)}" for key, value in table.items() if not _has_header(value)]
    for key, value in table.items():
        if not _has_header(value):
            continue
        inner = f"{name}.{_key(key)}" if name else _key(key)
        head, elements = (f"[{inner}]", [value]) if isinstance(value, Mapping) else (f"[[{inner}]]", value)
        for element in elements:
            body = _table(inner, element)
            needed = isinstance(value, list) or any(not _has_header(within) for within in element.values())
            lines += ["", head, *body] if needed else body
    return lines


def _has_header(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(element, Mapping) for element in value)
    return isinstance(value, Mapping) and bool(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _string(name)


def inline(value: Any) -> str:
    """A value as TOML writes it on one line: `tomllib` reads it as an equal one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list):
        return f"[{', '.join(inline(element) for element in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_key(key)} = {inline(inner)}' for key, inner in value.items())}}}"
    return value.isoformat() if isinstance(value, (date, time)) else repr(value)


def _string(text: str) -> str:
    """JSON escapes all that TOML wants escaped, but for the delete character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
