"""Reading a recipe: from a file to a recipe, or to all that is wrong with it at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recipe.texts import SMALLEST, problems
from toolkit.recipe.kinds import KINDS
from toolkit.recipe.read import load


def test_the_smallest_recipe_takes_its_name_from_its_file(write):
    recipe = load(write(SMALLEST))
    assert recipe.name == "shapes_cnn"
    assert recipe.train.precision == "auto"
    assert [use.name for use in recipe.metrics] == list(KINDS["metric"].usual)
    assert load(write(SMALLEST), name="other").name == "other"


def test_all_problems_are_reported_at_once(write):
    path = write(SMALLEST.replace("epochs = 2", "epochs = 0").replace("lr = 0.1", "lr = -1") + "\n[inptu]\n")
    found = problems(path, "seed=x", "nonsense")
    assert len(found) == 5


@pytest.mark.parametrize(
    ("text", "place", "excerpt"),
    [
        ("a = = 3", "line 1, column 5", "a = = 3"),
        ("a = 1\na = 2", "line 2, column 6", "a = 2"),
        ("a = [1,", "line 1, column 8", "a = [1,"),
    ],
)
def test_broken_toml_names_line_and_column(write, text: str, place: str, excerpt: str):
    (found,) = problems(write(text))
    assert found.startswith(f"{place}: not valid TOML (")
    assert found.endswith(f"): {excerpt}")


def test_a_byte_order_mark_is_passed_over(write):
    path = write(SMALLEST)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load(path).train.epochs == 2


def test_what_cannot_be_read_says_why(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(SMALLEST)
    assert problems(tmp_path / "shapes_cn.toml") == [f'no such file; did you mean "{path}"?']
    assert problems(tmp_path / "q.toml") == ["no such file"]
    assert problems(tmp_path) == ["is a folder, not a recipe file"]
    assert problems(path / "x.toml")[0].startswith("cannot be read: ")
    assert problems(Path("\0.toml")) == ["cannot be read: embedded null byte"]
    path.write_bytes(b"a = '\xff'")
    assert problems(path) == ["is not UTF-8 text (byte 5)"]
    path.write_text("a = " + "[" * 9000)
    assert problems(path)[0].startswith(("cannot be read: maximum recursion", "line 1"))
    path.write_text("a = " + "1" * 5000)
    assert problems(path)[0].startswith("cannot be read: ")


def test_a_misspelt_recipe_is_looked_for_in_recipes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "har_resnet50.toml").write_text(SMALLEST)
    assert problems(Path("har_resnet5.toml")) == [f'no such file; did you mean "{Path("recipes/har_resnet50.toml")}"?']
