"""What a study looks like: `study.html`, one self-contained page made from the study and the files of its runs."""

from __future__ import annotations

from pathlib import Path

import optuna

from toolkit.api.files import as_utf8, write_atomically
from toolkit.runs.directory import explained
from toolkit.runs.report import figures
from toolkit.runs.report.page import pictures, render
from toolkit.runs.scores import score_text
from toolkit.tune.aim import Aim
from toolkit.tune.outcome import shown
from toolkit.tune.report.charts import sections
from toolkit.tune.report.contents import gather
from toolkit.tune.space import Space

__all__ = ["write_study_report"]


def write_study_report(study: optuna.Study, folder: Path, aim: Aim, space: Space, *, seeds: int = 1) -> Path:
    """Draw the study's figures into `folder/figures` and write `folder/study.html`; returns its path.

    `seeds` is how many runs a trial has. Works on a study under way; the page says why something cannot be shown.
    Raises RunFailed when the file system refuses.
    """
    contents = gather(study, folder, aim, space, seeds)
    drawn = sections(contents)
    path = folder / "study.html"
    template = Path(__file__).parent / "study.html.j2"
    with explained(folder):
        for chart in (chart for section in drawn for chart in section.charts):
            if chart.drawing:
                figures.save(folder / "figures", chart.name, chart.drawing)
        page = render(
            template,
            pictures(folder / "figures"),
            contents=contents,
            sections=drawn,
            score_text=score_text,
            shown=shown,
        )
        write_atomically(path, as_utf8(page))
    return path
