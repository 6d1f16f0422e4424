"""The orders of a study's processes."""

from __future__ import annotations

import subprocess
import sys

from toolkit.tune.worker.orders import give


def test_a_process_that_has_ended_already_is_no_error_of_who_gives_the_order() -> None:
    with subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE, text=True) as process:
        process.wait()
        give({"name": "tiny"}, process)
    assert process.returncode == 0
