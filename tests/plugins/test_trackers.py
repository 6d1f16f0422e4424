"""Trackers: what they write is read back with the readers of TensorBoard, MLflow and W&B themselves."""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from PIL import Image

from tests.tiny import RECIPE as RECIPE_OF_RUNS
from tests.tiny import write_images, write_recipe
from tests.tune.test_trial import worker
from toolkit.api.contracts import EpochRecord, RunFinished, RunStarted, Tracker
from toolkit.api.errors import RunFailed, Stopped, UsageError
from toolkit.tune.scoring import Scoring
from toolkit_trackers import toolkit_trackers
from toolkit_trackers.mlflow import mlflow
from toolkit_trackers.tensorboard import tensorboard
from toolkit_trackers.values import epoch_scalars, final_scalars, flat, hyperparameters
from toolkit_trackers.wandb import wandb

RECIPE: dict[str, Any] = {
    "name": "mine",
    "train": {"optimizer": {"name": "SGD", "lr": 0.1, "nesterov": True}, "clip": None},
    "augment": [{"name": "crop", "scale": [0.5, 1.0]}, {"name": "flip"}],
    "metrics": ["accuracy", "f1"],
}
STARTED = RunStarted(RECIPE, {"recipe": "mine", "device": "cpu", "sample": True, "classes": ["a", "b"]})


def epoch(number: int, loss: float) -> EpochRecord:
    return EpochRecord(
        epoch=number,
        step=10 * number,
        train_loss=loss,
        valid={"loss": loss, "accuracy": 0.25 * number, "auc": math.nan},
        lr={"backbone": 0.01, "head": 0.1},
        seconds=3.0,
        valid_seconds=1.0,
        waiting=0.1,
        best=True,
        sample=True,
    )


def finished(run: Path) -> RunFinished:
    return RunFinished({"valid": {}, "test": {"accuracy": 0.75, "recall_per_class": [1, 0.5], "auc": None}}, run)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "runs" / "mine" / "2026-11-22"
    (run / "figures").mkdir(parents=True)
    Image.new("RGB", (8, 6), "red").save(run / "figures" / "loss.png")
    (run / "report.html").write_text("<!doctype html>", encoding="utf-8")
    return run


def drive(tracker: Tracker, *records: RunStarted | EpochRecord | RunFinished) -> None:
    for record in records:
        tracker.track(record)
    tracker.close()


def test_every_tracker_offered_exists() -> None:
    for place in toolkit_trackers().values():
        module, name = place.split(":")
        assert callable(getattr(sys.modules[module], name))


def test_a_recipe_becomes_flat_names_and_plain_values() -> None:
    assert flat(RECIPE) == {
        "name": "mine",
        "train.optimizer.name": "SGD",
        "train.optimizer.lr": 0.1,
        "train.optimizer.nesterov": True,
        "augment.0.name": "crop",
        "augment.0.scale": "[0.5, 1.0]",
        "augment.1.name": "flip",
        "metrics": '["accuracy", "f1"]',
    }


def test_hyperparameters_are_what_training_uses() -> None:
    recipe = {
        "seed": 1,
        "data": {"name": "har"},
        "model": {"name": "cnn"},
        "task": {"name": "classification"},
        **RECIPE,
    }
    others = {"export": {"precision": "fp32"}, "tune": {"trials": 3}, "trackers": [{"name": "mlflow"}]}
    found = hyperparameters(recipe | others)
    tables = {name.partition(".")[0] for name in found}
    assert tables == {"seed", "data", "model", "task", "name", "train", "augment"}


def test_scalars_are_finite_numbers_only(run: Path) -> None:
    assert epoch_scalars(epoch(1, 0.5)) == {
        "train/loss": 0.5,
        "valid/loss": 0.5,
        "valid/accuracy": 0.25,
        "lr/backbone": 0.01,
        "lr/head": 0.1,
        "time/seconds": 3.0,
        "time/valid_seconds": 1.0,
        "time/waiting": 0.1,
    }
    assert final_scalars(finished(run)) == {"best/test/accuracy": 0.75}


def events(run: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()


def scalars(run: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(run).Scalars(name)]


def test_tensorboard_holds_the_scalars_recipe_and_figures_of_a_run(run: Path) -> None:
    drive(tensorboard(run), STARTED, epoch(1, 2.0), epoch(2, 1.0), finished(run))
    assert scalars(run, "train/loss") == [(1, 2.0), (2, 1.0)]
    assert scalars(run, "valid/accuracy") == [(1, 0.25), (2, 0.5)]
    assert [value for _, value in scalars(run, "best/test/accuracy")] == [0.75]
    tags = events(run).Tags()
    assert tags["images"] == ["figures/loss"]
    assert "valid/auc" not in tags["scalars"]
    texts = {name: events(run).Tensors(f"{name}/text_summary")[0].tensor_proto for name in ("recipe", "notice")}
    assert b'"nesterov": true' in texts["recipe"].string_val[0]
    assert b"SAMPLE DATA" in texts["notice"].string_val[0]


def test_tensorboard_keeps_hyperparameters_in_the_same_run(run: Path) -> None:
    drive(tensorboard(run), STARTED, epoch(1, 2.0), finished(run))
    assert events(run).summary_metadata["_hparams_/session_start_info"]
    assert not [path for path in (run / "tensorboard").iterdir() if path.is_dir()]


def test_tensorboard_forgets_epochs_that_a_resumed_run_repeats(run: Path) -> None:
    drive(tensorboard(run), STARTED, epoch(1, 3.0), epoch(2, 2.0), epoch(3, 9.0))
    drive(tensorboard(run), STARTED, epoch(3, 1.5), epoch(4, 1.0))
    assert scalars(run, "train/loss") == [(1, 3.0), (2, 2.0), (3, 1.5), (4, 1.0)]


def test_closing_a_tracker_that_saw_nothing_writes_nothing(run: Path) -> None:
    before = sorted(run.rglob("*"))
    tensorboard(run).close()
    mlflow(run).close()
    wandb(run).close()
    assert sorted(run.rglob("*")) == before
    assert not (run.parents[1] / "mlflow.db").exists()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests of this module: MLflow takes seconds to make one."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def client(store: str) -> Iterator[Any]:
    from toolkit_trackers.mlflow import _connect

    return _connect(store)


def run_id(run: Path) -> str:
    found: str = json.loads((run / "mlflow.json").read_text(encoding="utf-8"))["run_id"]
    return found


def history(client: Any, run: Path, name: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client.get_metric_history(run_id(run), name)]


def test_mlflow_holds_the_parameters_scores_and_artifacts_of_a_run(run: Path, store: str, client: Any) -> None:
    drive(mlflow(run, tracking_uri=store), STARTED, epoch(1, 2.0), epoch(2, 1.0), finished(run))
    found = client.get_run(run_id(run))
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "2026-11-22"
    assert client.get_experiment(found.info.experiment_id).name == "mine"
    assert found.data.params["train.optimizer.lr"] == "0.1"
    assert found.data.tags["device"] == "cpu"
    assert "SAMPLE DATA" in found.data.tags["mlflow.note.content"]
    assert found.data.metrics["best/test/accuracy"] == 0.75
    assert history(client, run, "train/loss") == [(1, 2.0), (2, 1.0)]
    assert {item.path for item in client.list_artifacts(run_id(run))} == {"figures", "report.html"}
    kept = Path(client.download_artifacts(run_id(run), "report.html"))
    assert kept.read_text(encoding="utf-8") == "<!doctype html>"
    artifacts = Path(store.removeprefix("sqlite:///")).parent / "mlartifacts"
    assert found.info.artifact_uri.startswith(artifacts.as_uri())


def test_mlflow_goes_on_in_the_same_run_when_resumed(run: Path, store: str, client: Any) -> None:
    drive(mlflow(run, tracking_uri=store, experiment="other"), STARTED, epoch(1, 3.0), epoch(2, 2.0))
    first = run_id(run)
    assert client.get_run(first).info.status == "KILLED"
    drive(mlflow(run, tracking_uri=store), STARTED, epoch(2, 2.0), epoch(3, 1.0), finished(run))
    assert run_id(run) == first
    assert client.get_run(first).info.status == "FINISHED"
    assert history(client, run, "train/loss") == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_mlflow_takes_recipes_of_many_and_long_values(run: Path, store: str, client: Any) -> None:
    recipe = {**{f"key {number}": number for number in range(250)}, "a,b": "x" * 9000}
    drive(mlflow(run, tracking_uri=store), RunStarted(recipe, {}))
    found = client.get_run(run_id(run)).data.params
    assert len(found) == 251
    assert len(found["a_b"]) == 6000


def end_by(error: Exception, tracker: Tracker) -> None:
    """As a run does that an error ends after it has started."""
    with closing(tracker):
        tracker.track(STARTED)
        raise error


def test_mlflow_calls_a_run_failed_that_an_error_ends(run: Path, store: str, client: Any) -> None:
    tracker = mlflow(run, tracking_uri=store)
    with pytest.raises(RunFailed):
        end_by(RunFailed("the loss is not finite"), tracker)
    tracker.close()
    assert client.get_run(run_id(run)).info.status == "FAILED"


def test_mlflow_calls_a_stopped_run_killed(run: Path, store: str, client: Any) -> None:
    with pytest.raises(Stopped):
        end_by(Stopped("stopped by a signal", exit_code=75, next_step="again"), mlflow(run, tracking_uri=store))
    assert client.get_run(run_id(run)).info.status == "KILLED"


def test_mlflow_experiment_that_another_process_makes_meanwhile_is_taken(
    run: Path, store: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    get, answers = type(client).get_experiment_by_name, iter([None])
    monkeypatch.setattr(type(client), "get_experiment_by_name", lambda self, name: next(answers, get(self, name)))
    made = client.create_experiment("theirs")
    drive(mlflow(run, tracking_uri=store, experiment="theirs"), STARTED)
    assert client.get_run(run_id(run)).info.experiment_id == made


STARTING = """
import pathlib, sys
from tests.plugins.test_trackers import STARTED
from toolkit_trackers.mlflow import mlflow
import mlflow.store.tracking.sqlalchemy_store as loaded
tracker = mlflow(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
tracker.track(STARTED)
"""


@pytest.mark.long  # processes of their own load MLflow
def test_workers_that_begin_at_once_make_one_database(run: Path) -> None:
    """MLflow's own tables, made by two at once, would be left half made for ever."""
    trials = [run.parent / f"trial-{number:04}" for number in range(3)]
    processes = []
    for trial in trials:
        trial.mkdir()
        words = [sys.executable, "-W", "ignore", "-c", STARTING, str(trial)]
        processes.append(
            subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    for process in processes:
        assert process.stdout
        process.stdout.readline()
    for process in processes:
        assert process.stdin
        process.stdin.write("begin\n")
        process.stdin.flush()
    printed = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], printed
    assert len({run_id(trial) for trial in trials}) == 3


STUDY = """
[[trackers]]
name = "mlflow"

[[trackers]]
name = "tensorboard"

[tune]
trials = 5
seeds_per_trial = 2
sampler = {name = "random", seed = 1}

[tune.space]
train.optimizer.lr = {choices = [0.05, 0.02, 1e30, 0.04, 0.03]}
"""


class PrunesSecond(optuna.pruners.BasePruner):
    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return trial.number == 1


def test_trackers_hear_what_becomes_of_the_trials_of_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All in one database and one experiment; trials finished, pruned, failed by training and by their score."""
    from toolkit_trackers.mlflow import _connect

    path = write_recipe(tmp_path, write_images(tmp_path / "images"), text=RECIPE_OF_RUNS + STUDY)
    one = worker(path, tmp_path / "runs")
    one.study.pruner = PrunesSecond()
    for rate in (0.02, 1e30, 0.04):
        one.study.enqueue_trial({"train.optimizer.lr": rate})
    scores = Scoring.scores

    def failing(self: Scoring, record: EpochRecord) -> list[float]:
        if len(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))) == 0:
            raise RunFailed("the score is not finite")
        return scores(self, record)

    monkeypatch.setattr(Scoring, "scores", failing)
    planned = replace(one.planned, tune=one.planned.tune.model_copy(update={"max_failures": 2}))
    one = replace(one, scoring=replace(one.scoring, planned=planned))
    with pytest.raises(RunFailed, match="2 trials failed, the last with RunFailed: the score is not finite"):
        one.work()
    client = _connect(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (experiment,) = [one for one in client.search_experiments() if one.name != "Default"]
    assert experiment.name == "tiny"
    assert {found.info.run_name: found.info.status for found in client.search_runs([experiment.experiment_id])} == {
        "trial-0000": "FINISHED",
        "trial-0000/seed-1": "FINISHED",
        "trial-0001": "KILLED",
        "trial-0002": "FAILED",
        "trial-0003": "FAILED",
    }
    assert [path.name for path in tmp_path.rglob("mlflow.db")] == ["mlflow.db"]
    whole, pruned = (events(one.folder / f"trial-000{number}") for number in (0, 1))
    assert whole.summary_metadata["_hparams_/session_start_info"]
    assert "best/valid/loss" in whole.Tags()["scalars"]
    assert "best/valid/loss" not in pruned.Tags()["scalars"]


@pytest.mark.parametrize("made", [tensorboard, mlflow, wandb])
def test_a_run_may_be_finished_twice(run: Path, made: Any) -> None:
    """As a trial is by its study, and then by its report."""
    first = RunFinished({"valid": {"accuracy": 0.5}, "test": {}}, run)
    for records in ((STARTED, epoch(1, 2.0), first), (STARTED, finished(run))):
        drive(made(run), *records)


def test_mlflow_run_that_is_gone_is_an_error_that_says_what_to_delete(run: Path, store: str) -> None:
    (run / "mlflow.json").write_text('{"run_id": "0123"}', encoding="utf-8")
    with pytest.raises(UsageError, match="MLflow run 0123 is not in sqlite:///") as caught:
        mlflow(run, tracking_uri=store).track(STARTED)
    assert caught.value.next_step == f"delete {run / 'mlflow.json'} to log to a new MLflow run"


def test_mlflow_default_store_lies_next_to_the_runs(run: Path) -> None:
    tracker = mlflow(run)
    assert tracker.store == f"sqlite:///{run.resolve().parents[1] / 'mlflow.db'}"
    assert tracker.experiment == "mine"
    (run / "recipe.toml").touch()
    repeat = mlflow(run / "seed-1")
    assert (repeat.store, repeat.experiment) == (tracker.store, "mine")


@pytest.mark.parametrize("store", ["mlruns", "file:///somewhere/mlruns"])
def test_mlflow_refuses_folders(run: Path, store: str) -> None:
    with pytest.raises(
        ValueError, match='tracking_uri: MLflow 3 does not write to folders, expected "sqlite:///PATH", got'
    ):
        mlflow(run, tracking_uri=store)


def test_mlflow_telemetry_is_off_before_mlflow_is_imported(run: Path) -> None:
    code = (
        "import sys, pathlib; from toolkit_trackers.mlflow import mlflow\n"
        "assert 'mlflow.telemetry' not in sys.modules\n"
        "mlflow(pathlib.Path(sys.argv[1]))\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled; print(is_telemetry_disabled())"
    )
    plain = {name: value for name, value in os.environ.items() if name not in {"MLFLOW_DISABLE_TELEMETRY", "CI"}}
    shown = subprocess.run([sys.executable, "-c", code, run], capture_output=True, text=True, check=True, env=plain)
    assert shown.stdout.strip() == "True"


@pytest.mark.parametrize(("name", "factory"), [("tensorboard", tensorboard), ("mlflow", mlflow), ("wandb", wandb)])
def test_package_that_is_not_installed_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, name: str, factory: Any
) -> None:
    monkeypatch.setitem(sys.modules, {"tensorboard": "torch.utils.tensorboard"}.get(name, name), None)
    with pytest.raises(UsageError, match=f'the tracker "{name}" needs the package {name}') as caught:
        factory(run)
    assert caught.value.next_step == f'pip install "vision-toolkit[{name}]"'


def test_listing_the_trackers_imports_nothing_heavy() -> None:
    code = (
        "import sys, toolkit_trackers; print({'torch', 'numpy', 'mlflow', 'wandb', 'tensorboard'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


def wandb_records(run: Path) -> list[Any]:
    """All records of the offline files of a run, oldest file first: blocks of 32 KiB, as LevelDB's log has them."""
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # W&B's own process writes them
    found = []
    for path in sorted(run.glob("wandb/offline-run-*/run-*.wandb")):
        data, place, part = path.read_bytes(), 7, b""
        while place + 7 <= len(data):
            if (left := 32768 - place % 32768) < 7:
                place += left
                continue
            _, length, kind = struct.unpack("<IHB", data[place : place + 7])
            part += data[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):  # whole, or the last part
                found.append(Record.FromString(part))
                part = b""
    return found


def wandb_history(run: Path, name: str) -> list[tuple[int, float]]:
    """Epoch and value of each time that a score was logged."""
    rows = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in wandb_records(run)
        if record.WhichOneof("record_type") == "history"
    ]
    return [(row["_step"], row[name]) for row in rows if name in row]


def wandb_id(run: Path) -> str:
    found: str = json.loads((run / "wandb.json").read_text(encoding="utf-8"))["id"]
    return found


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.mark.usefixtures("offline")
def test_wandb_holds_the_parameters_scores_and_files_of_a_run(run: Path) -> None:
    drive(wandb(run), STARTED, epoch(1, 2.0), epoch(2, 1.0), finished(run))
    assert wandb_history(run, "train/loss") == [(1, 2.0), (2, 1.0)]
    assert wandb_history(run, "valid/accuracy") == [(1, 0.25), (2, 0.5)]
    assert wandb_history(run, "valid/auc") == []
    records = {record.WhichOneof("record_type"): record for record in wandb_records(run)}
    started = next(record.run for record in wandb_records(run) if record.WhichOneof("record_type") == "run")
    assert (started.run_id, started.project, started.display_name) == (wandb_id(run), "mine", "2026-11-22")
    assert "SAMPLE DATA" in started.notes
    config = {item.key: json.loads(item.value_json) for item in started.config.update}
    assert config["train.optimizer.lr"] == 0.1
    assert "metrics" not in config
    summaries = [item for record in wandb_records(run) for item in record.summary.update]
    assert [json.loads(item.value_json) for item in summaries if item.key == "best/test/accuracy"] == [0.75]
    assert records["exit"].exit.exit_code == 0
    kept = {path.name for path in run.glob("wandb/offline-run-*/files/**/*") if path.is_file()}
    assert "report.html" in kept
    assert any(name.startswith("loss_") for name in kept)


@pytest.mark.usefixtures("offline")
def test_wandb_continues_the_same_run_when_resumed(run: Path) -> None:
    drive(wandb(run, project="other"), STARTED, epoch(1, 3.0), epoch(2, 2.0))
    first = wandb_id(run)
    drive(wandb(run), STARTED, epoch(2, 2.0), epoch(3, 1.0), finished(run))
    assert wandb_id(run) == first
    ids = {record.run.run_id for record in wandb_records(run) if record.WhichOneof("record_type") == "run"}
    assert ids == {first}
    assert wandb_history(run, "train/loss") == [(1, 3.0), (2, 2.0), (3, 1.0)]


@pytest.mark.usefixtures("offline")
def test_wandb_calls_a_run_failed_that_an_error_ends(run: Path) -> None:
    with pytest.raises(RunFailed):
        end_by(RunFailed("the loss is not finite"), wandb(run))
    assert [one.exit.exit_code for one in wandb_records(run) if one.WhichOneof("record_type") == "exit"] == [1]
    other = run.with_name("stopped")
    other.mkdir()
    with pytest.raises(Stopped):
        end_by(Stopped("stopped by a signal", exit_code=75, next_step="again"), wandb(other))
    assert [one.exit.exit_code for one in wandb_records(other) if one.WhichOneof("record_type") == "exit"] == [75]


def test_wandb_stays_offline_unless_asked(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert wandb(run).mode == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    assert wandb(run).mode == "online"
    assert wandb(run, mode="offline").mode == "offline"


def test_viewers_are_commands_from_the_working_folder(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    assert tensorboard(run).viewer == "tensorboard --logdir runs/mine"
    assert mlflow(run).viewer == "mlflow ui --backend-store-uri sqlite:///runs/mlflow.db"
    assert wandb(run).viewer == "wandb sync runs/mine/2026-11-22/wandb/offline-run-*"
    assert mlflow(run, tracking_uri="http://host:5000").viewer == "http://host:5000"
    assert wandb(run, mode="online").viewer == ""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert tensorboard(run).viewer == f"tensorboard --logdir {run.resolve().parent}"


@pytest.mark.slow  # W&B's own program reads the files
@pytest.mark.usefixtures("offline")
def test_the_command_that_uploads_finds_both_parts_of_a_resumed_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drive(wandb(run), STARTED, epoch(1, 3.0))
    time.sleep(1.1)  # W&B names folders by the second
    drive(wandb(run), STARTED, epoch(2, 2.0), finished(run))
    program = Path(sys.executable).with_name("wandb")
    command = f"{program} {wandb(run).viewer.partition(' ')[2]} --dry-run"
    shown = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120, check=True)
    assert "Would sync 2 run(s)" in shown.stdout + shown.stderr


@pytest.mark.usefixtures("client")  # which imports MLflow without its warnings
def test_mlflow_knows_the_printed_command(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program, command, *rest = mlflow(run).viewer.split()
    assert program == "mlflow"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        commands = importlib.import_module("mlflow.cli").cli
        known = commands.get_command(None, command)
        given = known.make_context(command, rest).params
    assert given["backend_store_uri"] == "sqlite:///runs/mlflow.db"


@pytest.mark.long  # starts MLflow's server
def test_mlflow_ui_starts_by_the_printed_command_and_shows_the_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tracker = mlflow(run)
    drive(tracker, STARTED, epoch(1, 2.0), finished(run))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", *tracker.viewer.split(), "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        page = answer(f"http://127.0.0.1:{port}/", server)
        assert "<title>MLflow</title>" in page
        query = urllib.parse.urlencode({"experiment_name": "mine"})
        found = answer(f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get-by-name?{query}", server)
        assert json.loads(found)["experiment"]["name"] == "mine"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.communicate(timeout=60)


def answer(url: str, server: subprocess.Popen[bytes]) -> str:
    """What a server says once it is up."""
    while server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=30) as page:
                return str(page.read().decode())
        except urllib.error.HTTPError:
            raise
        except OSError:
            time.sleep(0.5)
    raise AssertionError(server.communicate()[0].decode())
