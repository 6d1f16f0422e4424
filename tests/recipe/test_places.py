"""Absolute paths in what others read."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.recipe.texts import SMALLEST
from toolkit.recipe.places import places, shared, shared_toml, without_places
from toolkit.recipe.read import load


def recipe_at(tmp_path: Path, *overrides: str):
    path = tmp_path / "a.toml"
    path.write_text(SMALLEST, encoding="utf-8")
    return load(path, overrides)


def test_a_recipe_for_others_has_names_for_absolute_paths(tmp_path) -> None:
    folder = tmp_path / "my photos & more"
    recipe = recipe_at(
        tmp_path,
        f'data.root="{folder}"',
        f'data.lists=["{tmp_path}/train.csv", "lists/valid.csv"]',
        f'model.weights="{tmp_path}/a.safetensors"',
        f'data.uri="sqlite:///{tmp_path}/a.db"',
        "data.pattern='/(.+)/'",
    )
    table = tomllib.loads(shared_toml(recipe))
    assert table["data"]["root"] == "my photos & more"
    assert table["data"]["lists"] == ["train.csv", "lists/valid.csv"]
    assert table["model"]["weights"] == "a.safetensors"
    assert table["data"]["uri"] == "sqlite:///a.db"
    assert table["data"]["pattern"] == "/(.+)/"
    assert str(tmp_path) not in shared_toml(recipe)


def test_a_root_of_another_machine_is_shortened_too(tmp_path) -> None:
    table = tomllib.loads(shared_toml(recipe_at(tmp_path, 'data.root="/no-such-top/me/photos"')))
    assert table["data"]["root"] == "photos"


def test_the_metadata_stays_with_who_has_it(tmp_path) -> None:
    recipe = recipe_at(tmp_path, f'data.metadata="{tmp_path}/metadata.csv"')
    assert "metadata" not in tomllib.loads(shared_toml(recipe))["data"]
    assert recipe.data.metadata == tmp_path / "metadata.csv"


def test_a_relative_root_stays(tmp_path) -> None:
    assert tomllib.loads(shared_toml(recipe_at(tmp_path, "data.root=data/photos")))["data"]["root"] == "data/photos"


def test_the_places_of_a_recipe_are_its_absolute_paths_longest_first(tmp_path) -> None:
    toml = f'[data]\nroot = "{tmp_path}"\nlists = ["{tmp_path}/a.csv", "b/c"]\n'
    assert places(toml) == [f"{tmp_path}/a.csv", str(tmp_path)]
    assert places("not = = toml") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see /tmp/me/a.jpg, /tmp/me/b.jpg", "see a.jpg, b.jpg"),
        ('<code>--set data.root=/tmp/me/photos</code> "/tmp/x/y/"', '<code>--set data.root=photos</code> "y"'),
        ("https://host/tmp/a/b and images/tmp/a/b and ~/tmp/a", "https://host/tmp/a/b and images/tmp/a/b and ~/tmp/a"),
        ("1/2, and/or, /no-such-top/a/b, /tmp", "1/2, and/or, /no-such-top/a/b, /tmp"),
        ("data:image/png;base64,AA+/tmp/AA/tmp/x", "data:image/png;base64,AA+/tmp/AA/tmp/x"),
        ("/my data/a&b/1.jpg", "b/1.jpg"),
    ],
)
def test_a_text_loses_its_absolute_paths(text: str, expected: str) -> None:
    assert without_places(text, ["/my data/a&b"]) == expected.replace("b/1.jpg", "a&b/1.jpg")


def test_an_escaped_path_is_found_in_html() -> None:
    assert without_places("<td>/my data/a&amp;b/1.jpg</td>", ["/my data/a&b"]) == "<td>a&amp;b/1.jpg</td>"


def test_texts_inside_a_value_lose_them() -> None:
    value = {"a": ["/tmp/me/x", 1, None], "b": ("y",)}
    assert shared(value) == {"a": ["x", 1, None], "b": ["y"]}
