"""Features of a frozen backbone: the same training as on pixels, computed once, kept only while they hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests import small
from toolkit.api.contracts import Augmentation, Headed
from toolkit.api.errors import DataError, RunFailed
from toolkit.data.loader import Share
from toolkit.data.store.corrupt import Corrupt
from toolkit.training import features as module
from toolkit.training.features import Features, Featuring, asks_once, is_fixed
from toolkit.training.fit import StepDone, fit
from toolkit.training.network import Network
from toolkit.training.state import Setup, State
from toolkit.transfer.classifier import Classifier, classification_head
from toolkit_tasks.classification import Classification


class Counted(nn.Module):
    """A backbone that counts the items it sees."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.seen = 0

    def forward(self, pixels: Tensor) -> Tensor:
        self.seen += len(pixels)
        result: Tensor = self.norm(self.layer(pixels)).relu().mean((2, 3))
        return result


def network(seed: int = 0, **arguments: Any) -> Network:
    backbone = Counted(seed)
    head = classification_head(4, 2, dropout=0.2)
    return Network(Classifier(backbone, head, **{"freeze": True, **arguments}), small.SPEC)


def backbone(made: Network) -> Counted:
    assert isinstance(made.model, Classifier)
    assert isinstance(made.model.backbone, Counted)
    return made.model.backbone


def on_features(setup: Setup, made: Network, folder: Path, *, views: int = 1, limit: int = 1 << 20) -> Setup:
    features = Features(
        network=made,
        train=setup.train,
        valid=setup.valid,
        augmentations=setup.augmentations,
        autocast=nullcontext,
        seed=setup.seed,
        batch=5,
        views=views,
        decided="",
        folder=folder,
        limit=limit,
    )
    train, valid = features.loaders()
    return replace(setup, train=train, valid=valid, features=features)


def plain(augmentations: Iterable[Augmentation] = (), *, skip: frozenset[int] = frozenset()) -> Setup:
    return small.setup(small.Squares(20, broken=skip), small.Squares(9), augmentations=augmentations)


def trained(setup: Setup, made: Network) -> State:
    state = small.state(setup, network=made)
    list(fit(state, setup))
    return state


def weights(state: State) -> Tensor:
    return torch.cat([value.flatten().double() for value in state.network.state_dict().values()])


def scores(state: State) -> list[float]:
    return [value for record in state.records for value in (record.train_loss, *record.valid.values())]


@pytest.mark.parametrize("augmentations", [(), (small.noise,)])
def test_training_on_features_gives_the_weights_and_scores_of_training_on_pixels(
    tmp_path: Path, augmentations: tuple[Augmentation, ...]
) -> None:
    on_pixels, made = trained(plain(augmentations), network()), network()
    setup = on_features(plain(augmentations), made, tmp_path, views=2)
    once = trained(setup, made)
    assert torch.allclose(weights(on_pixels), weights(once), atol=1e-6)
    assert scores(once) == pytest.approx(scores(on_pixels), abs=1e-6)
    assert setup.epochs == 2


def test_the_backbone_sees_each_view_once_whatever_the_number_of_epochs(tmp_path: Path) -> None:
    made = network()
    trained(replace(on_features(plain(), made, tmp_path), epochs=7), made)
    assert backbone(made).seen == 20 + 9
    again = network()
    trained(replace(on_features(plain(), again, tmp_path), epochs=7), again)
    assert backbone(again).seen == module.CHECKED


def test_views_take_turns(tmp_path: Path) -> None:
    made = network()
    setup = on_features(plain([small.noise]), made, tmp_path, views=2)
    epochs = [next(setup.train.training(20, (), seed=0, epoch=epoch, start=0)) for epoch in range(3)]
    first, second, third = (one.pixels[one.index.argsort()] for one in epochs)
    assert torch.equal(first, third)
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("stop_after", [1, 3, 6, 9, 12])
def test_resume_is_exact_and_asks_the_weights_that_were_loaded(tmp_path: Path, stop_after: int) -> None:
    made = network()
    whole = trained(on_features(plain(), made, tmp_path), made)
    first = network()
    setup = on_features(plain(), first, tmp_path)
    stopped = small.state(setup, network=first)
    for count, _ in enumerate(fit(stopped, setup), 1):
        if count == stop_after:
            break
    other = network(seed=7)
    later = on_features(plain(), other, tmp_path)
    resumed = small.state(later, network=other)
    resumed.load_state_dict(stopped.state_dict())
    list(fit(resumed, later))
    assert torch.equal(weights(whole), weights(resumed))
    assert scores(whole) == scores(resumed)


def events(made: Network, setup: Setup) -> Iterator[Featuring]:
    state = small.state(setup, network=made)
    return (event for event in fit(state, setup) if isinstance(event, Featuring))


def test_it_reports_its_progress_and_the_file_that_had_the_features(tmp_path: Path) -> None:
    made = network()
    found = list(events(made, on_features(plain(), made, tmp_path)))
    assert [event.done for event in found] == [5, 10, 15, 20, 25, 28, 29]
    assert {event.count for event in found} == {29}
    assert all(event.kept is None for event in found)
    (file,) = tmp_path.glob("*.safetensors")
    (read,) = events(made, on_features(plain(), made, tmp_path))
    assert read.kept == file


def test_other_weights_items_and_settings_have_features_of_their_own(tmp_path: Path) -> None:
    made, other = network(), network(seed=1)
    more = small.setup(small.Squares(21), small.Squares(9), augmentations=())
    setups = [
        (made, on_features(plain(), made, tmp_path)),
        (other, on_features(plain(), other, tmp_path)),
        (made, on_features(more, made, tmp_path)),
        (made, on_features(plain([small.noise]), made, tmp_path, views=3)),
    ]
    for one, setup in setups:
        list(events(one, setup))
    assert len(list(tmp_path.glob("*.safetensors"))) == len(setups)


@pytest.mark.parametrize("place", [0.02, 0.5, 0.99])
def test_a_damaged_file_is_computed_again(tmp_path: Path, place: float) -> None:
    made = network()
    list(events(made, on_features(plain(), made, tmp_path)))
    (file,) = tmp_path.glob("*.safetensors")
    whole = bytearray(file.read_bytes())
    whole[int(place * len(whole))] ^= 255
    file.write_bytes(whole)
    assert list(events(made, on_features(plain(), made, tmp_path)))[-1].kept is None
    assert list(events(made, on_features(plain(), made, tmp_path)))[-1].kept == file


def test_a_file_of_another_code_of_the_backbone_is_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = network()
    list(events(made, on_features(plain(), made, tmp_path)))
    monkeypatch.setattr(Counted, "forward", lambda self, pixels: self.layer(pixels).mean((2, 3)))
    assert list(events(made, on_features(plain(), made, tmp_path)))[-1].kept is None


def test_skipped_items_have_no_features_and_no_file(tmp_path: Path) -> None:
    broken = frozenset({3, 8})
    setup, made = plain(skip=broken), network()
    setup.train.store.skipped.corrupt = Corrupt(skip=True, limit=0.2)
    on_pixels = trained(setup, network())
    again = plain(skip=broken)
    again.train.store.skipped.corrupt = Corrupt(skip=True, limit=0.2)
    once = trained(on_features(again, made, tmp_path), made)
    assert torch.allclose(weights(on_pixels), weights(once), atol=1e-6)
    assert set(again.train.store.skipped.reasons) == broken
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("featured", [False, True])
@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_split_of_which_no_item_can_be_read_is_named(split: str, featured: bool, tmp_path: Path) -> None:
    broken = {"train": frozenset(range(20)), "valid": frozenset(range(9))}[split]
    given = {"train": small.Squares(20), "valid": small.Squares(9)} | {split: small.Squares(len(broken), broken=broken)}
    setup, made = small.setup(given["train"], given["valid"]), network()
    getattr(setup, split).store.skipped.corrupt = Corrupt(skip=True, limit=1.0)
    scored = "nothing can be scored: every item of a split was skipped"
    unread = f"no item of the {split} split can be read, so it has no features"
    message = unread if featured else {"train": "no item of the training split can be read", "valid": scored}[split]
    with pytest.raises(DataError, match=message):
        trained(on_features(setup, made, tmp_path) if featured else setup, made)


def test_features_that_the_cache_has_no_room_for_stay_in_memory(tmp_path: Path) -> None:
    made = network()
    state = trained(on_features(plain(), made, tmp_path, limit=100), made)
    assert len(state.records) == 2
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "file"
    folder.write_text("")
    made = network()
    trained(on_features(plain(), made, folder), made)
    assert f"{folder}" in capsys.readouterr().err


def test_a_backbone_that_is_trained_later_ends_the_run(tmp_path: Path) -> None:
    made = network()
    setup = replace(on_features(plain(), made, tmp_path), epochs=3)
    state = small.state(setup, network=made)
    training = fit(state, setup)
    next(event for event in training if isinstance(event, StepDone) and event.epoch == 2)
    backbone(made).requires_grad_(True)
    with pytest.raises(RunFailed, match="its features were computed once") as failed:
        list(training)
    assert failed.value.next_step == "compute them in each step: --set train.feature_views=0"


def test_a_backbone_is_fixed_where_nothing_reaches_it() -> None:
    made = network().train()
    assert isinstance(made.model, Headed)
    assert is_fixed(made)
    assert not is_fixed(network(thaw_epoch=1).train())
    assert not is_fixed(network(freeze=False).train())
    partly = network()
    backbone(partly).norm.train()
    assert not is_fixed(partly)


def test_an_objective_that_asks_for_more_needs_pixels() -> None:
    batch = Share.whole(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))

    class Twice(Classification):
        def loss(self, forward: Any, pixels: Tensor, targets: Tensor) -> Tensor:
            twice = torch.cat([pixels, pixels.flip(-1)])
            return super().loss(forward, twice, targets.repeat(2))

    class Taught(Classification):
        def loss(self, forward: Any, pixels: Tensor, targets: Tensor) -> Tensor:
            taught: Tensor = super().loss(forward, pixels, targets) + forward(pixels, network(3)).sum()
            return taught

    made = network()
    assert asks_once(Classification(0.0, None), made, batch)
    for other in (Twice, Taught):
        assert not asks_once(other(0.0, None), made, batch)
