"""A model that answers with sets of classes, from training to what a user of its bundle reads."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests import tiny
from tests.export import several
from tests.export.test_card import rows, run_lines, section
from toolkit.api.errors import EXIT_DATA, EXIT_DONE, EXIT_PARITY, EXIT_USAGE
from toolkit.cli.main import main
from toolkit.export import write as export
from toolkit.runs.reopen import open_trained
from toolkit.serving.bundle import MANIFEST, Bundle, read_manifest
from toolkit.serving.predict import predict_files
from toolkit.tune import latency

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        several.installed(tmp_path_factory.mktemp("site"), patch)
        yield


@pytest.fixture(scope="module")
def sets_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    recipe = tiny.write_recipe(folder, text=several.RECIPE, name="sets")
    assert tiny.run(recipe, folder / "runs") == EXIT_DONE
    return tiny.only_run(folder / "runs", "sets")


@pytest.fixture(scope="module")
def sets_bundle(sets_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    exports = tmp_path_factory.mktemp("exports")
    overrides = ['export.precision=["fp32","fp16","int8"]', "export.int8.max_drop=5"]
    words = ["export", str(sets_run), "--exports", str(exports), "--format", "triton", *tiny.overridden(overrides)]
    assert main(words) == EXIT_DONE
    return exports / "sets"


def changed_thresholds(bundle: Path, copy: Path, change: list[float]) -> Path:
    """A copy of the bundle that says other thresholds."""
    copy.mkdir()
    for path in bundle.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    claimed = json.loads((copy / MANIFEST).read_text(encoding="utf-8"))
    claimed["thresholds"] = change
    (copy / MANIFEST).write_text(json.dumps(claimed), encoding="utf-8")
    return copy


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_thresholds_leave_with_the_model(sets_run: Path, sets_bundle: Path) -> None:
    manifest = read_manifest(sets_bundle)
    assert manifest.form == "set"
    assert manifest.thresholds is not None
    assert manifest.thresholds != (0.5,) * 3
    for name in manifest.models.values():
        about = {prop.key: prop.value for prop in onnx.load(sets_bundle / name).metadata_props}
        assert json.loads(about["classes"]) == list(several.CLASSES)
        assert json.loads(about["thresholds"]) == list(manifest.thresholds)
    triton = sets_bundle.with_name("sets-triton") / "sets" / "config.pbtxt"
    assert f'"{json.dumps(list(manifest.thresholds))}"' in triton.read_text(encoding="utf-8")


def test_each_precision_passes_the_gate_by_its_sets(sets_bundle: Path) -> None:
    manifest = read_manifest(sets_bundle)
    assert [*manifest.gate] == ["fp32", "fp16", "int8"]
    assert manifest.gate["fp32"]["raw_files"]["flips"] == []
    assert manifest.scores["fp32"]["accuracy"] == manifest.scores["torch"]["accuracy"]
    assert 0.2 < manifest.scores["torch"]["accuracy"] < 1


def test_a_twin_with_classes_in_another_order_does_not_leave(
    sets_run: Path, sets_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def swapped(*_: object) -> onnx.ModelProto:
        model = onnx.load(sets_bundle / "model.onnx")
        (output,) = model.graph.output
        last = next(node for node in model.graph.node if output.name in node.output)
        last.output[0] = "in_order"
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 1, 0]), "order"))
        gather = onnx.helper.make_node("Gather", ["in_order", "order"], [output.name], "around/swapped", axis=1)
        model.graph.node.append(gather)
        return model

    monkeypatch.setattr(export, "to_onnx", swapped)
    assert main(["export", str(sets_run), "--exports", str(tmp_path)]) == EXIT_PARITY
    messages = capsys.readouterr().err
    assert "max_difference is 0.0001" in messages
    assert '"red" became "blue", margin' in messages
    assert list(tmp_path.iterdir()) == []


def test_a_twin_with_other_thresholds_does_not_leave(
    sets_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    made = export.Manifest

    def other(**fields):
        return made(**{**fields, "thresholds": (0.9, 0.9, 0.9)})

    monkeypatch.setattr(export, "Manifest", other)
    assert main(["export", str(sets_run), "--exports", str(tmp_path)]) == EXIT_PARITY
    messages = capsys.readouterr().err
    assert "max_flips is 0" in messages
    assert "max_drop is 0.5" in messages


def test_a_bundle_is_evaluated_by_its_own_thresholds(
    sets_run: Path, sets_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = changed_thresholds(sets_bundle, tmp_path / "sets", [0.99, 0.99, 0.99])
    scores = {}
    for name, bundle in (("own", sets_bundle), ("other", other)):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert main(["evaluate", str(bundle), "--device", "cpu"]) == EXIT_DONE
        made = tiny.only_run(tmp_path / name / "runs", "sets-bundle")
        scores[name] = json.loads((made / "scores.json").read_text(encoding="utf-8"))["test"]
    trained = json.loads((sets_run / "scores.json").read_text(encoding="utf-8"))["test"]
    assert scores["own"]["accuracy"] == trained["accuracy"]
    assert scores["own"]["f1_macro"] == pytest.approx(trained["f1_macro"])
    assert scores["own"]["loss"] == pytest.approx(trained["loss"], abs=1e-4)
    assert scores["other"]["accuracy"] < trained["accuracy"]


def test_the_latency_of_a_model_that_answers_with_sets_is_measured(
    sets_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.0)
    assert latency.measure(open_trained(sets_run, ()).assembly) > 0


@pytest.mark.parametrize(
    ("task", "code", "message"),
    [
        ((), EXIT_USAGE, '"multi_label" takes '),
        (
            ('task={name="classification"}',),
            EXIT_DATA,
            "sets: answers with a set of classes an item; the data has one class an item",
        ),
    ],
)
def test_data_with_one_class_an_item_is_refused(
    sets_bundle: Path, task: tuple[str, ...], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = tiny.overridden(["data.single=true", *task])
    assert main(["evaluate", str(sets_bundle), "--device", "cpu", *overrides]) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_predict_the_card_and_predictions_csv_name_the_same_sets(
    sets_run: Path, sets_bundle: Path, tmp_path: Path, suffix: str
) -> None:
    paths = several.write_pictures(tmp_path / "pictures", "test")
    output = tmp_path / f"answers.{suffix}"
    assert predict_files(sets_bundle, [*map(str, paths)], output=output, device="cpu", top=2) == EXIT_DONE
    if suffix == "csv":
        answered = read_csv(output)
    else:
        answered = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    columns = ["file", "prediction", "class_1", "probability_1", "class_2", "probability_2"]
    assert all([*row] == columns for row in answered)
    kept = {Path(row["id"]).name: row["prediction"] for row in read_csv(sets_run / "predictions.csv")}
    assert [row["prediction"] for row in answered] == [kept[path.name] for path in paths]
    assert {"", "red|blue", "red|green|blue"} <= {*kept.values()}


def test_the_card_lists_each_class(sets_run: Path, sets_bundle: Path) -> None:
    page = (sets_bundle / "README.md").read_text(encoding="utf-8")
    manifest = read_manifest(sets_bundle)
    head, *table = rows(section(page, "Classes"))
    assert head == ["class", "threshold", "precision", "recall", "F1", "items"]
    assert [row[0] for row in table] == [*several.CLASSES]
    assert [row[1] for row in table] == [f"{threshold:.4f}" for threshold in manifest.thresholds or ()]
    valid = json.loads((sets_run / "scores.json").read_text(encoding="utf-8"))["valid"]
    assert [row[4] for row in table] == [f"{value:.4f}" for value in valid["f1_per_class"]]
    assert [row[5] for row in table] == ["32", "32", "32"]
    assert "Confusion matrix" not in page
    assert "softmax" not in page


@pytest.mark.parametrize("number", [0, 5, 7])
def test_the_lines_of_the_card_print_the_set(sets_bundle: Path, tmp_path: Path, number: int) -> None:
    path = several.write_pictures(tmp_path / "pictures", "test")[number]
    page = (sets_bundle / "README.md").read_text(encoding="utf-8")
    folder = changed_thresholds(sets_bundle, tmp_path / "copy", list(read_manifest(sets_bundle).thresholds or ()))
    printed = run_lines(folder, page, path)
    pixels = several.Pictures("test").read(number).movedim(0, -1).numpy()
    answers = Bundle.load(sets_bundle, device="cpu").predict(pixels)
    named = dict(zip(answers.classes, answers.probabilities[0].tolist(), strict=True))
    assert printed == " ".join(str((name, named[name])) for name in answers.sets[0]) + "\n"
