"""The example packages, as far as they can be known without installing what they wrap; CI tests the rest."""

from __future__ import annotations

import ast
import re
import runpy
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from tests.test_architecture import imports, is_public, sources
from toolkit.api.hookspecs import CONTRACT
from toolkit.host.loading import HOOKS

EXAMPLES = sorted(path.parent for path in Path(__file__).parents[1].glob("examples/*/pyproject.toml"))

each = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)


def project(example: Path) -> dict[str, Any]:
    return tomllib.loads((example / "pyproject.toml").read_text(encoding="utf-8"))["project"]  # type: ignore[no-any-return]


def plugin(example: Path) -> ast.Module:
    """The module that the entry point names."""
    (module,) = project(example)["entry-points"]["toolkit"].values()
    return sources(example / "src")[module]


def offered(example: Path) -> dict[str, dict[str, str]]:
    """Names and places of the factories, by kind."""
    hooks = [node for node in plugin(example).body if isinstance(node, ast.FunctionDef)]
    returned = {hook.name: next(node for node in hook.body if isinstance(node, ast.Return)) for hook in hooks}
    return {HOOKS[name]: factories(node.value) for name, node in returned.items() if node.value}


def factories(returned: ast.expr) -> dict[str, str]:
    """Names and places of what a hook returns: texts, or texts within a `Model` or a `Task`."""
    assert isinstance(returned, ast.Dict)
    places = [value.args[0] if isinstance(value, ast.Call) else value for value in returned.values]
    return {
        ast.literal_eval(name): ast.literal_eval(place)
        for name, place in zip(returned.keys, places, strict=True)
        if name
    }


def test_there_are_two_examples() -> None:
    assert [path.name for path in EXAMPLES] == ["toolkit-ordinal", "toolkit-parquet"]


@each
def test_factories_are_where_the_hooks_say(example: Path) -> None:
    modules = sources(example / "src")
    for named in offered(example).values():
        for place in named.values():
            module, _, name = place.partition(":")
            assert name in {node.name for node in modules[module].body if isinstance(node, ast.FunctionDef)}, place


@each
def test_readme_names_what_is_offered(example: Path) -> None:
    listed = re.findall(r"^\| (\w+) \| `(\w+)` \|", (example / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted((kind, name) for kind, names in offered(example).items() for name in names)


@each
def test_examples_stand_on_the_public_modules_alone(example: Path) -> None:
    for module, tree in sources(example / "src").items():
        used = {other for other in imports(tree) if other.split(".")[0] == "toolkit"}
        wrong = {other for other in used if other != "toolkit" and not is_public(other)}
        assert wrong == set(), f"{module} imports {wrong}"


@each
def test_examples_declare_the_contract_in_force(example: Path) -> None:
    assert f"toolkit_contract = '{CONTRACT[0]}.{CONTRACT[1]}'" in ast.unparse(plugin(example))


@each
def test_the_recipe_uses_the_components(example: Path) -> None:
    (recipe,) = (path for path in example.glob("*.toml") if path.name != "pyproject.toml")
    tables = tomllib.loads(recipe.read_text(encoding="utf-8"))
    used = {tables["data"]["name"], tables["model"]["name"]}
    used |= {table["name"] for key in ("augment", "metrics") for table in tables.get(key, ())}
    used |= {table.get("name") for table in (tables.get("task", {}), tables["train"]["optimizer"])}
    used |= {tables["train"].get("schedule", {}).get("name")}
    assert used >= {name for names in offered(example).values() for name in names}


@each
def test_what_a_published_package_needs_is_there(example: Path) -> None:
    (module,) = project(example)["entry-points"]["toolkit"].values()
    assert (example / "src" / module / "py.typed").is_file()
    assert (example / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
    assert any(needed.startswith("vision-toolkit>=") for needed in project(example)["dependencies"])
    assert all(">=" in needed for needed in project(example)["dependencies"])


def test_the_environment_of_the_examples_has_what_wheels_need_and_no_more(tmp_path: Path) -> None:
    def metadata(name: str, requires: Sequence[str]) -> str:
        lines = [
            "Metadata-Version: 2.1",
            f"Name: {name}",
            "Version: 1.0",
            *(f"Requires-Dist: {one}" for one in requires),
        ]
        return "\n".join([*lines, ""])

    def installed(name: str, files: Sequence[str], *requires: str) -> None:
        listed = [*files, f"{name}-1.0.dist-info/METADATA", f"{name}-1.0.dist-info/RECORD"]
        for file in listed:
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            (source / file).touch()
        (source / listed[-2]).write_text(metadata(name, requires), encoding="utf-8")
        (source / listed[-1]).write_text("".join(f"{file},,\n" for file in listed), encoding="utf-8")

    source, target = tmp_path / "source", tmp_path / "target"
    target.mkdir()
    installed("needed", ["needed/a.py", "shared/needed/b.py"], 'extra[fast]; python_version >= "3"', 'no; extra == "x"')
    installed("extra", ["extra.py"], 'deep; extra == "fast"', "ours")
    installed("deep", ["deep/c.py"])
    installed("no", ["no/d.py", "shared/no/e.py"])
    installed("ours", ["ours.py"])
    with ZipFile(tmp_path / "ours-2.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("ours-2.0.dist-info/METADATA", metadata("Ours", ["needed>=1"]))
    runpy.run_path(str(EXAMPLES[0].parents[1] / ".ci" / "link.py"))["link"](source, target, [wheel.filename])
    assert {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_symlink()} == {
        *("needed", "needed-1.0.dist-info", "shared/needed"),
        *("extra.py", "extra-1.0.dist-info", "deep", "deep-1.0.dist-info"),
    }
