"""The command demo: the way from pictures to predictions on a sample, by the commands that one would type."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import UsageError
from toolkit.cli.parser import add_open, console, open_if_asked, stopped
from toolkit.system.notices import say, show

if TYPE_CHECKING:
    from argparse import Namespace

    from rich.console import Console

    from toolkit.build.plan import Plan
    from toolkit.cli.parser import Parser
    from toolkit.runs.directory import RunDirectory

RECIPE = "cifar10_cnn_demo"
PICTURES = 6
"""Pictures that the exported model is asked about."""


def fill(parser: Parser) -> None:
    parser.does(_demo, ("demo", "demo --open"))
    add_open(parser)


def _demo(options: Namespace) -> int:
    planned, output = _planned(), console()
    say(
        "demo: trains a very small network on a built-in SAMPLE of pictures drawn by code, exports it, and predicts "
        f"a few pictures. This takes about a minute; results are kept in runs/{RECIPE} and exports/{RECIPE}.",
        output,
    )
    show("", "1 of 3: train and evaluate", f"$ {_run()}")
    with stopped("what is finished is kept", options):
        from toolkit.export.write import export_run
        from toolkit.runs.session import start_run
        from toolkit.serving.predict import predict_files

        run = start_run(planned, runs=Path("runs"), console=output).directory
        show("", "2 of 3: export to ONNX, and compare with the trained network", f"$ {_export(run)}")
        bundle = export_run(run.path, name=None, exports=Path("exports"), overrides=(), console=output)
    pictures = _short(run.path) / "pictures"
    _save_pictures(planned, pictures)
    show("", f"3 of 3: predict {PICTURES} pictures; each file is named after what it shows")
    show(f"$ {_predict(bundle, pictures)}")
    code = predict_files(bundle, [str(pictures)], top=2)
    _show_end(run, output)
    open_if_asked(options, run.report)
    return code


def _planned() -> Plan:
    """The demo's recipe. Raises UsageError where it would train on data of this folder, not on the sample."""
    from toolkit.build.plan import plan, usual_place
    from toolkit.host.registry import discover
    from toolkit.recipe.read import parse
    from toolkit.recipe.shipped import shipped

    draft = parse(shipped()[RECIPE])
    place = usual_place(draft.tables["data"]["name"])
    if place is not None:
        raise UsageError(
            f"demo: {place} holds data, but the demo uses the built-in sample", next_step="cd to another folder"
        )
    return plan(draft, discover())


def _run() -> str:
    return f"python -m toolkit run {RECIPE}"


def _export(run: RunDirectory) -> str:
    return f"python -m toolkit export {shlex.quote(str(run.path))}"


def _predict(bundle: Path, pictures: Path) -> str:
    return f"python -m toolkit predict {bundle} {shlex.quote(str(pictures))} --top 2"


def _short(run: Path) -> Path:
    """The run by a name that fits on a line of the screen."""
    from toolkit.runs.latest import LATEST

    latest = run.parents[1] / LATEST
    return latest if latest.resolve() == run.resolve() else run


def _save_pictures(planned: Plan, folder: Path) -> None:
    """Some pictures that the network was not trained on, as files named after their class."""
    from PIL import Image

    from toolkit.api.contract_checks import read_image_of
    from toolkit.api.contracts import VideoSplit

    data = planned.data()
    if isinstance(data.test, VideoSplit):
        raise AssertionError("the demo uses images")
    folder.mkdir(parents=True)
    for number in range(PICTURES):
        index = len(data.test) * number // PICTURES
        name = "_".join(data.test.ids[index].replace(" ", "-").split("/")[1:])
        pixels = read_image_of(data.test, index).permute(1, 2, 0).contiguous().numpy()
        Image.fromarray(pixels).save(folder / f"{name}.png")


def _show_end(run: RunDirectory, output: Console) -> None:
    from toolkit.api.answers import percent

    facts, scores = run.read_json(run.facts), run.read_json(run.scores)
    accuracy, classes = scores["test"]["accuracy"], len(facts["classes"])
    show("")
    say(
        f"done: {percent(accuracy, 0)} of the test pictures of the SAMPLE are recognised; "
        f"guessing recognises {percent(1 / classes, 0)}. This says nothing about real pictures.",
        output,
    )
    show(
        f"report {run.report}",
        "next:  your own pictures: python -m toolkit init images FOLDER",
        "       your own videos:   python -m toolkit init videos FOLDER",
        "       other recipes:     python -m toolkit recipes",
    )
