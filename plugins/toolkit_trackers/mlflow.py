"""A tracker that logs to MLflow: to a local database, unless a recipe names a server. Nothing else is sent."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.api.contracts import EpochRecord, Record, RunFinished, RunStarted
from toolkit.api.errors import Stopped, UsageError
from toolkit.api.files import exclusive, write_atomically
from toolkit_trackers.values import (
    ARTIFACTS,
    SAMPLE_NOTICE,
    epoch_scalars,
    final_scalars,
    hyperparameters,
    near,
    not_installed,
    runs_of,
)

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

PARAMETERS_A_CALL = 100
PARAMETER_LENGTH = 6000
"""Limits of MLflow's own."""
RUN_DIRECTORY = "toolkit.run"
"""The tag by which a version of a registered model names the directory of its run."""
UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's codes for a model, and for an alias, that it does not have."""


def mlflow(run: Path, *, tracking_uri: str | None = None, experiment: str | None = None) -> MLflow:
    """Parameters, scores of each epoch, and at the end the report and figures, as one MLflow run.

    tracking_uri: the store, `sqlite:///PATH` or a server's `http(s)://` address; unset: `mlflow.db` in the folder of
        all runs, those of studies too, with artifacts next to it
    experiment: name of the MLflow experiment; unset: the recipe's name, for all trials of a study too

    View it with `mlflow ui --backend-store-uri sqlite:///runs/mlflow.db`. Raises `UsageError` when MLflow is not
    installed.
    """
    recipe, name = runs_of(run)
    store = tracking_uri or f"sqlite:///{recipe.parent / 'mlflow.db'}"
    if "://" not in store or store.startswith("file:"):
        raise ValueError(f'tracking_uri: MLflow 3 does not write to folders, expected "sqlite:///PATH", got "{store}"')
    _require()
    return MLflow(run, store, experiment or recipe.name, name)


def _require() -> None:
    # Read by MLflow when it is imported: without them it reports its use to its authors.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    try:
        import mlflow  # noqa: F401 - whether they are there, before anything slow happens
        import sqlalchemy  # noqa: F401
    except ImportError as error:
        raise not_installed("mlflow") from error


class MLflow:
    """Steps are epochs. A resumed run continues the MLflow run that `mlflow.json` of its directory names."""

    def __init__(self, run: Path, store: str, experiment: str, name: str) -> None:
        self.run = run
        self.store = store
        self.experiment = experiment
        self.name = name
        self._client: MlflowClient | None = None
        self._run_id = ""
        self._logged_epochs = 0
        self._ended = False

    @property
    def note(self) -> Path:
        """The file that names the MLflow run."""
        return self.run / "mlflow.json"

    @property
    def viewer(self) -> str:
        database = _local(self.store)
        if database is None:
            return self.store
        return f"mlflow ui --backend-store-uri {shlex.quote(f'sqlite:///{near(database)}')}"

    def track(self, record: Record) -> None:
        match record:
            case RunStarted():
                self._start(record)
            case EpochRecord() if record.epoch > self._logged_epochs:
                self._log(epoch_scalars(record), record.epoch)
            case RunFinished():
                self._finish(record)

    def promoted(self, model: str, alias: str) -> str | None:
        from mlflow.exceptions import MlflowException

        try:
            found = _connect(self.store).get_model_version_by_alias(model, alias)
        except MlflowException as error:
            if error.error_code in UNKNOWN:
                return None
            raise
        return str(found.tags.get(RUN_DIRECTORY, ""))

    def promote(self, model: str, alias: str, bundle: Path) -> str:
        client = _connect(self.store)
        run_id = self._promoting(client)
        client.log_artifacts(run_id, str(bundle), bundle.name)
        tags = {RUN_DIRECTORY: str(self.run.resolve())}
        _register(client, model)
        made = client.create_model_version(model, f"runs:/{run_id}/{bundle.name}", run_id, tags=tags)
        client.set_registered_model_alias(model, alias, made.version)
        return f"version {made.version} of {model} in {self.store}"

    def _promoting(self, client: MlflowClient) -> str:
        """The MLflow run of this run; one without scores where it was trained without this tracker."""
        if self.note.is_file():
            return str(json.loads(self.note.read_text(encoding="utf-8"))["run_id"])
        made = client.create_run(_experiment_id(client, self.experiment, self.store), run_name=self.name)
        client.set_terminated(made.info.run_id)
        return str(made.info.run_id)

    def close(self) -> None:
        if self._client is not None and not self._ended:
            self._client.set_terminated(self._run_id, status=_early_end())
            self._ended = True

    def _start(self, record: RunStarted) -> None:
        with _alone(self.store):
            self._client = _connect(self.store)
            self._run_id = self._resume(self._client) if self.note.is_file() else self._create(self._client, record)

    def _create(self, client: MlflowClient, record: RunStarted) -> str:
        created = client.create_run(
            _experiment_id(client, self.experiment, self.store), run_name=self.name, tags=_tags(record.facts)
        )
        run_id: str = created.info.run_id
        _log_parameters(client, run_id, hyperparameters(record.recipe))
        write_atomically(self.note, json.dumps({"tracking_uri": self.store, "run_id": run_id}, indent=2).encode())
        return run_id

    def _resume(self, client: MlflowClient) -> str:
        from mlflow.exceptions import MlflowException

        run_id: str = json.loads(self.note.read_text(encoding="utf-8"))["run_id"]
        try:
            client.update_run(run_id, status="RUNNING")
        except MlflowException as error:
            raise UsageError(
                f"{self.note}: MLflow run {run_id} is not in {self.store}",
                next_step=f"delete {self.note} to log to a new MLflow run",
            ) from error
        logged = client.get_metric_history(run_id, "train/loss")
        self._logged_epochs = max((metric.step for metric in logged), default=0)
        return run_id

    def _log(self, scalars: Mapping[str, float], epoch: int) -> None:
        from mlflow.entities import Metric

        if self._client is None:
            return
        now = int(1000 * time.time())
        metrics = [Metric(_allowed(name), value, now, epoch) for name, value in scalars.items()]
        self._client.log_batch(self._run_id, metrics=metrics)
        self._logged_epochs = epoch

    def _finish(self, record: RunFinished) -> None:
        if self._client is None:
            return
        self._log(final_scalars(record), self._logged_epochs)
        for path in (record.run / name for name in ARTIFACTS):
            if path.is_file():
                self._client.log_artifact(self._run_id, str(path))
        for path in sorted((record.run / "figures").glob("*.png")):
            self._client.log_artifact(self._run_id, str(path), "figures")
        self._client.set_terminated(self._run_id)
        self._ended = True


@contextmanager
def _alone(store: str) -> Iterator[None]:
    """Keep others from a local database in the block: one that two workers of a study make at once stays half made."""
    database = _local(store)
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(database.with_name(f"{database.name}.lock")):
        yield


def _connect(store: str) -> MlflowClient:
    with warnings.catch_warnings():
        # MLflow 3 still maps a relation in a way that SQLAlchemy 2.1 deprecates; nothing of ours can change that.
        warnings.filterwarnings("ignore", message=".*noload.* loader strategy", category=DeprecationWarning)
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # else it logs each table that it creates
        return MlflowClient(store)


def _early_end() -> str:
    """What MLflow calls the end of a run that is not finished. The error that ends it is on its way while its trackers
    are closed."""
    error = sys.exc_info()[1]
    return "FAILED" if isinstance(error, Exception) and not isinstance(error, Stopped) else "KILLED"


def _experiment_id(client: MlflowClient, name: str, store: str) -> str:
    found = client.get_experiment_by_name(name)
    experiment_id: str = found.experiment_id if found else _new_experiment(client, name, store)
    return experiment_id


def _new_experiment(client: MlflowClient, name: str, store: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        return str(client.create_experiment(name, _artifacts_near(store)))
    except MlflowException:
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)  # another worker of the study created it meanwhile


def _register(client: MlflowClient, model: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _artifacts_near(store: str) -> str | None:
    """A folder next to a local database; a server keeps artifacts where it likes."""
    database = _local(store)
    return (database.parent / "mlartifacts").as_uri() if database else None


def _local(store: str) -> Path | None:
    """The file of a local database; None for a server's."""
    return Path(store.removeprefix("sqlite:///")).resolve() if store.startswith("sqlite:///") else None


def _tags(facts: Mapping[str, Any]) -> dict[str, str]:
    tags = {name: str(value) for name, value in facts.items() if isinstance(value, bool | int | float | str)}
    return {**tags, "mlflow.note.content": SAMPLE_NOTICE} if facts.get("sample") else tags


def _log_parameters(client: MlflowClient, run_id: str, recipe: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    params = [Param(_allowed(name), str(value)[:PARAMETER_LENGTH]) for name, value in recipe.items()]
    for start in range(0, len(params), PARAMETERS_A_CALL):
        client.log_batch(run_id, params=params[start : start + PARAMETERS_A_CALL])


def _allowed(name: str) -> str:
    """`name` with what MLflow allows in names."""
    return re.sub(r"[^\w./ :-]", "_", name)
