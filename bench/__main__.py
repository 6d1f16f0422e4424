"""`python -m bench NAME`: one line a figure; exit 1 when a target is missed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from bench.data import Options, at_least_two
from toolkit.api.errors import EXIT_DONE, EXIT_FAILED, ToolkitError

BENCHES = {
    "clips": "clips of videos against PyTorchVideo's loader, and training from cached videos against the bare step",
    "gpu": "all that a GPU has to show, in parts: tests, CIFAR-10 to 94 %, training, loading and `predict`",
    "loader": "batches ready for the step, against torchvision's ImageFolder and DataLoader",
    "predict": "exported models in int8, against fp32, torch and the bare session; OpenVINO against onnxruntime",
    "scale": "several ranks, against one process, Lightning and Accelerate",
    "segments": "events in videos joined from real clips: mAP of segments, and of the answers of single windows",
    "serve": "a server of ResNet-50 in int8 under load, against the bare session and LitServe",
    "startup": "CPU seconds of commands that do no work, against importing argparse; hostile plugins against none",
    "train": "epochs of a recipe with everything in them, against the bare step on synthetic batches",
    "tune": "a study's cost between trials and in its storage; its best score against random search at equal epochs",
}


def main(words: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if words is None else words
    try:
        if given[:1] == ["gpu"]:
            from bench.gpu.command import main as measure_gpu

            return measure_gpu(given[1:])
        parsed = _parser().parse_args(given)
        if parsed.name is None:
            print("\n".join(f"{name:8} {what}" for name, what in BENCHES.items()))
            return EXIT_DONE
        return _measure(parsed.name, Options(parsed.pairs, parsed.data, parsed.run))
    except ToolkitError as error:
        print("\n".join(f"error: {line}" for line in error.lines()), file=sys.stderr)
        print(f"next:  {error.next_step}", file=sys.stderr)
        return error.exit_code


def _measure(name: str, options: Options) -> int:
    met = True
    for figure in import_module(f"bench.{name}").figures(options):
        print(figure, flush=True)
        met = met and figure.met
    return EXIT_DONE if met else EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "name", metavar="NAME", nargs="?", choices=BENCHES, help=f"{', '.join(BENCHES)}; none: list them"
    )
    parser.add_argument("--pairs", metavar="N", type=at_least_two, help="pairs of timings for each figure")
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        help="folder with har-subset and cifar10-jpeg, or one of these itself (default: what TOOLKIT_DATA names)",
    )
    parser.add_argument("--run", metavar="RUN", type=Path, help="predict: a trained run (default: random weights)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
