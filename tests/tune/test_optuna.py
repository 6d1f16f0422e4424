"""Optuna is used through its public API alone, so that its next version fits."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import toolkit.tune

FOLDER = Path(str(toolkit.tune.__file__)).parent


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: str(path.relative_to(FOLDER)))
def test_nothing_private_of_optuna_is_used(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    reached = [node for node in nodes if isinstance(node, ast.Attribute) and node.attr.startswith("_")]
    reached = [node for node in reached if not node.attr.endswith("__") and ast.unparse(node.value) != "self"]
    imported = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    assert [ast.unparse(node) for node in reached] == []
    assert [module for module in imported if module.startswith("optuna") and "._" in module] == []
