"""`plugins new`: what it writes is clean, typed, installed as it is, passes its tests and works in a recipe."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.installed import install
from toolkit.api.errors import EXIT_DONE, EXIT_USAGE, UsageError
from toolkit.cli.main import main
from toolkit.host.scaffold import COMPONENTS, check_name, parse_kinds
from toolkit.recipe import kinds

KINDS = tuple(kinds.KINDS)
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory in which git, if there is any, knows an author."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "user.name")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", 'Ada "Acme" Lovelace')
    return tmp_path


def new(name: str, *words: str) -> Path:
    assert main(["plugins", "new", name, *words]) == EXIT_DONE
    return Path(name)


def ruff(*words: str, folder: Path) -> None:
    """Run ruff in this folder; it must end well."""
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def installed(package: Path, site: Path) -> list[Path]:
    """Install a package as `pip install -e` does, into `site`; the folders to look for modules in."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    site.mkdir()
    install(site, project["name"], {}, project["entry-points"]["toolkit"], project["version"])
    return [site, (package / "src").resolve()]


def test_what_is_written_and_what_to_type_next(capsys: pytest.CaptureFixture[str]) -> None:
    package = new("Acme-Vision")
    assert capsys.readouterr().out.splitlines() == [
        "wrote Acme-Vision: dataset shapes, model small_conv, augmentation brightness, metric reciprocal_rank, "
        "task poly, tracker epoch_table, optimizer lion, schedule hold_and_fall",
        "next:  pip install -e 'Acme-Vision[test]'",
        "       python -m pytest Acme-Vision",
        "       python -m toolkit run Acme-Vision/acme_vision.toml",
    ]
    assert sorted(str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()) == [
        ".github/workflows/test.yml",
        ".gitignore",
        "LICENSE",
        "README.md",
        "acme_vision.toml",
        "pyproject.toml",
        *(f"src/acme_vision/{name}.py" for name in ("__init__", "augmentations", "datasets", "metrics", "models")),
        "src/acme_vision/optimizers.py",
        "src/acme_vision/py.typed",
        "src/acme_vision/schedules.py",
        "src/acme_vision/tasks.py",
        "src/acme_vision/trackers.py",
        "tests/test_components.py",
    ]
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    assert project["name"] == "Acme-Vision"
    assert project["authors"] == [{"name": 'Ada "Acme" Lovelace'}]
    assert project["entry-points"]["toolkit"] == {"main": "acme_vision"}
    assert "${{ matrix.python }}" in (package / ".github/workflows/test.yml").read_text()


@pytest.mark.parametrize(
    ("licence", "title"), [("MIT", "MIT License"), ("Apache-2.0", "Apache License"), ("BSD-3-Clause", "BSD 3-Clause")]
)
def test_the_licence_is_in_its_file_and_in_the_project(licence: str, title: str) -> None:
    package = new("acme", "--license", licence)
    text = (package / "LICENSE").read_text()
    assert title in text.partition("\n")[0]
    assert ('Ada "Acme" Lovelace' in text) == (licence != "Apache-2.0")
    assert tomllib.loads((package / "pyproject.toml").read_text())["project"]["license"] == licence


def test_no_licence() -> None:
    package = new("acme", "--license", "none")
    assert not (package / "LICENSE").exists()
    assert "license" not in tomllib.loads((package / "pyproject.toml").read_text())["project"]
    assert "icence" not in (package / "README.md").read_text()


def test_without_an_author_its_authors_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.host.scaffold.ask_git", lambda *_: None)
    assert "the authors of acme" in (new("acme") / "LICENSE").read_text()


@pytest.mark.parametrize("kinds", [*KINDS, ",".join(KINDS)])
def test_what_is_written_is_clean_and_its_recipe_valid(
    kinds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = new("acme-vision", "--kinds", kinds)
    ruff("check", ".", folder=package)
    ruff("format", "--check", ".", folder=package)
    for place in installed(package, tmp_path / "site"):
        monkeypatch.syspath_prepend(str(place))
    monkeypatch.chdir(package)
    parts = [] if "," in kinds else ["--recipe-only"]
    assert main(["check", *parts, "acme_vision.toml"]) == EXIT_DONE
    capsys.readouterr()
    assert main(["plugins", "show", "acme-vision"]) == EXIT_DONE
    offered = [f"  {kind} {COMPONENTS[kind]}" for kind in kinds.split(",")]
    shown = capsys.readouterr().out.splitlines()
    assert sorted(offered) == sorted(line for line in shown if line[2:].split()[0] in KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("rules", ["not onnx and not processes", pytest.param("", marks=pytest.mark.long)])
def test_the_page_is_right_step_by_step(
    rules: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Slow: the rules train components for a step, then a recipe is run and exported. Long: the rules export graphs and
    start interpreters too. What `pip install` does is done by hand, for there may be no network."""
    page = (ROOT / "docs" / "tutorials" / "plugin.md").read_text(encoding="utf-8")
    found = re.search(r'```sh title="a package of your own"\n(.*?)```', page, flags=re.DOTALL)
    assert found
    first, pip, tests, *others = found[1].splitlines()
    typed(first)
    assert pip == "pip install -e 'acme-shapes[test]'"
    path = installed(tmp_path / "acme-shapes", tmp_path / "site")
    for place in path:
        monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, [*path, ROOT, ROOT / "plugins"])))
    monkeypatch.setenv("PYTEST_ADDOPTS", f"-k '{rules}'")
    assert tests == "python -m pytest acme-shapes"
    assert re.search(r"^\d+ passed|=== \d+ passed", shell(tests), flags=re.MULTILINE)
    capsys.readouterr()
    for line in others:
        typed(line)
    (run,) = (tmp_path / "runs" / "acme_shapes").iterdir()
    assert (run / "epochs.csv").read_text().startswith("epoch,train_loss,seconds,best\n1,")
    assert '"reciprocal_rank"' in (run / "scores.json").read_text()
    assert "disc" in capsys.readouterr().out.rpartition("bundle exports/shapes")[2]
    typed("python -m toolkit schema")
    schema = capsys.readouterr().out
    assert "channels of the first convolution" in schema
    assert '"small_conv"' in schema


def typed(line: str) -> None:
    """What a toolkit's command does that is typed at a prompt, in this process; it must end well."""
    python, option, module, *words = shlex.split(line)
    assert (python, option, module) == ("python", "-m", "toolkit")
    expanded = [sorted(map(str, Path().glob(word))) if "*" in word else [word] for word in words]
    assert main([word for each in expanded for word in each]) == EXIT_DONE


def shell(line: str) -> str:
    """What a line typed at a prompt says; it must end well."""
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", line], env={**os.environ, "PATH": search}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("acme/vision", 'invalid distribution name "acme/vision": use letters and digits, with - _ . between them'),
        ("-acme", "the following arguments are required: NAME"),
        ("acme-", 'invalid distribution name "acme-"'),
        ("", 'invalid distribution name ""'),
        ("3d-vision", '"3d-vision" gives the module 3d_vision, which Python cannot import'),
        ("class", '"class" gives the module class, which Python cannot import'),
        ("Vision_Toolkit", 'a distribution called "Vision_Toolkit" is installed already'),
        ("json", '"json" gives the module json, which exists here already'),
        ("toolkit-har", '"toolkit-har" gives the module toolkit_har, which exists here already'),
    ],
)
def test_names_that_cannot_be(name: str, error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "new", name]) == EXIT_USAGE
    assert capsys.readouterr().err.startswith(f"error: {error}")
    assert list(Path().iterdir()) == []


def test_what_exists_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("acme").mkdir()
    assert main(["plugins", "new", "acme"]) == EXIT_USAGE
    assert capsys.readouterr().err.splitlines() == [
        "error: acme exists already",
        "next:  choose another name, or remove it",
    ]


def test_the_module_is_named_after_the_distribution() -> None:
    assert check_name("Acme.Vision-X_2") == "acme_vision_x_2"


def test_kinds_are_listed_in_one_order() -> None:
    assert parse_kinds(None) == KINDS
    assert parse_kinds("tracker, dataset,tracker") == ("dataset", "tracker")
    with pytest.raises(UsageError) as caught:
        parse_kinds("dataset,models")
    assert caught.value.message == '--kinds: no kind "models"; did you mean "model"?'
    assert caught.value.next_step == "--kinds dataset,model,augmentation,metric,task,tracker,optimizer,schedule"
