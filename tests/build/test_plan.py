from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from pydantic import Field

from tests.installed import install
from toolkit.api.contracts import Data, DataSpec, InputDesign, Model
from toolkit.api.errors import (
    EXIT_DATA,
    EXIT_PLUGIN,
    DataError,
    PluginError,
    Problem,
    RecipeError,
    ToolkitError,
    WeightsError,
)
from toolkit.build.plan import plan, with_input
from toolkit.host.offers import Broken, Offer, Plugin
from toolkit.host.registry import Registry, discover
from toolkit.recipe.read import load, parse
from toolkit.recipe.tables import InputTable, Recipe
from toolkit.recipe.write import digest, to_toml

PLUGIN = Plugin("acme", "1.0", "main", "acme")
SPEC = DataSpec(classes=("round", "square"), size=32, stored=40)
OURS = [offer for offer in discover({}).offered if offer.plugin.name == "vision-toolkit[optim]"]
for offer in OURS:
    offer.load()  # arguments of what is not imported and not in the cache are checked after all else is correct


class Items:
    ids, targets, keys = ("a",), (0,), ("k",)

    def __len__(self) -> int:
        return 1

    def read(self, index: int) -> Any: ...


class Counted:
    """Stands in for a metric and a tracker."""

    def __init__(self, first: Any, *, bins: Annotated[int, Field(ge=1)] = 10) -> None:
        self.first, self.bins = first, bins

    def update(self, logits: Any, targets: Any) -> None: ...

    def compute(self) -> dict[str, float]:
        return {}

    def track(self, record: Any) -> None: ...

    def close(self) -> None: ...


class Minimal:
    """Stands in for an objective: has what the core looks for."""

    loss = weight = score = answers = average = settle = state_dict = thresholds = None
    targets = "index"

    def __init__(self, spec: DataSpec) -> None: ...


class Net:
    def __init__(self, spec: DataSpec, *, widths: list[int] = [8], file: Path | None = None) -> None:  # noqa: B006
        if min(widths) < 1:
            raise ValueError("widths: must be at least 1, got 0")
        if len(spec.classes) < 2:
            raise ValueError("net: needs at least 2 classes, the data has 1")
        if max(widths) > 99:
            raise RuntimeError("out of memory")
        self.spec, self.widths, self.file = spec, widths, file

    def forward(self, pixels: Any) -> Any: ...

    def parameters(self) -> Any: ...


def shapes(root: Path | None, *, seed: int = 0) -> Data:
    if root and not root.exists():
        raise DataError("nothing there", path=root, next_step="get it from a friend")
    return Data(spec=SPEC, train=Items(), valid=Items(), test=Items(), protocol={"root": str(root), "seed": seed})


def flip(spec: DataSpec, *, p: float = 0.5) -> Callable[..., Any]:
    def flipped(batch: Any, rng: Any) -> Any: ...

    flipped.p = p  # type: ignore[attr-defined]
    return flipped


def registry(*broken: Broken, **models: Any) -> Registry:
    factories = {
        "dataset": {"shapes": shapes},
        "model": {"net": Net, **models},
        "augmentation": {"flip": flip},
        "metric": {"accuracy": Counted, "calibration": Counted},
        "task": {"classification": Minimal},
        "tracker": {"board": Counted},
    }
    offers = [Offer(kind, name, PLUGIN, made) for kind, named in factories.items() for name, made in named.items()]
    return Registry((PLUGIN,), (*offers, *OURS), broken)


RECIPE = """
metrics = ["accuracy", {name = "calibration", bins = 5}]
augment = ["flip"]
[data]
name = "shapes"
[model]
name = "net"
[train]
epochs = 1
batch = 8
[train.optimizer]
name = "sgd"
lr = 0.1
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "r.toml"
    path.write_text(RECIPE)
    return path


def failure(path: Path, *overrides: str, at: Registry | None = None) -> ToolkitError:
    with pytest.raises(ToolkitError) as caught:
        plan(parse(path, overrides), at or registry())
    return caught.value


def test_a_plan_builds_what_the_recipe_names(path: Path):
    planned = plan(load(path, ["model.widths=[4]", "trackers=['board']", "model.file=x"]), registry())
    data = planned.data()
    model: Any = planned.model(data.spec)
    assert (model.spec, model.widths, model.file) == (data.spec, [4], Path("x"))
    first, second = planned.metrics(data.spec), planned.metrics(data.spec)
    assert [metric.bins for metric in first] == [10, 5]  # type: ignore[attr-defined]
    assert first[0] is not second[0]
    assert [made.p for made in planned.augmentations(data.spec)] == [0.5]  # type: ignore[attr-defined]
    assert planned.trackers(Path("run"))[0].first == Path("run")  # type: ignore[attr-defined]


class Pool(StrEnum):
    MAX = "max"
    AVG = "avg"


@dataclass(frozen=True)
class Stem:
    width: int = 8
    pool: Pool = Pool.MAX

    def __post_init__(self) -> None:
        if self.width > 99:
            raise RuntimeError("no memory")


class Pooled(Net):
    def __init__(
        self,
        spec: DataSpec,
        *,
        pool: Pool = Pool.MAX,
        stem: Stem = Stem(),
        on: set[date] = frozenset(),  # type: ignore[assignment]
    ) -> None:
        self.made = pool, stem, on


def test_classes_of_a_plugin_are_made_from_a_recipe_and_written_back(path: Path):
    overrides = ["model.name=pooled", "model.pool=avg", "model.stem.width=4", "model.on=[2026-02-01, 2026-01-31]"]
    planned = plan(parse(path, overrides), registry(pooled=Pooled))
    model: Any = planned.model(SPEC)
    assert model.made == (Pool.AVG, Stem(4), {date(2026, 1, 31), date(2026, 2, 1)})
    path.write_text(to_toml(planned.resolved))
    again = plan(parse(path), registry(pooled=Pooled))
    assert again.resolved == planned.resolved
    assert digest(again.resolved) == digest(planned.resolved)
    made: Any = again.model(SPEC)
    assert made.made == model.made
    assert plan(parse(path, ["model.on=[]"]), registry(pooled=Pooled)).resolved.model.args["on"] == []


def test_a_class_of_a_plugin_that_fails_is_a_fault_of_the_plugin(path: Path):
    error = failure(path, "model.name=pooled", "model.stem.width=100", at=registry(pooled=Pooled))
    assert isinstance(error, PluginError)
    assert error.message.endswith(
        '"pooled" of plugin acme[main] 1.0: cannot check its arguments: RuntimeError: no memory'
    )


def test_an_argument_that_a_recipe_cannot_give_is_named(path: Path):
    def open_(spec: DataSpec, *, pool: Callable[..., Any] | None = None) -> None: ...

    (line,) = failure(path, "model.name=open_", "model.pool=avg", at=registry(open_=open_)).lines()
    expected = "is an argument of type Callable[..., Any] | None, which a recipe cannot give"
    assert line == f"--set model.pool=avg: {expected}"


def test_an_argument_called_name_does_not_rename_the_component(path: Path):
    def named(spec: DataSpec, *, name: str = "other", width: int = 3) -> None: ...

    resolved = plan(load(path, ["model=net"]), registry(net=named)).resolved
    assert (resolved.model.name, resolved.model.args) == ("net", {"width": 3})


def test_the_resolved_recipe_holds_every_default_and_stays_as_it_is(path: Path):
    planned = plan(parse(path), registry())
    resolved = planned.resolved
    assert resolved.data.args == {"seed": 0}
    assert resolved.model.args == {"widths": [8]}
    assert [use.args for use in resolved.metrics] == [{"bins": 10}, {"bins": 5}]
    assert resolved.augment[0].args == {"p": 0.5}
    assert resolved.train.optimizer.args["momentum"] == 0.0
    path.write_text(to_toml(resolved))
    again = plan(parse(path), registry()).resolved
    assert again == resolved
    assert digest(again) == digest(resolved)


def test_problems_of_the_core_and_of_components_are_reported_together(path: Path):
    wrong = ["train.epochs=0", "model.widhts=[3]", "metrics.calibration.bins=0", "augment.flip.p=x", "data.name=shape"]
    wrong += ["train.optimizer.momentum=x", "train.schedule.name=cosin", "nonsense"]
    error = failure(path, *wrong)
    assert isinstance(error, RecipeError)
    assert sorted(map(str, error.problems)) == [
        'augment.flip.p: must be a number, got "x"',
        'data.name: unknown dataset "shape"; did you mean "shapes"?',
        "metrics.calibration.bins: must be at least 1, got 0",
        'model.widhts: unknown key; did you mean "widths"?',
        "nonsense: an override must look like key=value, such as train.epochs=20",
        "train.epochs: must be at least 1, got 0",
        'train.optimizer.momentum: must be a number, got "x"',
        'train.schedule.name: unknown schedule "cosin"; did you mean "cosine"?',
    ]
    assert error.next_step == "fix these arguments, then run the same command again"


def test_a_key_of_the_core_given_to_a_component_is_sent_home(path: Path):
    line = '--set model.batch=8: unknown key; did you mean "train.batch"?'
    assert failure(path, "model.batch=8").lines() == [line]


@pytest.mark.parametrize("override", ["train.optimizer.name=sdg", "train.optimizer.name=SDG"])
def test_an_unknown_optimizer(path: Path, override: str):
    assert 'did you mean "sgd"?' in failure(path, override).lines()[0]


@pytest.mark.parametrize("key", ["train.optimizer.params", "train.schedule.horizon", "train.schedule.direction"])
def test_what_the_core_gives_is_not_a_key(path: Path, key: str):
    assert failure(path, f"{key}=[1]").lines()[0].startswith(f"--set '{key}=[1]': unknown key")


def test_a_needed_broken_plugin_ends_with_its_own_exit_code_and_hides_no_problem(path: Path):
    broken = Broken(Plugin("late", "2", "main", "late"), "ImportError: no")
    error = failure(path, "model.name=other", "train.epochs=0", at=registry(broken))
    assert error.exit_code == EXIT_PLUGIN
    assert error.lines() == [
        f'{path}: model.name: unknown model "other"',
        "  it may belong to a plugin that is broken: late[main] 2: ImportError: no",
        "  --set train.epochs=0: must be at least 1, got 0",
    ]
    assert plan(parse(path), registry(broken)).chosen


def test_a_component_that_cannot_be_imported_is_its_plugins_fault(path: Path):
    error = failure(path, "model.name=lazy", at=registry(lazy="no_such_module:build"))
    assert isinstance(error, PluginError)
    assert error.message.startswith(
        f'{path}: model "lazy" of plugin acme[main] 1.0: cannot import no_such_module:build'
    )


def test_a_signature_that_cannot_be_read_is_its_plugins_fault(path: Path):
    def odd(spec: DataSpec, *, width: Nowhere = 3) -> None: ...  # type: ignore[name-defined] # noqa: F821

    error = failure(path, "model.name=odd", at=registry(odd=odd))
    assert isinstance(error, PluginError)
    assert "has an unusable signature: TypeError: argument width: annotation Nowhere" in error.message


def test_a_value_error_that_names_an_argument_is_the_recipes_fault(path: Path):
    with pytest.raises(RecipeError) as caught:
        plan(parse(path, ["model.widths=[0]"]), registry()).model(SPEC)
    assert caught.value.lines() == ["--set 'model.widths=[0]': must be at least 1, got 0"]


def test_a_problem_that_a_factory_raises_is_reported_at_its_table(path: Path):
    with pytest.raises(RecipeError) as caught:
        plan(parse(path), registry()).model(replace(SPEC, classes=("round",)))
    assert caught.value.lines() == [f"{path}: model: needs at least 2 classes, the data has 1"]


def test_any_other_exception_is_the_plugins_fault(path: Path):
    with pytest.raises(PluginError) as caught:
        plan(parse(path, ["model.widths=[100]"]), registry()).model(SPEC)
    assert caught.value.message == 'model "net" of plugin acme[main] 1.0: cannot be built: RuntimeError: out of memory'
    assert caught.value.next_step == 'python -m toolkit plugins show "acme:net"'


def test_a_factory_must_make_what_its_kind_promises(path: Path):
    with pytest.raises(PluginError, match="made dict, which has no forward"):
        plan(parse(path, ["model.name=empty"]), registry(empty=lambda spec: {})).model(SPEC)


def test_errors_of_the_toolkit_pass_through_a_factory(path: Path):
    def offline(spec: DataSpec) -> None:
        raise DataError("no weights")

    with pytest.raises(DataError, match="no weights"):
        plan(parse(path, ["model.name=offline"]), registry(offline=offline)).model(SPEC)


def test_an_unset_root_means_the_default_place_if_something_is_there(path: Path, tmp_path: Path):
    def root() -> Any:
        return plan(parse(path), registry()).data().protocol["root"]

    assert root() == "None"
    (tmp_path / "data" / "shapes").mkdir(parents=True)
    assert root() == "None"
    (tmp_path / "data" / "shapes" / "x").touch()
    assert root() == str(Path("data/shapes"))
    path.write_text(RECIPE.replace('"shapes"', '"acme:shapes"'))
    assert root() == str(Path("data/shapes"))


def test_a_given_root_is_never_replaced_by_the_sample(path: Path, tmp_path: Path):
    (tmp_path / "data" / "shapes").mkdir(parents=True)
    (tmp_path / "data" / "shapes" / "x").touch()
    with pytest.raises(DataError) as caught:
        plan(parse(path, ["data.root=elsewhere"]), registry()).data()
    assert caught.value.exit_code == EXIT_DATA
    assert (caught.value.message, caught.value.next_step) == ("elsewhere: nothing there", "get it from a friend")


def test_a_dataset_that_fails_on_a_missing_root_is_not_reported_as_broken(path: Path, tmp_path: Path):
    def careless(root: Path | None) -> Data:
        raise FileNotFoundError(str(root))

    offers = (*registry().offered, Offer("dataset", "careless", PLUGIN, careless))
    at = Registry((PLUGIN,), offers)
    planned = plan(parse(path, ["data.name=careless", "data.root=gone"]), at)
    with pytest.raises(DataError, match="gone: no data found here"):
        planned.data()
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "x").touch()
    with pytest.raises(PluginError, match="FileNotFoundError"):
        planned.data()


@pytest.mark.parametrize(("named", "expected"), [("{root}/run/deep", DataError), ("{root}s/x", PluginError)])
def test_a_file_of_the_data_that_may_not_be_read_is_not_a_plugins_fault(path: Path, tmp_path: Path, named, expected):
    def trusting(root: Path | None) -> Data:
        raise PermissionError(errno.EACCES, "Permission denied", named.format(root=root))

    (tmp_path / "here" / "run").mkdir(parents=True)
    offers = (*registry().offered, Offer("dataset", "trusting", PLUGIN, trusting))
    planned = plan(parse(path, ["data.name=trusting", "data.root=here"]), Registry((PLUGIN,), offers))
    with pytest.raises(expected) as caught:
        planned.data()
    if expected is DataError:
        assert caught.value.message == "here/run/deep: cannot be read: Permission denied"


@pytest.mark.parametrize(
    ("asked", "size", "stored"),
    [({}, 32, 40), ({"size": 64}, 64, None), ({"size": 64, "stored": 72}, 64, 72), ({"stored": 48}, 32, 48)],
)
def test_the_input_table_replaces_what_the_dataset_chose(asked: dict[str, int], size: int, stored: int | None):
    spec = with_input(SPEC, InputTable(**asked))
    assert (spec.size, spec.stored) == (size, stored)


def test_the_input_table_reaches_the_data(path: Path):
    data = plan(load(path, ["input.fit=stretch", "input.mean=[0,0,0]"]), registry()).data()
    assert (data.spec.fit, data.spec.mean, data.spec.std) == ("stretch", (0.0, 0.0, 0.0), SPEC.std)


def test_problems_found_later_name_the_recipe(path: Path):
    recipe = load(path)
    assert isinstance(recipe, Recipe)
    assert plan(recipe, registry()).source == "recipe r"
    assert plan(parse(path), registry()).source == str(path)


def wide(*, widths: list[int], **_: object) -> InputDesign | None:
    (width,) = widths
    if width > 99:
        raise ValueError("widths: at most 99")
    if width > 50:
        raise RuntimeError("no such width")
    return InputDesign(None, None, size=10 * width, stored=12 * width, mean=(0.1, 0.2, 0.3)) if width > 1 else None


def designed(place: str) -> Registry:
    offer = Offer("model", "net", PLUGIN, Net, Model(Net, takes=place))
    return Registry((PLUGIN,), tuple(offer if one.name == "net" else one for one in registry().offered))


def test_what_a_model_takes_may_depend_on_its_arguments(path: Path):
    spec = plan(load(path, ["model.widths=[5]"]), designed(f"{__name__}:wide")).data().spec
    assert (spec.size, spec.stored, spec.mean, spec.clip) == (50, 60, (0.1, 0.2, 0.3), None)
    assert plan(load(path, ["model.widths=[1]"]), designed(f"{__name__}:wide")).data().spec.size == SPEC.size


def test_faults_of_what_says_what_a_model_takes(path: Path):
    with pytest.raises(RecipeError) as raised:
        plan(load(path, ["model.widths=[100]"]), designed(f"{__name__}:wide"))
    assert raised.value.problems == (Problem("model.widths", "at most 99"),)
    with pytest.raises(PluginError, match="does not say what it takes: RuntimeError: no such width"):
        plan(load(path, ["model.widths=[60]"]), designed(f"{__name__}:wide"))
    with pytest.raises(PluginError, match="cannot import json:nothing"):
        plan(load(path), designed("json:nothing"))


GOOD = """
from toolkit import hookimpl

@hookimpl
def toolkit_models():
    return {"net": "good_models:net", "taken": "good_models:net"}
"""
SCRIPT = """
import json, sys
from pathlib import Path
from toolkit.build.plan import plan
from toolkit.api.errors import ToolkitError
from toolkit.recipe.read import parse
from toolkit.host.registry import discover

for model in sys.argv[2:]:
    try:
        plan(parse(Path(sys.argv[1]), ["metrics=['accuracy']", f"model.name={model}"]), discover())
        print(json.dumps([0, ""]))
    except ToolkitError as error:
        print(json.dumps([error.exit_code, " ".join(error.lines())]))
"""


def test_three_bad_packages_stop_only_the_recipes_that_need_them(path: Path, tmp_path: Path):
    hook = "from toolkit import hookimpl\n@hookimpl\ndef {}():\n    return {{'{}': 'json:loads'}}\n"
    all_kinds = "".join(
        hook.format(f"toolkit_{kinds}", name)
        for kinds, name in (
            ("datasets", "shapes"),
            ("metrics", "accuracy"),
            ("augmentations", "flip"),
            ("tasks", "classification"),
        )
    )
    models = {"good": GOOD + all_kinds, "good_models": "def net(spec, *, widths: list = []): ..."}
    install(tmp_path, "good", models, {"main": "good"})
    install(tmp_path, "raising", {"raising": "raise RuntimeError('no licence')"}, {"main": "raising"}, "0.1")
    install(tmp_path, "misspelt", {"misspelt": hook.format("toolkit_modles", "x")}, {"main": "misspelt"}, "0.2")
    install(tmp_path, "taking", {"taking": hook.format("toolkit_models", "taken")}, {"main": "taking"}, "0.3")

    places = os.pathsep.join([str(tmp_path), *(entry for entry in sys.path if entry)])
    others = ",".join(plugin.name for plugin in discover({}).plugins if plugin.name != "vision-toolkit[optim]")
    env = {**os.environ, "PYTHONPATH": places, "TOOLKIT_DISABLE": others}
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(path), "net", "good:taken", "taken", "x"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    unrelated, picked, taken, unknown = (json.loads(line) for line in done.stdout.splitlines())
    assert unrelated == picked == [0, ""]
    assert taken[0] == unknown[0] == EXIT_PLUGIN
    assert 'model "taken" is offered by good[main] 1.0 and taking[main] 0.3' in taken[1]
    assert "raising[main] 0.1: RuntimeError: no licence" in unknown[1]
    assert 'misspelt[main] 0.2: LookupError: unknown hook toolkit_modles; did you mean "toolkit_models"?' in unknown[1]


@pytest.mark.parametrize("sample", [False, True])
def test_a_trained_model_is_built_without_the_file_that_it_started_from(tmp_path: Path, sample: bool) -> None:
    tables = {"data": {"name": "cifar10"}, "model": {"name": "resnet18", "weights": str(tmp_path / "gone.pt")}}
    train = {"epochs": 1, "batch": 2, "optimizer": {"name": "sgd", "lr": 0.1}}
    planned = plan(Recipe.model_validate({**tables, "train": train, "name": "mine"}), discover())
    spec = replace(SPEC, sample=sample)
    assert planned.model(spec, initial_weights=False)(torch.zeros(2, 3, 32, 32)).shape == (2, 2)
    with pytest.raises(WeightsError, match="no such weights file"):
        planned.model(spec)


@pytest.mark.parametrize("element", ["0", "flip"])
def test_an_element_that_set_changes_is_blamed_on_the_argument(path: Path, element: str):
    error = failure(path, f"augment.{element}.x=1", f"metrics.{1 if element == '0' else 'calibration'}.bins=0")
    assert error.lines() == [
        f"--set augment.{element}.x=1: augment.flip.x: unknown key"
        if element == "0"
        else "--set augment.flip.x=1: unknown key",
        "--set metrics.1.bins=0: metrics.calibration.bins: must be at least 1, got 0"
        if element == "0"
        else "--set metrics.calibration.bins=0: must be at least 1, got 0",
    ]
    assert error.next_step == "fix these arguments, then run the same command again"
