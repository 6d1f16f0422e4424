"""The command evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import UsageError
from toolkit.cli.parser import add_set, add_use, console
from toolkit.cli.places import BUNDLE, RUN

if TYPE_CHECKING:
    from argparse import Namespace

    from toolkit.cli.parser import Parser


def fill(parser: Parser) -> None:
    parser.does(_evaluate, (f"evaluate {RUN}", f"evaluate {BUNDLE}"))
    parser.add_argument("run", metavar="RUN", type=Path, help="a run's directory, or a bundle's")
    add_set(parser)
    add_use(parser)


def _evaluate(options: Namespace) -> None:
    output = console()
    if (options.run / "bundle.json").is_file():
        from toolkit.export.rescore import evaluate_bundle

        use = {
            "device": options.device or "auto",
            "precision": options.precision,
            "runtime": options.runtime or "onnxruntime",
        }
        directory = evaluate_bundle(options.run, options.overrides, runs=Path("runs"), console=output, **use)
    else:
        from toolkit.runs.directory import RunDirectory
        from toolkit.serving.bundle import bundle_near

        recipe = RunDirectory(options.run).recipe
        near = None if recipe.is_file() else bundle_near(options.run)
        if near:
            why = f"not a bundle (it has no bundle.json), nor a run directory (it has no {recipe.name})"
            raise UsageError(f"{options.run}: {why}", next_step=near)
        if options.device or options.precision or options.runtime:
            raise UsageError(
                f"{options.run}: not a bundle; --device, --precision and --runtime are for bundles",
                next_step="for a run use --set train.device=... and --set train.precision=...",
            )
        from toolkit.runs.session import evaluate_run

        directory = evaluate_run(options.run, options.overrides, console=output)
    from toolkit.runs.examples import predict_command
    from toolkit.system.notices import show

    show(f"scores {directory.scores}", console=output)
    show(f"next:  {predict_command(options.run, directory)}", console=output)
