"""Reading a recipe: from a file to a recipe, or to all that is wrong with it at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.recipe.texts import SMALLEST, problems
from toolkit.api.errors import RecipeError
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
    os.mkfifo(tmp_path / "fifo.toml")
    assert problems(tmp_path / "fifo.toml") == ["cannot be read: expected a regular file, got a FIFO"]
    assert problems(Path("/dev/zero")) == ["cannot be read: expected a regular file, got a device"]
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


IMPOSSIBLE = {
    "train.batch=1000000000": "must be at most 1,000,000, got 1000000000",
    "train.eval_batch=99999999999999999999": "must be at most 1,000,000, got 99999999999999999999",
    "train.accumulate=9999999": "must be at most 1,000,000, got 9999999",
    "train.epochs=99999999999999": "must be at most 1,000,000, got 99999999999999",
    "train.threads=1000000": "must be at most 1,024, got 1000000",
    "input.size=1000000": "must be at most 8,192, got 1000000",
    "input.stored=999999999999": "must be at most 8,192, got 999999999999",
    "input.workers=100000": "must be at most 1,024, got 100000",
    "input.memory_gb=1e300": "must be at most 1,000,000, got 1e+300",
    "input.cache_gb=1e300": "must be at most 1,000,000, got 1e+300",
    "clip.frames=999999999": "must be at most 10,000, got 999999999",
    "clip.fps=1e9": "must be at most 10,000, got 1000000000.0",
    "export.calibration=99999999999": "must be at most 1,000,000, got 99999999999",
}


@pytest.mark.parametrize("override", IMPOSSIBLE)
def test_what_no_run_can_do_is_refused(write, override):
    assert problems(write(SMALLEST), override) == [f"{override.partition('=')[0]}: {IMPOSSIBLE[override]}"]


@pytest.mark.parametrize("name", ["", "gpu", "mps", "meta", "cuda:x", "./model.onnx"])
def test_a_device_that_exists_nowhere_is_refused(write, name):
    nearest = '; did you mean "cuda"?' if name == "gpu" else ""
    expected = f'train.device: no device is called "{name}" (use "auto", "cpu", "cuda" or "cuda:1"){nearest}'
    assert problems(write(SMALLEST), f"train.device='{name}'") == [expected]


@pytest.mark.parametrize("values", ["[0, 0, 0]", "[1e-300, 1e-300, 1e-300]"])
def test_a_standard_deviation_of_nothing_is_refused(write, values):
    found = problems(write(SMALLEST), f"input.std={values}")
    assert [problem.split(" must")[0] for problem in found] == [f"input.std.{place}:" for place in range(3)]
    assert all("must be at least 1e-06, got " in problem for problem in found)


@pytest.mark.parametrize("root", ["~nosuchuser/x", "~nosuchuser"])
def test_a_home_folder_of_nobody_is_refused(write, root):
    expected = "data.root: has no home folder for ~nosuchuser; write the whole path"
    assert problems(write(SMALLEST), f"data.root={root}") == [expected]


DEEP = {
    "a dotted key": "a" + ".a" * 3000 + " = 1\n",
    "a dotted table": "[a" + ".a" * 3000 + "]\nb = 1\n",
    "a key of a component": "[model]\nname = 'cnn'\nx" + ".a" * 3000 + " = 1\n",
    "arrays in arrays": "a = " + "[" * 100 + "]" * 100 + "\n",
    "tables in arrays": "a = " + "[{a = " * 40 + "1" + "}]" * 40 + "\n",
}


@pytest.mark.parametrize("name", DEEP)
def test_values_in_values_without_end_are_refused(write, name):
    assert problems(write(DEEP[name])) == ["has values in values, more than 50 deep"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a" + ".a" * 3000 + "=1", "has 3,001 parts, at most 50 are read"),
        ("model.x=" + "[" * 100 + "]" * 100, "has values in values, more than 50 deep"),
        ("model" + ".x" * 49 + "=[[1]]", "has values in values, more than 50 deep"),
    ],
)
def test_overrides_without_end_are_refused_in_few_words(write, override, message):
    with pytest.raises(RecipeError) as caught:
        load(write(SMALLEST), [override])
    assert caught.value.problems[0].message == message
    assert len(caught.value.next_step or "") < 400
