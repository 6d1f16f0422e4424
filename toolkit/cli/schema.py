"""The command schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    from toolkit.cli.parser import Parser


def fill(parser: Parser) -> None:
    parser.does(_schema, ("schema > recipe.schema.json", "schema --bundle > bundle.schema.json"))
    parser.add_argument("--bundle", action="store_true", help="that of a bundle's bundle.json instead")


def _schema(options: Namespace) -> None:
    import json

    if options.bundle:
        from toolkit.serving.bundle.schema import bundle_schema

        print(json.dumps(bundle_schema(), indent=2))
        return
    from toolkit.build.schema import recipe_schema
    from toolkit.host.registry import discover

    print(json.dumps(recipe_schema(discover()), indent=2))
