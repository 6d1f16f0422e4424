"""`python -m bench NAME`: one line a figure. Exit code 1: a target was missed; 75: none was, but figures are noisy: a
quieter hour or more --seconds may decide."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path

from bench.data import SECONDS, Options, above_zero, at_least_two
from bench.instructions import instructions
from toolkit.api.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_STOPPED,
    EXIT_UNREAD,
    RunFailed,
    Stopped,
    ToolkitError,
    UsageError,
)
from toolkit.system.machine import physical_cores, processor
from toolkit.system.signals import Signals, exit_code, how_ended
from toolkit.system.streams import lead_nowhere

BENCHES = {
    "clips": "clips of videos against PyTorchVideo's loader, and training from cached videos against the bare step",
    "gpu": "all that a GPU has to show, in parts: tests, CIFAR-10 to 94 %, training, loading and `predict`",
    "loader": "batches ready for the step, against torchvision's ImageFolder and DataLoader",
    "peers": "whole commands of Lightning, Accelerate, timm, fastai and Ultralytics on the same images, against ours",
    "predict": "exported models in int8, against fp32, torch and the bare session; OpenVINO against onnxruntime",
    "scale": "several ranks, against one process, Lightning and Accelerate",
    "segments": "events in videos joined from real clips: mAP of segments, and of the answers of single windows",
    "serve": "a server of ResNet-50 in int8 under load, against the bare session and LitServe",
    "startup": "CPU seconds of commands that do no work, against importing argparse; hostile plugins against none",
    "train": "epochs of a recipe with everything in them, against the bare step on synthetic batches",
    "tune": "a study's cost between trials and in its storage; its best score against random search at equal epochs",
}

MODULES = {"peers": "bench.peers.command"}
"""Of benches that are not called as their module."""


def main(words: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if words is None else list(words)
    signals = Signals()
    try:
        with signals:
            code = _run(given)
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        lead_nowhere(sys.stdout)
        return EXIT_UNREAD
    except (Exception, KeyboardInterrupt) as error:
        return _fail(error, signals.raised, given)


def _run(given: list[str]) -> int:
    if given[:1] == ["gpu"]:
        from bench.gpu.command import main as measure_gpu

        return measure_gpu(given[1:])
    parsed = _parser().parse_args(given)
    if parsed.name is None:
        print("\n".join(f"{name:8} {what}" for name, what in BENCHES.items()))
        return EXIT_DONE
    if parsed.setup:
        return _set_up(parsed.name, given)
    return _measure(parsed.name, Options(parsed.pairs, parsed.data, parsed.run, parsed.seconds), given)


def _set_up(name: str, given: list[str]) -> int:
    from bench.peers.command import set_up

    if name != "peers":
        raise UsageError(f"--setup: {name} needs none", next_step=_again([word for word in given if word != "--setup"]))
    try:
        set_up()
    except subprocess.CalledProcessError as error:
        raise RunFailed(f"{shlex.join(error.cmd)}: exit code {error.returncode}", next_step=_again(given)) from error
    return EXIT_DONE


def _measure(name: str, options: Options, given: list[str]) -> int:
    here = instructions() or "no special instructions"
    print(f"on {processor()}, cores={physical_cores()}, int8 by {here}", flush=True)
    verdicts = []
    for figure in import_module(MODULES.get(name, f"bench.{name}")).figures(options):
        print(figure, flush=True)
        verdicts.append(figure.verdict)
    if "missed" in verdicts:
        return EXIT_FAILED
    if noisy := verdicts.count("noisy"):
        longer = _again([*_without_seconds(given), "--seconds", f"{2 * options.seconds:g}"])
        _report(Stopped(f"{noisy} of {len(verdicts)} figures are noisy", exit_code=EXIT_STOPPED, next_step=longer))
        return EXIT_STOPPED
    return EXIT_DONE


def _without_seconds(given: list[str]) -> list[str]:
    return [word for before, word in pairwise(["", *given]) if "--seconds" not in (before, word)]


def _fail(error: BaseException, signalled: int | None, given: list[str]) -> int:
    """Print what has ended a bench; the exit code. After a signal whatever follows is its doing."""
    if signalled is not None:
        code = exit_code(signalled)
        error = Stopped(how_ended(code), exit_code=code, next_step=_again(given))
    elif isinstance(error, Stopped):
        error = Stopped(how_ended(error.exit_code), exit_code=error.exit_code, next_step=_again(given))
    elif not isinstance(error, ToolkitError):
        raise error
    _report(error)
    return error.exit_code


def _again(given: list[str]) -> str:
    return shlex.join(["python", "-m", "bench", *given])


def _report(error: ToolkitError) -> None:
    print("\n".join(f"error: {line}" for line in error.lines()), file=sys.stderr)
    print(f"next:  {error.next_step}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "name", metavar="NAME", nargs="?", choices=BENCHES, help=f"{', '.join(BENCHES)}; none: list them"
    )
    parser.add_argument("--pairs", metavar="N", type=at_least_two, help="pairs of timings in each figure's first round")
    parser.add_argument(
        "--seconds",
        metavar="N",
        type=above_zero,
        default=SECONDS,
        help=f"time of each figure for more pairs, until they decide (default: {SECONDS:g})",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        help="folder with har-subset and cifar10-jpeg, or one of these itself (default: what TOOLKIT_DATA names)",
    )
    parser.add_argument("--setup", action="store_true", help="peers: install them into build/peers, measure nothing")
    parser.add_argument("--run", metavar="RUN", type=Path, help="predict: a trained run (default: random weights)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
