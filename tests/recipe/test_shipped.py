"""The recipes that come with the toolkit, by name: from a checkout, and from the wheel that is built of it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import toolkit
from toolkit.recipe.read import parse
from toolkit.recipe.shipped import file_of, first_comment, shipped

ROOT = Path(toolkit.__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "recipes").glob("*.toml"))


def test_every_recipe_of_the_checkout_is_shipped_and_says_what_it_is_for() -> None:
    assert list(shipped()) == NAMES
    assert all(len(first_comment(file)) > 20 for file in shipped().values())


def test_a_recipe_without_a_comment_has_no_description(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[data]\nname = "x" # not a heading\n', encoding="utf-8")
    assert first_comment(tmp_path / "a.toml") == ""


@pytest.mark.parametrize("written", ["har_resnet50", "har_resnet50.toml"])
def test_a_name_means_the_shipped_recipe_from_any_folder(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draft = parse(Path(written))
    assert draft.source == written
    assert draft.recipe is not None
    assert draft.recipe.name == "har_resnet50"


def test_a_file_of_the_working_folder_comes_before_a_shipped_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = Path("har_resnet50.toml")
    own.write_text("seed = 3\n", encoding="utf-8")
    assert file_of(own) == own
    assert file_of(Path("har_resnet50")) == shipped()["har_resnet50"]  # without a suffix it is a name, not a file
    Path("har_resnet50").mkdir()
    assert file_of(Path("har_resnet50")) == shipped()["har_resnet50"]


@pytest.mark.parametrize("path", ["elsewhere/har_resnet50.toml", "no_such_recipe", "har_resnet50.txt"])
def test_other_paths_mean_themselves(path: str) -> None:
    assert file_of(Path(path)) == Path(path)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel of this checkout unpacks to."""
    pytest.importorskip("hatchling", reason='building a wheel needs pip install -e ".[test]"')
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (built,) = folder.glob("*.whl")
    zipfile.ZipFile(built).extractall(folder / "site")
    return folder / "site"


@pytest.mark.parametrize(
    "words", [["recipes"], ["check", "cifar10_cnn"], ["check", "cifar10_cnn.toml", "--recipe-only"]]
)
def test_a_wheel_runs_its_recipes_by_name_from_anywhere(words: list[str], wheel: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "toolkit", *words]
    env = os.environ | {"PYTHONPATH": str(wheel)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    if words == ["recipes"]:
        assert [line.split()[0] for line in done.stdout.splitlines()] == [*NAMES, "next:"]
    else:
        file = wheel / "toolkit" / "recipe" / "recipes" / "cifar10_cnn.toml"
        lines = done.stdout.splitlines()
        assert lines[0] == f"recipe {words[1]} (shipped with the toolkit): {file}"
        assert lines[-2:] == [f"{words[1]}: valid", f"next:  python -m toolkit run {words[1]}"]
