"""What the tables of a recipe say of their keys: the strings below the fields of `toolkit.recipe.tables`.

pydantic can read them too, but does so when the tables are imported, which every command would pay for.
"""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise

from toolkit.recipe import tables


def descriptions() -> dict[str, dict[str, str]]:
    """Of each table, by the name of its class, what is said of its keys, those of its base included."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(tables)).body:
        if isinstance(node, ast.ClassDef):
            bases = [found.get(base.id, {}) for base in node.bases if isinstance(base, ast.Name)]
            found[node.name] = {key: text for base in bases for key, text in base.items()} | _of_fields(node.body)
    return found


def _of_fields(body: list[ast.stmt]) -> dict[str, str]:
    found = {}
    for field, below in pairwise(body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = inspect.cleandoc(text)
    return found
