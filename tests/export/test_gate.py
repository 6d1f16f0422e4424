"""The gate: what leaves answers as what was trained, or does not leave."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tests import small, toy_bundle
from tests.export.models import WHOLE, first_weight, other_mean, tampered
from toolkit.api.contracts import Objective
from toolkit.api.errors import EXIT_PARITY, DataError
from toolkit.cli.main import main
from toolkit.export import write as export
from toolkit.export.gate import LISTED, Reference, Verdict, judge, reference
from toolkit.recipe.tables import LIMITS
from toolkit.serving.bundle import UNTOUCHED, Bundle, Conformal, Rejection, Trust, read_manifest
from toolkit.serving.bundle.session import ModelSession
from toolkit.training.answers import logits_of
from toolkit.training.evaluate import Answered
from toolkit_metrics.accuracy import accuracy
from toolkit_tasks.classification import Classification
from toolkit_tasks.multi_label import MultiLabel


def test_there_must_be_items_to_compare_on() -> None:
    nothing = SimpleNamespace(store=())
    recipe = SimpleNamespace(data=SimpleNamespace(name="har"))
    with pytest.raises(DataError, match="nothing to compare the exported model on") as caught:
        reference(SimpleNamespace(loaders=lambda: {"valid": nothing, "test": nothing}, recipe=recipe))  # type: ignore[arg-type]
    assert str(caught.value.next_step).endswith("list the keys: python -m toolkit plugins show har")


@pytest.mark.slow
def test_limits_are_the_recipes(
    run: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export, "to_onnx", lambda *_: onnx.load(bundle / "model.onnx"))
    words = ["export", str(run), "--exports", str(tmp_path), "--set", "export.fp32.max_difference=0.0"]
    assert main(words) == EXIT_PARITY
    printed = capsys.readouterr()
    assert "max_difference is 0" in printed.err
    (line,) = (line for line in printed.out.splitlines() if line.startswith("gate "))
    assert re.search(r"fp32: FAILED, \d+ valid items, accuracy [\d.]+ % \(trained [\d.]+ %\), largest difference", line)


def overflowing(model: onnx.ModelProto) -> onnx.ModelProto:
    return tampered(model, first_weight(model), lambda values: values * 1e38)


@pytest.mark.slow
def test_a_model_that_overflows_does_not_leave(
    run: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export, "to_onnx", lambda *_: overflowing(onnx.load(bundle / "model.onnx")))
    assert main(["export", str(run), "--exports", str(tmp_path)]) == EXIT_PARITY
    printed = capsys.readouterr()
    items = read_manifest(bundle).gate["fp32"]["items"]
    assert f"squares: {items} answers are not finite numbers, to " in printed.err
    assert f"raw_files: {items} answers are not finite numbers, to " in printed.err
    assert "a probability differs by nan; max_difference is 0.0001" in printed.err
    assert "flipped" not in printed.err
    assert "gate fp32: FAILED" in printed.out
    assert list(tmp_path.iterdir()) == []


SIDES = "squares", "raw_files"


class Plain(small.Squares):
    """Squares of one level each, which resampling leaves alone: the toy does not resample."""

    def read(self, index: int) -> torch.Tensor:
        return torch.full((3, self.side, self.side), 50 + index + (120 if index % 2 else 0), dtype=torch.uint8)


class _Judged:
    """A toy bundle, and a trained model of dark and bright squares that answers as it does."""

    def __init__(
        self, folder: Path, count: int = 8, thresholds: Sequence[float] | None = None, trust: Trust = UNTOUCHED
    ) -> None:
        made = toy_bundle.write(folder / "toy", thresholds=thresholds, trust=trust)
        self.bundle, self.trust = Bundle.load(made, device="cpu"), trust
        self.split = split = Plain(count, side=10)  # stored at 8: the raw files have another size
        loader, index = small.loader(split), torch.arange(count)
        frames = loader.at(range(count)).pixels.movedim(-3, -1).numpy()
        answers = torch.from_numpy(self.bundle.session.run(frames))[:, :2]
        spec = replace(small.SPEC, targets=self.bundle.manifest.form)
        targets = torch.tensor(split.targets)
        if thresholds is None:
            objective: Objective = Classification(0.0, None)
        else:
            objective = MultiLabel(2, choose=False, positive_weights=None)
            objective.thresholds.copy_(torch.tensor(thresholds))
            targets = (answers >= objective.thresholds).float()
        train = SimpleNamespace(metric="accuracy", direction="maximize")
        self.assembly: Any = SimpleNamespace(
            loaders=lambda: {"valid": loader},
            metrics=lambda: [accuracy(spec)],
            spec=spec,
            objective=objective,
            recipe=SimpleNamespace(train=train),
        )
        answered = Answered(index, logits_of(answers, spec.targets), targets)
        self.evaluation = answered.scored(objective, self.assembly.metrics())
        self.ids = split.ids

    def rescored(self) -> None:
        """After a change of the targets."""
        answered = Answered(self.evaluation.index, self.evaluation.logits, self.evaluation.targets)
        self.evaluation = answered.scored(self.assembly.objective, self.assembly.metrics())

    def verdict(self, precision: str = "fp32") -> Verdict:
        expected = Reference(self.assembly, "valid", self.evaluation).trusting(self.trust)
        return judge(self.bundle, expected, LIMITS[precision], progress=lambda _: None)


def dark_becomes(value: float, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the exported model answer dark frames of this height with `value`: class 0, which NaN looks like."""
    run = ModelSession.run

    def overflown(self: ModelSession, pixels: np.ndarray) -> np.ndarray:
        answers = run(self, pixels)
        if pixels.shape[1] == side:
            answers[pixels.mean((1, 2, 3)) < 128] = value
        return answers

    monkeypatch.setattr(ModelSession, "run", overflown)


@pytest.mark.parametrize("precision", LIMITS)
def test_a_model_that_answers_as_the_trained_one_has_no_problems(precision: str, tmp_path: Path) -> None:
    assert _Judged(tmp_path).verdict(precision).findings() == []


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(("side", "what"), [(8, "squares"), (10, "raw_files")])
def test_answers_that_are_no_numbers_fail_the_gate(
    precision: str, value: float, side: int, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = _Judged(tmp_path)
    dark_becomes(value, side, monkeypatch)
    verdict = judged.verdict(precision)
    assert verdict.problems[0] == f"{what}: 4 answers are not finite numbers, to {', '.join(judged.ids[::2])}"
    assert verdict.squares.flips == verdict.raw.flips == ()
    assert all(problem.startswith(what) for problem in verdict.problems)


def test_many_answers_that_are_no_numbers_are_not_all_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = _Judged(tmp_path, count=2 * LISTED + 4)
    dark_becomes(math.nan, 8, monkeypatch)
    assert judged.verdict().problems[0].endswith(f"{judged.ids[2 * LISTED - 2]} and 2 more")


def test_a_score_that_is_not_a_number_fails_the_gate(tmp_path: Path) -> None:
    judged = _Judged(tmp_path)
    judged.evaluation.scores["accuracy"] = math.nan
    problems = judged.verdict("int8").problems
    assert [problem.partition(":")[0] for problem in problems] == ["squares", "raw_files"]
    assert all("accuracy 100.0 % where the trained model has undefined" in problem for problem in problems)


def test_a_trained_model_that_gives_no_numbers_fails_the_gate(tmp_path: Path) -> None:
    judged = _Judged(tmp_path)
    judged.evaluation.answers[0] = math.nan
    problems = judged.verdict("int8").problems
    assert problems == tuple(f"{side}: a probability differs by nan; max_difference is 1" for side in SIDES)


def test_a_model_that_names_the_same_sets_has_no_problems(tmp_path: Path) -> None:
    for precision in LIMITS:
        assert _Judged(tmp_path / precision, thresholds=(0.5, 0.4)).verdict(precision).findings() == []


def more_of_the_second(by: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the exported model hold the second class more probable."""
    run = ModelSession.run
    monkeypatch.setattr(ModelSession, "run", lambda self, pixels: run(self, pixels) + np.float32([0, by]))


@pytest.mark.parametrize(("above", "by", "tie"), [(0.01, 0.015, True), (0.03, 0.035, False)])
def test_a_set_that_changes_near_a_threshold_is_a_tie(
    above: float, by: float, tie: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The likeliest class stays the same, so only the thresholds can show it."""
    brightest = float(_Judged(tmp_path / "before", thresholds=(0.5, 0.5)).evaluation.answers[:, 1].max())
    judged = _Judged(tmp_path / "after", thresholds=(0.5, brightest + above))
    more_of_the_second(by, monkeypatch)
    verdict = judged.verdict()
    flips = [flip for flip in verdict.squares.flips if flip.margin == pytest.approx(above, abs=1e-6)]
    assert [(flip.trained, flip.exported, flip.tie) for flip in flips] == [("dark", "dark|bright", tie)]
    assert any("squares: " in messages and "max_flips is 0" in messages for messages in verdict.problems) is not tie
    assert any("max_difference is 0.0001" in problem for problem in verdict.problems)


def test_a_bundle_is_judged_by_its_own_thresholds(tmp_path: Path) -> None:
    """The graph is right; only what bundle.json says is not."""
    judged = _Judged(tmp_path, count=20, thresholds=(0.5, 0.4))
    manifest = replace(judged.bundle.manifest, thresholds=(0.999, 0.999))
    judged.bundle = replace(judged.bundle, manifest=manifest)
    problems = judged.verdict("fp16").problems
    assert [problem.partition(" ")[0] for problem in problems] == ["squares:", "raw_files:"] * 2
    assert all("changed (ties excluded)" in problem for problem in problems[:2])
    assert all("accuracy" in problem and "max_drop is 0.5" in problem for problem in problems[2:])
    assert any('became "(none)"' in finding for finding in judged.verdict("fp16").findings())


def some_become(answers: dict[str, list[float]], judged: _Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the exported model give other answers to the items of these ids."""
    run = ModelSession.run
    levels = {float(judged.split.read(judged.ids.index(name)).float().mean()): row for name, row in answers.items()}

    def changed(self: ModelSession, pixels: np.ndarray) -> np.ndarray:
        found = run(self, pixels)
        for row, level in enumerate(pixels.mean((1, 2, 3)).tolist()):
            found[row] = levels.get(round(level), found[row])
        return found

    monkeypatch.setattr(ModelSession, "run", changed)


ITEMS = 30


@pytest.mark.parametrize(("wrong", "passes"), [(0, True), (5, True), (6, False), (15, False)])
def test_a_score_may_drop_by_chance(wrong: int, passes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five of five that became worse have a p-value of 0.06, six of 0.03."""
    judged = _Judged(tmp_path, count=ITEMS)
    some_become({name: [0.1, 0.9] for name in judged.ids[: 2 * wrong : 2]}, judged, monkeypatch)
    verdict = judged.verdict("int8")
    assert (verdict.squares.paired.worse, verdict.squares.paired.better) == (wrong, 0)
    assert (not verdict.problems) is passes
    for side, problem in zip(SIDES, verdict.problems, strict=False):
        drop = f"worse by {100 * wrong / ITEMS:.2f} points ({wrong} items worse, 0 better, p = "
        assert problem.startswith(f"{side}: accuracy ")
        assert drop in problem
        assert problem.endswith("; max_drop is 0.5")
    assert (verdict.accepting == {}) is passes


@pytest.mark.parametrize(("lost", "passes"), [(5, True), (6, False)])
@pytest.mark.parametrize(
    ("trust", "what"),
    [
        (Trust(conformal=Conformal(0.85, 0.1)), "sets that lack the truth"),
        (Trust(reject=Rejection("confidence", 0.85, 0.1)), "right answers that are declined"),
    ],
    ids=["sets", "declined"],
)
def test_decisions_may_be_worse_by_chance(
    trust: Trust, what: str, lost: int, passes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer stays right; it is less sure."""
    judged = _Judged(tmp_path, count=ITEMS, trust=trust)
    some_become({name: [0.8, 0.2] for name in judged.ids[: 2 * lost : 2]}, judged, monkeypatch)
    verdict = judged.verdict("int8")
    assert (not verdict.problems) is passes
    assert [problem.partition(" points more ")[2].partition(" than ")[0] for problem in verdict.problems] == (
        [] if passes else [what, what]
    )
    assert (verdict.accepting == {}) is passes
    assert verdict.accepting.get("max_drop", 20.0) >= 20.0


def test_an_energy_is_not_taken_for_a_probability(tmp_path: Path) -> None:
    verdict = _Judged(tmp_path, trust=Trust(reject=Rejection("energy", 8.0, 0.1))).verdict()
    assert verdict.problems == ()
    assert "declined" in verdict.summary()["squares"]


def test_as_many_that_become_better_weigh_against_those_that_become_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = _Judged(tmp_path, count=2 * ITEMS)
    judged.evaluation.targets[1:12:2] = 0  # six that the trained model answers wrong
    worse, better = judged.ids[:20:2], judged.ids[1:12:2]
    some_become({**{name: [0.1, 0.9] for name in worse}, **{name: [0.9, 0.1] for name in better}}, judged, monkeypatch)
    judged.rescored()
    paired = judged.verdict("int8").raw.paired
    assert (paired.worse, paired.better) == (10, 6)
    assert judged.verdict("int8").problems == ()


def test_ties_count_on_neither_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten of thirty flip, a third of the accuracy; each was as good as even, and moved by 0.00006."""
    judged = _Judged(tmp_path, count=ITEMS)
    even = judged.ids[:20:2]
    rows = [judged.ids.index(name) for name in even]
    judged.evaluation.answers[rows] = torch.tensor([0.50005, 0.49995])
    some_become({name: [0.49999, 0.50001] for name in even}, judged, monkeypatch)
    verdict = judged.verdict("fp32")
    assert verdict.squares.scores["accuracy"] == pytest.approx(2 / 3)
    assert len(verdict.squares.flips) == len(even)
    assert verdict.squares.changed == verdict.squares.paired.worse == 0
    assert verdict.problems == ()
    summary = verdict.summary()["squares"]
    assert (summary["ties"], summary["items_worse"], summary["items_better"], summary["p_value"]) == (10, 0, 0, 1.0)


def test_a_flip_that_no_numerical_difference_explains_is_no_tie(tmp_path: Path) -> None:
    """The graph is right to the bit; only its threshold is not, by a little."""
    judged = _Judged(tmp_path, thresholds=(0.5, 0.5))
    lowest = float(judged.evaluation.answers[:, 1].max())
    judged.bundle = replace(judged.bundle, manifest=replace(judged.bundle.manifest, thresholds=(0.5, lowest - 1e-5)))
    judged.evaluation.thresholds[1] = lowest + 1e-5
    verdict = judged.verdict("fp32")
    (flip,) = verdict.squares.flips
    assert flip.margin < 1e-4
    assert not flip.tie
    assert verdict.problems[0] == "squares: 1 prediction changed (ties excluded); max_flips is 0"


@pytest.mark.slow
@pytest.mark.parametrize("clip_run", [WHOLE], indirect=True, ids=["whole"])
def test_a_clip_model_that_is_wrong_does_not_leave(
    clip_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = export.to_onnx
    monkeypatch.setattr(export, "to_onnx", lambda *given: other_mean(honest(*given)))
    assert main(["export", str(clip_run), "--exports", str(tmp_path)]) == EXIT_PARITY
    assert "max_difference is 0.0001" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
