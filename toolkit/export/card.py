"""The model card: a bundle's README.md, from its manifest."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.api.answers import number
from toolkit.api.clips import Clip
from toolkit.api.errors import counted, printable
from toolkit.export.hub import front_matter
from toolkit.runs.estimates import Estimate
from toolkit.runs.predictions import Prediction
from toolkit.runs.report import statistics
from toolkit.runs.report.numbers import OutputScores, output_scores
from toolkit.runs.rows import Row
from toolkit.serving.bundle.manifest import INPUT, FrameSampling, Manifest
from toolkit.serving.bundle.trust import SCORES, Trust

MATRIX_CLASSES = 20
"""Most classes that the confusion matrix shows: a wider table is not read."""
LISTED = 5
"""Most entries shown of a list that the gate found; bundle.json has them all."""

FLIPS = "flips"
"""What a comparison of the gate calls the items that the exported model answers otherwise."""

Matrix = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Confusions:
    """The confusion matrix, or its part for the classes with most mistakes."""

    classes: Sequence[str]
    rows: Sequence[Sequence[float]]
    """Counts, target by prediction; where some classes are not shown, the last column counts predictions of those."""
    of: int
    """Number of all classes."""

    @property
    def cut(self) -> bool:
        return len(self.classes) < self.of


def card_of(manifest: Manifest, rows: Sequence[Row]) -> str:
    """The model card as Markdown, with what these answers to the split that was scored say: so it is there whether or
    not the recipe's metrics give it."""
    names, thresholds = manifest.classes, manifest.thresholds
    if manifest.form == "number":
        estimates = [row for row in rows if isinstance(row, Estimate)]
        return card(manifest, None, outputs=[output_scores(name, estimates) for name in names])
    predictions = [row for row in rows if isinstance(row, Prediction)]
    if thresholds is None:
        return card(manifest, statistics.confusion_matrix(names, predictions))
    by_class = dict(zip(names, thresholds, strict=True))
    return card(manifest, None, statistics.per_class_of_sets(names, predictions, {}, by_class))


def card(
    manifest: Manifest,
    confusion: Matrix | None,
    table: Sequence[statistics.ClassScores] = (),
    outputs: Sequence[OutputScores] = (),
) -> str:
    """The model card as Markdown. `confusion` counts the items of the split that was scored, `[C, C]`, target by
    prediction; None leaves the section out. `table` has a row for each class where answers are sets of classes,
    `outputs` one for each output where they are numbers."""
    import jinja2

    environment = jinja2.Environment(  # noqa: S701 - Markdown, escaped by `text` and `code`
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"text": text, "code": code, "words": words, "score": score, "in_words": in_words}
    environment.filters["number"] = number
    return front_matter(manifest) + environment.get_template("card.md.j2").render(
        manifest=manifest,
        results=_results(manifest),
        precision=next((found.get("precision") for found in manifest.results.values()), None),
        lines=snippet(manifest),
        sampling=_sampling(manifest),
        model=_model(manifest),
        # all that any side has, in the order in which they first appear
        metrics=list(dict.fromkeys(name for scores in manifest.scores.values() for name in scores)),
        findings=_findings(manifest.gate),
        flips=_flips(manifest.gate),
        trust=manifest.trust,
        meanings=SCORES,
        searched=manifest.searched,
        measured=_measured(manifest.trust),
        unknown=manifest.protocol.get("unknown", ""),
        # validation, unless the gate had to use the test split
        split="test" if any(one.get("split") == "test" for one in manifest.gate.values()) else "validation",
        table=table,
        outputs=outputs,
        confusions=None if confusion is None else confusions(manifest.classes, confusion),
        fence="`" * max(3, 1 + max(map(len, re.findall("`+", manifest.recipe)), default=0)),
    )


def snippet(manifest: Manifest) -> str:
    """A few lines of Python that answer the image, or the beginning of the video, named on the command line. They run
    unchanged, in the bundle's folder, with onnxruntime, numpy and Pillow, or for a video PyAV. An image's pixels are
    those of `toolkit.data.pixels`."""
    model = next(iter(manifest.models.values()))
    session = f'ort.InferenceSession("{model}", providers=["CPUExecutionProvider"])'
    lines: tuple[str, ...]
    if manifest.clip is None:
        lines = (
            "import json, sys, numpy as np, onnxruntime as ort, PIL.Image, PIL.ImageOps",
            f"session = {session}",
            "image = PIL.ImageOps.exif_transpose(PIL.Image.open(sys.argv[1]))",
            'image = PIL.Image.fromarray((np.asarray(image) >> 8).astype("u1")) if "I;16" in image.mode else image',
            f'(answer,) = session.run(["{manifest.output}"], {{"{INPUT}": np.asarray(image.convert("RGB"))[None]}})[0]',
        )
    else:
        decoded = '[f.to_ndarray(format="rgb24") for f in video.decode(video=0)]'
        lines = (
            "import json, sys, av, numpy as np, onnxruntime as ort",
            f"video, session = av.open(sys.argv[1]), {session}",
            f"fps, frames = video.streams.video[0].average_rate, {decoded}",
            f'(answer,) = session.run(None, {{"{INPUT}": np.take([frames], {_places(manifest.clip)})}})[0]',
        )
    about = "session.get_modelmeta().custom_metadata_map"
    if manifest.form == "number":
        last = [f'print(*zip(json.loads({about}["classes"]), answer.tolist()))']
    elif manifest.thresholds is None:
        last = [f'print(json.loads({about}["classes"])[answer.argmax()], answer.max())']
    else:
        last = [
            f'names, limits = (json.loads({about}[key]) for key in ("classes", "thresholds"))',
            "print(*((name, p) for name, p, limit in zip(names, answer.tolist(), limits) if p >= limit))",
        ]
    return "".join(f"{line}\n" for line in (*lines, *last))


def _places(clip: Clip) -> str:
    """The other arguments of np.take, which take one clip of all frames: the first, or the middles of equal parts."""
    if clip.sampling == "segments":
        return f"[(2 * n + 1) * len(frames) // {2 * clip.frames} for n in range({clip.frames})], 1"
    mode = "wrap" if clip.short == "loop" else "clip"
    return f'[int(n * {clip.step:.4g} * fps) for n in range({clip.frames})], 1, mode="{mode}"'


def _sampling(manifest: Manifest) -> str:
    """How a video is answered, as one sentence."""
    answered = "answered" if manifest.form == "number" else "classified"
    if isinstance(manifest.sampling, FrameSampling):
        return f"Of a video, the middles of {manifest.sampling.frames} equal parts are {answered}, and averaged."
    clip = manifest.sampling.clip
    frames = (
        f"one frame of each of {clip.frames} equal parts of it"
        if clip.sampling == "segments"
        else f"{clip.frames} frames, {clip.step:.3g} seconds apart"
    )
    crops = "its centre" if clip.crops == 1 else "both ends and the centre of its long side"
    clips = f"{counted(clip.clips, 'clip')} in time ({frames})"
    averaged = "numbers" if manifest.form == "number" else clip.average
    return f"Of a video, {clips} and of each {crops} are {answered}, and their {averaged} averaged."


def confusions(classes: Sequence[str], matrix: Matrix) -> Confusions:
    """What is shown of the confusion matrix."""
    if len(classes) <= MATRIX_CLASSES:
        return Confusions(classes, matrix, len(classes))
    chosen = statistics.hardest_classes(matrix, MATRIX_CLASSES)
    shown = [[matrix[row][column] for column in chosen] for row in chosen]
    elsewhere = [sum(matrix[row]) - sum(counts) for row, counts in zip(chosen, shown, strict=True)]
    rows = [[*counts, other] for counts, other in zip(shown, elsewhere, strict=True)]
    return Confusions([classes[index] for index in chosen], rows, len(classes))


def text(value: str) -> str:
    """`value` as Markdown that shows it as it is, in a sentence or in the cell of a table."""
    line = printable(" ".join(value.split()))
    return re.sub(r"([\\`*\[\]<>|~&#])|(?<![^\W_])(_)|(_)(?![^\W_])", r"\\\1\2\3", line)


def code(value: str) -> str:
    """`value` as a code span, in the cell of a table too."""
    ticks = "`" * (1 + max(map(len, re.findall("`+", value)), default=0))
    space = " " if "`" in value else ""
    return f"{ticks}{space}{printable(' '.join(value.split())).replace('|', chr(92) + '|')}{space}{ticks}"


def words(name: str) -> str:
    """A key, as words."""
    return text(name.replace("_", " "))


def score(value: float | None) -> str:
    return "—" if value is None or value != value else f"{value:.4f}"  # noqa: PLR0124 - NaN alone is unlike itself


def in_words(value: Any) -> str:
    """A value of the protocol, the recipe or the gate as one line of Markdown."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{words(name)} {in_words(item)}" for name, item in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        more = f" and {len(value) - LISTED} more" if len(value) > LISTED else ""
        comma = "; " if any(isinstance(item, str) for item in value) else ", "
        return comma.join(map(in_words, value[:LISTED])) + more if value else "none"
    return "—" if value is None else text(str(value))


def _results(manifest: Manifest) -> Mapping[str, list[str]]:
    """Each score of the run, to its cells: one for each split."""
    splits = manifest.results.values()
    names = dict.fromkeys(name for found in splits for name in found["scores"])
    return {name: [_with_interval(name, found) for found in splits] for name in names}


def _measured(trust: Trust) -> Mapping[str, list[str]]:
    """Each figure, to its cells: one for each split."""
    names = dict.fromkeys(name for found in trust.measured.values() for name in found)
    return {name: [_figure(name, found.get(name)) for found in trust.measured.values()] for name in names}


def _figure(name: str, value: float | None) -> str:
    return in_words(value) if name == "items" else score(value)


def _with_interval(name: str, found: Mapping[str, Any]) -> str:
    ends = found["intervals"].get(name)
    return score(found["scores"].get(name)) + ("" if ends is None else f" ({score(ends[0])} to {score(ends[1])})")


def _model(manifest: Manifest) -> str | None:
    """What the recipe says of the model, on one line."""
    table = tomllib.loads(manifest.recipe).get("model")
    return None if table is None else in_words(table if isinstance(table, Mapping) else {"name": table})


def _findings(gate: Mapping[str, Mapping[str, Any]]) -> Mapping[str, list[str]]:
    """What the gate looked at, to what it found for each precision."""
    found = [dict(_flat(findings)) for findings in gate.values()]
    looked_at = dict.fromkeys(name for findings in found for name in findings)
    return {name: [findings.get(name, in_words(None)) for findings in found] for name in looked_at}


def _flat(findings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Names and values, both in words, of the findings and of the comparisons in them; of flips, how many."""
    for name, value in findings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{words(name)}: ")
        else:
            yield above + words(name), in_words(len(value) if name == FLIPS else value)


def _flips(gate: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """For each precision and comparison, the first items that are answered otherwise."""
    compared = [
        (f"{words(precision)}, {words(what)}", found.get(FLIPS))
        for precision, findings in gate.items()
        for what, found in findings.items()
        if isinstance(found, Mapping)
    ]
    return [f"{where}: {in_words(flips)}" for where, flips in compared if flips]
