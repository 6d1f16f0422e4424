"""The command predict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.cli.parser import add, add_use, count
from toolkit.cli.places import BUNDLE

if TYPE_CHECKING:
    from argparse import Namespace

    from toolkit.cli.parser import Commands

INPUTS = "images, folders, globs, videos, - for a list on standard input, a camera's number, an rtsp or http URL"


def add_predict(commands: Commands) -> None:
    examples = (f"predict {BUNDLE} photo.jpg", f"predict {BUNDLE} photos --output answers.csv")
    parser = add(commands, "predict", "classify images and videos with a bundle", _predict, examples)
    parser.add_argument("bundle", metavar="BUNDLE", type=Path)
    parser.add_argument("inputs", metavar="INPUT", nargs="+", help=INPUTS)
    parser.add_argument(
        "--output", metavar="FILE", type=Path, help="write a .csv, .jsonl or .parquet file instead of a table"
    )
    parser.add_argument(
        "--top", metavar="K", type=count, default=3, help="number of classes to show per input (default: 3)"
    )
    parser.add_argument("--batch", metavar="N", type=count, help="batch size (default: suits the device)")
    parser.add_argument(
        "--every", metavar="SECONDS", type=float, help="a timeline: classify a video every so many seconds"
    )
    parser.add_argument("--stream", action="store_true", help="classify a video as it is played, as a camera is")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw a video's timeline as a .png or .svg file")
    add_use(parser)


def _predict(options: Namespace) -> int:
    from toolkit.serving.predict import predict_files

    return predict_files(
        options.bundle,
        options.inputs,
        device=options.device or "auto",
        precision=options.precision,
        output=options.output,
        top=options.top,
        batch=options.batch,
        every=options.every,
        stream=options.stream,
        plot=options.plot,
    )
