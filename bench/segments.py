"""Events in videos that are joined from real clips, so that their borders are known: `predict --segments` against what
the answers of single windows give.

A DenseNet-121 whose backbone is frozen learns the classes of `fight` and `ucf101-fixture` from other clips. Of `fight`,
no source video has clips on both sides; `ucf101-fixture` has one source a class, so those borders are the easy ones.
"""

from __future__ import annotations

import csv
import random
import shutil
import tempfile
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data import Options
from toolkit.api.clips import duration
from toolkit.api.errors import EXIT_DONE, DataError
from toolkit.cli.main import main
from toolkit.data.decoding import read_frames, timeline
from toolkit.serving.bundle import Manifest, read_manifest
from toolkit.serving.predict.choosing import Answered, chosen, keys
from toolkit.serving.predict.segment_scores import OVERLAPS, mean_average_precision
from toolkit.serving.predict.segments import Segment, segments_of

FIGHT, UCF, WEIGHTS = "fight", "ucf101-fixture", "densenet121-imagenet-fp16.safetensors"
TRAINED, CHOOSING = 0.5, 0.15
"""Shares of the clips of `fight` to train on and to choose the epoch by, at least; the others are joined."""
TRAINED_OF_UCF, CHOOSING_OF_UCF = 2, 3
"""The same of `ucf101-fixture`: the number of the last clip of a class."""
VIDEOS, RATE, SIZE = 10, 25, (320, 240)
EVERY = 0.5
"""Seconds between two windows."""
RECIPE = """
[data]
name = "video_folder"
root = "clips"
train = "train.csv"
valid = "valid.csv"
test = "test.csv"
[input]
size = 160
[clip]
frames = 4
rate = 8
[model]
name = "densenet121"
weights = "{weights}"
freeze = true
[train]
epochs = 8
batch = 16
device = "cpu"
[train.optimizer]
name = "adamw"
lr = 2e-3
"""


@dataclass(frozen=True)
class Clip:
    path: Path
    label: str


@dataclass(frozen=True)
class Split:
    train: Sequence[Clip]
    valid: Sequence[Clip]
    joined: Sequence[Clip]


@dataclass(frozen=True)
class Score:
    """One line of the bench."""

    name: str
    scores: Mapping[float, float]
    """Mean average precision, by the least IoU."""
    segments: int
    met: bool = True

    def __str__(self) -> str:
        shown = " ".join(f"mAP@{overlap:g}={score:.3f}" for overlap, score in self.scores.items())
        return f"segments_{self.name} {shown} segments={self.segments}"


def figures(options: Options) -> Iterator[Score]:
    fight, ucf = (options.folder(name) for name in (FIGHT, UCF))
    if fight is None or ucf is None:
        raise DataError(
            f"the clips of {FIGHT} and {UCF} not found",
            next_step="name the folder that has both: python -m bench segments --data DIR",
        )
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        split = divided(fight, ucf)
        bundle = _trained(split, fight.parent / WEIGHTS, home)
        truth = {path.stem: borders for path, borders in joined(split.joined, home / "joined")}
        manifest = read_manifest(bundle)
        yield from _scored(manifest, _answers(bundle, home), truth)


def divided(fight: Path, ucf: Path) -> Split:
    """All clips of a source on one side. The joined ones are shuffled."""
    with (fight / "groups.csv").open(encoding="utf-8", newline="") as file:
        sources = defaultdict(list)
        for row in csv.DictReader(file):
            sources[row["group"]].append(Clip(fight / row["path"], row["label"]))
    draws, total = random.Random(0), sum(map(len, sources.values()))
    train, valid, others = list[Clip](), list[Clip](), list[Clip]()
    for source in draws.sample(sorted(sources), len(sources)):
        side = train if len(train) < TRAINED * total else valid if len(valid) < CHOOSING * total else others
        side += sources[source]
    for path in sorted(ucf.glob("*/*.avi")):
        number = int(path.stem[-2:])
        side = train if number <= TRAINED_OF_UCF else valid if number <= CHOOSING_OF_UCF else others
        side.append(Clip(path, path.parent.name))
    draws.shuffle(others)
    return Split(train, valid, others)


def joined(clips: Sequence[Clip], folder: Path) -> Iterator[tuple[Path, list[Segment]]]:
    """Videos of these clips, and what is seen in them from when to when: neighbours of one class are one event."""
    folder.mkdir()
    for number in range(VIDEOS):
        path, ends, end = folder / f"{number}.mp4", list[tuple[str, float]](), 0
        with av.open(str(path), "w") as file:
            stream = file.add_stream("mpeg4", rate=RATE)
            (stream.width, stream.height), stream.pix_fmt, stream.bit_rate = SIZE, "yuv420p", 4_000_000
            for clip in clips[number::VIDEOS]:
                for frame in _frames(clip.path):
                    file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
                    end += 1
                ends.append((clip.label, end / RATE))
            file.mux(stream.encode())
        yield path, _events(ends)


def _events(ends: Sequence[tuple[str, float]]) -> list[Segment]:
    events, start = [], 0.0
    for label, same in groupby(ends, key=lambda pair: pair[0]):
        *_, (_, end) = same
        events.append(Segment(label, start, end, 1.0))
        start = end
    return events


def _frames(path: Path) -> Iterator[NDArray[np.uint8]]:
    """The pictures on show every 1 / RATE seconds."""
    line = timeline(path)
    shown = [moment - line.times[0] for moment in line.times]
    numbers = [bisect_right(shown, tick / RATE + 1e-4) - 1 for tick in range(int(duration(line.times) * RATE))]
    decoded = dict(zip(sorted({*numbers}), read_frames(path, line, sorted({*numbers}), threads=1), strict=True))
    for number in numbers:
        yield np.asarray(Image.fromarray(decoded[number]).resize(SIZE))


def _trained(split: Split, weights: Path, home: Path) -> Path:
    for name, clips in (("train", split.train), ("valid", split.valid), ("test", split.joined)):
        rows = ["path,label"]
        for clip in clips:
            target = home / "clips" / clip.label / clip.path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(clip.path, target)
            rows.append(f"{clip.label}/{clip.path.name},{clip.label}")
        (home / "clips" / f"{name}.csv").write_text("\n".join([*rows, ""]), encoding="utf-8")
    recipe = home / "events.toml"
    recipe.write_text(RECIPE.format(weights=weights).replace('"clips"', f'"{home / "clips"}"'), encoding="utf-8")
    _done(main(["run", str(recipe), "--runs", str(home / "runs")]))
    (run,) = (home / "runs" / "events").iterdir()
    _done(main(["export", str(run), "--exports", str(home)]))
    return home / "events"


def _done(code: int) -> None:
    if code != EXIT_DONE:
        raise DataError("the model could not be made", next_step="see the lines above")


def _answers(bundle: Path, home: Path) -> dict[str, Answered]:
    output, classes = home / "answers.csv", read_manifest(bundle).classes
    words = ["predict", str(bundle), str(home / "joined"), "--every", str(EVERY), "--output", str(output)]
    _done(main([*words, "--top", str(len(classes)), "--device", "cpu"]))
    answered = {}
    with output.open(encoding="utf-8", newline="") as file:
        for place, rows in groupby(csv.DictReader(file), key=lambda row: row["file"].partition("#")[0]):
            timed = [((float(row["start"]) + float(row["end"])) / 2, _probabilities(row, classes)) for row in rows]
            path = home / "joined" / Path(place).name
            answered[path.stem] = Answered(EVERY, timed, duration(timeline(path).times))
    return answered


def _probabilities(row: Mapping[str, str], classes: Sequence[str]) -> NDArray[np.float32]:
    """Of each class, from a row that has them by their rank."""
    ranked = {row[f"class_{rank}"]: float(row[f"probability_{rank}"]) for rank in range(1, len(classes) + 1)}
    return np.array([ranked[name] for name in classes], np.float32)


def _scored(
    manifest: Manifest, answered: Mapping[str, Answered], truth: Mapping[str, Sequence[Segment]]
) -> Iterator[Score]:
    def score(name: str, found: Mapping[str, Sequence[Segment]]) -> Score:
        scores = {overlap: mean_average_precision(found, truth, overlap) for overlap in OVERLAPS}
        return Score(name, scores, sum(map(len, found.values())))

    yield score("truth", truth)
    yield score("each_window", {name: windows(one, manifest.classes) for name, one in answered.items()})
    runs = {name: merged(windows(one, manifest.classes)) for name, one in answered.items()}
    yield score("equal_windows_merged", runs)
    rule = manifest.segments
    usual = {
        name: segments_of(one.timed, rule, manifest.classes, one.every, manifest.thresholds, one.length)
        for name, one in answered.items()
    }
    yield score("usual_rule", usual)
    choice = chosen(answered, truth, manifest.classes, rule, manifest.thresholds)
    print(f"chosen on these videos: {keys(choice.rule)}, mAP@0.5={choice.score:.3f}")
    if choice.others is not None:
        yield Score("rule_chosen_on_other_videos", {OVERLAPS[1]: choice.others}, 0)


def windows(answered: Answered, classes: Sequence[str]) -> list[Segment]:
    """The likeliest class of each window, as an event from halfway to the window before to halfway to the next."""
    half = answered.every / 2
    return [
        Segment(classes[int(row.argmax())], max(middle - half, 0.0), middle + half, float(row.max()))
        for middle, row in answered.timed
    ]


def merged(events: Sequence[Segment]) -> list[Segment]:
    """Neighbours of one class as one event, with the mean of their scores."""
    runs = [[*same] for _, same in groupby(events, key=lambda one: one.label)]
    return [Segment(run[0].label, run[0].start, run[-1].end, sum(one.score for one in run) / len(run)) for run in runs]
