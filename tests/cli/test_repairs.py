"""Next steps as whole commands."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.plugins.data_files import write_image
from toolkit.api.errors import DataError, setting
from toolkit.cli.main import main, parser
from toolkit.cli.repairs import completed

WORDS = ("run", "x.toml", "--set", "data.root=a", "--set", "train.epochs=1")

STEPS = {
    setting("data.root", "a b/c"): "python -m toolkit run x.toml --set train.epochs=1 --set 'data.root=a b/c'",
    "skip such files with: --set input.on_corrupt=skip": (
        "skip such files with: python -m toolkit run x.toml --set data.root=a --set train.epochs=1 "
        "--set input.on_corrupt=skip"
    ),
    "--set train.epochs=2 --set data.root=b": ("python -m toolkit run x.toml --set train.epochs=2 --set data.root=b"),
    "raise the limit with: --set input.corrupt_limit=SHARE": None,
    "use --set train.device=auto, or install a driver": None,
    "--set data.root='": None,
    "python -m toolkit plugins list": None,
    "give a number of items: --set train.batch=...": None,
    "use other seeds: --seeds 4": (
        "use other seeds: python -m toolkit run x.toml --set data.root=a --set train.epochs=1 --seeds 4"
    ),
    "export under another name with: --name NAME": None,
    "save to a new folder: --save out-2": None,
}


@pytest.mark.parametrize("step", STEPS)
def test_a_setting_becomes_the_whole_command(step: str) -> None:
    assert completed(step, WORDS, parser()) == (STEPS[step] or step)


@pytest.mark.parametrize("given", [("--save", "out"), ("--save=out",), ()])
def test_a_flag_becomes_the_whole_command(given: tuple[str, ...]) -> None:
    words = ("predict", "exports/tiny", *given, "a b.png")
    whole = "python -m toolkit predict exports/tiny 'a b.png' --save out-2"
    assert completed("save to a new folder: --save out-2", words, parser()) == f"save to a new folder: {whole}"
    assert completed("--save out-2", words, parser()) == whole


def test_flags_go_before_words_that_are_none() -> None:
    words = ("predict", "exports/tiny", "--save", "out", "--", "-odd.png")
    whole = "python -m toolkit predict exports/tiny --save out-2 -- -odd.png"
    assert completed("--save out-2", words, parser()) == whole


def test_a_command_without_settings_keeps_the_step() -> None:
    assert completed("--set data.root=b", ("plugins", "list"), parser()) == "--set data.root=b"


@pytest.mark.parametrize("words", [("run", "x", "--ranks", "2"), ("run", "x", "--ranks=2")])
def test_a_command_that_resumes_has_as_many_ranks(words: tuple[str, ...]) -> None:
    resume = "free disk space, then: python -m toolkit run --resume runs/x/1"
    assert completed(resume, words, parser()) == f"{resume} --ranks 2"
    assert completed(resume, ("run", "x"), parser()) == resume
    assert completed("python -m toolkit run x", words, parser()) == "python -m toolkit run x"


def test_the_command_works_as_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inner = tmp_path / "a b" / "photos"
    for number in range(24):
        write_image(inner / ("cat", "dog")[number % 2] / f"{number}.png", number)
    words = ["check", "har_resnet50", "--set", f"data.root={tmp_path}", "--set", "model.weights=none"]
    assert main(words) == DataError.exit_code
    step = capsys.readouterr().err.splitlines()[-1].rpartition(": ")[2]
    assert main(shlex.split(step)[3:]) == 0
