"""What the source of a plugin says without being run: calls that run the code of a file that is loaded."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path


def unsafe_loads(module: str) -> Iterator[str]:
    """Each call of `torch.load` in the package of `module` that does not say `weights_only=True`: a pickle may
    hold code of its author, which runs, and the default differs between versions of torch."""
    for path in _sources(module.partition(":")[0].partition(".")[0]):
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError, RecursionError):
            continue  # what is wrong with it, if it is used, its import says
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _is_torch_load(node.func) and not _weights_only(node):
                yield f"{path.name}:{node.lineno} calls torch.load without weights_only=True, which may run code"


def _sources(package: str) -> list[Path]:
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return []
    if spec is None or spec.origin is None:
        return []
    origin = Path(spec.origin)
    return sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]


def _is_torch_load(function: ast.expr) -> bool:
    return (
        isinstance(function, ast.Attribute)
        and function.attr == "load"
        and isinstance(function.value, ast.Name)
        and function.value.id == "torch"
    )


def _weights_only(call: ast.Call) -> bool:
    return any(
        word.arg == "weights_only" and isinstance(word.value, ast.Constant) and word.value.value is True
        for word in call.keywords
    )
