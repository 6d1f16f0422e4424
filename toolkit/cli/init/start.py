"""From the words of `init` to a recipe: of the files of a folder, or as a copy of a shipped recipe."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from toolkit.api.answers import number
from toolkit.api.contracts import Data
from toolkit.api.errors import DataError, Problem, UsageError, counted, first_few
from toolkit.cli.init.choices import Survey, choose, described
from toolkit.cli.init.division import divide
from toolkit.cli.init.layout import KAGGLE_TABLE, data_root, recognise
from toolkit.cli.init.media import look_at
from toolkit.cli.init.text import UNWRITABLE, compose
from toolkit.data.folders import folders_with
from toolkit.data.kinds import is_video
from toolkit.host.registry import discover
from toolkit.recipe.shipped import shipped
from toolkit.recipe.write import inline
from toolkit.system.machine import has_gpu

KINDS = ("images", "videos", "cifar10", "har")
_ARCHIVES = {".zip": "unzip {} -d {}", ".tar": "tar -xf {} -C {}", ".gz": "tar -xf {} -C {}", ".xz": "tar -xf {} -C {}"}
_CLASSES_SHOWN = 12


@dataclass(frozen=True)
class Start:
    """A recipe to begin with, and what to show of it."""

    text: str
    facts: tuple[str, ...]
    notes: tuple[str, ...]
    summary: str
    predicted: str
    """What the model will be asked about."""


def start(kind: str, folder: Path | None, output: Path) -> Start:
    """The recipe for files of this kind. Raises UsageError where the folder is missing, DataError where there is
    nothing to train on."""
    if folder is None:
        return _shipped(kind, output)
    _check_folder(kind, folder)
    root = folder.resolve()
    if kind == "cifar10":
        return _with_root("cifar10_cnn", "cifar10", data_root(root, videos=False), output)
    if kind in ("har", "images"):
        place = data_root(root, videos=False)
        if kind == "har" or (place / KAGGLE_TABLE).is_file():
            videos = not (place / KAGGLE_TABLE).is_file() and bool(folders_with(place, is_video))
            return _with_root("har_resnet50_tsn" if videos else "har_resnet50", "har", place, output)
    return _surveyed(kind, root, output)


def _check_folder(kind: str, folder: Path) -> None:
    if folder.is_dir():
        if UNWRITABLE.search(str(folder.resolve())):
            step = "Rename the folder: a recipe is a text, and has to name it."
            raise DataError("its path has characters that cannot be written", path=folder, next_step=step)
        return
    if not folder.exists():
        raise DataError("folder not found", path=folder, next_step=f"python -m toolkit init {kind} --help")
    target = folder.name.partition(".")[0]
    words = _ARCHIVES.get(folder.suffix.lower(), "").format(shlex.quote(str(folder)), shlex.quote(target))
    make = f"mkdir -p {shlex.quote(target)} && " if words else ""
    step = f"{make}{words} && python -m toolkit init {kind} {shlex.quote(target)}" if words else "give a folder"
    raise DataError("expected a folder, got a file", path=folder, next_step=step)


def _shipped(kind: str, output: Path) -> Start:
    """A shipped recipe as it is, which trains on the built-in sample."""
    names = {"cifar10": "cifar10_cnn", "har": "har_resnet50"}
    if kind not in names:
        raise UsageError(
            f"init {kind}: a folder is missing",
            next_step=f"python -m toolkit init {kind} FOLDER, or for a first run on a sample: python -m toolkit demo",
        )
    text = _named(shipped()[names[kind]].read_text(encoding="utf-8"), names[kind], output)
    note = f"it trains on a built-in sample; for your own files: python -m toolkit init {kind} FOLDER --force"
    return Start(text, (), (note,), f"a copy of the shipped recipe {names[kind]}", "FILES")


def _with_root(name: str, dataset: str, root: Path, output: Path) -> Start:
    """A shipped recipe with `root` in it, if its dataset can read what is there."""
    found = discover().find("dataset", dataset, "data.name")
    if isinstance(found, Problem):
        raise UsageError(str(found), next_step="python -m toolkit plugins list")
    data: Data = found.load()(root, **({"clips": True} if name == "har_resnet50_tsn" else {}))
    text = _named(shipped()[name].read_text(encoding="utf-8"), name, output)
    line = f'name = "{dataset}"\n'
    text = text.replace(line, f"{line}root = {inline(str(root))}\n", 1)
    facts = (f"found {counted(sum(_lengths(data)), 'item')} of {len(data.spec.classes)} classes below {root}",)
    file = next(map(_near, getattr(data.train, "paths", ())), "FILES")
    notes = data.notes if has_gpu() else (*data.notes, *_slow(name))
    return Start(text, (*facts, _splits(data)), notes, f"the shipped recipe {name} for {dataset}", file)


def _slow(name: str) -> Iterator[str]:
    if name.startswith("har_resnet50"):
        yield "no GPU was found; a faster model: add --set model.name=resnet18 --set input.size=160 to each command"


def _named(text: str, name: str, output: Path) -> str:
    """The text of a shipped recipe whose comments name the file that it goes to."""
    return re.sub(rf"(?<=toolkit )(run|tune) (?:recipes/)?{name}(?:\.toml)?", rf"\1 {shlex.quote(str(output))}", text)


def _surveyed(kind: str, root: Path, output: Path) -> Start:
    """A recipe for the images or videos below `root`."""
    layout = recognise(root, videos=kind == "videos")
    listing = layout.found.listing
    media = look_at(layout.root, listing.ids, videos=layout.found.videos)
    divided = divide(layout)
    survey = Survey(layout, divided.data, media, has_gpu(), divided.choices, divided.warnings)
    tables = choose(survey)
    facts = tuple(_facts(survey))
    title = [
        *(f"{fact[0].upper()}{fact[1:]}" for fact in facts),
        f"Written by: python -m toolkit init {kind} {shlex.quote(str(root))}",
        f"Train it:   python -m toolkit run {shlex.quote(str(output))}",
    ]
    notes = (*_damaged(survey), *divided.warnings, *divided.data.notes, *layout.notes)
    machine = "a GPU was found" if survey.gpu else "no GPU was found"
    return Start(
        compose(title, tables), facts, notes, f"{described(tables)} ({machine})", _near(layout.root / listing.ids[0])
    )


def _near(path: Path) -> str:
    """A path as a user would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _facts(survey: Survey) -> Iterator[str]:
    counts, media, noun = survey.counts, survey.media, "video" if survey.videos else "image"
    items = len(survey.layout.found.listing.ids)
    of = "" if survey.numbers else f" of {len(counts)} classes"
    yield f"found {counted(items, noun)}{of}: {survey.layout.what} in {_near(survey.layout.root)}"
    if survey.numbers:
        yield f"numbers: {first_few([*_ranges(survey)], _CLASSES_SHOWN)}"
    else:
        yield f"classes: {first_few([f'{name} {count:,}' for name, count in counts.items()], _CLASSES_SHOWN)}"
    shorts = [one.short for one in media.seen]
    sizes = f"short side {media.short} px" + (f" ({min(shorts)} to {max(shorts)})" if len(set(shorts)) > 1 else "")
    length = f", {media.seconds:.1f} s at {media.rate:.0f} frames a second" if survey.videos else ""
    yield f"usual {noun}: {sizes}{length}; looked at {media.looked:,} of {items:,}"
    yield _splits(survey.data)


def _ranges(survey: Survey) -> Iterator[str]:
    """Each number with the least and the largest value that it has."""
    listing = survey.layout.found.listing
    for name, column in zip(listing.classes, zip(*cast(Any, listing.targets), strict=True), strict=True):
        yield f"{name} {number(min(column))} to {number(max(column))}"


def _splits(data: Data) -> str:
    named = zip(("train", "valid", "test"), _lengths(data), strict=True)
    return f"splits: {', '.join(f'{name} {count:,}' for name, count in named)}"


def _lengths(data: Data) -> tuple[int, int, int]:
    return len(data.train), len(data.valid), len(data.test)


def _damaged(survey: Survey) -> Iterator[str]:
    damaged = survey.media.damaged
    if damaged:
        named = first_few([f"{name} ({reason})" for name, reason in damaged])
        yield f"{counted(len(damaged), 'file')} of {survey.media.looked:,} looked at cannot be read: {named}"
