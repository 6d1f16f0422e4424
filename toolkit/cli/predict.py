"""The command predict."""

from __future__ import annotations

import os
import shlex
from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import UsageError
from toolkit.cli.parser import ATTEMPTS, add_set, add_signature, add_use, count, stopped
from toolkit.cli.places import BUNDLE, RUN

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from toolkit.cli.parser import Parser
    from toolkit.serving.predict.segmenting import Segmenting

MODEL = "a run, which is exported once, or a bundle"
INPUTS = "images, folders, globs, videos, - for a list on standard input, a camera's number, an rtsp or http URL"


def fill(parser: Parser) -> None:
    parser.does(_predict, (f"predict {RUN} photo.jpg", f"predict {BUNDLE} photos --output answers.csv"))
    parser.add_argument("model", metavar="MODEL", type=Path, help=MODEL)
    parser.add_argument("inputs", metavar="INPUT", nargs="+", help=INPUTS)
    parser.add_argument("--output", metavar="FILE", type=Path, help="write a .csv, .jsonl or .parquet file, no table")
    parser.add_argument("--save", metavar="DIR", type=Path, help="save copies of pictures and videos with the answers")
    parser.add_argument("--top", metavar="K", type=count, default=3, help="classes to show per input (default: 3)")
    parser.add_argument("--batch", metavar="N", type=count, help="batch size (default: suits the device)")
    divided = "answer the K-th of N parts of the inputs; each part is a process of its own, on any machine"
    parser.add_argument("--part", metavar="K/N", type=part, help=divided)
    parser.add_argument("--every", metavar="SECONDS", type=float, help="a timeline: answer a video every SECONDS")
    parser.add_argument("--stream", action="store_true", help="answer a video at its own speed, as a camera")
    parser.add_argument("--reconnect", metavar="N", type=int, help=ATTEMPTS)
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw a video's timeline as a .png or .svg file")
    events = "find events in videos: which class, from when to when (.csv, .json, .vtt or .edl with --output)"
    parser.add_argument("--segments", action="store_true", help=events)
    parts = "with --segments: copy each event to a file, without encoding it again"
    parser.add_argument("--cut", metavar="DIR", type=Path, help=parts)
    scored = "with --segments: score them with annotations, as JSON of ActivityNet's form"
    parser.add_argument("--truth", metavar="FILE", type=Path, help=scored)
    best = "with --truth: show the rule of segments that scores best, as keys of a recipe"
    parser.add_argument("--choose", action="store_true", help=best)
    add_set(parser, "for a run: override a recipe key of its export")
    add_signature(parser)
    add_use(parser)


def part(text: str) -> tuple[int, int]:
    """The type of `--part`: `2/8` is (2, 8)."""
    number, _, parts = text.partition("/")
    if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise ArgumentTypeError(f'expected K/N with K from 1 to N, such as 1/8, got "{text}"')
    return int(number), int(parts)


def _predict(options: Namespace) -> int:
    from toolkit.serving.predict import predict_files

    return predict_files(
        _bundle(options),
        options.inputs,
        device=options.device or "auto",
        precision=options.precision,
        output=options.output,
        save=options.save,
        top=options.top,
        batch=options.batch,
        every=options.every,
        stream=options.stream,
        reconnect=options.reconnect,
        plot=options.plot,
        part=options.part,
        segments=_segments(options),
        signed_by=options.require_signature,
        runtime=options.runtime or "onnxruntime",
        words=options.words,
    )


def _segments(options: Namespace) -> Segmenting | None:
    """Raises UsageError for a flag that has a meaning with `--segments` alone."""
    from toolkit.serving.predict.segmenting import Segmenting

    if options.segments:
        if options.choose and options.truth is None:
            raise UsageError(
                "--choose: has no meaning without --truth", next_step="add --truth FILE, or remove --choose"
            )
        return Segmenting(options.output, options.cut, options.truth, options.choose)
    for flag, value in (("--cut", options.cut), ("--truth", options.truth), ("--choose", options.choose or None)):
        if value is not None:
            raise UsageError(
                f"{flag}: has no meaning without --segments", next_step=f"add --segments, or remove {flag}"
            )
    return None


def _bundle(options: Namespace) -> Path | Callable[[], Path]:
    """A bundle's folder, or what exports the run once everything else is checked."""
    from toolkit.export.once import bundle_of, run_at

    if options.model.suffix == ".toml" and options.model.is_file():
        raise UsageError(
            f"{options.model}: expected a run or a bundle, got a recipe",
            next_step=f"python -m toolkit run {shlex.quote(str(options.model))}",
        )
    if not os.path.lexists(options.model):
        raise _missing(options)
    run = run_at(options.model)
    if run is None:
        if options.overrides:
            raise UsageError(
                f"{options.model}: not a run; --set changes how a run is exported",
                next_step=f"python -m toolkit predict {shlex.join([str(options.model), *options.inputs])}",
            )
        model: Path = options.model
        return model

    def exported() -> Path:
        from rich.console import Console

        with stopped("no half-written bundle is left", options):
            return bundle_of(run, options.overrides, Console(stderr=True, highlight=False))

    return exported


def _missing(options: Namespace) -> UsageError:
    """Where there is no such model: the same command with the nearest one that there is, else with the latest."""
    from toolkit.api.errors import nearest
    from toolkit.cli.parser import command_line
    from toolkit.cli.places import filled
    from toolkit.runs.directory import RunDirectory
    from toolkit.serving.bundle import MANIFEST

    folders = {Path("exports"), options.model.parent}
    bundles = [path.parent for folder in folders for path in folder.glob(f"*/{MANIFEST}")]
    runs = [path for path in Path("runs").glob("*/*") if RunDirectory(path).best.is_file()]
    near = nearest(str(options.model), map(str, [*bundles, *runs])) or filled("MODEL")
    place = next(place for place, word in enumerate(options.words) if Path(word) == options.model)
    words = [*options.words[:place], near, *options.words[place + 1 :]]
    return UsageError(
        f"{options.model}: no such run or bundle",
        next_step=command_line(words) if near else "train a model first: python -m toolkit demo",
    )
