"""The process of one worker: `python -m toolkit.tune.worker.process`, started by `toolkit.tune.worker.workers`.

Its order comes as a line of JSON on standard input, which stays open as long as the process that started it lives; its
error goes as a line of JSON to standard output.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from toolkit.api.errors import EXIT_DONE, ToolkitError
from toolkit.host.registry import discover
from toolkit.recipe.tables import Recipe
from toolkit.system.signals import Signalled, Signals, exit_code
from toolkit.tune.checked import checked
from toolkit.tune.worker.join import Job, joined


def main() -> int:
    """Work on the study that standard input names; the exit code is that of the command `tune`."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    with answer:
        try:
            with Signals():
                order = json.loads(sys.stdin.readline())
                threading.Thread(target=_end_with_parent, daemon=True).start()
                _work(order)
        except Signalled as stopped:
            return exit_code(stopped.number)
        except ToolkitError as error:
            told = {"lines": error.lines(), "exit_code": error.exit_code, "next_step": error.next_step}
            print(json.dumps(told), file=answer)
            return error.exit_code
    return EXIT_DONE


def _work(order: dict[str, Any]) -> None:
    recipe = Recipe.model_validate({**order["tables"], "name": order["name"]})
    job = Job(**{**order["job"], "runs": Path(order["job"]["runs"])})
    registry = discover()
    found = checked(recipe, order["source"], registry)
    with joined(job, recipe, order["source"], found, registry, threads=order["threads"]) as worker:
        worker.work()


def _end_with_parent() -> None:
    """Stop as by SIGTERM when the process that started this one is gone, and its end of the pipe with it."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
