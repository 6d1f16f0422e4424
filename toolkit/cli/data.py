"""The command data and its actions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.cli.parser import Parser, add, add_open, add_set, command_line, count, open_if_asked, set_flags, stopped
from toolkit.cli.recipes import RECIPE_HELP, show_file
from toolkit.system.notices import show

if TYPE_CHECKING:
    from argparse import Namespace

    from toolkit.build.plan import Plan
    from toolkit.runs.data_check.check import Checked

SUBJECT = f"{RECIPE_HELP}; or a folder of images or videos"
CHECKS = Path("checks")
"""Where checks go."""


def fill(parser: Parser) -> None:
    parser.does(_no_action, ("data check cifar10_cnn", "data show cifar10_cnn"))
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    add(actions, "check", "find damaged files, copies, leaks, outliers and likely label errors", _fill_check)
    add(actions, "show", "write a page with pictures of each class", _fill_show)
    add(actions, "index", "note where each image or video of shards lies, once before the first run", _fill_index)


def _fill_check(parser: Parser) -> None:
    parser.does(_check, ("data check cifar10_cnn", "data check har_resnet50 --model resnet18"))
    _add_subject(parser)
    parser.add_argument("--model", metavar="NAME", help="judge labels by the features of this model")
    given = "a run, or a file of weights, of the model that judges labels (default: the published weights)"
    parser.add_argument("--weights", metavar="RUN", help=given)
    _add_output(parser)


def _fill_show(parser: Parser) -> None:
    parser.does(_show, ("data show cifar10_cnn", "data show cifar10_cnn --items 24"))
    _add_subject(parser)
    parser.add_argument("--items", metavar="N", type=count, default=12, help="items of each class (default: 12)")
    _add_output(parser)


def _add_subject(parser: Parser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", type=Path, help=SUBJECT)
    add_set(parser)


def _add_output(parser: Parser) -> None:
    parser.add_argument(
        "--output", metavar="DIR", type=Path, default=CHECKS, help=f"where checks go (default: {CHECKS})"
    )
    add_open(parser)


def _no_action(options: Namespace) -> None:
    from toolkit.api.errors import UsageError

    del options
    raise UsageError("data: expected an action", next_step=command_line(["data", "--help"]))


def _check(options: Namespace) -> None:
    from toolkit.runs.data_check.check import check_data, lines, write_tables
    from toolkit.runs.data_check.page import write_page
    from toolkit.runs.directory import created
    from toolkit.system.machine import allowed_cores

    recipe, planned = _planned(options)
    kept = stopped("the check was stopped; nothing is kept", options)
    with kept, created(options.output, planned.resolved.name) as directory:
        checked = check_data(
            planned, model=options.model, weights=options.weights, workers=len(allowed_cores()), progress=_progress
        )
        with directory.explained():
            write_tables(checked, directory.path)
            page = write_page(checked, directory.path)
    show(*lines(checked), f"report   {page}")
    for line in _next_lines(options, recipe, checked, page.parent):
        show(line)
    open_if_asked(options, page)


def _next_lines(options: Namespace, recipe: Path | None, checked: Checked, folder: Path) -> Iterator[str]:
    """The files to review, and the command that goes on."""
    from toolkit.data.review import EXCLUDE
    from toolkit.runs.data_check.check import ISSUES, LABELS

    if checked.findings:
        yield f"issues   {folder / ISSUES}: write {EXCLUDE} into the column decision of items that are to go"
    if (folder / LABELS).is_file():
        yield f"labels   {folder / LABELS}: write the right class into the column label"
    if recipe is None:
        words = ["init", _held(options.recipe), str(options.recipe)]
        yield f"next:  {command_line(words)}"
        return
    safe = any(finding.decision == EXCLUDE for finding in checked.findings)
    keys = ["--set", f"data.exclude={folder / ISSUES}"] if safe else []
    yield f"next:  {command_line(['run', str(recipe), *set_flags(options.overrides), *keys])}"


def _show(options: Namespace) -> None:
    from toolkit.runs.data_check.contact import write_contact_sheet
    from toolkit.runs.directory import created

    _, planned = _planned(options)
    kept = stopped("nothing is kept", options)
    with kept, created(options.output, planned.resolved.name) as directory, directory.explained():
        page = write_contact_sheet(planned, directory.path, options.items)
    show(f"pictures {page}")
    open_if_asked(options, page)


def _planned(options: Namespace) -> tuple[Path | None, Plan]:
    """The recipe's file, None for a folder of images or videos; and the plan of the recipe, or of the one that `init`
    would write."""
    from toolkit.build.plan import plan
    from toolkit.host.registry import discover
    from toolkit.recipe.read import parse, parse_text
    from toolkit.runs.directory import RunDirectory

    path, overrides = options.recipe, options.overrides
    run = RunDirectory(path)
    if run.recipe.is_file():
        return run.recipe, plan(parse(run.recipe, overrides, name=run.recipe_name), discover())
    if not path.is_dir():
        show_file(path)
        return path, plan(parse(path, overrides), discover())
    from toolkit.cli.init.start import start

    name = path.resolve().name
    text = start(_held(path), path, Path(f"{name}.toml")).text
    return None, plan(parse_text(text, str(path), overrides, name=name), discover())


def _held(folder: Path) -> str:
    from toolkit.api.errors import UsageError
    from toolkit.cli.folders import held_by

    held = held_by(folder)
    if held is None:
        step = f"name a recipe or a folder of data: {command_line(['data', 'check', 'RECIPE'])}"
        raise UsageError(f"{folder}: no images or videos found", next_step=step)
    return held


@contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, where that is a terminal."""
    import sys

    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=total)
        yield lambda done: progress.update(task, completed=done)


def _fill_index(parser: Parser) -> None:
    parser.does(_index, ("data index s3://BUCKET/FOLDER", "data index shards --column label --column patient"))
    parser.add_argument("place", metavar="PLACE", help="a folder, a URL or a pattern of .tar or .parquet files")
    columns = "a column to keep, such as labels or groups; may be repeated (default: cls of tars, label of Parquet)"
    parser.add_argument("--column", metavar="NAME", action="append", default=[], dest="columns", help=columns)
    parser.add_argument(
        "--content", metavar="COLUMN", default="", help="the column of images or videos of Parquet files"
    )
    parser.add_argument("--output", metavar="FILE", type=Path, help="write the index here (default: the cache)")
    parser.add_argument("--force", action="store_true", help="read all shards again, even if there is an index")


def _index(options: Namespace) -> None:
    from toolkit.api.errors import counted
    from toolkit.data.shards.index import read_index
    from toolkit.data.shards.opened import make_index
    from toolkit.data.shards.places import Shard
    from toolkit.system.notices import note

    def progress(shard: Shard) -> None:
        note(f"indexed {shard.name}")

    path = make_index(
        options.place,
        options.columns or [""],
        content=options.content,
        output=options.output,
        force=options.force,
        progress=progress,
    )
    index = read_index(path)
    size = int(index.arrays["bytes"].sum(dtype="int64"))
    show(
        f"{counted(len(index), index.medium)} in {counted(len(index.arrays['items']), 'block')} of "
        f"{counted(len(index.shards), 'shard')}, {size / 2**30:.3g} GiB"
    )
    for name, column in index.columns.items():
        show(f"{name}: {counted(len(column.values), 'value')}")
    show(*index.notes, f"index: {path}")
