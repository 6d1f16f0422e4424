"""The command check: the recipe, then its data and everything that a run builds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from toolkit.api.errors import counted, first_few, printable
from toolkit.cli.parser import add_set, command_line, set_flags, stopped
from toolkit.cli.recipes import RECIPE_HELP, show_file
from toolkit.system.notices import columns, show

if TYPE_CHECKING:
    from argparse import Namespace

    from toolkit.build.inspection import Inspection, Room
    from toolkit.build.plan import Plan
    from toolkit.build.rehearsal import Rehearsal
    from toolkit.cli.parser import Parser
    from toolkit.runs.probe import Probe

CLASSES = 20
"""Classes that are shown with their items; of more, only the largest and the smallest."""
EXTREMES = 3
NOTES = 20
"""Damaged or skipped files that are named."""


def fill(parser: Parser) -> None:
    parser.does(_check, ("check har_resnet50", "check har_resnet50 --set train.batch=64 --probe"))
    parser.add_argument("recipe", metavar="RECIPE", type=Path, help=RECIPE_HELP)
    add_set(parser)
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--probe", action="store_true", help="train for ten seconds to estimate time and memory")
    only.add_argument("--recipe-only", action="store_true", help="check the recipe alone, without a look at the data")


def _check(options: Namespace) -> None:
    from toolkit.cli.folders import check_no_folder

    check_no_folder(options.recipe)
    from toolkit.build.plan import plan
    from toolkit.host.registry import discover
    from toolkit.recipe.read import parse

    show_file(options.recipe)
    draft, registry = parse(options.recipe, options.overrides), discover()
    planned = plan(draft, registry)
    if draft.recipe is not None and draft.recipe.tune is not None:
        from toolkit.tune.study import check_study

        check_study(draft, registry)
    if not options.recipe_only:
        with stopped("the check was stopped", options):
            _check_data(planned)
            if options.probe:
                _probe(planned)
    show(f"{options.recipe}: valid")
    show(f"next:  {command_line(['run', str(options.recipe), *set_flags(options.overrides)])}")


def _check_data(planned: Plan) -> None:
    """Print what a run finds and needs. Raises the errors that it would end with before its first step."""
    from toolkit.build.inspection import inspect
    from toolkit.build.rehearsal import rehearse

    data = planned.data()
    found = inspect(planned, data)
    rehearsal = rehearse(_with_some_batch(planned), data)
    notes = (f"note     {text}" for text in _notes(found))
    for line in (*_data_lines(planned, found), *_need_lines(planned, found, rehearsal), *notes):
        show(*_fitted(line))


def _with_some_batch(planned: Plan) -> Plan:
    """The plan with a batch to build with, where a run chooses one."""
    from toolkit.build.batch_size import with_batch

    train = planned.resolved.train
    return with_batch(planned, 2 * train.accumulate) if train.batch == "auto" else planned


def _fitted(line: str) -> list[str]:
    """The line, folded where the terminal is narrower; words are not broken, so that paths can be copied."""
    return wrap(
        printable(line), max(columns(), 40), subsequent_indent=" " * 9, break_long_words=False, break_on_hyphens=False
    )


def _probe(planned: Plan) -> None:
    """Print what a few seconds of training say of the whole run."""
    from toolkit.runs.probe import probe

    for line in _probe_lines(probe(planned)):
        show(*_fitted(line))


def _probe_lines(found: Probe) -> Iterator[str]:
    from toolkit.runs.pace import duration

    steps = f"{counted(len(found.steps), 'step')} of {counted(found.batch, 'item')}"
    yield f"probe    trained {steps} on {found.device}, {found.precision}; nothing is kept"
    decodes = found.first_epoch > 1.1 * found.later_epoch
    first = f" (the first, which decodes: {duration(found.first_epoch)})" if decodes else ""
    yield f"estimate an epoch trains for {duration(found.later_epoch)}{first}"
    if found.scored[0]:
        yield f"estimate validation after each epoch: {duration(found.validation)}"
    yield f"estimate the whole run, {counted(found.epochs, 'epoch')} and scores: {duration(found.whole)}"
    yield f"estimate memory at the peak: {size(found.peak_memory)}, without images decoded later"
    if found.frozen:
        yield "note     some weights are frozen; an epoch takes longer once they are trained"


def _data_lines(planned: Plan, found: Inspection) -> Iterator[str]:
    from toolkit.build.plan import usual_place

    data, recipe = found.data, planned.resolved
    usual = usual_place(recipe.data.name)
    place = "the built-in SAMPLE, drawn by code" if found.spec.sample else recipe.data.root or usual or "its own files"
    yield f"data     {recipe.data.name}: {place}"
    rule = ", ".join(f"{_words(key)} {value}".strip() for key, value in data.protocol.items())
    yield f"split    {rule or 'as the dataset gives it'}"
    yield from _count_lines(found)
    for split, item in found.first.items():
        frames = "" if item.frames is None else f"{counted(item.frames, 'frame')} of "
        yield f"decoded  {split}: {item.name}, {frames}{item.width} x {item.height} px"


def _words(key: str) -> str:
    """A key of the protocol in words; the split's own source needs none."""
    return key.replace("_", " ").removeprefix("split").strip()


def _count_lines(found: Inspection) -> Iterator[str]:
    """A table of items by split, and by class where targets are classes."""
    splits = list(found.counts)
    width = _name_width(found)
    yield f"{'items':{width + 9}}" + "".join(f"{split:>10}" for split in splits)
    if found.spec.targets != "number":
        yield from _class_lines(found)
    totals = (len(getattr(found.data, split)) for split in splits)
    yield f"  {'all':{width + 7}}" + "".join(f"{count:>10,}" for count in totals)
    for name, (low, high) in found.ranges.items():
        yield f"numbers  {name}: {low:g} to {high:g} in train"


def _class_lines(found: Inspection) -> Iterator[str]:
    """Items of each class by split; of many classes the extremes."""
    classes, width = found.spec.classes, _name_width(found)
    for number in _shown(found):
        name = classes[number] if len(classes[number]) <= width else f"{classes[number][: width - 3]}..."
        yield f"  {name:{width + 7}}" + "".join(f"{counts[number]:>10,}" for counts in found.counts.values())
    if len(classes) > CLASSES:
        yield f"  ... the {EXTREMES} largest and the {EXTREMES} smallest of {len(classes):,} classes"
    without = [found.without_class(split) for split in found.counts]
    if any(without):
        yield f"  {'no class':{width + 7}}" + "".join(f"{count:>10,}" for count in without)


def _shown(found: Inspection) -> Sequence[int]:
    numbers = range(len(found.spec.classes))
    if len(numbers) <= CLASSES:
        return numbers
    ranked = sorted(numbers, key=lambda number: -found.counts["train"][number])
    return (*ranked[:EXTREMES], *ranked[-EXTREMES:])


def _name_width(found: Inspection) -> int:
    """Columns for the longest name of a class that is shown, within limits."""
    names = [] if found.spec.targets == "number" else [found.spec.classes[number] for number in _shown(found)]
    return min(max([5, *map(len, names)]), 40)


def _need_lines(planned: Plan, found: Inspection, rehearsal: Rehearsal) -> Iterator[str]:
    from toolkit.build.summary import amount

    for split, room in found.rooms.items():
        yield f"pixels   {split}: {_room(room, about=found.first[split].frames is not None)}"
    memory, disk = size(found.memory_free), size(found.disk_free)
    yield f"free     {memory} of memory, {disk} of disk for {found.cache}"
    state = ", gradients and optimizer state" if rehearsal.state_bytes is not None else " and gradients"
    parameters = f"{amount(rehearsal.parameters)} parameters"
    if planned.resolved.train.batch == "auto":
        yield "batch    auto: chosen when the run starts; --probe chooses one now"
    yield f"model    {planned.resolved.model.name}: {parameters}; weights{state} {size(rehearsal.bytes)}"


def _room(room: Room, *, about: bool) -> str:
    needed = f"{'about ' if about else ''}{size(room.bytes)}"
    if room.place == "memory":
        return f"{needed}, kept in memory"
    if room.place == "file":
        return f"{needed}, kept in the cache on disk ({size(room.new_bytes)} new)"
    return f"{needed}, more than memory and cache take: decoded in every epoch"


def _notes(found: Inspection) -> Iterator[str]:
    if found.spec.sample:
        drawn = f" ({'; '.join(found.data.notes)})" if found.data.notes else ""
        yield f"the sample is used{drawn}; for your own data: --set data.root=FOLDER"
    else:
        yield from found.data.notes
    for split, item in found.first.items():
        if item.damaged:
            yield f"{split}: skipped {counted(len(item.damaged), 'damaged item')}: {first_few(item.damaged)}"
        if item.damage:
            yield f"{split}: {item.name}: {item.damage}"
    for problem in found.data.files[:NOTES]:
        yield f"{problem.path}: {problem.problem}{f' ({problem.other})' if problem.other else ''}"
    if len(found.data.files) > NOTES:
        from toolkit.runs.directory import RunDirectory

        listed = RunDirectory(Path()).file_problems.name
        yield f"{len(found.data.files) - NOTES:,} more files with a problem; a run lists all of them in {listed}"
    if found.lacks_disk:
        yield (
            "the disk has too little room for the decoded images, so every epoch decodes them again: free disk "
            "space, set TOOLKIT_CACHE, or lower input.stored"
        )


def size(count: int) -> str:
    """Bytes as people read them."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count / 2**10:,.0f} KiB"
