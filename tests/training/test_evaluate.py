"""Evaluation: answers in order, scores over all of them, and a network left as it was; of a run and of a bundle."""

from __future__ import annotations

import csv
import json
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests import small, tiny, toy_bundle
from toolkit.api.contracts import Batch
from toolkit.api.errors import EXIT_DATA, EXIT_DONE, EXIT_FAILED, EXIT_USAGE, DataError
from toolkit.cli.main import main
from toolkit.export import rescore as evaluation
from toolkit.serving.bundle import Bundle
from toolkit.system import device as devices
from toolkit.training.evaluate import answering, evaluate, score
from toolkit_tasks.classification import Classification

OBJECTIVE = Classification(0.0, None)


class Brightness(nn.Module):
    """Logits from the mean pixel; remembers the mode it answered in."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2, bias=False)
        nn.init.constant_(self.layer.weight, 0.01)
        self.modes: list[bool] = []

    def forward(self, pixels: Tensor) -> Tensor:
        self.modes.append(self.training)
        mean = pixels.float().mean(dim=(1, 2, 3), keepdim=False)[:, None]
        logits: Tensor = self.layer(mean - 110) * torch.tensor([-1.0, 1.0])
        return logits


def batches(*sizes: int) -> list[Batch]:
    split, made, start = small.Squares(sum(sizes)), [], 0
    for size in sizes:
        places = range(start, start + size)
        pixels = torch.stack([split.read(i) for i in places]) if size else torch.empty(0, 3, 8, 8, dtype=torch.uint8)
        targets = torch.tensor([split.targets[i] for i in places], dtype=torch.int64)
        made.append(Batch(pixels, targets, torch.tensor(list(places), dtype=torch.int64)))
        start += size
    return made


def test_batches_of_any_size_give_one_evaluation() -> None:
    network = Brightness()
    whole = evaluate(network, OBJECTIVE, batches(9), small.metrics(), nullcontext)
    parts = evaluate(network, OBJECTIVE, batches(4, 0, 4, 1), small.metrics(), nullcontext)
    assert parts.index.tolist() == list(range(9))
    assert parts.targets.tolist() == [0, 1] * 4 + [0]
    assert torch.allclose(parts.logits, whole.logits)
    assert parts.scalars() == pytest.approx(whole.scalars())
    assert parts.scores["accuracy"] == 1.0
    assert parts.scores["loss"] == pytest.approx(float(functional.cross_entropy(whole.logits, whole.targets)))


@pytest.mark.parametrize("training", [False, True])
def test_it_answers_in_evaluation_mode_and_restores_the_mode(training: bool) -> None:
    network = Brightness().train(training)
    evaluate(network, OBJECTIVE, batches(2, 2), [], nullcontext)
    assert network.modes == [False, False]
    assert network.training is training


def test_the_mode_is_restored_when_the_caller_leaves() -> None:
    network = Brightness().train()
    answers = answering(network, OBJECTIVE, batches(2, 2), nullcontext)
    assert next(answers) == 2
    assert not network.training
    answers.close()
    assert network.training


def test_progress_counts_items() -> None:
    assert list(answering(Brightness(), OBJECTIVE, batches(3, 0, 2), nullcontext)) == [3, 5]


def test_logits_are_float32_on_the_cpu_in_any_precision() -> None:
    evaluation = evaluate(Brightness(), OBJECTIVE, batches(3), [], partial(devices.autocast, small.CPU, "bf16"))
    assert evaluation.logits.dtype == torch.float32
    assert not evaluation.logits.requires_grad


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(DataError, match="nothing can be scored") as caught:
        evaluate(Brightness(), OBJECTIVE, batches(0, 0), [], nullcontext)
    assert caught.value.next_step == "repair the data"


def test_scalars_skip_lists() -> None:
    evaluation = evaluate(Brightness(), OBJECTIVE, batches(4), small.metrics(), nullcontext)
    assert set(evaluation.scores) == {"loss", "accuracy", "pairs"}
    assert set(evaluation.scalars()) == {"loss", "accuracy"}


def test_the_loss_is_the_mean_cross_entropy() -> None:
    logits, targets = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])
    assert score(OBJECTIVE, logits, targets, [], None)["loss"] == pytest.approx((0.126928 + 0.693147) / 2, abs=1e-5)


# The command

UNDIVIDED = tiny.overridden(["data.valid_share=0", "data.test_share=0"])


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images in class folders, from which the recipe next to them takes shares for validation and test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("toolkit.runs.session.draw_pictures", lambda *arguments: {})
    root = tiny.write_images(tmp_path / "images") / "train"
    shares = '"har"\nvalid_share = 0.2\ntest_share = 0.2'
    return tiny.write_recipe(tmp_path, root, text=tiny.RECIPE.replace('"cifar10"\nvalid_share = 0.2', shares))


def trained(recipe: Path, *overrides: str) -> Path:
    assert tiny.run(recipe, Path("runs"), "train.epochs=1", *overrides) == EXIT_DONE
    return tiny.only_run(Path("runs"))


def bundled(recipe: Path) -> Path:
    """A bundle that knows the classes of the recipe's data."""
    return toy_bundle.write(Path("exports/toy"), classes=tiny.CLASSES, recipe=recipe.read_text(encoding="utf-8"))


@pytest.mark.parametrize("make", [trained, bundled])
def test_data_without_a_split_to_score_is_refused_before_anything_is_written(
    make: Any, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make(folders)
    before = sorted(Path().rglob("*"))
    capsys.readouterr()
    assert main(["evaluate", str(made), *UNDIVIDED]) == EXIT_DATA
    shown = capsys.readouterr().err.splitlines()
    assert shown[0] == "error: nothing to score: the data has neither a validation nor a test split"
    assert shown[1].startswith(f"next:  use data that has one: python -m toolkit evaluate {made} --set data.KEY=VALUE")
    assert "python -m toolkit plugins show har" in shown[1]
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("flags", [[], ["--device", "cpu"]])
@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ("exports", "name one of its bundles: exports/toy"),
        ("exports/toyy", "did you mean exports/toy?"),
        ("exports/toy/model.onnx", "give its folder: exports/toy"),
        ("cut", "copy the whole bundle again, or export the run again"),
    ],
)
def test_what_was_meant_to_be_a_bundle_leads_to_one(
    given: str, advice: str, flags: list[str], folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundled(folders)
    toy_bundle.write(Path("cut")).joinpath("bundle.json").unlink()
    assert main(["evaluate", given, *flags]) == EXIT_USAGE
    assert capsys.readouterr().err.splitlines() == [
        f"error: {given}: not a bundle (it has no bundle.json), nor a run directory (it has no recipe.toml)",
        f"next:  {advice}",
    ]


@pytest.mark.parametrize(
    ("recipe", "overrides", "problem", "advice"),
    [
        ("[[", [], "not valid TOML", "install the plugins"),
        (tiny.RECIPE.replace('"cnn"', '"cnnx"'), [], 'unknown model "cnnx"', "install the plugins"),
        (tiny.RECIPE, ["data.rooot=x"], "--set data.rooot=x: unknown key", "correct or remove the overrides: "),
        (
            tiny.RECIPE,
            ["input.size=9", "input.stored=8"],
            "--set input.stored=8: must be at least",
            "correct or remove the overrides: ",
        ),
    ],
)
def test_a_bundles_recipe_is_not_to_be_checked_as_a_file(
    recipe: str, overrides: list[str], problem: str, advice: str, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy_bundle.write(Path("toy"), classes=tiny.CLASSES, recipe=recipe)
    assert main(["evaluate", "toy", *tiny.overridden(overrides)]) == EXIT_USAGE
    shown = capsys.readouterr().err
    assert problem in shown
    assert shown.splitlines()[-1].startswith(f"next:  {advice}")
    assert "toolkit check" not in shown


def test_an_evaluation_that_cannot_be_written_suggests_no_missing_flag(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = bundled(folders)
    Path("runs").touch()
    assert main(["evaluate", str(made)]) == EXIT_FAILED
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "error: runs/toy-bundle: cannot be written: Not a directory",
        "next:  free disk space or fix the folder, then run the same command again",
    ]


def test_other_classes_than_a_bundle_knows_lead_to_other_data(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy_bundle.write(Path("my toy"), classes=("ant", "bee"), recipe=folders.read_text(encoding="utf-8"))
    assert main(["evaluate", "my toy"]) == EXIT_DATA
    shown = capsys.readouterr().err
    assert "knows the classes ant, bee; the data has blue, green, red" in shown
    again = "python -m toolkit evaluate 'my toy' --set data.root=FOLDER"
    assert f"next:  evaluate on data with the same classes: {again}" in shown


def test_predictions_are_those_of_the_test_split_and_written_once(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, written = trained(folders), []
    monkeypatch.setattr("toolkit.runs.rows.write_predictions", lambda run, rows, spec: written.append(rows))
    assert main(["evaluate", str(made)]) == EXIT_DONE
    (rows,) = written
    with (made / "predictions.csv").open(encoding="utf-8", newline="") as file:
        assert [row.id for row in rows] == [row["id"] for row in csv.DictReader(file)]


@pytest.mark.parametrize("make", [trained, bundled])
def test_an_evaluation_says_what_it_ran_on(make: Any, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["toolkit", "evaluate", "here"])
    made = make(folders)
    assert main(["evaluate", str(made)]) == EXIT_DONE
    (evaluation,) = made.glob("evaluations/*") if make is trained else Path("runs/toy-bundle").iterdir()
    shown = json.loads((evaluation / "environment.json").read_text(encoding="utf-8"))
    assert shown["command"] == ["toolkit", "evaluate", "here"]
    assert "torch" in shown["packages"]


def test_a_bundles_evaluation_that_cannot_be_written_ends_before_the_work(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = bundled(folders)
    monkeypatch.delattr(evaluation, "ask_raw")
    Path("runs").touch()
    assert main(["evaluate", str(made)]) == EXIT_FAILED
    assert "runs/toy-bundle: cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(("there", "described"), [(True, "cuda"), (False, "cpu")])
def test_the_environment_of_a_bundle_is_that_of_its_device(
    there: bool, described: str, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "describe_environment", lambda found: {"described": str(found)})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    loaded = Bundle.load(bundled(folders), device="cpu")
    monkeypatch.setattr(Bundle, "load", lambda *_, **__: replace(loaded, device="cuda"))
    assert main(["evaluate", "exports/toy"]) == EXIT_DONE
    (made,) = Path("runs/toy-bundle").iterdir()
    assert json.loads((made / "environment.json").read_text(encoding="utf-8")) == {"described": described}
