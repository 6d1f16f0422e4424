"""`python -m bench gpu`: what a GPU has to show, in the minutes for which one is at hand.

Results are kept by part. The same command later runs the parts that did not fit, and those that failed.
"""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.data import Options, above_zero, at_least_two
from bench.gpu.checkout import importable
from bench.gpu.machine import source
from bench.gpu.parts import PARTS
from bench.gpu.results import LABEL, Results, table
from bench.gpu.schedule import Outcome, Part, Setting, failures, in_own_process, rows_of, run_parts
from toolkit.api.errors import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, UsageError, unknown_name

MINUTES = 8.0
SECONDS = 15.0
"""Of one figure, after which no more pairs are taken."""
START = 120.0
"""Seconds that importing the libraries and finding the device may take."""


def main(words: Sequence[str]) -> int:
    """0: all parts are done and reach their goals; 1: a part failed or missed a goal; 75: parts are left for the next
    call. Raises UsageError where no GPU is found, DataError for a wrong file of figures."""
    begun = time.monotonic()
    parsed = parser().parse_args(words)
    if parsed.table is not None:
        print(table(parsed.table))
        return EXIT_DONE
    with importable(parsed.wheels):
        options = Options(parsed.pairs, parsed.data and parsed.data.resolve(), seconds=SECONDS)
        setting = Setting(options, parsed.rehearse)
        results = Results.open(parsed.output, rehearsal=parsed.rehearse, machine=_machine(setting), source=source())
        left = run(parsed.parts, setting, results, begun + 60 * parsed.minutes)
    print(f"\n{table(results.path)}" if results.parts else "")
    print(f"\nkept in {results.path}")
    if left:
        longest = max(part.seconds for part in left)
        print(f"left for the next call: {', '.join(part.name for part in left)} (up to {longest:g} s each)")
        print(f"next: {shlex.join(['python', '-m', 'bench', 'gpu', *words])}")
    if failures(results.parts.values()):
        return EXIT_FAILED
    return EXIT_STOPPED if left else EXIT_DONE


def run(parts: tuple[Part, ...], setting: Setting, results: Results, ends: float) -> list[Part]:
    """Run those of `parts` that are due; returns those that did not fit before `ends`, of `time.monotonic`."""
    label = f"{LABEL} " if setting.rehearsal else ""

    def keep(part: Part, outcome: Outcome) -> None:
        results.keep(part, outcome)
        for row in rows_of(outcome):
            print(f"{label}{part.name}: {row}", flush=True)

    return run_parts(results.due(parts), setting, ends, keep)


def _machine(setting: Setting) -> dict[str, Any]:
    outcome = in_own_process("bench.gpu.machine:describe", setting, START)
    if outcome.state == "failed":
        raise UsageError(
            f"the libraries cannot be imported: {outcome.cause}",
            details=outcome.details,
            next_step="pip install -e '.[test]', or where no index can be reached: python -m bench gpu --wheels FOLDER",
        )
    (machine,) = outcome.found
    if machine["device"] is None:
        built = machine["environment"]["torch_built_for_cuda"]
        why = f"torch is built for CUDA {built}" if built else "torch is built without CUDA"
        raise UsageError(
            f"no CUDA device found ({why})",
            next_step="rehearse on the CPU: python -m bench gpu --rehearse",
        )
    return dict(machine)


def parser() -> argparse.ArgumentParser:
    """Of the words after `python -m bench gpu`."""
    known = argparse.ArgumentParser(prog="python -m bench gpu", description=__doc__, allow_abbrev=False)
    known.add_argument("--minutes", metavar="N", type=above_zero, default=MINUTES, help="time to use (default: 8)")
    known.add_argument(
        "--output", metavar="DIR", type=Path, default=Path("gpu"), help="where results are kept (default: gpu)"
    )
    known.add_argument("--data", metavar="DIR", type=Path, help="folder with CIFAR-10, har-subset and ucf101-fixture")
    known.add_argument("--wheels", metavar="DIR", type=Path, help="wheels to install first, into a temporary folder")
    known.add_argument(
        "--parts", metavar="A,B", type=_parts, default=PARTS, help=f"of {', '.join(part.name for part in PARTS)}"
    )
    known.add_argument("--pairs", metavar="N", type=at_least_two, help="pairs of timings for each ratio")
    known.add_argument("--rehearse", action="store_true", help="tiny sizes on the CPU: shows that every part runs")
    known.add_argument("--table", metavar="FILE", type=Path, help="print the table of a gpu.json, and measure nothing")
    return known


def _parts(text: str) -> tuple[Part, ...]:
    known = {part.name: part for part in PARTS}
    for name in text.split(","):
        if name not in known:
            raise argparse.ArgumentTypeError(unknown_name(f'no part is called "{name}"', name, known))
    return tuple(known[name] for name in text.split(","))
