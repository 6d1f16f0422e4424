"""A run as starting weights: its directory or a checkpoint of it, the head too where the classes are the same."""

from __future__ import annotations

import io
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from toolkit.api.errors import WeightsError
from toolkit.cli.main import main
from toolkit.system.checkpoints import seal
from toolkit.transfer.files import read_content
from toolkit.transfer.trained import trained_run, weights_at

SMALL = tiny.RECIPE.replace('name = "cnn"\nwidths = [8, 8]\ndropout = 0.1', 'name = "shufflenet_v2_x0_5"').replace(
    "epochs = 2\nbatch = 8", "epochs = 1\nbatch = 12"
)
STILL = ("train.optimizer.lr=1e-12", "train.optimizer.momentum=0")


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.runs.session.draw_pictures", lambda *arguments: {})
    monkeypatch.setattr("toolkit.runs.evaluation.write_report", lambda path: path / "report.html")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe and a finished run of it."""
    folder = tmp_path_factory.mktemp("made")
    recipe = tiny.write_recipe(folder, tiny.write_images(folder / "images"), text=SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toolkit.runs.session.draw_pictures", lambda *arguments: {})
        assert tiny.run(recipe, folder / "runs") == 0
    return recipe, tiny.only_run(folder / "runs")


def network(path: Path) -> dict[str, Tensor]:
    state = torch.load(path, weights_only=True)
    found: dict[str, Tensor] = state["network"]
    return found


def parts(weights: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """The trained tensors of a part: what batch norm counts moves whatever the rate."""
    prefix = f"model.{part}."
    counted = ("running_mean", "running_var", "num_batches_tracked")
    return {key: value for key, value in weights.items() if key.startswith(prefix) and not key.endswith(counted)}


def close(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[key].shape == other[key].shape and torch.allclose(one[key], other[key], rtol=0, atol=1e-9) for key in one
    )


def notes(run: Path) -> list[str]:
    found: list[str] = json.loads((run / "facts.json").read_text())["notes"]
    return found


@pytest.mark.parametrize("named", ["", "best.pt", "last.pt"])
def test_a_run_starts_from_another_with_its_head(made: tuple[Path, Path], tmp_path: Path, named: str) -> None:
    recipe, source = made
    assert tiny.run(recipe, tmp_path / "runs", f"model.weights={source / named}", *STILL) == 0
    run = tiny.only_run(tmp_path / "runs")
    first, second = network(source / "best.pt"), network(run / "best.pt")
    assert close(parts(first, "backbone"), parts(second, "backbone"))
    assert close(parts(first, "head"), parts(second, "head"))
    checkpoint = source / (named or "best.pt")
    assert f"starting from the weights of {checkpoint}; the head as well" in notes(run)


def test_other_classes_get_a_new_head_on_the_same_backbone(made: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, source = made
    root = tiny.write_images(tmp_path / "others", ("ant", "bee", "cat", "dog"))
    assert tiny.run(recipe, tmp_path / "runs", f"model.weights={source}", f"data.root={root}", *STILL) == 0
    run = tiny.only_run(tmp_path / "runs")
    first, second = network(source / "best.pt"), network(run / "best.pt")
    assert len(parts(first, "backbone")) == 168  # 56 convolutions, and a scale and an offset of 56 batch norms
    assert close(parts(first, "backbone"), parts(second, "backbone"))
    assert second["model.head.2.weight"].shape[0] == 4
    assert (
        f"starting from the weights of {source / 'best.pt'}; the head starts at random weights: "
        "the run knows 3 classes (blue, green, red), the data has 4 classes (ant, bee, cat, …)"
    ) in notes(run)


def test_a_frozen_backbone_stays_bit_for_bit(made: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, source = made
    assert tiny.run(recipe, tmp_path / "runs", f"model.weights={source}", "model.freeze=true") == 0
    first, second = (network(run / "best.pt") for run in (source, tiny.only_run(tmp_path / "runs")))
    backbone = [key for key in first if key.startswith("model.backbone.")]
    assert all(torch.equal(first[key], second[key]) for key in backbone)


def test_a_run_is_represented_by_its_averaged_weights(made: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, _ = made
    assert tiny.run(recipe, tmp_path / "runs", "train.ema=0.5") == 0
    source = tiny.only_run(tmp_path / "runs")
    assert tiny.run(recipe, tmp_path / "next", f"model.weights={source / 'last.pt'}", *STILL) == 0
    last = torch.load(source / "last.pt", weights_only=True)["state"]
    started = network(tiny.only_run(tmp_path / "next") / "best.pt")
    assert close(parts(last["average"], "backbone"), parts(started, "backbone"))
    assert not close(parts(last["network"], "backbone"), parts(started, "backbone"))


def test_such_a_run_goes_on_and_is_evaluated_without_its_source(made: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, source = made
    copy = shutil.copytree(source, tmp_path / "source")
    assert tiny.run(recipe, tmp_path / "runs", f"model.weights={copy}") == 0
    shutil.rmtree(copy)
    run = tiny.only_run(tmp_path / "runs")
    assert main(["run", "--resume", str(run)]) == 0
    assert main(["evaluate", str(run)]) == 0


def failure(capsys: pytest.CaptureFixture[str], code: int) -> list[str]:
    assert code == 3
    return capsys.readouterr().err.splitlines()


def test_the_run_of_another_model_names_it(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, source = made
    override = f"model.weights={source}"
    lines = failure(capsys, tiny.run(recipe, tmp_path / "runs", "model.name=shufflenet_v2_x1_0", override))
    assert lines[0].startswith(f"error: {source / 'best.pt'} for shufflenet_v2_x1_0: the weights do not fit the model")
    assert lines[-1] == "next:  take the model of that run (--set model.name=shufflenet_v2_x0_5), or another run"
    assert tiny.run(recipe, tmp_path / "runs", override, *shlex.split("model.name=shufflenet_v2_x0_5")) == 0


def test_a_model_without_a_backbone_is_not_one_to_start_from(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, _ = made
    wide = tiny.write_recipe(tmp_path, recipe.parent / "images", name="small")
    model = "model={name='wide_resnet', depth=10, width=1}"
    assert tiny.run(wide, tmp_path / "runs", "train.epochs=1", model) == 0
    source = tiny.only_run(tmp_path / "runs", "small")
    capsys.readouterr()
    lines = failure(capsys, tiny.run(recipe, tmp_path / "runs", f"model.weights={source}"))
    at = source / "best.pt"
    assert lines[0] == f'error: {at}: its model "wide_resnet" has no backbone, so no other model can start from it'


def test_a_folder_that_holds_no_run_is_named(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, _ = made
    lines = failure(capsys, tiny.run(recipe, tmp_path / "runs", f"model.weights={tmp_path}"))
    assert lines[0] == f"error: {tmp_path}: a folder without best.pt, so it is not a run that has weights"


def test_a_checkpoint_of_another_format_is_named(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, source = made
    content = torch.load(source / "best.pt", weights_only=True)
    torch.save({**content, "format": 99}, tmp_path / "best.pt")
    lines = failure(capsys, tiny.run(recipe, tmp_path / "runs", f"model.weights={tmp_path}"))
    assert lines[0] == f"error: {tmp_path / 'best.pt'}: a checkpoint of format 99, this version reads format 3"


def rewritten(source: Path, target: Path, **changes: Any) -> Path:
    """A best checkpoint with other content, and a checksum of that."""
    archive = io.BytesIO()
    torch.save({**torch.load(source / "best.pt", weights_only=True), **changes}, archive)
    seal(archive)
    target.write_bytes(archive.getvalue())
    return target


@pytest.mark.parametrize(
    "changes",
    [
        {"origin": None},
        {"origin": {}},
        {"origin": {"recipe": "[[", "classes": ["a"]}},
        {"origin": {"recipe": "[model]\nname = 3", "classes": ["a"]}},
        {"origin": {"recipe": "[model]\nname = 'resnet18'", "classes": "ab"}},
        {"network": None},
        {"network": {}, "state": 3},
        {"network": {"model.backbone.a": "text"}},
    ],
)
def test_a_checkpoint_of_other_content_is_refused(
    made: tuple[Path, Path], tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = rewritten(made[1], tmp_path / "best.pt", **changes)
    with pytest.raises(WeightsError, match=r"a damaged checkpoint: unexpected content|holds no state dict") as caught:
        trained_run(read_content(path), path)
    assert caught.value.next_step


def test_weights_of_a_run_that_are_not_finite_are_refused(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, source = made
    weights = network(source / "best.pt")
    spoilt = {**weights, "model.backbone.conv1.1.bias": weights["model.backbone.conv1.1.bias"] * float("nan")}
    path = rewritten(source, tmp_path / "best.pt", network=spoilt)
    lines = failure(capsys, tiny.run(recipe, tmp_path / "runs", f"model.weights={path}"))
    assert lines[0].endswith("not finite (NaN or infinite) in backbone.conv1.1.bias")


def test_a_flipped_bit_is_refused_as_weights_and_by_evaluate(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, source = made
    copy = shutil.copytree(source, tmp_path / "source")
    content = bytearray((copy / "best.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "best.pt").write_bytes(content)
    lines = failure(capsys, tiny.run(recipe, tmp_path / "runs", f"model.weights={copy}"))
    assert lines[0].endswith("its bytes do not match its checksum")
    assert main(["evaluate", str(copy)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: {copy / 'best.pt'}: damaged checkpoint: its bytes do not match its checksum"
    assert lines[-1] == "next:  name another run, or train again"


def test_a_checkpoint_without_a_checksum_is_refused_as_weights(made: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    torch.save(torch.load(made[1] / "best.pt", weights_only=True), path)
    with pytest.raises(WeightsError, match="a damaged checkpoint: it has no checksum"):
        trained_run(read_content(path), path)


def bundle(folder: Path, name: str, run: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "bundle.json").write_text(json.dumps({"name": name, "trained_on": {"run": run}}))
    return folder


def test_a_bundle_means_the_run_that_it_was_exported_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best = tmp_path / "runs" / "tiny" / "2026" / "best.pt"
    kept = bundle(best.parent / "bundles" / "abc", "tiny", "2026")
    best.touch()
    assert weights_at(kept) == best
    elsewhere = bundle(tmp_path / "exports" / "tiny", "tiny", "2026")
    monkeypatch.chdir(tmp_path)
    assert weights_at(elsewhere).resolve() == best
    renamed = bundle(tmp_path / "exports" / "other", "other", "2026")
    assert weights_at(renamed).resolve() == best
    seed = tmp_path / "runs" / "tiny" / "2027" / "seed-0" / "best.pt"
    seed.parent.mkdir(parents=True)
    seed.touch()
    (tmp_path / "runs" / "latest").symlink_to("tiny/2027")
    member = bundle(tmp_path / "exports" / "member", "tiny", "seed-0")
    assert weights_at(member) == Path("runs/tiny/2027/seed-0/best.pt")
    monkeypatch.chdir(tmp_path / "exports")
    with pytest.raises(WeightsError) as caught:
        weights_at(elsewhere)
    assert caught.value.message == (
        f"{elsewhere}: a bundle has no weights to train from, and its run 2026 was not found below runs/"
    )
    assert caught.value.next_step == "name the directory of that run: --set model.weights=RUN"


@pytest.mark.parametrize("manifest", ["", "{}", "[]", '{"name": "a", "trained_on": 3}', '{"name": "a"}'])
def test_a_bundle_that_names_no_run(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "bundle.json").write_text(manifest)
    with pytest.raises(WeightsError, match=r"bundle\.json names no run"):
        weights_at(tmp_path)


def test_a_folder_of_a_published_model_means_its_weights(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    assert weights_at(tmp_path) == tmp_path / "model.safetensors"


def test_a_run_that_cannot_be_extended_leads_to_a_new_one_from_its_weights(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next step as it is printed: one_cycle has used its epoch, so another epoch starts from its weights."""
    _, source = made
    capsys.readouterr()
    assert main(["run", "--resume", str(source), "--extend", "2"]) == 2
    command = capsys.readouterr().err.splitlines()[-1].removeprefix("next:  ")
    assert command == (f"python -m toolkit run {source}/recipe.toml --set model.weights={source} --set train.epochs=1")
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)[3:]) == 0
    assert f"starting from the weights of {source / 'best.pt'}; the head as well" in notes(tiny.only_run(Path("runs")))
