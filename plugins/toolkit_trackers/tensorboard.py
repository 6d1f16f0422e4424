"""A tracker that writes TensorBoard event files."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.contracts import EpochRecord, Record, RunFinished, RunStarted
from toolkit_trackers.values import SAMPLE_NOTICE, epoch_scalars, final_scalars, hyperparameters, near, not_installed

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def tensorboard(run: Path) -> TensorBoard:
    """Scalars of each epoch, the recipe as text and hyperparameters, and the figures, in `run/tensorboard`.

    View them with `tensorboard --logdir runs/<recipe>`. Raises `UsageError` when TensorBoard is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401 - whether it is there, before anything slow happens
    except ImportError as error:
        raise not_installed("tensorboard") from error
    return TensorBoard(run)


class TensorBoard:
    """Steps are epochs. A resumed run purges what an earlier process wrote of epochs that are now run again."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "tensorboard"
        self._resumed = any(self.folder.glob("events.out.tfevents.*"))
        self._started: RunStarted | None = None
        self._writer: SummaryWriter | None = None
        self._epoch = 0

    @property
    def viewer(self) -> str:
        """Of all runs of the recipe. In the folder above, `latest` would show one of them a second time."""
        return f"tensorboard --logdir {shlex.quote(str(near(self.folder.resolve().parents[1])))}"

    def track(self, record: Record) -> None:
        match record:
            case RunStarted():
                self._started = record
            case EpochRecord():
                self._track_epoch(record)
            case RunFinished():
                self._track_end(record)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _track_epoch(self, record: EpochRecord) -> None:
        self._epoch = record.epoch
        writer = self._open(record.epoch)
        for name, value in epoch_scalars(record).items():
            writer.add_scalar(name, value, record.epoch)
        writer.flush()

    def _track_end(self, record: RunFinished) -> None:
        writer = self._open(None)
        for path in sorted((record.run / "figures").glob("*.png")):
            writer.add_image(f"figures/{path.stem}", _pixels(path), self._epoch, dataformats="HWC")
        recipe = hyperparameters(self._started.recipe) if self._started else {}
        # "." keeps the hyperparameters in this run; by default they would become a run of their own.
        writer.add_hparams(dict(recipe), final_scalars(record), run_name=".")
        writer.flush()

    def _open(self, next_epoch: int | None) -> SummaryWriter:
        """The writer, opened late: only the first epoch shows from where on older events are stale."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=next_epoch if self._resumed else None)
            self._describe(self._writer)
        return self._writer

    def _describe(self, writer: SummaryWriter) -> None:
        if self._started is None or self._resumed:
            return
        writer.add_text("recipe", f"```json\n{json.dumps(self._started.recipe, indent=2, default=str)}\n```", 0)
        if self._started.facts.get("sample"):
            writer.add_text("notice", SAMPLE_NOTICE, 0)


def _pixels(path: Path) -> object:
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
