"""The shipped recipes on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.cli.main import main
from toolkit.recipe.read import load
from toolkit.recipe.shipped import shipped


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


NEXT = "next:  python -m toolkit run"


def test_the_list_has_a_line_for_each_and_says_how_to_run_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    *listed, last = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=1)[0] for line in listed] == list(shipped())
    assert last == "next:  python -m toolkit run NAME, or to change one: python -m toolkit recipes NAME > my.toml"


@pytest.mark.parametrize("name", ["cifar10_cnn", "cifar10_cnn.toml"])
def test_one_is_printed_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", name]) == 0
    assert capsys.readouterr().out == shipped()["cifar10_cnn"].read_text(encoding="utf-8")


def test_an_unknown_one_is_an_error_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "cifar_cnn"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        'error: no shipped recipe "cifar_cnn"; did you mean "cifar10_cnn"?',
        "next:  python -m toolkit recipes",
    ]


def test_a_misspelt_name_of_a_recipe_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "cifar10_cn"]) == 2
    assert 'did you mean "cifar10_cnn"?' in capsys.readouterr().err


def test_the_file_that_is_used_is_shown_and_the_one_that_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    own = Path("cifar10_cnn.toml")
    assert main(["check", "cifar10_cnn", "--recipe-only"]) == 0
    used = f"recipe cifar10_cnn (shipped with the toolkit): {shipped()['cifar10_cnn']}"
    assert capsys.readouterr() == (f"{used}\ncifar10_cnn: valid\n{NEXT} cifar10_cnn\n", "")
    own.write_text(shipped()["cifar10_cnn"].read_text(encoding="utf-8"), encoding="utf-8")
    assert main(["check", "cifar10_cnn", "--recipe-only"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == used
    assert printed.err == f"note: {own} in this folder is not used; to use it, write its suffix: {own}\n"
    assert main(["check", "cifar10_cnn.toml", "--recipe-only"]) == 0
    assert capsys.readouterr() == (f"cifar10_cnn.toml: valid\n{NEXT} cifar10_cnn.toml\n", "")


def test_a_run_by_name_records_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["data.sample_images=10", "train.epochs=1", "model.widths=[4,4]"]
    assert main(["run", "cifar10_cnn_demo", *(word for pair in small for word in ("--set", pair))]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"recipe cifar10_cnn_demo (shipped with the toolkit): {shipped()['cifar10_cnn_demo']}\n")
    (run,) = Path("runs/cifar10_cnn_demo").glob("[0-9]*")
    recorded = load(run / "recipe.toml")
    assert (recorded.model.name, recorded.train.epochs) == ("cnn", 1)
