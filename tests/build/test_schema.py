from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.build.test_plan import PLUGIN, RECIPE, registry
from toolkit.build.plan import plan
from toolkit.build.schema import recipe_schema
from toolkit.host.offers import Broken, Offer, Plugin
from toolkit.host.registry import Registry
from toolkit.recipe.read import parse
from toolkit.recipe.write import to_toml

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is in the extra [test]")


def titled(spec: Any, *, title: int = 1, default: str = "x", required: int) -> None:
    """Its arguments are called as keywords of JSON Schema are.

    title: of it
    """


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return recipe_schema(registry(titled=titled))


def accepts(schema: dict[str, Any], text: str) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(tomllib.loads(text))


def test_it_is_a_valid_schema(schema: dict[str, Any]):
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("2020-12/schema")
    assert "$comment" not in schema
    assert "name" not in schema["properties"]


def test_recipes_and_resolved_recipes_validate(schema: dict[str, Any], tmp_path: Path):
    path = tmp_path / "r.toml"
    path.write_text(RECIPE)
    assert accepts(schema, RECIPE)
    assert accepts(schema, to_toml(plan(parse(path), registry()).resolved))


@pytest.mark.parametrize(
    ("old", "new", "accepted"),
    [
        ('name = "net"', 'name = "net"\nwidths = [1, 2]', True),
        ('name = "net"', 'name = "net"\nwidths = "x"', False),
        ('name = "net"', 'name = "net"\nwidth = 3', False),
        ('name = "net"', 'name = "ten"', False),
        ('name = "net"', 'name = "acme:net"\nwidths = [1]', True),
        ('name = "net"', 'name = "titled"\nrequired = 3\ntitle = 2\ndefault = "y"', True),
        ('name = "net"', 'name = "titled"', False),
        ("bins = 5", "bins = 0", False),
        ('["flip"]', '["flop"]', False),
        ('["flip"]', '[{name = "flip", p = 0.1}]', True),
        ("epochs = 1", "epochs = 0", False),
        ("epochs = 1", "epoch = 1", False),
        ("epochs = 1", 'epochs = 1\nschedule = "cosine"', True),
        ("epochs = 1", "epochs = 1\nschedule = {warmup_epochs = 1}", True),
        ("epochs = 1", "epochs = 1\nschedule = {final = 0.1}", False),
        ("lr = 0.1", "lr = 0.1\nmomentum = 0.9\nparts.head.lr_scale = 2", True),
        ("lr = 0.1", "lr = 0.1\nmomentun = 0.9", False),
        ("lr = 0.1", "momentum = 0.9", False),
        ('name = "shapes"', 'name = "shapes"\nroot = "x"\nseed = 3', True),
    ],
)
def test_it_knows_components_and_their_arguments(
    schema: dict[str, Any], tmp_path: Path, old: str, new: str, accepted: bool
):
    """And judges each recipe as the toolkit itself does."""
    text = RECIPE.replace(old, new)
    path = tmp_path / "r.toml"
    path.write_text(text)
    assert accepts(schema, text) is accepted
    try:
        plan(parse(path), registry(titled=titled))
    except Exception:
        assert not accepted
    else:
        assert accepted


def test_titles_are_left_out_but_not_arguments_called_so(schema: dict[str, Any]):
    branch = next(branch for branch in schema["$defs"]["model"]["anyOf"] if "title" in branch.get("properties", {}))
    assert branch["properties"]["title"] == {"default": 1, "description": "of it", "type": "integer"}
    assert "title" not in schema


def test_what_is_broken_is_named_as_left_out():
    late = Broken(Plugin("late", "2", "main", "late"), "ImportError: no")
    comment = recipe_schema(registry(late, lazy="no_such_module:build"))["$comment"]
    assert comment.startswith("left out: late[main] 2: ImportError: no; ")
    assert "cannot import no_such_module:build" in comment


def test_names_offered_twice_stand_there_in_full():
    other = Offer("model", "net", Plugin("other", "1", "main", "other"), titled)
    both = Registry((PLUGIN,), (*registry().offered, other))
    enums = [branch["properties"]["name"].get("enum") for branch in recipe_schema(both)["$defs"]["model"]["anyOf"][1:]]
    assert enums == [["acme:net"], ["other:net"], None]
