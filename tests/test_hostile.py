"""With every hostile plugin installed all that does not need them works; what needs them fails by their name."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests import tiny
from tests.hostile.zoo import BROKEN, CLASHING, DEADLY, INTRUSIVE, UNUSABLE, ZOO, modules, release
from tests.recipes import RECIPES, accepted
from toolkit.api.errors import EXIT_DONE, EXIT_PLUGIN, EXIT_USAGE, RecipeError
from toolkit.build.plan import plan
from toolkit.cli.main import main
from toolkit.host.registry import Registry, discover
from toolkit.recipe.read import parse


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The zoo, installed for this process and those it starts; its modules are forgotten afterwards."""
    site = tmp_path / "zoo"
    site.mkdir()
    release(site)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("TOOLKIT_DISABLE", raising=False)
    monkeypatch.chdir(tmp_path)
    yield site
    for name in modules():
        sys.modules.pop(name, None)


def test_the_zoo_is_large_enough() -> None:
    assert len(ZOO) == len(BROKEN) + len(INTRUSIVE) + len(CLASHING) + len(UNUSABLE)
    assert len(ZOO) + len(DEADLY) >= 25


@pytest.mark.usefixtures("zoo")
def test_discovery_leaves_the_process_as_it_was(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = (Path.cwd(), dict(os.environ), signal.getsignal(signal.SIGTERM), list(warnings.filters), random.getstate())
    registry = discover()
    after = (Path.cwd(), dict(os.environ), signal.getsignal(signal.SIGTERM), list(warnings.filters), random.getstate())
    assert after == before
    assert capfd.readouterr().out == ""
    assert {broken.plugin.distribution for broken in registry.broken} == {f"zoo-{name}" for name in BROKEN}
    assert "burrow" in {thread.name for thread in threading.enumerate()}


@pytest.mark.slow
@pytest.mark.usefixtures("zoo")
def test_every_command_on_an_unrelated_recipe_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Slow: it trains, exports and proves the export."""
    recipe = str(tiny.write_recipe(tmp_path, tiny.write_images(tmp_path / "images")))
    picture = tmp_path / "picture.png"
    Image.new("RGB", (32, 32), (200, 10, 10)).save(picture)

    def output(*words: str) -> str:
        capsys.readouterr()
        assert main(list(words)) == EXIT_DONE, capsys.readouterr().err
        return capsys.readouterr().out

    listed = output("plugins", "list")
    assert all(str(broken) in listed for broken in discover().broken)
    assert output("plugins", "show", "cnn").startswith("model cnn, from plugin vision-toolkit[vision]")
    assert "broken: RuntimeError: no licence" in output("plugins", "show", "zoo-raiser")
    assert "keeps" in output("plugins", "doctor", "accuracy")
    assert json.loads(output("schema"))["$comment"].startswith("skipped: ")
    assert f"\n{recipe}: valid\n" in output("check", recipe)
    assert "report" in output("run", recipe)
    run = str(tiny.only_run(tmp_path / "runs"))
    assert "scores" in output("evaluate", run)
    assert output("report", run).startswith("report ")
    assert "bundle" in output("export", run)
    assert re.search("blue|green|red", output("predict", "exports/tiny", str(picture)))
    assert output("plugins", "new", "acme", "--kinds", "metric").startswith("wrote acme")
    assert output("plugins", "disable", "zoo-sleeper") == "zoo-sleeper is disabled in toolkit.toml\n"
    assert "zoo-sleeper[main] 6.6: by toolkit.toml" in output("plugins", "list")
    assert output("plugins", "enable", "zoo-sleeper") == "zoo-sleeper is enabled in toolkit.toml\n"


USED = {
    "model=zoo-bare:bare": "made NoneType, which has no forward",
    "model=zoo-positional:positional": "argument width: is positional-only, so no recipe can give it",
    "model=zoo-unasked:unasked": "takes no positional argument, but the toolkit passes one to every factory",
    "model=zoo-lost:lost": "cannot import zoo_absent:build: ModuleNotFoundError",
    "model=zoo-exiting:exiting": "cannot be built: SystemExit: 5",
    "model=zoo-shapeless:shapeless": "answered float32 [2, 6], not logits [2, 3]",
    "model=zoo-nan:nan": "answered two black items with logits that are not finite",
    "augment=['zoo-unfloating:unfloating']": "gave float32 [8, 3, 32, 32] on cpu for uint8 [8, 3, 32, 32] on cpu",
    "metrics=['zoo-scoreless:scoreless']": "gave NoneType, not names mapped to scores",
}


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize("override", USED)
def test_a_recipe_that_uses_an_animal_fails_by_its_name(
    override: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny.write_recipe(tmp_path, tiny.write_images(tmp_path / "images"))
    assert main(["run", str(recipe), "--set", override]) == EXIT_PLUGIN
    printed = capsys.readouterr().err
    name = override.partition("zoo-")[2].partition(":")[0]
    assert f'"{name}" of plugin zoo-{name}[main] 6.6: ' in printed
    assert USED[override] in printed
    assert f'next:  python -m toolkit plugins show "zoo-{name}:{name}"' in printed


FLOATING = '''
from toolkit import hookimpl

def cave(root):
    """It gives floats."""
    import torch
    from toolkit.api.contracts import Data, DataSpec

    class Items:
        ids, targets, keys = ("x", "y"), (0, 1), ("a", "b")
        __len__ = lambda self: 2
        read = lambda self, index: torch.rand(3, 8, 8)

    return Data(DataSpec(("p", "q"), size=8), Items(), Items(), Items())

@hookimpl
def toolkit_datasets():
    return {"cave": cave}
'''


def test_a_dataset_that_gives_floats_fails_by_its_name(
    zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (zoo / "zoo_raiser.py").write_text(FLOATING, encoding="utf-8")
    recipe = tiny.write_recipe(tmp_path, text=tiny.RECIPE.replace('"cifar10"\nvalid_share = 0.2', '"cave"'))
    assert main(["run", str(recipe), "--set", "train.batch=2"]) == EXIT_PLUGIN
    printed = capsys.readouterr().err
    assert "item x of a split of zoo_raiser.cave.<locals>.Items is float32 [3, 8, 8], not uint8 [3, H, W]" in printed


# Ours


@pytest.fixture(scope="module")
def everything() -> Registry:
    return discover({})


def needed(path: Path, registry: Registry) -> set[str]:
    """The plugins whose components a recipe uses."""
    offers = [chosen.offer for chosen in plan(parse(path, accepted(path)), registry).chosen]
    return {offer.plugin.name for offer in offers}


@pytest.mark.parametrize(
    "entry",
    [
        *("augment", "cifar", "folders", "har", "metrics", "openclip", "optim", "shards", "tasks", "timm", "trackers"),
        *("transformers", "video", "vision"),
    ],
)
def test_without_one_of_our_plugins_only_recipes_that_need_it_fail(entry: str, everything: Registry) -> None:
    plugin = f"vision-toolkit[{entry}]"
    rest = discover({plugin: "a test"})
    assert plugin not in {offer.plugin.name for offer in rest.offered}
    for path in RECIPES:
        if plugin in needed(path, everything):
            with pytest.raises(RecipeError) as caught:
                plan(parse(path, accepted(path)), rest)
            assert all(f"disabled: {plugin}" in problem.message for problem in caught.value.problems if problem.key)
        else:
            assert plan(parse(path, accepted(path)), rest)


def test_every_plugin_of_ours_is_skipped_once(everything: Registry) -> None:
    ours = {plugin.entry for plugin in everything.plugins if plugin.distribution == "vision-toolkit"}
    (mark,) = test_without_one_of_our_plugins_only_recipes_that_need_it_fail.pytestmark
    assert ours == set(mark.args[1])


def test_check_without_a_plugin_that_is_needed_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_DISABLE", "vision-toolkit[cifar]")
    assert main(["check", "cifar10_cnn", "--recipe-only"]) == EXIT_USAGE
    assert main(["check", "har_resnet50", "--recipe-only"]) == EXIT_DONE
