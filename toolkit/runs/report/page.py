"""One self-contained page, `report.html`, made from the files of a run."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.api.answers import number
from toolkit.api.errors import printable
from toolkit.api.files import as_utf8, write_atomically
from toolkit.recipe.places import places, without_places
from toolkit.runs.directory import explained
from toolkit.runs.files import read_run
from toolkit.runs.report import contents, figures, number_figures, statistics
from toolkit.runs.report.contents import Page
from toolkit.runs.report.maps import map_pictures
from toolkit.runs.report.pictures import item_pictures
from toolkit.runs.rows import ROWS, Row

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

HEAVY = 120_000
"""Bytes of a picture above which the page carries it as WebP; the PNG stays in the run."""


@dataclass(frozen=True)
class Picture:
    """A figure as data URIs, with its size in CSS pixels."""

    light: str
    dark: str | None
    width: int
    height: int


def write_report(run: Path) -> Path:
    """Draw the figures that files alone can give into `run/figures` and write `run/report.html`; returns its path.

    Works on unfinished runs too: the page says what is missing. Raises `UsageError` when `run` is not a run directory,
    `DataError` when one of its files is damaged and `RunFailed` when the file system refuses.
    """
    shown = contents.gather(read_run(run))
    directory = shown.files.directory
    again = f"free disk space or fix the folder, then: python -m toolkit report {shlex.quote(str(run))}"
    with explained(run, next_step=again):
        for name, drawing in _drawings(shown):
            figures.save(directory.figures, name, drawing)
        template = Path(__file__).parent / "template.html.j2"
        wrong, right = _items(shown, directory.figures)
        page = render(template, pictures(directory.figures), shown=shown, wrong=wrong, right=right)
        page = without_places(page, places(shown.files.recipe))
        write_atomically(directory.report, as_utf8(page))
    return directory.report


def _drawings(shown: Page) -> Iterator[tuple[str, figures.Drawing]]:
    records = shown.files.records
    if records:
        yield "loss", figures.loss_curves(records, shown.best_epoch)
        yield "learning_rate", figures.learning_rates(records)
        if any(record.rank_waiting for record in records):
            yield "waiting_by_rank", figures.waiting_by_rank(records)
        if any(record.rank_speeds for record in records):
            yield "speed_by_rank", figures.speed_by_rank(records)
    if shown.metric:
        yield "score", figures.metric_curve(records, shown.metric, shown.best_epoch)
    names_of = figures.error_names if shown.files.targets == "number" else figures.score_names
    if len(names := names_of(records)) > 1:
        yield "scores", figures.score_curves(records, names, shown.best_epoch)
    if matrix := shown.answers.matrix:
        yield "confusion_normalised", figures.confusion(matrix.classes, matrix.shares, shares=True)
        yield "confusion", figures.confusion(matrix.classes, matrix.counts, shares=False)
    if shown.numbers:
        yield "answers_by_target", number_figures.answers_by_target(shown.numbers.rows)
        yield "errors_by_target", number_figures.errors_by_target(shown.numbers.rows)
        yield "error_counts", number_figures.errors(shown.numbers.rows)
    if shown.files.predictions:
        yield "calibration", figures.reliability(statistics.calibration(shown.files.predictions))
    if shown.calibrated:
        yield "calibrated", figures.reliability(shown.calibrated.curve)


@dataclass(frozen=True)
class Item:
    """A picture of one item and what was answered to it."""

    row: Row
    picture: Picture
    map: Picture | None
    """Where the answer comes from."""


def _items(shown: Page, folder: Path) -> tuple[list[Item], list[Item]]:
    """The items that have pictures: those with wrong answers, the worst first, and those with right ones."""
    rows, form = shown.files.rows, ROWS[shown.files.targets]
    found = {place: embedded(path) for place, path in item_pictures(folder).items() if place < len(rows)}
    maps = {place: embedded(path) for place, path in map_pictures(folder).items() if place in found}
    places = form.worst(rows, len(rows)), form.right(rows)
    wrong, right = (
        [Item(rows[place], found[place], maps.get(place)) for place in one if place in found] for one in places
    )
    return wrong, right


def pictures(folder: Path) -> dict[str, Picture]:
    """The figures in a folder, by name."""
    return {path.stem: embedded(path) for path in sorted(folder.glob("*.png"))}


def embedded(path: Path) -> Picture:
    """A picture file, with the one for dark pages where there is one, as the page carries it."""
    from PIL import Image

    dark = path.parent / "dark" / path.name
    with Image.open(path) as image:
        dots = image.info.get("dpi", (figures.CHART, figures.CHART))[0]
        width, height = (round(side / dots * figures.PIXELS_PER_INCH) for side in image.size)
    return Picture(_data_uri(path), _data_uri(dark) if dark.is_file() else None, width, height)


def _data_uri(path: Path) -> str:
    from PIL import Image

    data, kind = path.read_bytes(), path.suffix.removeprefix(".")
    if len(data) > HEAVY and kind != "webp":
        file, kind = io.BytesIO(), "webp"
        with Image.open(io.BytesIO(data)) as image:
            image.convert("RGB").save(file, "WEBP", quality=82, method=1)
        data = file.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _finalized(value: Any) -> Any:
    """A name or a value as the page may hold it: HTML has no control characters but blanks."""
    return printable(value, keep="\n\t\u00a0") if type(value) is str else value


def _breakable(text: str) -> Markup:
    """`text` for a narrow place: a line may break behind each separator of classes, folders and keys."""
    from markupsafe import Markup, escape

    escaped = str(escape(_finalized(str(text))))
    return Markup(re.sub(r"[|/_.=]", r"\g<0><wbr>", escaped))  # noqa: S704 - what it holds is escaped


def render(template: Path, pictures: Mapping[str, Picture], **values: Any) -> str:
    """A page of `template`, which may use the macros of parts.html.j2, our style and our script."""
    from markupsafe import Markup

    here = Path(__file__).parent
    # Ours alone: the page's policy lets no other script run, whatever a class name may hold.
    script = (here / "page.js").read_text(encoding="utf-8")
    return (
        _environment(template.parent)
        .get_template(template.name)
        .render(
            **values,
            pictures=pictures,
            style=Markup((here / "style.css").read_text(encoding="utf-8")),  # noqa: S704 - a file of this package
            script=Markup(script),  # noqa: S704 - a file of this package
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


@functools.cache
def _environment(templates: Path) -> jinja2.Environment:
    """Kept, since it keeps the templates that it has compiled: a page takes far less time than they do."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([templates, Path(__file__).parent]),
        autoescape=True,
        finalize=_finalized,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": contents.percent, "score": contents.score, "named": contents.named}
    environment.filters["breakable"] = _breakable
    environment.filters["number"] = number
    environment.globals["listed_files"] = contents.LISTED_FILES
    environment.globals["listed_slices"] = contents.LISTED_SLICES
    environment.globals["most_slices"] = contents.MOST_SLICES
    return environment
