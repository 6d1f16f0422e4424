"""Mistakes of people who know other tools, each with the command that is printed as the next step.

The printed command is then followed to the letter until it succeeds: `check` stands for `run` and `tune`, which take
long, and `export` writes nothing.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from tests import tiny, toy_bundle
from tests.plugins.data_files import write_video
from toolkit.build.schema import recipe_schema
from toolkit.cli.commands import parser
from toolkit.cli.main import main
from toolkit.cli.parser import PROGRAM, Parser
from toolkit.cli.verbs import CHOICES, FLAGS, ON_COMMAND, VERBS
from toolkit.host.registry import discover
from toolkit.recipe.foreign import FIXED, KEYS, VALUES
from toolkit.runs.directory import RunDirectory

ROOT = Path(__file__).parents[2]
NAMES = {
    "CIFAR": "recipes/cifar10_cnn.toml",
    "HAR": "recipes/har_resnet50.toml",
    "BUNDLE": "exports/tiny",
}

# What is typed, and below it what is printed as the next step; "!" where that is a command of another program.
TABLE = """
# verbs
train CIFAR
    run CIFAR
fit CIFAR
    run CIFAR
train
    run har_resnet50
val
    evaluate RUN
val CIFAR
    run CIFAR
val cifar10_cnn
    run cifar10_cnn
test
    evaluate RUN
eval
    evaluate RUN
evaluation
    evaluate RUN
benchmark
    evaluate RUN
validate CIFAR
    check CIFAR
infer BUNDLE photo.jpg
    predict BUNDLE photo.jpg
detect BUNDLE photo.jpg
    predict BUNDLE photo.jpg
classify BUNDLE photo.jpg
    predict BUNDLE photo.jpg
tensorrt
    export RUN
sweep CIFAR
    tune CIFAR
hpo CIFAR
    tune CIFAR
lint CIFAR
    check CIFAR
convert
    export RUN
onnx
    export RUN
list
    plugins list
models
    plugins list
info resnet50
    plugins show resnet50
rnu CIFAR
    run CIFAR
plugins shwo resnet50
    plugins show resnet50
CIFAR
    run CIFAR
fit --config CIFAR --trainer.max_epochs 5 --trainer.accelerator gpu
    run CIFAR --set train.epochs=5 --set train.device=cuda
resume RUN
    run --resume RUN
classify train data=photos model=resnet18 epochs=5
    run har_resnet50 --set data.name=image_folder --set data.root=photos --set model.name=resnet18 --set train.epochs=5
task=classify mode=train data=photos epochs=5
    run har_resnet50 --set data.name=image_folder --set data.root=photos --set train.epochs=5
train data=photos epochs=5 imgsz=64
    run har_resnet50 --set data.name=image_folder --set data.root=photos --set train.epochs=5 --set input.size=64
yolo classify train data=clips epochs=5
    run har_x3d_s --set data.name=video_folder --set data.root=clips --set train.epochs=5
export
    export RUN
report
    report RUN
evaluate
    evaluate RUN
trian CIFAR
    run CIFAR
# flags
predict --source photo.jpg --model BUNDLE
    predict BUNDLE photo.jpg
predict --source photo.jpg --weights BUNDLE
    predict BUNDLE photo.jpg
run CIFAR epochs=5
    run CIFAR --set train.epochs=5
run CIFAR train.epochs=5
    run CIFAR --set train.epochs=5
run CIFAR --epochs 5
    run CIFAR --set train.epochs=5
run CIFAR --epochs=5
    run CIFAR --set train.epochs=5
run CIFAR --lr 0.1
    run CIFAR --set train.optimizer.lr=0.1
run CIFAR --lr0 0.1 --batch-size 64
    run CIFAR --set train.optimizer.lr=0.1 --set train.batch=64
run CIFAR --batch 16
    run CIFAR --set train.batch=16
run CIFAR -b 16
    run CIFAR --set train.batch=16
run CIFAR --device cuda
    run CIFAR --set train.device=cuda
run CIFAR --device 0
    run CIFAR --set train.device=cuda:0
run CIFAR --gpu 0
    run CIFAR --set train.device=cuda:0
run CIFAR --gpus 2
    run CIFAR --ranks 2
run CIFAR --devices 2
    run CIFAR --ranks 2
run CIFAR --cpu
    run CIFAR --set train.device=cpu
run CIFAR --seed 3
    run CIFAR --set seed=3
run HAR --model resnet18
    run HAR --set model.name=resnet18
run CIFAR --model resnet18
    run CIFAR --set model.name=resnet18
run HAR --data photos
    run HAR --set data.name=image_folder --set data.root=photos
run HAR --weights imagenet
    run HAR --set model.weights=imagenet
run HAR --pretrained
    run HAR --set model.weights=imagenet
run HAR --no-pretrained
    run HAR --set model.weights=none
run HAR --freeze
    run HAR --set model.freeze=true
run CIFAR --workers 4
    run CIFAR --set input.workers=4
run CIFAR --amp
    run CIFAR --set train.precision=auto
run CIFAR --precision 16-mixed
    run CIFAR --set train.precision=fp16
run CIFAR --optimizer sgd --weight-decay 0.01
    run CIFAR --set train.optimizer.name=sgd --set train.optimizer.weight_decay=0.01
run CIFAR --optimizer adamw
    run CIFAR --set train.optimizer.name=adamw
run CIFAR --scheduler cosine --warmup-epochs 2
    run CIFAR --set train.schedule.name=cosine --set train.schedule.warmup_epochs=2
run CIFAR --patience 5
    run CIFAR --set train.patience=5
run CIFAR --num-classes 10
    run CIFAR
run CIFAR --imgsz 64
    run CIFAR --set input.size=64
run CIFAR --img-size 64
    run CIFAR --set input.size=64
run CIFAR --label-smoothing 0.1
    run CIFAR --set task.label_smoothing=0.1
run CIFAR --output-dir out
    run CIFAR --runs out
run CIFAR --work-dir out
    run CIFAR --runs out
run CIFAR --project out
    run CIFAR --runs out
run --config CIFAR
    run CIFAR
run CIFAR --train.epochs 5
    run CIFAR --set train.epochs=5
run --resum RUN
    run --resume RUN
tune CIFAR --n-trials 5
    tune CIFAR --set tune.trials=5
tune CIFAR --trials 5
    tune CIFAR --set tune.trials=5
export RUN --precision int8
    export RUN --set export.precision=int8
export RUN --format onnx
    export RUN --format bundle
evaluate RUN --batch-size 8
    evaluate RUN --set train.eval_batch=8
export RUN --int8
    export RUN --set export.precision=int8
export RUN --half
    export RUN --set export.precision=fp16
run tiny.toml --resume
    run --resume RUN
evaluate RUN --data images
    evaluate RUN --set data.root=images
# keys
run CIFAR --set train.epochs 5
    run CIFAR --set train.epochs=5
run CIFAR --set train.epochs=5 train.batch=64
    run CIFAR --set train.epochs=5 --set train.batch=64
run CIFAR --set epochs=5 batch_size=64
    run CIFAR --set train.epochs=5 --set train.batch=64
run CIFAR --set epochs=5
    run CIFAR --set train.epochs=5
run CIFAR --set trian.epochs=5
    run CIFAR --set train.epochs=5
run CIFAR --set train.optimizr.lr=0.1
    run CIFAR --set train.optimizer.lr=0.1
run CIFAR --set lr=0.1
    run CIFAR --set train.optimizer.lr=0.1
run CIFAR --set train.lr=0.1
    run CIFAR --set train.optimizer.lr=0.1
run CIFAR --set batch_size=8
    run CIFAR --set train.batch=8
run CIFAR --set train.batch_size=8
    run CIFAR --set train.batch=8
run CIFAR --set train.max_epochs=8
    run CIFAR --set train.epochs=8
run CIFAR --set train.device=0
    run CIFAR --set train.device=cuda:0
run CIFAR --set train.precision=amp
    run CIFAR --set train.precision=auto
run CIFAR --set train.precision=16
    run CIFAR --set train.precision=fp16
run HAR --set model.pretrained=true
    run HAR --set model.weights=imagenet
run HAR --set pretrained=true
    run HAR --set model.weights=imagenet
# names
run HAR --set model.name=vit_base_patch16_224
    run HAR --set model.name=vit_b_16
run HAR --set model.name=vit_base
    run HAR --set model.name=vit_b_16
run HAR --set model.name=densenet
    run HAR --set model.name=densenet121
run HAR --set model.name=vgg
    run HAR --set model.name=vgg16_bn
run HAR --set model.name=resnet-50
    run HAR --set model.name=resnet50
run HAR --set model.name=ResNet50
    run HAR --set model.name=resnet50
run HAR --set model.name=efficientnet-b0
    run HAR --set model.name=efficientnet_b0
run HAR --set model.name=yolov8n-cls
    plugins list
run HAR --set model.name=convnext_tiny.fb_in22k
    run HAR --set model.name=convnext_tiny
run HAR --set model.name=mobilenetv4_conv_small
    plugins show timm
run HAR --set model.name=videomae
    plugins show transformers
run HAR --set model.name=wide_resnet
    run HAR --set model=wide_resnet
run CIFAR --set data.name=folder --set data.root=photos
    run CIFAR --set data.name=image_folder --set data.root=photos
run CIFAR --set data.name=imagefolder --set data.root=photos
    run CIFAR --set data.name=image_folder --set data.root=photos
run CIFAR --set metrics='["map"]'
    run CIFAR --set 'metrics=["average_precision"]'
run CIFAR --set metrics='["bleu"]'
    plugins list
run CIFAR --set trackers='["comet"]'
    plugins new my-tracker --kinds tracker
run CIFAR --set train.schedule.name=CosineAnnealingLR
    run CIFAR --set train.schedule.name=cosine
run CIFAR --set train.optimizer.name=adamw
    run CIFAR --set 'train.optimizer={name = "adamw", lr = 1e-3}'
run CIFAR --set augment='["randaugment"]'
    run CIFAR --set 'augment=["rand_augment"]'
# places
run photos
    init images photos
check photos
    init images photos
tune photos
    init images photos
run clips
    init videos clips
photos
    init images photos
run RUN
    run --resume RUN
run nothing.toml --set seed=1
    recipes
check nothing.toml
    recipes
run recipes/cifar10_cnn
    run CIFAR
init photos
    init images photos
init image photos
    init images photos
run photos --epochs 5
    run har_resnet50 --set data.name=image_folder --set data.root=photos --set train.epochs=5
cifar10_cnn
    run cifar10_cnn
train cifar10_cnn epochs=5
    run cifar10_cnn --set train.epochs=5
run har_resnet5
    run HAR
recipe
    recipes
"""


def rows() -> list[tuple[str, str]]:
    lines = [line for line in TABLE.splitlines() if line and not line.startswith("#")]
    return list(zip(lines[::2], (line.strip() for line in lines[1::2]), strict=True))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder as users have: the shipped recipes, photos, videos, a run and a bundle of it."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    for number in range(12):
        name = ("cat", "dog")[number % 2]
        for kind in ("photos", "clips"):
            (folder / kind / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (20 * number, 90, 30)).save(folder / "photos" / name / f"{number}.png")
        write_video(folder / "clips" / name / f"{number}.mp4", shade=number)
    Image.new("RGB", (20, 20)).save(folder / "photo.jpg")
    before = Path.cwd()
    os.chdir(folder)
    tiny.write_images(folder / "images")
    assert tiny.run(tiny.write_recipe(folder, folder / "images"), folder / "runs") == 0
    os.chdir(before)
    toy_bundle.write(folder / "exports" / "tiny")
    return folder


def run_in(folder: Path) -> Path:
    return next(path for path in sorted((folder / "runs" / "tiny").iterdir()) if not path.is_symlink())


@pytest.fixture(scope="module")
def succeeded() -> set[str]:
    """Commands that were followed already: many mistakes mean the same."""
    return set()


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("TOOLKIT_DEBUG", raising=False)
    prepared = SimpleNamespace(directory=RunDirectory(home / "run"))
    monkeypatch.setattr("toolkit.runs.session.start_run", lambda *_, **__: prepared)
    monkeypatch.setattr("toolkit.runs.next_steps.print_next_steps", lambda *_: None)
    monkeypatch.setattr("toolkit.tune.session.tune_recipe", checks)
    monkeypatch.setattr("toolkit.export.write.write_bundle", lambda *_, **__: None)


def checks(draft: object, *_: object, **__: object) -> None:
    """In place of trials: what `check` does."""
    from toolkit.build.plan import plan
    from toolkit.host.registry import discover
    from toolkit.recipe.draft import Draft

    assert isinstance(draft, Draft)
    plan(draft, discover())


def spelled(text: str, home: Path) -> list[str]:
    words = [NAMES.get(word, word) for word in shlex.split(text)]
    return [str(run_in(home).relative_to(home)) if word == "RUN" else word for word in words]


def next_step(words: list[str], capsys: pytest.CaptureFixture[str]) -> str | None:
    """What is printed as the next step; None where the command succeeds."""
    code = main(words)
    lines = capsys.readouterr().err.splitlines()
    if code == 0:
        return None
    assert len(lines) <= 3
    assert code == 2
    assert lines[-1].startswith("next:  ")
    return lines[-1].removeprefix("next:  ")


def followed(step: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Type each next step to the letter until one succeeds."""
    for _ in range(3):
        words = shlex.split(step)
        if words[:2] == ["pip", "install"]:
            assert (ROOT / words[2] / "pyproject.toml").is_file()
            return
        if words[3:5] == ["run", "--resume"]:
            assert (Path(words[5]) / "last.pt").is_file()
            return
        assert shlex.join(words[:3]) == PROGRAM
        if "--ranks" in words:  # would train, in other processes
            assert parser().parse_args(words[3:]).ranks == 2
            return
        further = next_step(words[3:], capsys)
        if further is None:
            return
        step = further
    raise AssertionError(f"never succeeds: {step}")


@pytest.mark.parametrize(("typed", "answer"), rows(), ids=[typed for typed, _ in rows()])
def test_a_mistake_is_answered_with_the_command_that_does_it(
    typed: str, answer: str, home: Path, succeeded: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    step = next_step(spelled(typed, home), capsys)
    assert step is not None
    expected = spelled(answer.removeprefix("! "), home)
    assert shlex.split(step) == (expected if answer.startswith("!") else [*shlex.split(PROGRAM), *expected])
    if step not in succeeded:
        followed(step, capsys)
        succeeded.add(step)


def test_seventy_mistakes_stand_in_the_table() -> None:
    assert len({typed for typed, _ in rows()}) == len(rows()) >= 70


@pytest.mark.parametrize(
    "typed", ["train recipes/x.toml --epochs 5", "run photos", "run x.toml --set train.epochs 5", ""]
)
def test_a_mistake_loads_nothing_heavy(typed: str) -> None:
    code = "import sys; from toolkit.cli.main import main; main(sys.argv[1:]); print(*sys.modules)"
    words = [sys.executable, "-c", code, *typed.split()]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pydantic", "rich", "pluggy"} & set(done.stdout.split())


WRITTEN = [
    ("train", "max_epochs = 5", 'train.max_epochs: unknown key; did you mean "train.epochs"?'),
    ("train", "device = 0", 'train.device: must be a string, got 0; did you mean "cuda:0"?'),
    ("model", "pretrained = true", 'model.pretrained: unknown key; write weights = "imagenet" ("kinetics400" for '),
    ("data", "batch_size = 8", 'data.batch_size: unknown key; did you mean "train.batch"?'),
]


@pytest.mark.parametrize(("table", "line", "message"), WRITTEN)
def test_the_same_words_in_a_file(
    table: str, line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tiny.RECIPE.replace('device = "cpu"\n', "").replace(f"[{table}]", f"[{table}]\n{line}")
    recipe = tiny.write_recipe(tmp_path, text=text)
    assert main(["check", str(recipe)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"error: {recipe}: {message}")
    assert lines[-1] == f"next:  fix this, then run: python -m toolkit check {recipe}"


def test_the_tables_lead_to_keys_commands_and_flags_that_there_are() -> None:
    schema = recipe_schema(discover())
    keys = [*KEYS.values(), *VALUES, *(key for key, _ in FIXED.values()), *ON_COMMAND.values()]
    assert [key for key in keys if not known_key(schema, key.removesuffix(".name"))] == []
    whole = parser()
    for command in VERBS.values():
        assert whole.parse_args([*command.split(), "--debug", *(["x", "y"][: places(whole, command)])])
    flags = {flag for command in whole.actions.values() for flag in command.flags}
    assert {*FLAGS.values(), *CHOICES} <= flags


def places(whole: Parser, command: str) -> int:
    for name in command.split():
        whole = whole.actions[name]
    return len(whole.places)


def known_key(schema: dict[str, Any], key: str) -> bool:
    """Whether an editor would complete this key; a component's argument counts where one component has it."""
    table = schema
    for step in key.split("."):
        found = properties(schema, table)
        if step not in found:
            return False
        table = found[step]
    return True


def properties(schema: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in table:
        table = schema["$defs"][table["$ref"].rpartition("/")[2]]
    own: dict[str, Any] = table.get("properties", {})
    return own | {key: value for one in table.get("allOf", ()) for key, value in one.get("properties", {}).items()}
