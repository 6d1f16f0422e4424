"""Commands on recipes and on runs: run, evaluate, report, schema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import UsageError
from toolkit.cli.parser import add, add_set, add_use, command_line, console, count, stopped
from toolkit.cli.places import BUNDLE, RECIPE, RUN
from toolkit.cli.recipes import RECIPE_HELP, show_file
from toolkit.runs.directory import RunDirectory
from toolkit.system.notices import show

if TYPE_CHECKING:
    from argparse import Namespace

    from rich.console import Console

    from toolkit.cli.parser import Commands, Parser
    from toolkit.runs.loop import Prepared


def add_run(commands: Commands) -> None:
    examples = (
        "run cifar10_cnn",
        "run har_resnet50 --set train.epochs=10 --set train.batch=64",
    )
    parser = add(commands, "run", "train, evaluate and report a recipe", _run, examples)
    parser.add_argument("recipe", metavar="RECIPE", type=Path, nargs="?", help=f"{RECIPE_HELP}; not needed to resume")
    add_set(parser)
    parser.add_argument("--resume", metavar="RUN", type=Path, help="continue this run")
    parser.add_argument(
        "--extend", metavar="EPOCHS", type=count, help="with --resume: train on, to so many epochs in all"
    )
    parser.add_argument(
        "--find-lr", action="store_true", help="try learning rates from low to high and propose one; no run is started"
    )
    parser.add_argument("--runs", metavar="DIR", type=Path, help="where run directories go (default: runs)")
    add_open(parser)


def add_evaluate(commands: Commands) -> None:
    text = "re-evaluate the best checkpoint of a run, or an exported bundle"
    examples = (f"evaluate {RUN}", f"evaluate {BUNDLE}")
    parser = add(commands, "evaluate", text, _evaluate, examples)
    parser.add_argument("run", metavar="RUN", type=Path, help="a run's directory, or a bundle's")
    add_set(parser)
    add_use(parser)


def add_report(commands: Commands) -> None:
    examples = (f"report {RUN}", f"report {RUN} --open")
    parser = add(commands, "report", "write a run's report again from its files", _report, examples)
    parser.add_argument("run", metavar="RUN", type=Path)
    add_open(parser)


def add_open(parser: Parser) -> None:
    parser.add_argument("--open", action="store_true", help="show the report in a browser")


def add_schema(commands: Commands) -> None:
    text = "print the JSON Schema of a recipe with all installed components"
    add(commands, "schema", text, _schema, ("schema", "schema > recipe.schema.json"))


def _run(options: Namespace) -> None:
    if options.resume is None and options.recipe is None:
        raise UsageError("run: a recipe is missing", next_step=f"python -m toolkit run {RECIPE}")
    if options.resume is not None and options.runs is not None:
        step = command_line(["run", "--resume", str(options.resume)])
        raise UsageError("run: --runs has no meaning with --resume", next_step=step)
    if options.resume is not None and options.find_lr:
        step = command_line(["run", str(RunDirectory(options.resume).recipe), "--find-lr"])
        raise UsageError("run: --find-lr has no meaning with --resume", next_step=step)
    if options.resume is None and options.extend is not None:
        longer = ["run", str(options.recipe), "--set", f"train.epochs={options.extend}"]
        raise UsageError("run: --extend needs --resume RUN", next_step=command_line(longer))
    if options.resume is None:
        from toolkit.cli.folders import check_no_folder

        check_no_folder(options.recipe)
    output = console()
    if options.find_lr:
        from toolkit.cli.find_lr import find_lr

        with stopped("no run was started, nothing is lost", options):
            find_lr(options, output)
        return
    with stopped("training had not begun, nothing is lost", options):
        prepared = _resumed(options, output) if options.resume is not None else _started(options, output)

    from toolkit.runs.next_steps import print_next_steps

    print_next_steps(prepared, output)
    if options.open:
        from toolkit.system.browser import open_page

        open_page(prepared.directory.report)


def _resumed(options: Namespace, output: Console) -> Prepared:
    from toolkit.runs.session import resume_run

    given = {"recipe": options.recipe, "overrides": options.overrides, "extend": options.extend}
    return resume_run(options.resume, console=output, **given)


def _started(options: Namespace, output: Console) -> Prepared:
    from toolkit.build.plan import plan
    from toolkit.host.registry import discover
    from toolkit.recipe.read import parse
    from toolkit.runs.directory import name_of_recipe

    show_file(options.recipe)
    name = name_of_recipe(options.recipe)
    draft = parse(options.recipe, options.overrides, name=name)
    plan(draft, discover())  # so that what is wrong is shown before torch is imported, which takes seconds
    from toolkit.runs.session import start_run

    return start_run(draft, runs=options.runs or Path("runs"), console=output)


def _evaluate(options: Namespace) -> None:
    output = console()
    if (options.run / "bundle.json").is_file():
        from toolkit.export.rescore import evaluate_bundle

        use = {"device": options.device or "auto", "precision": options.precision}
        directory = evaluate_bundle(options.run, options.overrides, runs=Path("runs"), console=output, **use)
    else:
        from toolkit.serving.bundle import bundle_near

        recipe = RunDirectory(options.run).recipe
        near = None if recipe.is_file() else bundle_near(options.run)
        if near:
            why = f"not a bundle (it has no bundle.json), nor a run directory (it has no {recipe.name})"
            raise UsageError(f"{options.run}: {why}", next_step=near)
        if options.device or options.precision:
            raise UsageError(
                f"{options.run}: not a bundle; --device and --precision are for bundles",
                next_step="for a run use --set train.device=... and --set train.precision=...",
            )
        from toolkit.runs.session import evaluate_run

        directory = evaluate_run(options.run, options.overrides, console=output)
    from toolkit.runs.examples import predict_command

    show(f"scores {directory.scores}", console=output)
    show(f"next:  {predict_command(options.run, directory)}", console=output)


def _report(options: Namespace) -> None:
    from toolkit.runs.report import write_report

    page = write_report(options.run)
    show(f"report {page}")
    if options.open:
        from toolkit.system.browser import open_page

        open_page(page)


def _schema(_: Namespace) -> None:
    import json

    from toolkit.build.schema import recipe_schema
    from toolkit.host.registry import discover

    print(json.dumps(recipe_schema(discover()), indent=2))
