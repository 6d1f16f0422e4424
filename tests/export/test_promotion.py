"""A run takes the place of the one in use only where its export passes the gate and it is not worse."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tests import tiny
from tests.export.models import other_mean
from toolkit.api.errors import EXIT_DONE, EXIT_PARITY, EXIT_USAGE, EXIT_WORSE
from toolkit.cli.main import main
from toolkit.export import write
from toolkit.runs.compare.comparison import Comparison
from toolkit_trackers.mlflow import RUN_DIRECTORY, MLflow, _connect
from toolkit_trackers.tensorboard import TensorBoard


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained without a tracker, and its exported bundle."""
    folder = tmp_path_factory.mktemp("promoted")
    recipe = tiny.write_recipe(folder, tiny.write_images(folder / "images"))
    assert tiny.run(recipe, folder / "runs", "train.epochs=1") == EXIT_DONE
    run = tiny.only_run(folder / "runs")
    assert main(["predict", str(run), str(folder / "images/test/red")]) == EXIT_DONE
    return run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "tiny"


def copied(trained: Path, runs: Path, name: str) -> Path:
    """The run under another name: MLflow's database lies next to the runs."""
    return Path(shutil.copytree(trained, runs / name))


@pytest.fixture
def first(trained: Path, runs: Path) -> Path:
    return copied(trained, runs, "first")


@pytest.fixture
def second(trained: Path, runs: Path) -> Path:
    return copied(trained, runs, "second")


def promote(run: Path, *words: str) -> int:
    return main(["promote", str(run), *words, "--set", 'trackers=["mlflow"]'])


def client(runs: Path) -> MlflowClient:
    return _connect(f"sqlite:///{runs.parent / 'mlflow.db'}")


def holder(runs: Path, alias: str = "champion", name: str = "tiny") -> tuple[str, str]:
    """The number of the version that has the alias, and its run."""
    found = client(runs).get_model_version_by_alias(name, alias)
    return str(found.version), str(found.tags.get(RUN_DIRECTORY))


def test_the_first_run_has_nothing_to_be_compared_with_and_its_bundle_is_kept(first, runs, capsys) -> None:
    assert promote(first) == EXIT_DONE
    said = capsys.readouterr()
    assert "note: no version of tiny is champion yet: there is nothing to compare with" in said.out + said.err
    assert f"champion: version 1 of tiny in sqlite:///{runs.parent / 'mlflow.db'}" in said.out
    assert holder(runs) == ("1", str(first))
    (kept,) = (first / "bundles").glob("*-*")
    registry = client(runs)
    made = registry.get_model_version("tiny", "1")
    listed = {Path(one.path).name for one in registry.list_artifacts(made.run_id, kept.name)}
    assert {path.name for path in kept.iterdir()} == listed


def test_a_run_that_is_no_worse_takes_the_place_of_the_one_before(first, second, runs, capsys) -> None:
    assert promote(first) == EXIT_DONE
    assert promote(first) == EXIT_DONE
    assert f"{first} is champion already" in capsys.readouterr().out
    assert promote(second) == EXIT_DONE
    assert "champion: version 2 of tiny" in capsys.readouterr().out
    assert holder(runs) == ("2", str(second))
    assert promote(first, "--alias", "staging", "--name", "other") == EXIT_DONE
    assert holder(runs, "staging", "other") == ("1", str(first))


def test_a_run_that_is_worse_changes_nothing(first, second, runs, capsys, monkeypatch) -> None:
    assert promote(first) == EXIT_DONE
    monkeypatch.setattr(Comparison, "worse", lambda self, metric: [f"second: {metric} 10 % where first has 90 %"])
    assert promote(second, "--metric", "accuracy") == EXIT_WORSE
    assert "not promoted: second: accuracy 10 % where first has 90 %" in capsys.readouterr().err
    assert holder(runs) == ("1", str(first))


def test_a_run_whose_export_differs_changes_nothing(first, second, runs, capsys, monkeypatch) -> None:
    assert promote(first) == EXIT_DONE
    shutil.rmtree(second / "bundles")
    exported = write.to_onnx
    monkeypatch.setattr(write, "to_onnx", lambda *given: other_mean(exported(*given)))
    assert promote(second) == EXIT_PARITY
    assert holder(runs) == ("1", str(first))


def test_without_a_registry_the_next_step_names_one(first, capsys) -> None:
    assert main(["promote", str(first)]) == EXIT_USAGE
    said = capsys.readouterr().err
    assert f"error: {first / 'recipe.toml'}: no tracker of this recipe keeps a registry of models" in said
    step = said.splitlines()[-1].removeprefix("next:  name one that does: python -m toolkit ")
    assert main(shlex.split(step)) == EXIT_DONE


@pytest.mark.parametrize(
    ("trackers", "code"), [('["mlflow", "tensorboard"]', EXIT_DONE), ('["tensorboard"]', EXIT_USAGE)]
)
def test_every_tracker_is_closed(first, monkeypatch, trackers: str, code: int) -> None:
    closed = set()
    for kind in (MLflow, TensorBoard):
        monkeypatch.setattr(kind, "close", lambda self: closed.add(type(self).__name__.lower()))
    assert main(["promote", str(first), "--set", f"trackers={trackers}"]) == code
    assert closed == set(json.loads(trackers))


def test_a_version_that_cannot_be_compared_with_is_named(first, second, runs, capsys) -> None:
    registry = client(runs)
    registry.create_registered_model("tiny")
    made = registry.create_model_version("tiny", "file:///elsewhere")
    registry.set_registered_model_alias("tiny", "champion", made.version)
    assert promote(second) == EXIT_USAGE
    said = capsys.readouterr().err
    assert "error: tiny: the version with the alias champion cannot be compared with: it came from elsewhere" in said
    assert f"next:  name the run to compare with: python -m toolkit promote {second} --against RUN" in said
    assert promote(second, "--against", str(first)) == EXIT_DONE
    shutil.rmtree(second)
    assert promote(first) == EXIT_USAGE
    assert f"cannot be compared with: run directory not found: {second}" in capsys.readouterr().err
