"""SimSiam: its arithmetic, its views, and what can be done with features that no head reads."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests import small, tiny
from tests.ranks import together
from tests.resuming import stopped_and_resumed
from toolkit.api.contracts import DataSpec
from toolkit.api.errors import RunFailed
from toolkit.build.assemble import assemble, training
from toolkit.build.plan import Plan, plan
from toolkit.cli.main import main
from toolkit.host.registry import discover
from toolkit.recipe.read import parse
from toolkit.system.ranks import ALONE, Ranks
from toolkit.training.fit import StepDone, fit
from toolkit.training.network import Network
from toolkit.transfer.classifier import Classifier
from toolkit_tasks.simsiam import SimSiam, simsiam

SPEC = DataSpec(("a", "b", "c"), 8)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


FEATURES = 5


class Views:
    """A network whose features of a view are the numbers that stand in its pixels."""

    def __call__(self, pixels: Tensor, network: nn.Module | None = None) -> Tensor:
        assert network is not None
        return network(pixels)

    def features(self, pixels: Tensor, network: nn.Module | None = None) -> Tensor:
        assert network is None
        return pixels


def normed(values: Tensor) -> Tensor:
    return (values - values.mean(0)) / (values.var(0, correction=0) + 1e-5).sqrt()


def plain_projection(objective: SimSiam, features: Tensor) -> Tensor:
    values = features
    linear = [one for one in objective.projector if isinstance(one, nn.Linear)]
    for number, layer in enumerate(linear):
        values = normed(values @ layer.weight.T)
        values = values if number == len(linear) - 1 else values.clamp(min=0)
    return values


def plain_prediction(objective: SimSiam, shown: Tensor) -> Tensor:
    first, _, _, last = objective.predictor
    return normed(shown @ first.weight.T).clamp(min=0) @ last.weight.T + last.bias


def cosines(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1))


@pytest.mark.parametrize("layers", [2, 3])
def test_the_loss_is_that_of_the_paper_plus_one(layers: int) -> None:
    torch.manual_seed(0)
    objective = simsiam(SPEC, feature_size=FEATURES, width=7, bottleneck=3, layers=layers)
    views = torch.randn(6, 2, FEATURES, requires_grad=True)
    loss = objective.loss(Views(), views, torch.zeros(6))
    shown = [plain_projection(objective, views[:, view]) for view in (0, 1)]
    constant = [one.detach().clone() for one in shown]
    first, second = (plain_prediction(objective, one) for one in shown)
    expected = (1 - (cosines(first, constant[1]) + cosines(second, constant[0])) / 2).sum()
    torch.testing.assert_close(loss, expected)
    # Through what the other view shows no gradient flows.
    torch.testing.assert_close(*(torch.autograd.grad(one, views)[0] for one in (loss, expected)), atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(objective.projected(views[:, 0]), shown[0])


def test_one_item_alone_is_refused() -> None:
    objective = simsiam(SPEC, feature_size=FEATURES, width=4, bottleneck=2)
    with pytest.raises(RunFailed, match="cannot learn from one item at a time"):
        objective.loss(Views(), torch.zeros(1, 2, FEATURES), torch.zeros(1))


TASK = "task={name='simsiam', width=8, bottleneck=4}"
JITTER = "augment=[{name='horizontal_flip'}, {name='color_jitter'}]"
SETTINGS = (TASK, JITTER, "train.metric=accuracy", "train.direction=maximize", "model.dropout=0")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simsiam")
    return tiny.write_recipe(folder, tiny.write_images(folder / "images"))


def planned(recipe: Path, *overrides: str) -> Plan:
    return plan(parse(recipe, [*SETTINGS, *overrides]), discover())


def test_views_are_drawn_apart_and_the_first_as_ever(recipe: Path) -> None:
    _, setup = training(assemble(planned(recipe)))
    assert setup.views == 2

    def batches(size: int, start: int, views: int) -> dict[int, Tensor]:
        shares = setup.train.training(size, setup.augmentations, seed=1, epoch=3, start=start, views=views)
        return {item: one for share in shares for item, one in zip(share.index.tolist(), share.pixels, strict=True)}

    plain, both, larger = batches(8, 0, 1), batches(8, 0, 2), batches(12, 0, 2)
    assert all(torch.equal(both[item][0], plain[item]) for item in plain)
    assert sum(torch.equal(both[item][0], both[item][1]) for item in both) < 2
    shared = both.keys() & larger.keys()
    assert len(shared) > 12
    assert all(torch.equal(both[item], larger[item]) for item in shared)
    resumed = batches(8, 1, 2)
    assert 0 < len(resumed) < len(both)
    assert all(torch.equal(resumed[item], both[item]) for item in resumed)


def test_resuming_is_exact_and_the_head_stays_as_it_was(recipe: Path) -> None:
    made = planned(recipe)
    state, setup = training(assemble(made))
    before = {name: value.clone() for name, value in state.network.state_dict().items()}
    losses = [float(event.loss) for event in fit(state, setup) if isinstance(event, StepDone)]
    assert all(0 < loss < 2 for loss in losses)
    after = state.network.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed
    assert not any(name.startswith("model.head.") for name in changed)
    resumed = stopped_and_resumed(made, after=4)
    assert all(torch.equal(after[name], value) for name, value in resumed.items())


def ranked(ranks: Ranks) -> Any:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, FEATURES))
    network = Network(Classifier(backbone, nn.Linear(FEATURES, 2)), small.SPEC)
    objective = simsiam(small.SPEC, feature_size=FEATURES, width=6, bottleneck=3)
    setup = small.setup(small.Squares(40), small.Squares(11), batch=16, epochs=1, augmentations=(), views=2)
    setup = replace(setup, train=replace(setup.train, ranks=ranks), valid=replace(setup.valid, ranks=ranks))
    state = small.state(setup, network=network, objective=objective)
    state.optimizer.add_param_group(
        {"params": [*objective.parameters()], "lr": 0.1, "base_lr": 0.1, "name": "objective"}
    )
    events = list(fit(state, setup))
    weights = {**state.network.state_dict(), **{f"o.{key}": one for key, one in objective.state_dict().items()}}
    return [float(event.loss) for event in events if isinstance(event, StepDone)], weights, dict(events[-1].valid)


def test_two_ranks_pretrain_as_one_does() -> None:
    losses, weights, scores = ranked(ALONE)
    for found, its, own in together(ranked, 2):
        assert found == pytest.approx(losses, abs=1e-5)
        assert own == pytest.approx(scores, abs=1e-4, nan_ok=True)
        for name, value in weights.items():
            torch.testing.assert_close(its[name], value, atol=1e-4, rtol=1e-3)


@pytest.fixture(scope="module")
def made(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    assert tiny.run(recipe, runs, *SETTINGS, "train.epochs=1") == 0
    return tiny.only_run(runs)


def test_features_are_scored_by_their_neighbours(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = read_json(made / "scores.json")
    assert 0 < scores["valid"]["spread"] <= 1.0
    assert 0 <= scores["test"]["accuracy"] <= 1
    assert scores["protocol"]["answers"] == "by the nearest neighbours of the same split"
    facts = read_json(made / "facts.json")
    assert "maps" not in facts
    assert main(["evaluate", str(made)]) == 0
    assert "spread" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["export"], ["predict", "IMAGE"], ["explain", "IMAGE", "--save", "SAVE"]])
def test_no_answer_is_given_by_what_has_learned_none(
    made: Path, recipe: Path, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    image = str(next((recipe.parent / "images" / "test").glob("*/*.png")))
    command, *rest = [{"IMAGE": image, "SAVE": str(tmp_path / "maps")}.get(word, word) for word in words]
    assert main([command, str(made), *rest]) == 2
    shown = capsys.readouterr().err
    assert f'{made}: has no answers: task "simsiam" has learned features without labels' in shown
    assert f"learn answers from them: python -m toolkit run {made}/recipe.toml" in shown
    assert not (tmp_path / "exports").exists()


def test_the_next_command_learns_answers_from_the_features(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    assert main(["export", str(made), "--exports", str(tmp_path / "exports")]) == 2
    line = next(one for one in capsys.readouterr().err.splitlines() if one.startswith("next:"))
    _, _, _, *words = shlex.split(line.partition("them: ")[2])
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--set", "train.epochs=1"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "best.pt; the head starts at random weights: the run has learned features alone" in shown
    assert "next: export the model" in shown


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["augment=[]"],
            '"simsiam" compares 2 views of each item, which only augmentations make different: add',
        ),
        (["augment=['horizontal_flip', 'mixup']"], 'and augmentation "mixup" mixes it with others: remove it'),
        (["model={name='wide_resnet', depth=10, width=1}"], "model.name: has no backbone and head of its own"),
        (
            ["export.calibrate=true"],
            'export.calibrate=true: requires answers, and task "simsiam" learns features alone',
        ),
        (["train.metric=spred"], 'no metric of this recipe computes "spred"'),
        (["train.strategy=fsdp"], '"fsdp" does not divide the weights that task "simsiam" trains'),
    ],
)
@pytest.mark.parametrize("command", ["check", "run"])
def test_what_does_not_go_with_it_is_refused(
    recipe: Path, command: str, overrides: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    into = ["--runs", str(tmp_path)] if command == "run" else []
    assert main([command, str(recipe), *into, *tiny.overridden([*SETTINGS, *overrides])]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_a_ladder_of_features_is_refused(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ladder", str(recipe), "--runs", str(tmp_path), *tiny.overridden(SETTINGS)]) == 2
    shown = capsys.readouterr().err
    assert 'ladder: task "simsiam" learns features and no answers' in shown
    assert "learn answers: python -m toolkit ladder" in shown


UNLABELLED = "data={name='image_folder', root='ROOT', labels='none'}"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, some in folders, with another file."""
    root = tmp_path_factory.mktemp("photos")
    tiny.write_images(root / "more", ["holiday"])
    (root / "more" / "train" / "holiday" / "00.png").rename(root / "first.png")
    (root / "notes.txt").write_text("no image", encoding="utf-8")
    return root


def test_a_folder_without_labels_is_pretrained_on(
    recipe: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [UNLABELLED.replace("ROOT", str(photos)), "input.size=16"]
    assert tiny.run(recipe, tmp_path, *SETTINGS, *data) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "data image_folder: no labels, train 14, valid 0, test 0 items" in shown
    assert "skipped 1 file that is not an image: notes.txt" in shown
    assert "Nothing was scored: the data has no labels." in shown
    assert "--set data.labels=one --set data.root=FOLDER" in shown
    # Without scores the last epoch is kept.
    assert torch.load(tiny.only_run(tmp_path) / "best.pt", weights_only=True)["epoch"] == 2


@pytest.mark.parametrize(
    ("data", "overrides", "code", "message"),
    [
        ("", ["task.name=classification"], 2, '"classification" learns from labels, and this data has none'),
        (", folds=3", [TASK], 2, 'folds: cannot be combined with data.labels = "none"'),
        (", train='list.csv'", [TASK], 2, 'train: cannot be combined with data.labels = "none"'),
    ],
)
def test_what_needs_labels_is_refused_without_them(
    recipe: Path,
    photos: Path,
    data: str,
    overrides: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = UNLABELLED.replace("ROOT", str(photos)).replace("}", f"{data}}}")
    assert main(["check", str(recipe), *tiny.overridden([JITTER, table, *overrides])]) == code
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_folder_without_classes_leads_to_it(recipe: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = UNLABELLED.replace("ROOT", str(photos)).replace(", labels='none'", "")
    assert main(["check", str(recipe), *tiny.overridden([table])]) == 3
    assert 'To pretrain without labels, set data.labels = "none".' in " ".join(capsys.readouterr().err.split())


def test_a_folder_without_images_is_refused(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("no image", encoding="utf-8")
    table = UNLABELLED.replace("ROOT", str(tmp_path))
    assert main(["check", str(recipe), *tiny.overridden([*SETTINGS, table])]) == 3
    assert f"{tmp_path}: holds no image" in " ".join(capsys.readouterr().err.split())


def test_a_learning_rate_is_found_for_it(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(recipe), "--find-lr", "--runs", str(tmp_path), *tiny.overridden(SETTINGS)]) == 0
    assert "rates from" in capsys.readouterr().out
