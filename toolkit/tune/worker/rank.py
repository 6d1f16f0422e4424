"""The process of one rank of a trial: `python -m toolkit.tune.worker.rank`, started by `toolkit.tune.worker.ranked`."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is public

from toolkit.api.errors import EXIT_DONE, EXIT_FAILED, RunFailed, ToolkitError
from toolkit.build.kept import Kept
from toolkit.build.plan import Plan, plan
from toolkit.host.registry import discover
from toolkit.recipe.draft import Draft
from toolkit.recipe.tables import Recipe
from toolkit.runs.directory import RunDirectory
from toolkit.runs.loop import Records
from toolkit.runs.session import joined_by, train_run
from toolkit.system.ranks import Ranks, launched
from toolkit.system.signals import Signalled, Signals, exit_code
from toolkit.tune.worker.orders import take
from toolkit.tune.worker.ranked import GO_ON, LEAVE, Ending, decision_after, ending_of, record_of

DECISION_SECONDS = 3600.0
"""How long the worker may take to decide: its storage may be slow. A worker that is gone ends this process at once."""


def main() -> int:
    """Train the run that standard input names; the exit code is that of the command `run`."""
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # standard output belongs to who started the worker
    order = take(end=signal.SIGKILL)  # at once: another worker may take the trial over
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(host, port, is_master=False, timeout=timedelta(seconds=DECISION_SECONDS))
    try:
        with Signals(repeated=True) as signals:
            _train(_planned(order), RunDirectory(Path(order["run"])), store, signals)
    except (Exception, Signalled) as error:
        code = exit_code(error.number) if isinstance(error, Signalled) else EXIT_FAILED
        code = error.exit_code if isinstance(error, ToolkitError) else code
        store.set(ending_of(launched().rank), json.dumps(asdict(Ending.of(error, code))))
        return code
    return EXIT_DONE


def _planned(order: dict[str, Any]) -> Plan:
    recipe = Recipe.model_validate({**order["tables"], "name": order["name"]})
    return plan(Draft(order["source"], order["tables"], (), recipe), discover())


def _train(planned: Plan, directory: RunDirectory, store: TCPStore, signals: Signals) -> None:
    with joined_by(planned, resume=None) as ranks:
        training = train_run(planned, directory, kept=Kept(), signals=signals, ranks=ranks)
        try:
            _obey(training, store, ranks)
        finally:
            training.close()


def _obey(training: Records, store: TCPStore, ranks: Ranks) -> None:
    """Train from one decision of the worker to the next."""
    for number, record in enumerate(training):
        if ranks.leads:
            store.set(record_of(number), json.dumps(asdict(record)))
        decision = store.get(decision_after(number)).decode()
        if decision == LEAVE:
            return
        if decision != GO_ON:
            training.throw(RunFailed(decision))


if __name__ == "__main__":
    sys.exit(main())
