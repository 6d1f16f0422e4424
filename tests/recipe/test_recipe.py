from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from toolkit.api.errors import EXIT_USAGE, RecipeError
from toolkit.recipe.draft import Draft, used
from toolkit.recipe.read import load, parse
from toolkit.recipe.tables import METRICS, Recipe, Use
from toolkit.recipe.write import digest, to_toml

SMALLEST = """
[data]
name = "shapes"

[model]
name = "cnn"

[train]
epochs = 2
batch = 8

[train.optimizer]
name = "sgd"
lr = 0.1
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "shapes_cnn.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def problems(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(path, overrides)
    assert caught.value.exit_code == EXIT_USAGE
    assert caught.value.next_step
    assert all(line.startswith(f"{path}: ") for line in caught.value.lines())
    return [str(problem) for problem in caught.value.problems]


def test_the_smallest_recipe_takes_its_name_from_its_file(write):
    recipe = load(write(SMALLEST))
    assert recipe.name == "shapes_cnn"
    assert recipe.train.precision == "auto"
    assert [use.name for use in recipe.metrics] == list(METRICS)
    assert load(write(SMALLEST), name="other").name == "other"


def test_a_recipe_is_frozen(write):
    recipe = load(write(SMALLEST))
    with pytest.raises(ValidationError):
        recipe.seed = 3


def test_further_keys_of_a_component_are_its_arguments(write):
    text = SMALLEST.replace('name = "cnn"', 'name = "cnn"\nwidths = [8, 16]').replace(
        "lr = 0.1", "lr = 0.1\nmomentum = 0.9"
    )
    recipe = load(write(text))
    assert recipe.model.args == {"widths": [8, 16]}
    assert recipe.train.optimizer.args == {"momentum": 0.9}
    assert recipe.data.args == {}


def test_a_component_without_arguments_may_be_its_name_alone(write):
    recipe = load(
        write(
            'model = "cnn"\naugment = ["flip", {name = "crop", padding = 2}]\n'
            + SMALLEST.replace('[model]\nname = "cnn"', "")
        )
    )
    assert recipe.model == Use(name="cnn")
    assert recipe.augment == (Use(name="flip"), Use.model_validate({"name": "crop", "padding": 2}))


def test_home_is_expanded_in_the_root(write, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(write(SMALLEST), ["data.root=~/x"]).data.root == tmp_path / "x"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            ("[train]", "[trian]"),
            ["train.epochs: is required", "train.batch: is required", 'trian: unknown key; did you mean "train"?'],
        ),
        (('name = "shapes"', ""), ["data.name: is required"]),
        (("lr = 0.1", ""), ["train.optimizer.lr: is required"]),
        (("lr = 0.1", "lr = 0"), ["train.optimizer.lr: must be greater than 0, got 0"]),
        (("lr = 0.1", "lr = inf"), ["train.optimizer.lr: must be a finite number, got Infinity"]),
        (
            ("lr = 0.1", "lr = 1\nparts.head.scale = 2"),
            ['train.optimizer.parts.head.scale: unknown key; did you mean "lr_scale"?'],
        ),
        (("epochs = 2", "epochs = 0"), ["train.epochs: must be at least 1, got 0"]),
        (("epochs = 2", 'epochs = "2"'), ['train.epochs: must be an integer, got "2"']),
        (("batch = 8", "batch = true"), ["train.batch: must be an integer, got true"]),
        (("batch = 8", "batch = 8\nema = 1.0"), ["train.ema: must be less than 1, got 1.0"]),
        (
            ("batch = 8", "batch = 8\nprecision = 'bf61'"),
            ['train.precision: must be one of "auto", "bf16", "fp16", "fp32", got "bf61"; did you mean "bf16"?'],
        ),
        (("batch = 8", "batch = 8\noptimiser = 1"), ['train.optimiser: unknown key; did you mean "optimizer"?']),
        (("[data]", "[input]\nsiez = 32\n[data]"), ['input.siez: unknown key; did you mean "size"?']),
        (("[data]", "[input]\nmean = [0, 0]\n[data]"), ["input.mean: must have 3 items, got 2"]),
        (("[data]", "name = 'x'\n[data]"), ["name: unknown key: a recipe is named after its file"]),
        (("[data]", "[clip]\ncrops = 2\n[data]"), ["clip.crops: must be one of 1, 3, got 2"]),
        (("[data]", "export.precision = []\n[data]"), ["export.precision: must have at least 1 item, got 0"]),
        (("[data]", "seed = -1\n[data]"), ["seed: must be at least 0, got -1"]),
        (("[data]", "augment = 3\n[data]"), ["augment: must be an array, got 3"]),
        (("[data]", "augment = [3]\n[data]"), ["augment.0: must be a table, got 3"]),
        (("[data]", "augment = [{p = 1}]\n[data]"), ["augment.0.name: is required"]),
        (
            ("[model]", 'root = ""\n[model]'),
            ['data.root: must name a folder, got ""; without the key the default place is looked at'],
        ),
        (('name = "cnn"', "name = 3"), ["model.name: must be a string, got 3"]),
        (('name = "cnn"', 'name = ""'), ['model.name: must be text of length 1 or more, got ""']),
        (("[data]", '"" = 1\n[data]'), ["unknown key"]),
        (("[data]", "epochs = 3\n[data]"), ['epochs: unknown key; did you mean "train.epochs"?']),
        (("batch = 8", "batch = 8\nseed = 1"), ['train.seed: unknown key; did you mean "seed"?']),
        (("batch = 8", "batch = 8\nlr = 1"), ['train.lr: unknown key; did you mean "train.optimizer.lr"?']),
        (("batch = 8", "batch = 8\ntrials = 1"), ['train.trials: unknown key; did you mean "tune.trials"?']),
        (("[data]", "frames = 8\n[data]"), ['frames: unknown key; did you mean "clip.frames"?']),
        (("[data]", "[optimizer]\nlr = 1\n[data]"), ['optimizer: unknown key; did you mean "train.optimizer"?']),
        (("batch = 8", "batch = 8\nzzz = 1"), ["train.zzz: unknown key"]),
    ],
)
def test_what_is_wrong_with_a_table(write, change: tuple[str, str], found: list[str]):
    assert problems(write(SMALLEST.replace(*change))) == found


def test_all_problems_are_told_at_once(write):
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


LISTS = 'augment = ["flip", {name = "crop", padding = 2}, "noise", "noise"]\n' + SMALLEST


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("train.epochs=5", lambda recipe: recipe.train.epochs == 5),
        ("train.epochs = 5", lambda recipe: recipe.train.epochs == 5),
        ("model.name=densenet121", lambda recipe: recipe.model.name == "densenet121"),
        ("model=densenet121", lambda recipe: recipe.model == Use(name="densenet121")),
        ("data.root=../x", lambda recipe: recipe.data.root == Path("../x")),
        ('data.root="3"', lambda recipe: recipe.data.root == Path("3")),
        ("model.freeze=true", lambda recipe: recipe.model.args == {"freeze": True}),
        ("model.text=a=b", lambda recipe: recipe.model.args == {"text": "a=b"}),
        ('model.text="a\\nb"', lambda recipe: recipe.model.args == {"text": "a\nb"}),
        ("model.text=1\nother = 2", lambda recipe: recipe.model.args == {"text": "1\nother = 2"}),
        ("model.widths=[1, 2]", lambda recipe: recipe.model.args == {"widths": [1, 2]}),
        ("model.a.b=1", lambda recipe: recipe.model.args == {"a": {"b": 1}}),
        ("input.size=64", lambda recipe: recipe.input.size == 64),
        ("train.optimizer.parts.head.lr_scale=3", lambda recipe: recipe.train.optimizer.parts["head"].lr_scale == 3),
        ("train.schedule=cosine", lambda recipe: recipe.train.schedule.name == "cosine"),
        ("augment.crop.padding=5", lambda recipe: recipe.augment[1].args == {"padding": 5}),
        ("augment.1.padding=5", lambda recipe: recipe.augment[1].args == {"padding": 5}),
        ("augment.flip.p=0.1", lambda recipe: recipe.augment[0].args == {"p": 0.1}),
        ("augment.3.p=0.1", lambda recipe: [use.args for use in recipe.augment[2:]] == [{}, {"p": 0.1}]),
        ("augment.0=noise", lambda recipe: recipe.augment[0].name == "noise"),
        ("augment=[]", lambda recipe: recipe.augment == ()),
        ("metrics.calibration.bins=5", lambda recipe: recipe.metrics[-1].args == {"bins": 5}),
    ],
)
def test_overrides(write, override: str, read: Any):
    assert read(load(write(LISTS), [override]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "train.epochs: an override must look like key=value, such as train.epochs=20"),
        ("=3", "=3: an override must look like key=value, such as train.epochs=20"),
        ("train..epochs=3", "train..epochs=3: an override must look like key=value, such as train.epochs=20"),
        ("train.epochs=", 'train.epochs: needs a value after "=" (write "" for an empty string)'),
        ("train.epochs.x=3", 'train.epochs.x: cannot be set: what holds "x" is a value, not a table'),
        ("augment.corp.padding=3", 'augment.corp.padding: there is no element "corp"; did you mean "crop"?'),
        ("augment.9.padding=3", 'augment.9.padding: there is no element "9"'),
        ("augment.noise.p=3", 'augment.noise.p: there is no element "noise"'),
        ("trackers.mlflow.every=3", 'trackers.mlflow.every: there is no element "mlflow"'),
        ("train.epoch=3", 'train.epoch: unknown key; did you mean "epochs"?'),
        ("train.epochs=many", 'train.epochs: must be an integer, got "many"'),
        ("train.compile=True", 'train.compile: must be true or false, got "True"'),
        ("name=x", "name: unknown key: a recipe is named after its file"),
        ("model.text=\udcff", "model.text: is not valid UTF-8"),
        ("seed=" + "[" * 9000, None),
    ],
)
def test_what_is_wrong_with_an_override(write, override: str, message: str | None):
    found = problems(write(LISTS), override)
    assert len(found) == 1
    assert message is None or found == [message]


def test_later_overrides_win(write):
    assert load(write(SMALLEST), ["seed=1", "seed=2"]).seed == 2


def test_a_table_is_replaced_whole(write):
    assert load(write(SMALLEST), ["model.width=3", 'model={name = "mlp"}']).model == Use(name="mlp")


def test_a_draft_keeps_what_was_read_beside_what_is_wrong(write):
    draft = parse(write(SMALLEST.replace("epochs = 2", "epochs = 0")))
    assert draft.recipe is None
    assert [problem.key for problem in draft.problems] == ["train.epochs"]
    assert [use.key for use in used(draft)] == [
        "data",
        "model",
        "task",
        "train.optimizer",
        "train.schedule",
        *(f"metrics.{name}" for name in METRICS),
    ]


def test_components_whose_name_is_wrong_are_not_looked_for(write):
    draft = parse(
        write('data = 3\nmodel = {name = 3}\naugment = "x"\nmetrics = [1, "accuracy"]\n[train]\noptimizer = "sgd"')
    )
    assert [(use.key, use.name) for use in used(draft)] == [
        ("task", "classification"),
        ("train.optimizer", "sgd"),
        ("train.schedule", "constant"),
        ("metrics.accuracy", "accuracy"),
    ]


def test_a_valid_recipe_and_its_draft_ask_for_the_same(write):
    path = write(LISTS)
    assert list(used(Draft.of(load(path)))) == list(used(parse(path)))


KEYS = st.text(max_size=6).filter(lambda key: key not in {"name", "root"})
VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.dates()
    | st.times()
    | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
USES = st.builds(
    lambda name, args: {"name": name, **args},
    st.text(min_size=1, max_size=8),
    st.dictionaries(KEYS, VALUES, max_size=3),
)


@given(
    model=USES,
    data=USES,
    augment=st.lists(USES, max_size=3),
    scale=st.floats(0, 9),
    root=st.none() | st.text(min_size=1, max_size=9),
)
def test_toml_round_trip(tmp_path_factory, model, data, augment, scale, root):
    tables = tomllib.loads(SMALLEST) | {
        "model": model,
        "data": data | ({} if root is None else {"root": root}),
        "augment": augment,
    }
    tables["train"]["optimizer"]["parts"] = {"head.x": {"lr_scale": scale}}
    recipe = Recipe.model_validate({**tables, "name": "r"})
    path = tmp_path_factory.mktemp("recipes") / "r.toml"
    path.write_text(to_toml(recipe), encoding="utf-8", newline="")
    assert load(path) == recipe


def test_the_digest_counts_what_is_computed(write):
    def of(*overrides: str) -> str:
        return digest(load(write(LISTS), overrides))

    assert of("train.batch=9") != of()
    assert of("model.width=9") != of()
    assert of("augment.crop.padding=9") != of()
    assert (
        of(
            "data.root=x",
            "train.device=cpu",
            "trackers=['tensorboard']",
            "input.workers=1",
            "input.on_corrupt=skip",
            "train.checkpoint_minutes=1",
        )
        == of()
    )
    assert digest(load(write(LISTS), name="other")) == of()
    assert len(of()) == 64
