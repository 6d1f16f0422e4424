"""The command schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    from toolkit.cli.parser import Parser


def fill(parser: Parser) -> None:
    parser.does(_schema, ("schema", "schema > recipe.schema.json"))


def _schema(_: Namespace) -> None:
    import json

    from toolkit.build.schema import recipe_schema
    from toolkit.host.registry import discover

    print(json.dumps(recipe_schema(discover()), indent=2))
