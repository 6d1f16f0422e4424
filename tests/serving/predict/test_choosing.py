"""The rule of segments that is chosen on annotated videos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests import toy_bundle
from tests.serving.predict.test_segmenting import BRIGHT, DARK, joined
from toolkit.api.errors import EXIT_DATA, EXIT_USAGE
from toolkit.cli.main import main
from toolkit.recipe.tables import SegmentsTable
from toolkit.serving.predict.choosing import Answered, Choice, chosen, keys
from toolkit.serving.predict.segments import Segment
from toolkit.system.segmentation import Segmentation

CLASSES = ("quiet", "loud")
EVENTS = [(5.0, 9.0), (20.0, 30.0)]
ON_ITS_OWN = Segmentation()


def answered(events: Sequence[tuple[float, float]], level: float, length: float = 40.0) -> Answered:
    """A model that is never surer of `loud` than `level`, and half as sure outside of events."""
    middles = [0.5 * number + 0.25 for number in range(int(2 * length))]
    rows = []
    for middle in middles:
        loud = level if any(start <= middle < end for start, end in events) else level / 2
        rows.append(np.array([1 - loud, loud], np.float32))
    return Answered(0.5, [*zip(middles, rows, strict=True)], length)


def truth(names: Sequence[str]) -> dict[str, list[Segment]]:
    return {name: [Segment("loud", *event, 1.0) for event in EVENTS] for name in names}


def test_a_rule_is_chosen_that_a_model_which_is_not_sure_needs() -> None:
    """Nothing reaches the usual 0.6."""
    videos = {name: answered(EVENTS, 0.5) for name in "abc"}
    choice = chosen(videos, truth("abc"), CLASSES, ON_ITS_OWN, None)
    assert (choice.usual, choice.score, choice.others) == (0.0, 1.0, 1.0)
    assert 0.25 < choice.rule.low <= choice.rule.high <= 0.5
    SegmentsTable(**keys(choice.rule))  # what a recipe may say


def test_the_usual_rule_stays_where_no_other_is_better() -> None:
    choice = chosen({"a": answered(EVENTS, 0.7)}, truth("a"), CLASSES, ON_ITS_OWN, None)
    assert choice.rule == ON_ITS_OWN
    assert choice.score == choice.usual == 1.0
    assert choice.others is None


def test_a_choice_that_fits_its_videos_alone_does_worse_on_others() -> None:
    """Each video needs another rule, so what the others choose does not find its events."""
    videos = {"sure": answered(EVENTS, 1.0), "unsure": answered(EVENTS, 0.45)}
    choice = chosen(videos, truth(["sure", "unsure"]), CLASSES, ON_ITS_OWN, None)
    assert choice.others is not None
    assert choice.others < choice.score


def test_thresholds_of_classes_stay_and_only_the_rest_is_chosen() -> None:
    choice = chosen({"a": answered(EVENTS, 0.5)}, truth("a"), CLASSES, ON_ITS_OWN, (0.9, 0.45))
    assert choice.score == 1.0
    assert choice.rule.high == ON_ITS_OWN.high


def test_videos_without_annotations_are_passed_over() -> None:
    videos = {"a": answered(EVENTS, 0.5), "b": answered([], 0.5)}
    assert chosen(videos, truth("a"), CLASSES, ON_ITS_OWN, None).score == 1.0


def test_what_is_shown_says_which_score_is_too_good() -> None:
    rule = Segmentation(2.0, 0.5, 0.4, 0.0)
    first, second, third = Choice(rule, 0.9, 0.5, 0.7).lines()
    assert first == "chosen: smooth 2, high 0.5, low 0.4, shortest 0"
    assert second == "mAP at IoU 0.5: 90.0 % on these videos, 50.0 % by the bundle's own rule"
    assert third == "mAP at IoU 0.5 on videos that a rule was not chosen on: 70.0 %"
    assert [*Choice(rule, 0.9, 0.5, None).lines()][2].startswith("one video alone")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle whose own rule finds nothing, and two annotated videos."""
    monkeypatch.chdir(tmp_path)
    toy_bundle.write(tmp_path / "toy", segments=Segmentation(1.0, 1.0, 1.0, 30.0), trained_on={"run": "first"})
    database = {}
    for name in ("a", "b"):
        joined(tmp_path / f"{name}.mp4", (DARK, 4), (BRIGHT, 4))
        events = [("dark", 0, 4), ("bright", 4, 8)]
        database[name] = {"annotations": [{"label": label, "segment": [start, end]} for label, start, end in events]}
    (tmp_path / "truth.json").write_text(json.dumps({"database": database}))
    return tmp_path


def test_the_command_shows_the_rule_and_how_to_export_with_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", "toy", "a.mp4", "b.mp4", "--device", "cpu", "--segments", "--truth", "truth.json", "--choose"]
    assert main(words) == 0
    said = capsys.readouterr().err.splitlines()
    assert "mAP at IoU 0.5: 100.0 % on these videos, 0.0 % by the bundle's own rule" in said
    assert "mAP at IoU 0.5 on videos that a rule was not chosen on: 100.0 %" in said
    (command,) = (line for line in said if line.startswith("next:"))
    assert command.startswith("next:  python -m toolkit export runs/toy/first --set export.segments.smooth=")
    given = dict(pair.removeprefix("export.segments.").split("=") for pair in command.split()[7::2])
    SegmentsTable(**{key: float(value) for key, value in given.items()})


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--segments", "--choose"], EXIT_USAGE, "--choose: has no meaning without --truth"),
        (["--choose"], EXIT_USAGE, "--choose: has no meaning without --segments"),
        (
            ["--segments", "--truth", "other.json", "--choose"],
            EXIT_DATA,
            "--choose: none of the videos has an annotated segment",
        ),
    ],
)
def test_without_annotations_nothing_is_chosen(
    place: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    (place / "other.json").write_text('{"database": {"c": {"annotations": []}}}')
    assert main(["predict", "toy", "a.mp4", "--device", "cpu", *words]) == code
    assert message in capsys.readouterr().err
