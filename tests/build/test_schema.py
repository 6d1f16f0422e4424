from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.build.test_plan import PLUGIN, RECIPE, registry
from toolkit.build.plan import plan
from toolkit.build.schema import recipe_schema
from toolkit.host.offers import Broken, Offer, Plugin
from toolkit.host.registry import Registry, discover
from toolkit.recipe.read import parse
from toolkit.recipe.write import to_toml

ROOT = Path(__file__).parents[2]
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


def test_titles_are_omitted_but_not_arguments_called_so(schema: dict[str, Any]):
    (branch,) = [then["properties"] for names, then in branches(schema, "model") if names == ["titled"]]
    assert branch["title"] == {"default": 1, "description": "of it", "type": "integer"}
    assert "title" not in schema


def branches(schema: dict[str, Any], kind: str) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """The names of components, each with what their table may hold."""
    for member in schema["$defs"][kind]["allOf"]:
        names = member.get("if", {}).get("properties", {}).get("name", {}).get("enum")
        if names:
            yield names, member["then"]


def test_what_is_broken_is_named_as_skipped():
    late = Broken(Plugin("late", "2", "main", "late"), "ImportError: no")
    comment = recipe_schema(registry(late, lazy="no_such_module:build"))["$comment"]
    assert comment.startswith("skipped: late[main] 2: ImportError: no; ")
    assert "cannot import no_such_module:build" in comment


def test_names_offered_twice_are_qualified():
    other = Offer("model", "net", Plugin("other", "1", "main", "other"), titled)
    both = Registry((PLUGIN,), (*registry().offered, other))
    assert [names for names, _ in branches(recipe_schema(both), "model")] == [["acme:net"], ["other:net"]]


# What editors show


@pytest.fixture(scope="module")
def installed() -> dict[str, Any]:
    return recipe_schema(discover())


def described(schema: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every key that an editor can complete, with what it shows on hover; conditions only judge values."""
    if isinstance(schema, list):
        for number, inner in enumerate(schema):
            yield from described(inner, f"{path}/{number}")
    if isinstance(schema, dict):
        for key, value in schema.get("properties", {}).items():
            yield f"{path}.{key}", "see $ref" if "$ref" in value else value.get("description", "")
            yield from described(value, f"{path}.{key}")
        for key, value in schema.items():
            if key not in {"properties", "if", "then", "else", "not"}:
                yield from described(value, f"{path}/{key}")


def test_every_key_has_a_description(installed: dict[str, Any]):
    found = dict(described(installed))
    assert len(found) > 150
    assert [key for key, text in found.items() if not text] == []


def test_an_editor_that_reads_no_conditions_completes_names_and_arguments(installed: dict[str, Any]):
    completed = installed["$defs"]["model"]["allOf"][0]["properties"]
    assert "resnet50" in completed["name"]["anyOf"][0]["enum"]
    assert {"weights", "freeze", "dropout", "widths"} <= completed.keys()
    assert "(cnn)" in completed["widths"]["description"]


MISTAKES = [
    ('name = "resnet50"', 'name = "resnet5"', ["model", "name"]),
    ('name = "resnet50"', "name = 5", ["model", "name"]),
    ("dropout = 0.3", "dropuot = 0.3", ["model", "dropuot"]),
    ("dropout = 0.3", 'dropout = "x"', ["model", "dropout"]),
    ("dropout = 0.3", "dropout = 1.5", ["model", "dropout"]),
    ('name = "horizontal_flip"', 'name = "flip"', ["augment", 1, "name"]),
    ('name = "one_cycle"', 'name = "one_cycle"\nwarmup = 1', ["train", "schedule", "warmup"]),
    ('name = "one_cycle"', 'name = "one_cicle"', ["train", "schedule", "name"]),
    ('name = "adam"', 'name = "adam"\nmomentum = 0.9', ["train", "optimizer", "momentum"]),
    ("lr = 1e-3", "lr = -1", ["train", "optimizer", "lr"]),
    ("lr = 1e-3\n", "", ["train", "optimizer"]),
    ("batch = 32", "batch = 32\nepoch = 7", ["train", "epoch"]),
    ("batch = 32", "batch = 0", ["train", "batch"]),
    ("[task]", "[modle]\n[task]", ["modle"]),
    ("[task]", '[export]\nprecision = "fp64"\n[task]', ["export", "precision"]),
    ("[task]", '[export]\nprecision = ["fp64"]\n[task]', ["export", "precision", 0]),
    ("[task]", "[task]\nclass_weights = 3", ["task", "class_weights"]),
    ("[task]", '[task]\nclass_weights = "equal"', ["task", "class_weights"]),
]


def wrong(old: str, new: str) -> str:
    text = (ROOT / "recipes" / "har_resnet50.toml").read_text(encoding="utf-8")
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(("old", "new", "place"), MISTAKES, ids=str)
def test_one_mistake_has_one_message_at_its_key(installed: dict[str, Any], old: str, new: str, place: list[str | int]):
    errors = list(jsonschema.Draft202012Validator(installed).iter_errors(tomllib.loads(wrong(old, new))))
    assert [list(error.absolute_path) for error in errors] == [place]
    assert "given schemas" not in errors[0].message


def test_an_unknown_key_is_answered_with_those_that_there_are(installed: dict[str, Any]):
    text = wrong("dropout = 0.3", "dropuot = 0.3")
    (error,) = jsonschema.Draft202012Validator(installed).iter_errors(tomllib.loads(text))
    assert "unknown key; the keys here are weights, freeze, " in error.message


@pytest.mark.skipif(shutil.which("taplo") is None, reason="taplo is not installed: pip install taplo")
@pytest.mark.parametrize(("old", "new"), [("dropout = 0.3", "dropuot = 0.3"), ('"resnet50"', '"resnet5"')])
def test_taplo_shows_one_message_on_the_line_of_the_mistake(
    installed: dict[str, Any], tmp_path: Path, old: str, new: str
):
    (tmp_path / "recipe.schema.json").write_text(json.dumps(installed))
    text = f"#:schema {(tmp_path / 'recipe.schema.json').as_uri()}\n{wrong(old, new)}"
    (tmp_path / "r.toml").write_text(text)
    words = ["taplo", "check", "--no-auto-config", "--colors", "never", "r.toml"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    (place,) = re.findall(r"r\.toml:(\d+):", "".join(re.findall("┌─.*", done.stderr)))
    assert new in text.splitlines()[int(place) - 1]
