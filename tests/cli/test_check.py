"""The command check: what it reports of a recipe's data and of what a run builds."""

from __future__ import annotations

import os
import shlex
import socket
from pathlib import Path

import pytest

from tests import tiny
from toolkit.api.errors import EXIT_DATA, EXIT_DONE, EXIT_USAGE
from toolkit.cli.main import main

FOLDERS = tiny.RECIPE.replace('name = "cifar10"\nvalid_share = 0.2', 'name = "image_folder"')
NARROW = tiny.RECIPE.replace('name = "cnn"\nwidths = [8, 8]\ndropout = 0.1', 'name = "resnet18"\nstem = "imagenet"')
"""At 32 px its last features are single numbers, of which batch norm needs two."""
VIDEO = """
[data]
name = "har"
sample_clips = 3
[model]
name = "{model}"
{clip}
[input]
size = {size}
[train]
epochs = 1
batch = 8
device = "cpu"
optimizer = {{name = "sgd", lr = 0.1}}
"""


def checked(*words: object, code: int = EXIT_DONE) -> None:
    assert main(["check", *map(str, words)]) == code


def test_the_data_is_counted_and_decoded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny.write_images(tmp_path / "images")
    recipe = tiny.write_recipe(tmp_path, root)
    checked(recipe, "--set", "train.epochs=7")
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert printed.err == ""
    assert ["blue", "8", "2", "4"] in [line.split() for line in lines]
    assert ["all", "24", "6", "12"] in [line.split() for line in lines]
    assert "decoded  test: test/blue/00.png, 32 x 32 px" in lines
    assert "pixels   train: 72 KiB, kept in memory" in lines
    assert any(line.startswith("model    cnn: 2.0 k parameters; weights, gradients and optimizer") for line in lines)
    assert lines[-2] == f"{recipe}: valid"
    command = shlex.split(lines[-1].removeprefix("next:  python -m toolkit "))
    assert command == ["run", str(recipe), "--set", "train.epochs=7"]


def test_no_line_is_wider_than_a_narrow_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    checked("har_slow_r50")
    printed = capsys.readouterr().out.splitlines()[1:]  # without the shipped recipe's path
    assert max(map(len, printed)) <= 80
    assert any("frames of 64 x 64 px" in line for line in printed)
    assert any(line.startswith("pixels   train: about ") for line in printed)


def test_the_sample_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checked(tiny.write_recipe(tmp_path), "--set", "data.sample_images=4")
    printed = capsys.readouterr().out
    assert "data     cifar10: the built-in SAMPLE, drawn by code" in printed
    note = "note     the sample is used (coloured objects drawn by code); for your own data: --set data.root=FOLDER"
    assert " ".join(note.split()) in " ".join(printed.split())
    assert printed.count("drawn by code") == 2


def test_a_root_that_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tiny.write_recipe(tmp_path, text=FOLDERS)
    checked(recipe, "--set", f"data.root={tmp_path / 'nope'}", code=EXIT_DATA)
    printed = capsys.readouterr().err
    assert f"error: {tmp_path / 'nope'}: does not exist" in printed
    assert "\nnext:  " in printed


def test_no_root_and_no_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checked(tiny.write_recipe(tmp_path, text=FOLDERS), code=EXIT_DATA)
    assert "has no built-in sample" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_is_no_regular_file_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tiny.write_images(tmp_path / "images")
    odd = root / "train" / "blue" / "odd.png"
    if kind == "pipe":
        os.mkfifo(odd)
    elif kind == "device":
        odd.symlink_to("/dev/zero")
    else:
        monkeypatch.chdir(odd.parent)  # the address of a socket is short
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(odd.name)
    checked(tiny.write_recipe(tmp_path, root, text=FOLDERS), code=EXIT_DATA)
    printed = capsys.readouterr().err
    assert f"{odd.name}: expected a regular file, got a {'FIFO' if kind == 'pipe' else kind}" in printed
    assert "next:  Move it out of the folder of the data." in printed


def test_files_that_were_skipped_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny.write_images(tmp_path / "images")
    (root / "train" / "blue" / "notes.txt").write_text("x")
    checked(tiny.write_recipe(tmp_path, root, text=FOLDERS))
    assert "note     train/blue/notes.txt: skipped: not an image" in capsys.readouterr().out


def test_a_damaged_first_item(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tiny.write_images(tmp_path / "images")
    damaged = root / "test" / "blue" / "00.png"
    damaged.write_bytes(b"no picture")
    recipe = tiny.write_recipe(tmp_path, root, text=FOLDERS)
    checked(recipe, code=EXIT_DATA)
    assert f"{damaged}: cannot be decoded" in capsys.readouterr().err
    checked(recipe, "--set", "input.on_corrupt=skip")
    printed = " ".join(capsys.readouterr().out.split())
    assert "note test: skipped 1 damaged item: " in printed
    assert "decoded test: test/blue/01.png, 32 x 32 px" in printed


def test_pixels_that_fit_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tiny.write_recipe(tmp_path, tiny.write_images(tmp_path / "images"))
    checked(recipe, "--set", "input.memory_gb=0", "--set", "input.cache_gb=0")
    assert "more than memory and cache take: decoded in every epoch" in " ".join(capsys.readouterr().out.split())
    checked(recipe, "--set", "input.memory_gb=0")
    assert "pixels   train: 72 KiB, kept in the cache on disk (72 KiB new)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "clip", "size", "problem"),
    [
        ("slowfast_r50", "clip = {frames = 30, rate = 1}", 32, "takes a multiple of 4 frames, got 30"),
        ("mvit_b", "clip = {frames = 16, rate = 1}", 90, "takes a multiple of 4 px, got 90"),
    ],
)
def test_what_a_model_refuses_of_this_size(
    model: str, clip: str, size: int, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, _, value = clip.partition(" = ")
    text = VIDEO.format(model=model, clip="", size=size).replace("[input]", f"{_table(table, value)}\n[input]")
    checked(tiny.write_recipe(tmp_path, text=text), code=EXIT_USAGE)
    assert problem in capsys.readouterr().err


def _table(name: str, value: str) -> str:
    return "\n".join([f"[{name}]", *value.strip("{}").split(", ")])


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("train.metric=acuracy", 'no metric of this recipe computes "acuracy"'),
        ("train.optimizer.parts.neck.lr_scale=2", "train.optimizer.parts.neck: no such part"),
        ("train.batch=1", ": a step trains on one item at a time, which the model refuses"),
        ("train.accumulate=8", "train.batch: a step trains on one item at a time, which the model refuses"),
        ("task.name=multi_label", "takes a set of classes an item"),
        ("train.optimizer.momentum=-1", "train.optimizer: "),
    ],
)
def test_what_a_run_would_refuse(
    override: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny.write_recipe(tmp_path, text=NARROW)
    checked(recipe, "--set", "data.sample_images=4", "--set", override, code=EXIT_USAGE)
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("train.compile=true", 'train.compile=true: cannot be combined with train.strategy = "fsdp"'),
        ("train.precision=fp16", 'train.precision=fp16: fp16 cannot be combined with train.strategy = "fsdp"'),
    ],
)
def test_what_divided_weights_do_not_go_with(
    override: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny.write_recipe(tmp_path, text=NARROW)
    sets = ("data.sample_images=4", "train.strategy=fsdp", override)
    checked(recipe, *(word for one in sets for word in ("--set", one)), code=EXIT_USAGE)
    assert problem in capsys.readouterr().err


def test_shares_that_leave_nothing_to_train_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tiny.write_recipe(tmp_path, tiny.write_images(tmp_path / "images"), text=FOLDERS)
    sets = ("--set", "data.valid_share=0.5", "--set", "data.test_share=0.5")
    checked(recipe, *sets, code=EXIT_USAGE)
    assert "valid_share + test_share must be below 1" in capsys.readouterr().err


def test_a_study_that_asks_for_an_unknown_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tune = '[tune]\ntrials = 2\nmetric = "acuracy"\ndirection = "maximize"\n[tune.space]\ntrain.batch = [4, 8]\n'
    recipe = tiny.write_recipe(tmp_path, text=tiny.RECIPE + tune.replace("[4, 8]", "{choices = [4, 8]}"))
    checked(recipe, "--set", "data.sample_images=4", code=EXIT_USAGE)
    printed = capsys.readouterr().err
    assert 'tune.metric: no metric of this recipe computes "acuracy"' in printed
    assert 'did you mean "accuracy"?' in printed


def test_several_problems_are_reported_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = ("train.metric=acuracy", "train.optimizer.parts.neck.lr_scale=2", "train.batch=1")
    words = [word for override in sets for word in ("--set", override)]
    recipe = tiny.write_recipe(tmp_path, text=NARROW)
    checked(recipe, *words, "--set", "data.sample_images=4", code=EXIT_USAGE)
    assert capsys.readouterr().err.count("error: ") == 3


def test_the_recipe_alone_needs_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tiny.write_recipe(tmp_path, text=FOLDERS)
    checked(recipe, "--recipe-only")
    command = f"python -m toolkit run {recipe}"
    assert capsys.readouterr().out == f"{recipe}: valid\nnext:  {command}\n"
