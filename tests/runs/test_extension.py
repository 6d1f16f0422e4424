"""More epochs than a run asked for: the longer run itself where its schedule allows it, else a next step that works."""

from __future__ import annotations

import json
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.runs.test_resume import outcome
from toolkit.cli.main import main
from toolkit.training.checkpoint import BestCheckpoint, LastCheckpoint

CONSTANT = tiny.RECIPE.replace("batch = 8", "batch = 8\nema = 0.9").replace("one_cycle", "constant")
SCHEDULES = {
    "step": "every = 1\ngamma = 0.5",
    "plateau": "patience = 1",
    "constant, warmed up": "warmup_epochs = 2.5",
}


@pytest.fixture(scope="module", autouse=True)
def _plain() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toolkit.runs.session.draw_pictures", lambda *arguments: {})
        patch.setattr("toolkit.runs.evaluation.write_report", lambda path: path / "report.html")
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """A finished run of 2 epochs at a constant rate, for copies."""
    folder = tmp_path_factory.mktemp("made")
    return trained(recipe_of(folder, images), folder / "runs")


@pytest.fixture(scope="module")
def longest(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """The same run of 4 epochs, for looking only."""
    folder = tmp_path_factory.mktemp("longest")
    return trained(recipe_of(folder, images), folder / "runs", "train.epochs=4")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A finished run of 2 epochs, for extending."""
    return shutil.copytree(made, tmp_path / "my runs" / "tiny" / made.name)


def recipe_of(folder: Path, images: Path, schedule: str = "constant", arguments: str = "") -> Path:
    text = CONSTANT.replace('name = "constant"', f'name = "{schedule.partition(",")[0]}"\n{arguments}')
    return tiny.write_recipe(folder, images, text=text)


def trained(recipe: Path, runs: Path, *overrides: str) -> Path:
    assert tiny.run(recipe, runs, *overrides) == 0
    return tiny.only_run(runs)


def computed(run: Path) -> dict[str, Any]:
    """All that the run has computed, without the note of its extension."""
    found = outcome(run)
    for name in ("last.pt", "best.pt"):
        found[name]["origin"] = {**found[name]["origin"], "notes": []}
    return found


def refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> tuple[str, list[str]]:
    """The message, and the words after `run` of the command that is the next step."""
    capsys.readouterr()
    assert main(words) == 2
    message, next_step = capsys.readouterr().err.splitlines()
    return message, shlex.split(next_step)[5:]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_with_any_schedule_that_allows_it_an_extended_run_is_the_longer_run_bit_for_bit(
    tmp_path: Path, images: Path, schedule: str
) -> None:
    recipe = recipe_of(tmp_path, images, schedule, SCHEDULES[schedule])
    run = trained(recipe, tmp_path / "runs")
    assert main(["run", "--resume", str(run), "--extend", "4"]) == 0
    assert computed(run) == computed(trained(recipe, tmp_path / "longer", "train.epochs=4"))


def test_an_extended_run_is_the_longer_run_bit_for_bit(run: Path, longest: Path) -> None:
    assert main(["run", "--resume", str(run), "--extend", "4"]) == 0
    assert computed(run) == computed(longest)
    assert (run / "recipe.toml").read_text() == (longest / "recipe.toml").read_text()
    ours, theirs = (json.loads((one / "facts.json").read_text()) for one in (run, longest))
    assert ours["epochs"] == theirs["epochs"] == 4
    assert [note for note in ours["notes"] if note not in theirs["notes"]] == ["extended from 2 to 4 epochs at epoch 2"]
    assert main(["run", "--resume", str(run)]) == 0, "it resumes as any other run"
    assert computed(run) == computed(longest)


def test_a_run_that_was_stopped_within_an_epoch_is_extended(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(tmp_path, images)
    with monkeypatch.context() as patch:
        from tests.runs.test_resume import signalling
        from toolkit.training.fit import StepDone

        patch.setattr("toolkit.runs.loop.fit", signalling(StepDone, 4, 15))
        assert tiny.run(recipe, tmp_path / "runs") == 75
    run = tiny.only_run(tmp_path / "runs")
    assert main(["run", "--resume", str(run), "--extend", "3"]) == 0
    assert "extended from 2 to 3 epochs at epoch 1, step 1" in json.loads((run / "facts.json").read_text())["notes"]
    assert computed(run) == computed(trained(recipe, tmp_path / "longer", "train.epochs=3"))


def test_more_epochs_by_set_lead_to_the_command_that_extends(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message, words = refused(
        capsys, ["run", "--resume", str(run), "--set", "train.epochs=3", "--set", "train.threads=1"]
    )
    assert message == "error: train.epochs: a run is extended by --extend, which also records it"
    assert words == ["--resume", str(run), "--extend", "3", "--set", "train.threads=1"]
    assert main(["run", *words]) == 0
    assert LastCheckpoint.load(run / "last.pt").state["epoch"] == 3


def test_last_epochs_at_another_size_are_not_extended(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(recipe_of(tmp_path, images), tmp_path / "runs", "train.fixres={size=24}")
    said = "training at 24 px; in the last 1 epoch at 32 px, only the head and 1 layer trained (train.fixres)"
    assert said in json.loads((run / "facts.json").read_text())["notes"]
    assert said in " ".join(capsys.readouterr().out.split())
    message, words = refused(capsys, ["run", "--resume", str(run), "--extend", "4"])
    assert message == (
        f"error: {run}: cannot be extended from 2 to 4 epochs: train.fixres has trained the last epochs at another size"
    )
    assert f"model.weights={run}" in words


@pytest.mark.parametrize("asked", [["--extend", "4"], ["--set", "train.epochs=4"]])
def test_a_schedule_over_all_epochs_is_not_extended_and_the_next_step_trains_anyway(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model takes no weights, so a new run starts from the beginning, under the name of the old one."""
    text = tiny.WITHOUT_WEIGHTS.replace("one_cycle", "cosine")
    run = trained(tiny.write_recipe(tmp_path, images, text=text), tmp_path / "runs")
    before = outcome(run)
    message, words = refused(capsys, ["run", "--resume", str(run), *asked])
    assert message == (
        f'error: {run}: cannot be extended from 2 to 4 epochs: "cosine" sets learning rates by the number of epochs: '
        "at step 2 the factor was 0.933013 instead of 0.982963"
    )
    assert words == [str(run / "recipe.toml"), "--set", "train.epochs=4"]
    assert outcome(run) == before, "a refused extension changes nothing"
    monkeypatch.chdir(tmp_path)
    assert main(["run", *words, "--runs", "others"]) == 0
    assert len(list((tmp_path / "others" / "tiny").iterdir())) == 1


def test_a_run_that_ended_early_is_not_extended(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(recipe_of(tmp_path, images), tmp_path / "runs", "train.patience=1", "train.epochs=5")
    behind = LastCheckpoint.load(run / "last.pt").state["epoch"]
    assert behind < 5
    message, words = refused(capsys, ["run", "--resume", str(run), "--extend", "9"])
    assert f"it stopped early at epoch {behind}, after 1 epoch without a better loss (train.patience)" in message
    assert words[1:] == [
        "--set",
        f"model.weights={run}",
        "--set",
        f"train.epochs={9 - behind}",
        "--set",
        "train.patience=2",
    ]


@pytest.mark.parametrize("epochs", ["1", "2"])
def test_a_run_that_has_as_many_epochs_is_not_extended(
    run: Path, capsys: pytest.CaptureFixture[str], epochs: str
) -> None:
    message, words = refused(capsys, ["run", "--resume", str(run), "--extend", epochs])
    assert message == f"error: --extend {epochs}: this run trains to epoch 2 already"
    assert main(["run", *words]) == 0


def test_extending_needs_a_run(tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = recipe_of(tmp_path, images)
    message, words = refused(capsys, ["run", str(recipe), "--extend", "3"])
    assert message == "error: run: --extend needs --resume RUN"
    assert main(["run", *words, "--runs", str(tmp_path / "runs")]) == 0


def test_another_recipe_is_not_extended(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message, _ = refused(capsys, ["run", "--resume", str(run), "--extend", "3", "--set", "train.batch=4"])
    assert "belongs to another recipe" in message


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("file", ["best.pt", "last.pt", "recipe.toml"])
def test_death_while_the_extension_is_recorded_costs_nothing(
    run: Path, longest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    with monkeypatch.context() as patch:
        replaced = Path.replace

        def replace(path: Path, target: Path) -> Path:
            if Path(target).name == file:
                raise Killed
            return replaced(path, target)

        patch.setattr(Path, "replace", replace)
        with pytest.raises(Killed):
            main(["run", "--resume", str(run), "--extend", "4"])
    if file == "recipe.toml":  # the checkpoints are longer than the recipe says
        assert tomllib.loads((run / "recipe.toml").read_text())["train"]["epochs"] == 2
        message, words = refused(capsys, ["run", "--resume", str(run)])
        assert message == f"error: {run}: its extension to 4 epochs was cut short"
    else:
        words = ["--resume", str(run), "--extend", "4"]
    assert main(["run", *words]) == 0
    assert computed(run) == computed(longest)
    assert BestCheckpoint.load(run / "best.pt").origin.notes == ["extended from 2 to 4 epochs at epoch 2"]
