"""The self-contained page of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from toolkit.api.files import as_utf8, write_atomically
from toolkit.recipe.places import places, without_places
from toolkit.runs.compare.charts import fractions_of, intervals, learning_curves, metric_of, overlaid
from toolkit.runs.compare.comparison import Comparison, Pair
from toolkit.runs.compare.pictures import pictures_of
from toolkit.runs.compare.tables import Table, main_table, recipe_table, runs_table, scores_table
from toolkit.runs.directory import FIX_AND_REPEAT, explained
from toolkit.runs.report import figures
from toolkit.runs.report.page import Picture, embedded, pictures, render
from toolkit.runs.report.pictures import evenly_spaced

SHOWN_FLIPS = 24
"""Items of each kind that a pair shows, at most, evenly spaced."""
LISTED_KINDS = 12
"""Classes and sources that a pair lists, at most."""


@dataclass(frozen=True)
class Flipped:
    """One item that two contenders answer otherwise."""

    id: str
    target: str
    first: str
    second: str
    picture: Picture | None


@dataclass(frozen=True)
class Shown:
    """A pair with the items that it shows."""

    pair: Pair
    better: Sequence[Flipped]
    worse: Sequence[Flipped]
    missing: str
    """Why pictures are missing; empty where none is."""


def write_page(found: Comparison, path: Path, *, main: Table | None = None, command: str = "compare") -> Path:
    """Write the page of a comparison to `path`, which is returned. Raises RunFailed where that cannot be written.

    main: the first table, in place of `main_table`.
    command: that made the page.
    """
    with explained(path, next_step=FIX_AND_REPEAT), TemporaryDirectory(prefix="compare-") as folder:
        scratch = Path(folder)
        figures.save(scratch, "intervals", intervals(found))
        metric = metric_of(found.contenders)
        if metric:
            figures.save(scratch, "curves", overlaid(found.contenders, metric))
        if curves := fractions_of(found):
            figures.save(scratch, "learning", learning_curves(found, curves))
        page = render(
            Path(__file__).parent / "compare.html.j2",
            pictures(scratch),
            found=found,
            metric=metric,
            main=main or main_table(found),
            command=command,
            scores=scores_table(found) if found.pairs else runs_table(found.contenders[0]),
            recipes=recipe_table(found),
            shown=list(_shown(found, scratch)),
            listed=LISTED_KINDS,
        )
        for one in found.contenders:
            for run in one.runs:
                page = without_places(page, places(run.recipe))
        write_atomically(path, as_utf8(page))
    return path


def _shown(found: Comparison, scratch: Path) -> Iterator[Shown]:
    """The pairs with the first contender; others have as many flips again and say little more."""
    pairs = [pair for pair in found.pairs if pair.first is found.contenders[0]]
    for number, pair in enumerate(pairs):
        folder = scratch / f"pair-{number}"
        folder.mkdir()
        # items are often in the order of their classes: the first ones would all be of one class
        sides = [evenly_spaced(ids, SHOWN_FLIPS) for ids in (pair.flips.better, pair.flips.worse)]
        chosen = [name for side in sides for name in side]
        drawn, missing = pictures_of(chosen, [*pair.first.runs, *pair.second.runs], folder) if chosen else ({}, "")
        better, worse = ([_flipped(pair, name, drawn.get(name)) for name in side] for side in sides)
        yield Shown(pair, better, worse, missing)


def _flipped(pair: Pair, name: str, picture: Path | None) -> Flipped:
    answers = pair.first.answers[name], pair.second.answers[name]
    return Flipped(name, pair.first.targets[name], *answers, None if picture is None else embedded(picture))
