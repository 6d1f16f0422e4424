"""What an export says of how far answers go: chosen on validation, in the graph, measured on test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from tests.export.models import noise
from tests.quarters import Quarters
from toolkit.api.clips import Clip
from toolkit.api.contracts import Batch, DataSpec
from toolkit.api.errors import EXIT_DONE, EXIT_USAGE, DataError
from toolkit.build.agreement import distrusted
from toolkit.cli.main import main
from toolkit.export.graph import to_onnx
from toolkit.export.judging import Paired
from toolkit.export.trust import Decisions, Worsened, asks_for_trust, chosen_trust, decided, lines, warnings, worsened
from toolkit.recipe.tables import ConformalTable, ExportTable, RejectTable
from toolkit.serving.bundle import Bundle, Conformal, Rejection, Trust, read_manifest
from toolkit.training.evaluate import Answered, answer
from toolkit.training.network import Network
from toolkit.training.similarity import fit_similarity
from toolkit.training.trust import similarity_weight, trust_scores
from toolkit_tasks.classification import Classification

ASKED = ("export.calibrate=true", "export.reject.rate=0.1", "export.reject.score=energy", "export.conformal.error=0.1")
ALL = ExportTable(calibrate=True, reject=RejectTable(rate=0.1), conformal=ConformalTable(error=0.1))


def exported(run: Path, exports: Path, *more: str) -> Path:
    words = [word for text in (*ASKED, *more) for word in ("--set", text)]
    assert main(["export", str(run), "--exports", str(exports), "--name", "sure", *words]) == EXIT_DONE
    return exports / "sure"


@pytest.fixture(scope="module")
def sure(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of images that declines and has sets."""
    return exported(run, tmp_path_factory.mktemp("sure"))


@pytest.mark.slow
def test_the_bundle_says_what_was_chosen_and_measured(sure: Path) -> None:
    trust = read_manifest(sure).trust
    assert trust.reject is not None
    assert trust.conformal is not None
    assert (trust.reject.score, trust.reject.rate, trust.conformal.error) == ("energy", 0.1, 0.1)
    assert trust.temperature != 1
    valid, test = trust.measured["valid"], trust.measured["test"]
    assert valid["log_loss"] < valid["log_loss_before"]
    assert valid["declined_right"] <= 0.1
    assert valid["coverage"] >= 0.9
    assert test["items"] > 0
    assert test["accuracy_kept"] >= test["accuracy"]


@pytest.mark.slow
def test_the_graph_decides_as_bundle_json_says(sure: Path) -> None:
    session = onnxruntime.InferenceSession(sure / "model.onnx", providers=["CPUExecutionProvider"])
    frames = np.concatenate([noise(30, 32, 32, 3), np.zeros((2, 32, 32, 3), np.uint8)])
    names = [one.name for one in session.get_outputs()]
    assert names == ["probabilities", "energy", "declined", "plausible"]
    given = dict(zip(names, session.run(None, {"frames": frames}), strict=True))
    answers = Bundle.load(sure, device="cpu").predict(frames)
    assert answers.declined == given["declined"].tolist()
    named = [tuple(np.array(answers.classes)[row].tolist()) for row in given["plausible"]]
    assert answers.plausible == named
    metadata = session.get_modelmeta().custom_metadata_map
    assert {"temperature", "reject", "conformal"} <= metadata.keys()


@pytest.mark.slow
def test_the_gate_and_the_card_show_it(sure: Path) -> None:
    found = read_manifest(sure).gate["fp32"]["raw_files"]
    assert found["coverage"] >= 0.9
    assert 0 < found["declined"] < 1
    page = (sure / "README.md").read_text(encoding="utf-8")
    assert "\n## Trust\n" in page
    assert "| output | `declined` | bool |" in page
    assert "| coverage |" in page
    assert "always answers with one of them" not in page


@pytest.mark.slow
@pytest.mark.parametrize("clip_run", [("3", "probabilities")], indirect=True, ids=["squares"])
def test_of_videos_the_average_over_views_is_calibrated_and_declined(clip_run: Path, tmp_path: Path) -> None:
    """The gate holds the bundle's averages against those of the trained model, decisions too."""
    manifest = read_manifest(exported(clip_run, tmp_path, "export.reject.rate=0.5"))
    raw = manifest.gate["fp32"]["raw_files"]
    assert manifest.trust.measured["valid"]["coverage"] == pytest.approx(raw["coverage"])
    assert "those of each view by itself" in (tmp_path / "sure" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("frames", [None, 3])
def test_the_graph_gives_the_similarity_and_declines_by_it(frames: int | None, tmp_path: Path) -> None:
    clip = None if frames is None else Clip(frames=frames)
    spec = DataSpec(("a", "b", "c"), 4, clip=clip)
    shape = (7, 4, 4, 3) if frames is None else (7, frames, 4, 4, 3)
    network, given = Network(Quarters(frames or 1), spec), noise(*shape)
    pixels = torch.from_numpy(given).movedim(-1, -3)
    batch = Batch(pixels, torch.tensor([0, 1, 2, 0, 1, 2, 0]), torch.arange(7))
    network.similarity = fit_similarity(network, [batch], classes=3)
    answered = answer(network, Classification(0.0, None), [batch], torch.inference_mode)
    found, weight = answered.similarities, similarity_weight(answered)
    assert found is not None
    confidence = answered.logits.div(1.5).softmax(1).amax(1)
    threshold = float((confidence + weight * found).median()) - 1e-4
    trust = Trust(1.5, Rejection("similarity", threshold, 0.1, weight))
    graph = to_onnx(network, Classification(0.0, None).logits, spec, {"classes": "[]"}, trust)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    assert names == ["probabilities", "similarity", "declined"]
    for part in (given, given[:1]):
        _, similar, declined = session.run(None, {"frames": part})
        np.testing.assert_allclose(similar, found[: len(part)].numpy(), atol=1e-5)
        assert declined.tolist() == (confidence + weight * found < threshold)[: len(part)].tolist()
    assert 0 < sum((confidence + weight * found < threshold).tolist()) < 7


@pytest.mark.parametrize("similar", [True, False], ids=["weighed", "all alike"])
def test_a_rejection_by_similarity_has_the_weight_that_validation_chose(similar: bool) -> None:
    valid = answered(40)
    alike = torch.rand(40, generator=torch.Generator().manual_seed(1)) if similar else torch.ones(40)
    valid = replace(valid, similarities=alike)
    trust = chosen_trust(assembly(ExportTable(reject=RejectTable(rate=0.1, score="similarity"))), valid)
    assert trust.reject is not None
    assert trust.reject.weight == similarity_weight(valid)
    assert (trust.reject.weight > 0) is similar
    scores = trust_scores(valid, "similarity", trust.reject.weight)
    declined = decided(trust, valid, "probabilities").declined
    assert declined is not None
    assert declined.tolist() == (scores < trust.reject.threshold).tolist()
    assert declined.sum() == 3


def test_a_model_without_features_has_no_similarity(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check", "cifar10_94", "--set", "export.reject.rate=0.1", "--set", "export.reject.score=similarity"]
    assert main(words) == EXIT_USAGE
    expected = (
        '--set export.reject.score=similarity: model "whitened_cnn" has no backbone and head of its own: use "conf'
    )
    assert expected in capsys.readouterr().err


def test_a_recipe_that_asks_for_nothing_has_no_trust() -> None:
    assert not asks_for_trust(ExportTable())
    assert asks_for_trust(ALL)


@pytest.mark.parametrize("form", ["set", "number"])
def test_answers_of_several_classes_and_numbers_are_refused(form: Any) -> None:
    recipe: Any = SimpleNamespace(export=ALL)
    assert list(distrusted(recipe, DataSpec(("a", "b"), 8))) == []
    found = list(distrusted(recipe, DataSpec(("a", "b"), 8, targets=form)))
    assert [problem.key for problem in found] == ["export.calibrate", "export.reject", "export.conformal"]
    assert {problem.message for problem in found} == {"requires items with one class each; remove it"}


def assembly(table: ExportTable) -> Any:
    valid = SimpleNamespace(average="probabilities")
    recipe = SimpleNamespace(export=table, data=SimpleNamespace(name="har"))
    return SimpleNamespace(recipe=recipe, spec=DataSpec(("a", "b"), 8), valid=valid)


def answered(items: int) -> Answered:
    logits = torch.randn(items, 2, generator=torch.Generator().manual_seed(0))
    return Answered(torch.arange(items), logits, logits.argmax(1))


def test_data_without_a_validation_split_chooses_nothing() -> None:
    with pytest.raises(DataError, match="require a validation split, but the data has none") as caught:
        chosen_trust(assembly(ALL), None)
    assert str(caught.value.next_step).endswith("python -m toolkit plugins show har")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            ExportTable(reject=RejectTable(rate=0.05)),
            "export.reject.rate = 0.05 requires at least 19 right answers on the validation split, found 9",
        ),
        (
            ExportTable(conformal=ConformalTable(error=0.05)),
            "export.conformal.error = 0.05 requires at least 19 items on the validation split, found 9",
        ),
    ],
)
def test_too_few_items_say_which_share_they_are_enough_for(table: ExportTable, message: str) -> None:
    with pytest.raises(DataError) as caught:
        chosen_trust(assembly(table), answered(9))
    assert caught.value.message == message
    key, share = str(caught.value.next_step).rpartition("--set ")[2].split("=")
    if key == "export.reject.rate":
        again = ExportTable(reject=RejectTable(rate=float(share)))
    else:
        again = ExportTable(conformal=ConformalTable(error=float(share)))
    assert chosen_trust(assembly(again), answered(9)).outputs


def test_a_wrong_key_of_a_table_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check", "cifar10_cnn", "--set", "export.reject.share=0.1"]
    assert main(words) == EXIT_USAGE
    assert "export.reject.rate: is required" in capsys.readouterr().err


MEASURED = {
    "valid": {"items": 99.0, "coverage": 0.91},
    "test": {
        "items": 200.0,
        "accuracy": 0.5,
        "accuracy_kept": 0.6,
        "declined": 0.125,
        "declined_right": 0.04,
        "log_loss_before": 2.0,
        "log_loss": 1.5,
        "ece_before": 0.2,
        "ece": 0.05,
        "coverage": 0.89,
        "set_size": 2.5,
    },
    "unknown": {"items": 40.0, "declined": 0.25},
}
TRUST = Trust(1.5, Rejection("energy", 3.0, 0.05), Conformal(0.2, 0.1), MEASURED)


def test_the_screen_shows_each_choice_with_what_came_of_it() -> None:
    assert list(lines(TRUST)) == [
        "calibration: temperature 1.5; test log loss 2.0000 becomes 1.5000, expected calibration error 20.0 % becomes "
        "5.0 %",
        "reject: declines 12.5 % of the test items, 4.0 % of those answered right (at most 5.0 % was asked for); "
        "accuracy 50.0 % becomes 60.0 % on the rest; declines 25.0 % of 40 unknown items",
        "conformal: the sets hold the truth of 89.0 % of the test items (asked for 90.0 %; chance alone gives 82.0 to "
        "96.0 %), with 2.50 classes on average",
    ]
    assert list(lines(Trust())) == []


def test_without_a_test_split_nothing_is_said_of_chance() -> None:
    *_, text = lines(replace(TRUST, measured={"valid": {**MEASURED["test"], "items": 99.0}}))
    assert "of the valid items (asked for 90.0 %), with 2.50 classes" in text


def test_sets_hold_the_truth_as_often_as_asked_on_the_other_halves_of_answers() -> None:
    """Of 432 answers, one half chooses and the other measures; both are drawn 1,000 times."""
    draw = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(432, 12, generator=draw)
    targets = torch.multinomial(logits.softmax(1), 1, generator=draw).flatten()
    coverage = []
    for _ in range(1000):
        chosen, other = torch.randperm(432, generator=draw).split(216)
        half = Answered(chosen, logits[chosen], targets[chosen])
        trust = chosen_trust(assembly(ExportTable(conformal=ConformalTable(error=0.1))), half)
        coverage.append(Decisions.of(trust, logits[other].softmax(1), None, targets[other]).shares()["coverage"])
    assert 0.9 <= sum(coverage) / len(coverage) <= 0.905


def test_a_test_split_unlike_validation_is_a_warning() -> None:
    assert list(warnings(TRUST)) == []
    missed = {**MEASURED, "test": {**MEASURED["test"], "coverage": 0.7}}
    (text,) = warnings(replace(TRUST, measured=missed))
    assert text.startswith("the sets lack the truth of 60 of 200 test items, which is more than chance")


def test_decisions_that_are_worse_are_counted() -> None:
    right = torch.tensor([True, True, True, False])
    trained = Decisions(torch.tensor([False, False, True, True]), torch.tensor([True, True, True, False]))
    exported = Decisions(torch.tensor([True, True, False, False]), torch.tensor([True, False, True, True]))
    declined, lacking = worsened(trained, exported, right)
    assert declined == Worsened("right answers that are declined", Paired(2, 1), 3)
    assert lacking == Worsened("sets that lack the truth", Paired(1, 1), 4)
    assert declined.points == pytest.approx(100 / 3)
    nothing = Decisions(None, None)
    assert list(worsened(nothing, nothing, right)) == []
