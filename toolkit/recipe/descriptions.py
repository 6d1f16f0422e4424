"""What the tables of a recipe say of their keys: the strings below the fields of `toolkit.recipe.tables`.

pydantic can read them too, but does so when the tables are imported, which every command would pay for.
"""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise

from toolkit.recipe import tables


def descriptions() -> dict[str, dict[str, str]]:
    """Of each table, by the name of its class, what is said of its keys."""
    module = ast.parse(inspect.getsource(tables))
    return {node.name: _of_fields(node.body) for node in module.body if isinstance(node, ast.ClassDef)}


def _of_fields(body: list[ast.stmt]) -> dict[str, str]:
    found = {}
    for field, below in pairwise(body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = inspect.cleandoc(text)
    return found
