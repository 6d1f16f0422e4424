"""What is compared: one run, or several that differ in the seed or the fold alone."""

from __future__ import annotations

import json
import math
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from toolkit.api.contracts import TargetForm
from toolkit.api.errors import UsageError, first_few
from toolkit.runs.directory import BUNDLE_SUFFIX, RunDirectory
from toolkit.runs.files import LATENCY, RunFiles, read_run
from toolkit.runs.latest import LATEST, followed
from toolkit.runs.predictions import Prediction
from toolkit.runs.repeats import scores_of
from toolkit.runs.rows import Row, measured
from toolkit.runs.series.members import FOLD, SEED, Member, is_series, points, read_members

BUNDLE = "bundle.json"
REPEATED = frozenset({SEED, FOLD})
"""Keys in which the runs of one contender may differ."""
NAMING_KEYS = 2
"""Keys that recipes differ in, at most, where their values name the contenders."""


@dataclass(frozen=True)
class Contender:
    """One side of a comparison."""

    name: str
    runs: tuple[RunFiles, ...]
    """At least one, all with scores."""

    @property
    def first(self) -> RunFiles:
        return self.runs[0]

    @property
    def form(self) -> TargetForm:
        return self.first.targets

    @property
    def protocols(self) -> list[Mapping[str, Any]]:
        """How the scores of its runs were made, each way once: runs with other folds have other splits."""
        found = {json.dumps(run.scores["protocol"], sort_keys=True, default=str): run for run in self.runs}
        return [found[text].scores["protocol"] for text in sorted(found)]

    @cached_property
    def scores(self) -> Mapping[str, tuple[float, ...]]:
        """Each scalar score by name, one number a run."""
        return scores_of(self.runs)

    @property
    def replicates(self) -> Mapping[str, Sequence[float]]:
        """Of a single run: each score without one block of items, as `Uncertainty.replicates`; else empty."""
        found: Mapping[str, Sequence[float]] = self.first.scores.get("replicates", {}).get(self.first.split, {})
        return found if len(self.runs) == 1 else {}

    @cached_property
    def tables(self) -> Mapping[str, Any]:
        """Its recipe by dotted keys, without those in which its runs differ."""
        return {key: value for key, value in flattened(self.first.tables).items() if key not in REPEATED}

    @cached_property
    def items(self) -> Mapping[str, float]:
        """The measure of each item by id: the mean over the runs that were tested on it."""
        found: dict[str, list[float]] = defaultdict(list)
        for run in self.runs:
            for row in run.rows:
                found[row.id].append(measured(row))
        return {name: math.fsum(values) / len(values) for name, values in found.items()}

    @cached_property
    def targets(self) -> Mapping[str, str]:
        """The target of each item by id, in words."""
        return {row.id: target_of(row) for run in self.runs for row in run.rows}

    @cached_property
    def answers(self) -> Mapping[str, str]:
        """Its answer to each item by id, in words; of several runs how many were right."""
        found: dict[str, list[Row]] = defaultdict(list)
        for run in self.runs:
            for row in run.rows:
                found[row.id].append(row)
        return {name: answer_of(*rows) for name, rows in found.items()}

    @cached_property
    def sources(self) -> Mapping[str, str]:
        """What items come from, by id; items that stand alone are not in it."""
        return {name: source for run in self.runs for name, source in run.sources.items()}

    @property
    def seconds(self) -> float:
        """Of training, the mean over runs; NaN where nothing was trained here, as for a bundle."""
        spent = [math.fsum(record.seconds for record in run.records) for run in self.runs if run.records]
        return math.fsum(spent) / len(spent) if spent else math.nan

    @property
    def epochs(self) -> float:
        """The mean over runs; NaN where nothing was trained here."""
        trained = [len(run.records) for run in self.runs if run.records]
        return sum(trained) / len(trained) if trained else math.nan

    @property
    def latency(self) -> float:
        """Milliseconds for one input, of a bundle that was evaluated; else NaN."""
        return float(self.first.facts.get(LATENCY, math.nan))

    @property
    def parameters(self) -> int | None:
        found: int | None = self.first.facts.get("parameters")
        return found


def target_of(row: Row) -> str:
    return row.target if isinstance(row, Prediction) else row.captions[1]


def answer_of(row: Row, *others: Row) -> str:
    if others:
        rows = (row, *others)
        return f"{sum(map(measured, rows)):g} of {len(rows)} right"
    return row.prediction if isinstance(row, Prediction) else row.captions[0]


def flattened(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a recipe's tables by dotted keys; an array stays one value."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def contenders(paths: Sequence[Path], *, runs: Path) -> list[Contender]:
    """What is at these paths: runs, series, folders of runs that differ in the seed alone, bundles that were evaluated
    below `runs`. A series with a grid is a contender for each of its points. Raises UsageError where something else is
    there, or nothing has scores yet."""
    found = [one for path in paths for one in _contenders(path, runs)]
    return _named_apart(found)


def run_before(run: Path) -> Path:
    """The run of the same recipe that ended last before `run`. Raises UsageError where it is the first."""
    run = followed(run)
    before = [other for other in _runs_in(run.parent) if other.name < run.name]
    earlier = [other for other in before if RunDirectory(other).scores.is_file()]
    if not earlier:
        raise UsageError(
            f"{run}: no earlier run of this recipe has scores",
            next_step=f"name another run: {_command(run, 'RUN')}",
        )
    return max(earlier, key=lambda other: other.name)


def members_compared(folder: Path, members: Sequence[Member]) -> list[Contender]:
    """The points of a series, those that have a run with scores, by their values; without a grid by the recipe."""
    found = _points(folder, members)
    return found if any(one.label for one in members) else _named_apart(found)


def _points(folder: Path, members: Sequence[Member]) -> list[Contender]:
    grouped = points(folder, members)
    finished = {label: [run.path for run in runs if run.scores.is_file()] for label, runs in grouped.items()}
    return [
        Contender(label or folder.name, _repeated(folder, paths).runs) for label, paths in finished.items() if paths
    ]


def _contenders(path: Path, runs: Path) -> list[Contender]:
    path = followed(path)
    if not is_series(path):
        return [_contender(path, runs)]
    found = _points(path, read_members(path))
    if not found:
        again = shlex.join(["python", "-m", "toolkit", "run", "--resume", str(path)])
        raise UsageError(f"{path}: no run of this series has scores yet", next_step=again)
    return found


def _contender(path: Path, runs: Path) -> Contender:
    if (path / BUNDLE).is_file():
        return _named(path.name, [read_run(_evaluation(path, runs))])
    if RunDirectory(path).recipe.is_file():
        repeats = [other for other in _runs_in(path) if other.name.startswith("seed-")]
        return _repeated(path, [path, *repeats])
    members = _runs_in(path) if path.is_dir() else []
    if members:
        return _repeated(path, members)
    return _named(path.name, [read_run(path)])


def _repeated(path: Path, members: Iterable[Path]) -> Contender:
    """The runs as one contender. Raises UsageError where they differ in more than the seed."""
    read = [read_run(member) for member in members]
    finished = [run for run in read if run.finished]
    _require_scores(path, read, finished)
    keys = [Contender("", (run,)).tables for run in finished]
    unlike = sorted({key for one in keys for key in {*one, *keys[0]} if one.get(key) != keys[0].get(key)})
    if unlike:
        words = shlex.join(str(run.directory.path) for run in finished[:2])
        raise UsageError(
            f"{path}: its runs differ in more than the seed: {first_few(unlike)}",
            next_step=f"name the runs: python -m toolkit compare {words}",
        )
    _require_other_draws(path, finished)
    return _named(path.name, finished)


def _require_other_draws(path: Path, runs: Sequence[RunFiles]) -> None:
    """Raise UsageError where two runs have one seed and one fold: they are the same, and show no spread."""
    drawn = dict[tuple[Any, ...], Path]()
    for run in runs:
        table = flattened(run.tables)
        here, known = run.directory.path, tuple(table.get(key) for key in sorted(REPEATED))
        if known in drawn:
            raise UsageError(
                f"{path}: {drawn[known].name} and {here.name} have the same seed, so they show no spread",
                next_step=f"name one of them: {_command(here, 'RUN')}",
            )
        drawn[known] = here


def _named(name: str, runs: Sequence[RunFiles]) -> Contender:
    _require_scores(runs[0].directory.path, runs, [run for run in runs if run.finished])
    return Contender(name, tuple(runs))


def _require_scores(path: Path, runs: Sequence[RunFiles], finished: Sequence[RunFiles]) -> None:
    scored = [run for run in finished if run.split_scores]
    if finished and len(scored) == len(finished):
        return
    if finished:
        again = shlex.join(["python", "-m", "toolkit", "evaluate", str(path)])
        raise UsageError(
            f"{path}: has no scores: its dataset has no validation and no test items",
            next_step=f"score it on other data: {again} --set data.KEY=VALUE",
        )
    raise UsageError(f"{path}: has no scores yet", next_step=runs[0].directory.resume_command)


def _runs_in(folder: Path) -> list[Path]:
    with suppress(OSError):
        found = sorted(one for one in folder.iterdir() if RunDirectory(one).recipe.is_file())
        return [one for one in found if one.name != LATEST]
    return []


def _evaluation(bundle: Path, runs: Path) -> Path:
    """The latest evaluation of a bundle. Raises UsageError if it was never evaluated."""
    found = list(_evaluations(bundle, runs))
    if not found:
        raise UsageError(
            f"{bundle}: a bundle without an evaluation below {runs}",
            next_step=f"evaluate it: python -m toolkit evaluate {shlex.quote(str(bundle))}",
        )
    return max(found, key=lambda path: path.name)


def _evaluations(bundle: Path, runs: Path) -> Iterator[Path]:
    for run in map(RunDirectory, runs.glob(f"*{BUNDLE_SUFFIX}/*")):
        named = run.read_json(run.scores).get("bundle") if run.scores.is_file() else None
        if named is not None and Path(named).resolve() == bundle.resolve():
            yield run.path


def _named_apart(found: Sequence[Contender]) -> list[Contender]:
    return [Contender(name, one.runs) for name, one in zip(_distinct(found), found, strict=True)]


def _distinct(found: Sequence[Contender]) -> Sequence[str]:
    """The shortest names that distinguish the contenders: of their recipes, the values in which these differ, of their
    folders, both, or the ends of their paths. Raises UsageError where one is named twice."""
    recipes, folders = [one.first.name for one in found], [one.name for one in found]
    both = [f"{recipe}/{folder}" for recipe, folder in zip(recipes, folders, strict=True)]
    paths = [one.first.directory.path.absolute() for one in found]
    for names in (recipes, _values(found), folders, both, *_ends(paths)):
        if len({*names}) == len(found):
            return names
    named = {path: one.first.directory.path for path, one in zip(paths, found, strict=True)}
    twice = next(named[path] for path in paths if paths.count(path) > 1)
    others = list(named.values())
    raise UsageError(f"{twice}: named twice", next_step=_command(*others, *([] if len(others) > 1 else ["RUN"])))


def _ends(paths: Sequence[Path]) -> Iterator[list[str]]:
    """The last two names of each path, then the last three, and so on: a page shows no whole path."""
    parts = [path.parts[1:] for path in paths]
    for count in range(2, max(map(len, parts)) + 1):
        yield ["/".join(names[-count:]) for names in parts]


def _values(found: Sequence[Contender]) -> list[str]:
    """The values of the keys in which the recipes differ; empty where these would be no short name."""
    tables = [one.tables for one in found]
    keys = [key for key in dict.fromkeys(key for table in tables for key in table)
            if any(table.get(key) != tables[0].get(key) for table in tables)]  # fmt: skip
    if len(keys) > NAMING_KEYS:
        return []
    return [", ".join(f"{key}={json.dumps(table.get(key), default=str)}" for key in keys) for table in tables]


def _command(*words: object) -> str:
    return shlex.join(["python", "-m", "toolkit", "compare", *map(str, words)])
