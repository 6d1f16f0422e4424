"""A tracker that logs to Weights & Biases: to files in the run directory, unless uploading is asked for."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import sys
from pathlib import Path
from typing import Any, Literal

from toolkit.api.contracts import EpochRecord, Record, RunFinished, RunStarted
from toolkit.api.errors import ToolkitError
from toolkit.api.files import write_atomically
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

FAILED = 1
"""The exit code that W&B is given of a run that an error of no code of its own ends."""


def wandb(run: Path, *, project: str | None = None, mode: Literal["offline", "online"] | None = None) -> WandB:
    """Hyperparameters, scores of each epoch, and at the end the report and figures, as one run of Weights & Biases.

    project: name of the W&B project; unset: the recipe's name, for all trials of a study too
    mode: offline: files in `run/wandb`, nothing is sent; online: sent as training goes on, to the account of
        `wandb login`; unset: the environment variable `WANDB_MODE`, else offline

    Upload an offline run with `wandb sync run/wandb/offline-run-*`. Raises `UsageError` when wandb is not installed.
    """
    # Read by wandb when it is imported.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        import wandb  # noqa: F401 - whether it is there, before anything slow happens
    except ImportError as error:
        raise not_installed("wandb") from error
    recipe, name = runs_of(run)
    chosen: Any = mode or os.environ.get("WANDB_MODE") or "offline"
    return WandB(run, project or recipe.name, name, chosen)


class WandB:
    """Steps are epochs. A resumed run continues the W&B run that `wandb.json` of its directory names."""

    def __init__(self, run: Path, project: str, name: str, mode: Literal["offline", "online"]) -> None:
        self.run = run
        self.project = project
        self.name = name
        self.mode = mode
        self._run: Any = None
        self._id = ""
        self._logged_epochs = 0

    @property
    def note(self) -> Path:
        """The file that names the W&B run and says which epochs it has."""
        return self.run / "wandb.json"

    @property
    def viewer(self) -> str:
        return (
            f"wandb sync {shlex.quote(str(near(self.run / 'wandb')))}/offline-run-*" if self.mode == "offline" else ""
        )

    def track(self, record: Record) -> None:
        match record:
            case RunStarted():
                self._start(record)
            case EpochRecord() if self._run is not None and record.epoch > self._logged_epochs:
                self._run.log(epoch_scalars(record), step=record.epoch)
                self._logged_epochs = record.epoch
                self._keep_note()
            case RunFinished() if self._run is not None:
                self._finish(self._run, record)

    def close(self) -> None:
        if self._run is not None:
            self._run.finish(exit_code=_early_end())
            self._run = None

    def _start(self, record: RunStarted) -> None:
        import wandb

        if self.note.is_file():
            known = json.loads(self.note.read_text(encoding="utf-8"))
            self._id, self._logged_epochs = known["id"], known["epochs"]
        else:
            self._id = secrets.token_hex(4)
        self._run = wandb.init(
            project=self.project,
            name=self.name,
            id=self._id,
            dir=self.run,
            mode=self.mode,
            # Files of one run are uploaded in their order, so offline there is nothing to ask the server for.
            resume=None if self.mode == "offline" else "allow",
            config=hyperparameters(record.recipe),
            notes=SAMPLE_NOTICE if record.facts.get("sample") else None,
            settings=_private(wandb),
            reinit="create_new",
        )
        self._keep_note()

    def _keep_note(self) -> None:
        table = {"id": self._id, "project": self.project, "epochs": self._logged_epochs}
        write_atomically(self.note, json.dumps(table, indent=2).encode())

    def _finish(self, run: Any, record: RunFinished) -> None:
        import wandb

        figures = sorted((record.run / "figures").glob("*.png"))
        if figures:
            images = {f"figures/{path.stem}": wandb.Image(str(path)) for path in figures}
            run.log(images, step=self._logged_epochs + 1)
        run.summary.update(final_scalars(record))
        for path in (record.run / name for name in ARTIFACTS):
            if path.is_file():
                run.save(str(path), base_path=str(record.run), policy="now")
        run.finish(exit_code=0)
        self._run = None


def _private(wandb: Any) -> Any:
    """Of the machine W&B gets neither code, nor packages, nor output, nor load."""
    return wandb.Settings(
        console="off",
        silent=True,
        disable_code=True,
        disable_git=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )


def _early_end() -> int:
    """The exit code of a run that is not finished. The error that ends it is on its way while its trackers are
    closed."""
    error = sys.exc_info()[1]
    return error.exit_code if isinstance(error, ToolkitError) else FAILED
