"""The documents against the code: what they name exists, what they show runs."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

import toolkit
from bench.__main__ import BENCHES
from tests import reference, tiny
from tests.installed import install
from tests.test_architecture import PUBLIC, ROOMS
from tests.video_files import write_video
from toolkit.api import errors
from toolkit.api.clips import Clip
from toolkit.api.contracts import DataSpec
from toolkit.api.errors import EXIT_DONE, EXIT_PLUGIN, RecipeError
from toolkit.api.hookspecs import CONTRACT
from toolkit.build.plan import Plan, clip_of, plan
from toolkit.cli.commands import parser
from toolkit.cli.main import main
from toolkit.data.kinds import IMAGE_SUFFIXES, OTHER_SUFFIXES, VIDEO_SUFFIXES
from toolkit.host.project import disabled_here
from toolkit.host.registry import Registry, discover
from toolkit.recipe.draft import Draft
from toolkit.recipe.kinds import KINDS
from toolkit.recipe.read import load, parse
from toolkit.recipe.reading import read_signature
from toolkit.recipe.shipped import file_of
from toolkit.recipe.tables import (
    PrunerTable,
    Recipe,
    SamplerTable,
)
from toolkit.tune.search import PRUNERS, SAMPLERS
from toolkit.tune.study import plan_study

ROOT = Path(toolkit.__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("exports/*.md")])
README, DESIGN = ROOT / "README.md", DOCS / "DESIGN.md"
RECIPE, DATA, FILES, COMMANDS = (DOCS / "reference" / f"{name}.md" for name in ("recipe", "data", "files", "commands"))
COMPONENTS, RESULTS = DOCS / "reference" / "components", DOCS / "results.md"
CONTRACTS = sorted((DOCS / "reference" / "contracts").glob("*.md"))
PLUGINS = DOCS / "reference" / "contracts" / "index.md"
TESTING, MANAGING = DOCS / "how-to" / "test-a-plugin.md", DOCS / "how-to" / "manage-plugins.md"
ACME = [*CONTRACTS, TESTING]
"""The pages that show the package of the example, acme-vision."""

MINIMAL: dict[str, Any] = {
    "data": {"name": "cifar10"},
    "model": {"name": "resnet50"},
    "train": {"epochs": 1, "batch": 8, "optimizer": {"name": "sgd", "lr": 0.1}},
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r'^```(\w*)(?: title="([^"]*)")?\n(.*?)^```$', text, flags=re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(name_of(page), line, found[1], found[2] or "", found[3])


BLOCKS = [block for page in PAGES for block in blocks(page)]


def titled(page: Path, title: str) -> str:
    return "".join(block.text for block in BLOCKS if (block.page, block.title) == (name_of(page), title))


def section(page: Path, heading: str) -> str:
    """What stands below a heading, up to the next of its level or above."""
    text = page.read_text(encoding="utf-8")
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^(?!\1#)#+ |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert found, f"{page.name} has no heading {heading!r}"
    return found[2]


def rows(text: str) -> list[list[str]]:
    """The cells of the first table in `text`, without its header."""
    lines = re.search(r"^\|.*\n\| ---.*\n((?:\|.*\n)+)", text, flags=re.MULTILINE)
    assert lines, "there is no table"
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines[1].splitlines()]


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return reference.own_plugins()


# What is generated


@pytest.mark.parametrize("page", [page for page in PAGES if reference.MARKED.search(read(page))], ids=name_of)
def test_generated_parts_are_those_of_the_code(page: Path) -> None:
    """``python -m tests.reference`` writes them."""
    assert read(page) == reference.regenerated(read(page))


def test_every_table_of_a_recipe_has_its_part() -> None:
    opened = {SamplerTable.__name__, PrunerTable.__name__}
    models = {model.__name__ for model in reference.TABLES.values()}
    assert models | opened == {*Recipe.model_json_schema()["$defs"], "Recipe"}
    parts = [name.removeprefix("keys ") for name, _ in reference.MARKED.findall(read(RECIPE))]
    assert parts == list(reference.TABLES)


@pytest.mark.parametrize("page", [RECIPE, COMMANDS], ids=name_of)
def test_every_key_and_flag_has_a_meaning(page: Path) -> None:
    assert not re.search(r"^\| `.*\| \|$", read(page), flags=re.MULTILINE)


def test_every_kind_of_component_and_rule_has_its_part() -> None:
    written = {name for page in PAGES for name, _ in reference.MARKED.findall(read(page))}
    assert {f"rules {kind}" for kind in KINDS} <= written
    assert {f"components {kind}" for kind in KINDS if kind != "optimizer"} <= written


# Commands


def command_lines() -> Iterator[tuple[str, str]]:
    """Every `python -m toolkit ...` and `toolkit COMMAND ...` in a block or a code span, with its place."""
    for page in PAGES:
        for found in re.finditer(r"python -m toolkit([^`\n&>;]*)", reference.MARKED.sub("", read(page))):
            yield f"{name_of(page)}: {found[0].strip()}", found[1]


def test_every_command_line_in_the_documents_is_understood() -> None:
    lines = dict(command_lines())
    assert len(lines) > 15
    for place, line in lines.items():
        words = shlex.split(line.replace("COMMAND", "check x.toml"))
        if words in (["--help"], ["--version"]):
            continue
        options = parser().parse_args(words)
        assert options.command, place


WRITTEN = {"flowers.toml", "planet.toml", "videos.toml", "tiny.toml", "shards.toml", "RECIPE"}
"""Recipes that a reader writes, or has `init` write."""


def test_every_recipe_in_a_command_exists() -> None:
    for place, line in command_lines():
        words = shlex.split(line)
        if words[:1] in (["run"], ["check"], ["tune"]) and "--resume" not in words:
            recipe = parser().parse_args(words).recipe
            if str(recipe) not in WRITTEN and not str(recipe).startswith(("runs/", "acme", "toolkit_")):
                assert (ROOT / file_of(recipe)).is_file(), place


@pytest.mark.slow  # trains and exports the model that init chooses
def test_the_readme_goes_from_images_to_answers_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.write_images(tmp_path / "FLOWERS")
    write_pictures(tmp_path / "PICTURES")
    (block,) = [block.text for block in BLOCKS if block.page == "README.md" and "toolkit init" in block.text]
    for line in block.splitlines():
        newest = max(tmp_path.glob("runs/flowers/*"), default=tmp_path).name
        words = shlex.split(line.removeprefix("python -m toolkit ").replace("RUN", newest))
        words += ["--set", "train.epochs=1"] if words[0] == "run" else []
        assert main(words) == EXIT_DONE, line
    assert len(read(tmp_path / "answers.csv").splitlines()) == 1 + 24


def test_every_override_in_the_documents_fits_its_recipe(registry: Registry) -> None:
    tried = 0
    for place, line in command_lines():
        words = shlex.split(line)
        if words[:1] not in (["run"], ["check"], ["tune"]) or "--set" not in words or "--resume" in words:
            continue
        options = parser().parse_args(words)
        if "mlp" not in line and str(options.recipe) not in WRITTEN:
            assert plan(parse(ROOT / file_of(options.recipe), options.overrides), registry), place
            tried += 1
    assert tried > 5


def test_every_flag_in_the_documents_exists() -> None:
    found = [one for _, _, parser in reference.commands(parser()) for one in parser._actions]
    known = {"--version", *(flag for one in found for flag in one.option_strings)}
    ours = [(page, span) for page in PAGES for span in code_spans(page) if span.split()[0] not in OTHER_PROGRAMS]
    named = [(name_of(page), flag) for page, span in ours for flag in flags_in(span)]
    assert len(named) > 5
    assert [one for one in named if one[1] not in known] == []


def code_spans(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return code(re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


def flags_in(span: str) -> list[str]:
    return re.findall(r"(?<![\w-])--[a-z][\w-]*", span)


def test_every_bench_is_listed() -> None:
    text = section(RESULTS, "Speed")
    assert {code(name)[0]: what for name, what, _ in rows(text[text.index("| bench") :])} == BENCHES


OTHER_PROGRAMS = {
    *(
        "apt-get",
        "cd",
        "cmake",
        "createdb",
        "curl",
        "docker",
        "find",
        "hf",
        "git",
        "kubectl",
        "sbatch",
        "sysctl",
        "build/cpp/classify",
        "mkdocs",
        "mlflow",
        "model_signing",
        "mypy",
        "openssl",
        "optuna-dashboard",
        "torchrun",
    ),
    *("git", "pip", "ruff", "tensorboard", "uv"),
}
"""What blocks of commands may begin with, besides Python."""
OTHER_MODULES = {"bench", "pytest", "tests.reference", "toolkit"}


def shell_lines() -> Iterator[tuple[str, str]]:
    for block in BLOCKS:
        if block.language == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                yield from ((str(block), part) for part in re.split(r" && | \| ", line) if part)


def test_every_command_in_a_block_is_of_a_known_program() -> None:
    for place, line in shell_lines():
        words = [word for word in shlex.split(line, comments=True) if not re.fullmatch(r"[A-Z_]+=.*", word)]
        if words[0] == "python":
            script = (ROOT / words[1]).is_file()
            assert script or words[1] == "-c" or (words[1] == "-m" and words[2] in OTHER_MODULES), (place, line)
        else:
            assert words[0] in OTHER_PROGRAMS, (place, line)


def test_every_extra_in_the_documents_exists() -> None:
    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    found = [names for page in PAGES for names in re.findall(r"-e ['\"]\.\[([\w,]+)\]", read(page))]
    named = {name for names in found for name in names.split(",")}
    assert {"tensorboard", "docs"} <= named <= {*project["optional-dependencies"]}


def test_every_bench_in_the_documents_exists() -> None:
    named = {found for page in PAGES for found in re.findall(r"python -m bench (\w+)", read(page))}
    assert "train" in named
    assert named <= {*BENCHES}


def test_the_two_commands_are_those_that_ci_runs() -> None:
    first, second = next(block.text for block in BLOCKS if block.page == "README.md").splitlines()
    assert first == "pip install -e . && python -m toolkit run recipes/har_resnet50.toml"
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8").replace("--quiet ", "")
    assert all(part in ci for part in second.split(" && "))


def test_contributing_names_what_ci_runs() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    block = next(block.text for block in BLOCKS if block.page == "CONTRIBUTING.md")
    wanted = [part for line in block.splitlines()[1:] for part in line.split(" && ")]
    assert [part for part in wanted if not any(part in line for line in ci)] == []


def test_exit_codes_are_those_of_the_errors() -> None:
    known = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert {int(number) for number, _ in rows(section(COMMANDS, "Exit codes"))} <= known


def test_every_variable_of_the_environment_is_listed() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8") for name in ("toolkit", "plugins") for path in (ROOT / name).rglob("*.py")
    )
    listed = {name for cells in rows(section(COMMANDS, "Environment variables")) for name in code(cells[0])}
    assert listed == set(re.findall(r"TOOLKIT_[A-Z]+", sources))


# Recipes


def arguments_of(registry: Registry, kind: str, name: str) -> list[str]:
    (offer,) = registry.named(kind, name)
    found = read_signature(offer.load(), KINDS[kind].given).arguments
    return [one.name if one.default == "unset" else f"{one.name} = {one.default}" for one in found]


def test_optimizers_take_the_arguments_that_are_listed(registry: Registry) -> None:
    """Not every one of torch's: another version of torch may have more."""
    for name, args in rows(read(COMPONENTS / "optimizers.md")):
        assert set(code(args)) <= set(arguments_of(registry, "optimizer", code(name)[0])), name


def recipe_blocks() -> list[Block]:
    return [block for block in BLOCKS if block.language == "toml" and not block.title]


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on `under`: tables that name a component replace, others are joined."""
    joined = dict(under)
    for key, value in over.items():
        below = joined.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping) and "name" not in value
        joined[key] = merged(below or {}, value) if both else value
    return joined


@pytest.mark.parametrize("block", recipe_blocks(), ids=str)
def test_every_recipe_in_the_documents_is_valid(block: Block, registry: Registry, tmp_path: Path) -> None:
    """A part of a recipe is put into a whole one."""
    given = tomllib.loads(block.text)
    tables = given if {"data", "model", "train"} <= given.keys() else merged(MINIMAL, given)
    recipe = Recipe.model_validate({**tables, "name": "shown"})
    assert plan(recipe, registry).resolved.model.name


def studies() -> list[Recipe]:
    """Every recipe with a `[tune]` table: those of the documents, and the files."""
    shown = [tomllib.loads(block.text) for block in recipe_blocks()]
    whole = [Recipe.model_validate({**merged(MINIMAL, one), "name": "shown"}) for one in shown if "tune" in one]
    return whole + [recipe for path in (ROOT / "recipes").glob("*.toml") if (recipe := load(path)).tune]


@pytest.mark.parametrize("recipe", studies(), ids=lambda recipe: recipe.name)
def test_every_study_in_the_documents_is_found_right(recipe: Recipe, registry: Registry) -> None:
    assert plan_study(Draft.of(recipe), registry).space.dimensions


def test_every_sampler_and_pruner_is_listed() -> None:
    text = read(COMPONENTS / "search.md")
    assert [code(name)[0] for name, _ in rows(text)] == list(SAMPLERS)
    assert [code(name)[0] for name, _ in rows(text[text.index("| `pruner`") :])] == list(PRUNERS)


@pytest.mark.slow  # trains two trials and a repeat of the better one
def test_a_study_leaves_the_files_that_are_listed(tmp_path: Path) -> None:
    listed = {name.rstrip("/") for cells in rows(section(FILES, "Study")) for text in cells for name in code(text)}
    tune = "\n[tune]\ntrials = 2\n[tune.space]\ntrain.batch = {choices = [4, 8]}\n"
    recipe = tiny.write_recipe(tmp_path, tiny.write_images(tmp_path / "images"), text=tiny.RECIPE + tune)
    assert main(["tune", str(recipe), "--runs", str(tmp_path / "runs"), "--seeds", "2"]) == EXIT_DONE
    left = {path.name for path in (tmp_path / "runs" / "tiny").iterdir() if not path.name.startswith(".")}
    assert {re.sub(r"trial-\d+", "trial-0007", name) for name in left} == listed - {
        "own",
        "best-0007.toml",
        "seed-1",
        "run",
    }
    assert (tmp_path / "runs" / "tiny" / "trial-0000" / "seed-1" / "report.html").is_file()


def test_what_the_shortest_recipe_has_is_needed() -> None:
    text = next(block.text for block in recipe_blocks() if block.page == name_of(RECIPE))
    tables = tomllib.loads(text)
    assert Recipe.model_validate({**tables, "name": "short"})
    for key in tables:
        with pytest.raises(ValueError, match=key):
            Recipe.model_validate({**{other: tables[other] for other in tables if other != key}, "name": "short"})


# Clips


def planned(text: str, registry: Registry) -> Plan:
    return plan(Recipe.model_validate({**tomllib.loads(text), "name": "shown"}), registry)


def test_the_recipes_for_videos_see_the_clips_that_are_listed(registry: Registry) -> None:
    x3d, attention, *_ = (block.text for block in recipe_blocks() if block.page == "docs/explanation/clips.md")
    first, second = (clip_of(planned(text, registry).resolved) for text in (x3d, attention))
    assert first == Clip(frames=13, rate=6)
    assert first.span == pytest.approx(2.6)
    assert second == Clip(frames=8, sampling="segments")


def test_the_heads_that_are_listed_need_clips_as_listed(registry: Registry) -> None:
    text = section(COMPONENTS / "models.md", "Clips")
    listed = {name: needs for names, _, needs in rows(text[text.index("| `head` |") :]) for name in code(names)}
    wrong = {"no": [], "yes": ["model.head"]}
    assert {name: refused_for_images(registry, name) for name in listed} == {
        name: wrong[listed[name]] for name in listed
    }
    (offer,) = registry.named("model", "resnet50")
    (head,) = [one for one in read_signature(offer.load()).arguments if one.name == "head"]
    assert head.value.words() == " or ".join(f'"{name}"' for name in listed)


def refused_for_images(registry: Registry, head: str) -> list[str]:
    """The keys of a recipe that are wrong where a model with this head sees images."""
    recipe = Recipe.model_validate({**MINIMAL, "name": "r", "model": {"name": "cnn", "widths": [4], "head": head}})
    try:
        plan(recipe, registry).model(DataSpec(classes=("a", "b"), size=8))
    except RecipeError as error:
        return [problem.key for problem in error.problems]
    return []


def test_the_suffixes_that_decide_are_listed() -> None:
    listed = set(re.findall(r"`(\.\w+)`", section(DATA, "What a file is")))
    assert listed == IMAGE_SUFFIXES | VIDEO_SUFFIXES | OTHER_SUFFIXES | {".gif", ".ts"}


def test_the_warning_of_a_split_that_scenes_span_reads_as_shown(tmp_path: Path, registry: Registry) -> None:
    for number, (action, scene, take) in enumerate(product(("Jump", "Run"), range(1, 7), range(1, 5))):
        write_bytes(tmp_path / action / f"{action}_{scene}_{take}.mp4", number)
    (offer,) = registry.named("dataset", "video_folder")
    shown_there = titled(DATA, "a split that scenes span").strip()
    notes = [re.sub(r"^(\D+)\d+(\D+)\d+", r"\g<1>N\g<2>N", note) for note in offer.load()(tmp_path, clips=True).notes]
    assert re.sub(r"^(\D+)\d+(\D+)\d+", r"\g<1>N\g<2>N", shown_there) in notes


def write_bytes(path: Path, count: int) -> None:
    """A file of this size: only that and its name are looked at."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"." * count)


# Python and a queue


def test_python_trains_reads_and_uses_a_run_as_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = DOCS / "how-to" / "python.md"
    tiny.write_recipe(tmp_path, tiny.write_images(tmp_path / "images"))
    shutil.copy(tmp_path / "images" / "test" / "red" / "00.png", tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    shown = {}
    for name in ("train.py", "use.py", "check.py"):
        Path(name).write_text(titled(page, name), encoding="utf-8")
        runpy.run_path(name, run_name="__main__")
        shown[name] = capsys.readouterr().out.splitlines()
    *_, losses, scored = shown["train.py"]
    assert len(json.loads(losses)) == 2
    accuracy, report = scored.split(" ", 1)
    assert 0 <= float(accuracy) <= 1
    assert Path(report).is_file()
    assert re.fullmatch(r"\['(blue|green|red)'\] \[\[\('.*\]\]", shown["use.py"][-2])
    assert shown["use.py"][-1] == "torch.Size([1, 3])"


def test_the_readme_trains_in_python_as_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = titled(ROOT / "README.md", "train.py")
    assert shown.count('"cifar10_cnn"') == 1
    tiny.write_recipe(tmp_path, tiny.write_images(tmp_path / "images"))
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(shown.replace('"cifar10_cnn"', '"tiny.toml"'), encoding="utf-8")
    values = runpy.run_path("train.py", run_name="__main__")
    _, scored, *_ = [line for line in capsys.readouterr().out.splitlines() if line.endswith("report.html")]
    accuracy, report = scored.split(" ", 1)
    assert 0 <= float(accuracy) <= 1
    assert Path(report).is_file()
    assert len(values["run"].records) == 2
    assert values["bundle"].manifest.classes == ("blue", "green", "red")


# Plugins


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where distributions are found next to the installed ones."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delenv("TOOLKIT_DISABLE", raising=False)
    monkeypatch.chdir(tmp_path)
    return folder


def install_from(site: Path, *pages: Path) -> str:
    """Install the package that these pages show; its name."""
    project = tomllib.loads("".join(titled(page, "pyproject.toml") for page in pages))["project"]
    name = project.get("name", "acme")
    modules = {
        block.title.removesuffix(".py"): block.text
        for block in BLOCKS
        if block.page in map(name_of, pages) and block.language == "python"
    }
    install(site, name, modules, project["entry-points"]["toolkit"], project.get("version", "1.0"))
    return str(name)


def test_the_plugin_of_the_readme_has_twelve_lines_and_works(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(titled(README, "acme_mlp.py").splitlines()) <= 12
    tutorial, names = DOCS / "tutorials" / "plugin.md", ("acme_mlp.py", "pyproject.toml")
    assert [titled(tutorial, name) for name in names] == [titled(README, name) for name in names]
    install_from(site, README)
    assert main(["plugins", "show", "mlp"]) == EXIT_DONE
    assert "width     integer  256" in capsys.readouterr().out
    overrides = next(
        parser().parse_args(shlex.split(line)).overrides for _, line in command_lines() if "model.name=mlp" in line
    )
    spec = DataSpec(classes=("a", "b", "c"), size=8)
    planned = plan(parse(ROOT / "recipes" / "cifar10_cnn.toml", overrides), discover())
    model = planned.model(spec)
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
    assert model.get_submodule("1").out_features == 512


def test_the_readme_is_right_about_a_wrong_width(site: Path) -> None:
    install_from(site, README)
    overrides = ["model.name=mlp", "model.width=big"]
    with pytest.raises(RecipeError) as caught:
        plan(parse(ROOT / "recipes" / "cifar10_cnn.toml", overrides), discover())
    assert [problem.key for problem in caught.value.problems] == ["model.width"]


def write_pictures(folder: Path) -> None:
    from PIL import Image

    for number in range(24):
        name = "dark" if number % 2 else "bright"
        (folder / name).mkdir(parents=True, exist_ok=True)
        shade = (20 if number % 2 else 220) + number // 2
        Image.new("RGB", (20, 18), (shade, shade, 9 * number)).save(folder / name / f"{number:02}.png")


OF_SOME_DATA = {"embedding.csv", "files.csv", "slices.csv", "sources.csv"}
"""Files of runs whose data has damaged or skipped files, parts to compare, or several items of one source."""


def documented_files() -> dict[str, bool]:
    listed = [name for cells in rows(section(FILES, "Run")) for name in code(cells[0])]
    return {name.rstrip("/"): name.endswith("/") for name in listed}


def test_every_kind_of_component_works_as_shown(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And a run leaves the files that the reference lists, and no others."""
    install_from(site, *ACME)
    write_pictures(tmp_path / "pictures")
    recipe = tmp_path / "acme.toml"
    recipe.write_text(titled(PLUGINS, "acme.toml"), encoding="utf-8")
    assert main(["run", str(recipe)]) == EXIT_DONE
    assert "mean_rank" in capsys.readouterr().out
    (run,) = (tmp_path / "runs" / "acme").iterdir()
    assert (run / "log.txt").read_text(encoding="utf-8").count("epoch") == 2
    left = {path.name: path.is_dir() for path in run.iterdir() if path.name not in {".lock", "log.txt"}}
    assert left == {name: folder for name, folder in documented_files().items() if name not in OF_SOME_DATA}


def test_clips_of_videos_work_as_shown(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a recipe whose model says what clips it takes; where the model sees images, the dataset gives frames."""
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    install_from(site, *ACME)
    for number in range(10):
        write_video(tmp_path / "recordings" / ("runs", "sits")[number % 2] / f"{number}.mp4", 10 + number)
    recipe = tmp_path / "acme_recordings.toml"
    recipe.write_text(titled(DOCS / "reference" / "contracts" / "models.md", "acme_recordings.toml"), encoding="utf-8")
    assert main(["run", str(recipe)]) == EXIT_DONE
    (run,) = (tmp_path / "runs" / "acme_recordings").iterdir()
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    seen = scores["protocol"]
    assert seen["frames"].startswith("4 x 5 ")
    assert (seen["size"], seen["stored"]) == (112, 128)
    of_images = plan(parse(recipe, ["model=resnet18", "input.size=32"]), discover()).data()
    assert of_images.train.read(0).shape == (3, 48, 64)
    assert of_images.spec.frames_per_video == 4
    assert len(of_images.test) == 4 * 4


def test_the_model_of_clips_needs_two_frames_as_it_says(site: Path) -> None:
    install_from(site, *ACME)
    offer = discover().named("model", "motion")[0]
    with pytest.raises(RecipeError) as caught:
        offer.load()(DataSpec(classes=("a", "b"), size=16, clip=Clip(frames=1)))
    assert [str(problem) for problem in caught.value.problems] == [
        "clip.frames: motion is seen between two frames, got 1"
    ]
    assert caught.value.next_step == "--set clip.frames=4"


def test_the_model_with_published_weights_starts_from_a_file_and_stays_frozen(site: Path, tmp_path: Path) -> None:
    from torchvision.models import resnet18

    install_from(site, *ACME)
    whole = resnet18(num_classes=7)
    torch.save(whole.state_dict(), tmp_path / "whole.pt")
    (offer,) = discover().named("model", "tuned")
    model = offer.load()(DataSpec(classes=("a", "b"), size=32), weights=str(tmp_path / "whole.pt"), freeze=True)
    assert torch.equal(model.backbone.conv1.weight, whole.conv1.weight)
    model.train()(torch.randn(2, 3, 32, 32)).sum().backward()
    assert {name for name, value in model.named_parameters() if value.grad is not None} == {
        *(f"head.{name}" for name, _ in model.head.named_parameters())
    }


@pytest.mark.parametrize(
    "name",
    ["folders", "recordings", "patches", "motion", "tuned", "invert", "mean_rank", "focal", "log", "signum", "halving"],
)
def test_the_components_shown_are_described(site: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    install_from(site, *ACME)
    assert main(["plugins", "show", name]) == EXIT_DONE
    assert ", from plugin acme-vision[main] 1.0" in capsys.readouterr().out
    factory = discover().named(kind_of(name), name)[0].load()
    assert all(one.doc for one in read_signature(factory, KINDS[kind_of(name)].given).arguments)


def kind_of(name: str) -> str:
    return next(offer.kind for offer in discover().offered if offer.name == name)


def test_a_component_of_the_example_says_what_is_wrong_with_its_arguments(site: Path) -> None:
    install_from(site, *ACME)
    recipe = Recipe.model_validate({**MINIMAL, "name": "r", "model": {"name": "patches", "side": 5}})
    with pytest.raises(RecipeError) as caught:
        plan(recipe, discover()).model(DataSpec(classes=("a", "b"), size=16))
    assert [problem.key for problem in caught.value.problems] == ["model.side"]


def install_the_unlucky(site: Path) -> None:
    hook = "from toolkit import hookimpl\n@hookimpl\ndef {}(): return {{'patches': dict}}\n"
    install(site, "acme-broken", {"acme_broken": "import acme_flash"}, {"main": "acme_broken"}, "0.3")
    install(site, "acme-typo", {"acme_typo": hook.format("toolkit_modles")}, {"main": "acme_typo"}, "2.0")
    install(site, "acme-other", {"acme_other": hook.format("toolkit_models")}, {"main": "acme_other"}, "1.1")


def test_broken_plugins_are_listed_as_shown(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install_from(site, *ACME)
    install_the_unlucky(site)
    assert main(["plugins", "list"]) == EXIT_DONE
    out = capsys.readouterr().out
    for block in (block.text for block in BLOCKS if block.title == "plugins list"):
        assert block in out
    found = re.search(r"TOOLKIT_DISABLE=(\S+) python", MANAGING.read_text(encoding="utf-8"))
    assert found
    monkeypatch.setenv("TOOLKIT_DISABLE", found[1])
    assert main(["plugins", "list"]) == EXIT_DONE
    out = capsys.readouterr().out
    asked, _, rest = out.partition("disabled plugins\n")
    disabled, _, broken = rest.partition("broken plugins\n")
    assert "acme-vision" not in asked
    assert re.findall(r"  (\S+)\[main\] \S+: by TOOLKIT_DISABLE", disabled) == ["acme-broken", "acme-vision"]
    assert re.findall(r"  (\S+)\[main\]", broken) == ["acme-typo"]


def test_a_clash_is_chosen_between_as_shown(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install_from(site, *ACME)
    install_the_unlucky(site)
    recipe = tmp_path / "acme.toml"
    recipe.write_text(titled(PLUGINS, "acme.toml"), encoding="utf-8")
    assert main(["check", str(recipe)]) == EXIT_PLUGIN
    assert "acme-other[main] 1.1 and acme-vision[main] 1.0" in capsys.readouterr().err
    chosen = tomllib.loads(titled(MANAGING, "choice"))["model"]["name"]
    assert main(["check", str(recipe), "--recipe-only", "--set", f"model.name={chosen}"]) == EXIT_DONE


def test_modules_public_to_plugins_are_listed() -> None:
    listed = re.findall(r"`toolkit\.([\w.]+)`", section(PLUGINS, "Factories"))
    assert sorted(listed) == sorted(PUBLIC)


def test_the_contract_on_the_page_is_the_one_that_is_checked() -> None:
    listed = ".".join(map(str, CONTRACT))
    text = section(PLUGINS, "Stability")
    assert f'toolkit_contract = "{listed}"' in text
    assert f"now {listed}" in text
    assert f"this toolkit has {listed}:" in text


def test_the_table_of_disabled_plugins_is_read_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toolkit.toml").write_text(titled(MANAGING, "toolkit.toml"), encoding="utf-8")
    assert disabled_here() == ["acme-broken", "acme-vision[main]"]


# Pages


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site. Strict: every page is in the navigation, and every link has a target."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


def test_the_site_has_every_page(built: Path) -> None:
    pages = {path.relative_to(built).with_suffix(".md") for path in built.rglob("*.html")}
    assert pages >= {page.relative_to(DOCS) for page in DOCS.rglob("*.md")}


def test_the_site_asks_no_other_host(built: Path) -> None:
    """Scripts, styles, fonts and pictures are its own."""
    wanted = r'<(?:script|img)[^>]* src="(http[^"]*)"|<link rel="(?:stylesheet|preconnect)"[^>]* href="(http[^"]*)"'
    assert [page for page in built.rglob("*.html") if re.search(wanted, read(page))] == []


def searched(built: Path) -> str:
    index = json.loads(read(built / "search" / "search_index.json"))
    return " ".join(f"{entry['title']} {entry['text']}" for entry in index["docs"])


def test_search_finds_every_key_component_and_command(built: Path, registry: Registry) -> None:
    words = set(re.findall(r"[\w-]+", searched(built)))
    keys = {name for model in reference.TABLES.values() for name in model.model_fields}
    names = {offer.name for kind in KINDS for offer in registry.offers(kind) if kind != "optimizer"}
    used = {word for name, _, _ in reference.commands(parser()) for word in name.split()}
    assert sorted((keys | names | used) - words) == []


FIELD = """early stopping, transfer learning, fine-tune, mixed precision, overfitting, imbalance, multi-GPU, Windows,
notebook, Colab, DDP, exit code, Slurm, webcam, gradient accumulation, several labels, detection, tensorboard --logdir,
mlflow ui, more epochs, learning rate, batch size"""


@pytest.mark.parametrize("words", re.split(r",\s", FIELD))
def test_search_finds_the_words_of_the_field(built: Path, words: str) -> None:
    assert words.lower() in searched(built).lower()


def test_the_readme_has_at_most_170_lines() -> None:
    assert len(read(README).splitlines()) <= 170


def test_the_design_shows_the_order_of_rooms_that_the_tests_hold() -> None:
    assert titled(DESIGN, "rooms").replace("<", " ").split() == list(ROOMS)


def test_the_design_lists_every_folder() -> None:
    for cells in rows(section(DESIGN, "Layout")):
        assert (ROOT / code(cells[0])[0]).is_dir()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)\)", text) if not target.startswith("https://")]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_nothing_is_left_to_fill_in(page: Path) -> None:
    assert not re.search(r"[A-Z]+_HERE|TODO|FIXME|\bTBD\b", page.read_text(encoding="utf-8"))


def test_the_changelog_lists_every_command_and_dataset(registry: Registry) -> None:
    listed = set(code(section(ROOT / "CHANGELOG.md", "Unreleased")))
    assert {name.split()[0] for name, _, _ in reference.commands(parser())} <= listed
    assert {offer.name for offer in registry.offers("dataset")} <= listed


def test_recipes_are_named_after_dataset_and_model() -> None:
    """And, where several have both in common, after what distinguishes them. A model that is one of many by an argument
    has the name that this gives it. A number is an accuracy in percent."""
    papers = {"cifar10_wrn28_10": "WRN-28-10"}
    for path in {*(ROOT / "recipes").glob("*.toml")} - {ROOT / "recipes" / "demo.toml"}:
        recipe = parse(path).recipe
        assert recipe
        table = recipe.tables()["model"]
        named = " ".join([recipe.model.name, str(table.get("model")), str(table.get("source")), path.read_text()[:80]])
        dataset, word, *_ = path.stem.split("_")
        assert dataset == recipe.data.name, path.stem
        assert word.isdecimal() or word in named.lower().replace("-", "") or papers[path.stem] in named, path.stem


def test_the_projection_of_scale_follows_from_its_formula() -> None:
    rows = re.findall(r"^\| (8|64|512) \|(.*)\|$", (ROOT / "docs/explanation/scale.md").read_text(), re.MULTILINE)
    assert len(rows) == 3
    for ranks, rest in rows:
        gpus, latency = int(ranks), 20e-6 if ranks == "8" else 50e-6
        compute, exchange = 256 / 2500, 2 * (gpus - 1) / gpus * 4 * 25.6e6 / 50e9
        messages = (4 + 2 * 53) * latency
        step = compute + max(exchange - 2 / 3 * compute, 0) + messages
        assert [cell.strip() for cell in rest.split("|")] == [
            f"{256 * gpus:,}",
            f"{1e3 * compute:.0f} ms",
            f"{1e3 * exchange:.1f} ms, hidden",
            f"{1e3 * messages:.1f} ms",
            f"{round(256 * gpus / step, -2):,.0f}",
            f"{compute / step:.2f}",
        ]
