"""The process of one worker: `python -m toolkit.tune.worker.process`, started by `toolkit.tune.worker.workers`.

Its error goes as a line of JSON to standard output.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from toolkit.api.errors import EXIT_DONE, ToolkitError
from toolkit.host.registry import discover
from toolkit.recipe.draft import Draft
from toolkit.recipe.tables import Recipe
from toolkit.system.signals import Signalled, Signals, exit_code
from toolkit.tune.study import plan_study
from toolkit.tune.worker.orders import take
from toolkit.tune.worker.trial import StudyLocation, joined


def main() -> int:
    """Work on the study that standard input names; the exit code is that of the command `tune`."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is not an answer
    with answer:
        try:
            with Signals():
                order = take(end=signal.SIGTERM)
                recipe = Recipe.model_validate({**order["tables"], "name": order["name"]})
                planned = plan_study(Draft(order["source"], order["tables"], (), recipe), discover())
                location = StudyLocation(Path(order["runs"]), order["storage"], order["again"])
                with joined(location, planned, threads=order["threads"], ranks=order["ranks"]) as worker:
                    worker.work()
        except Signalled as stopped:
            return exit_code(stopped.number)
        except ToolkitError as error:
            ending = {"lines": error.lines(), "exit_code": error.exit_code, "next_step": error.next_step}
            print(json.dumps(ending), file=answer)
            return error.exit_code
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
