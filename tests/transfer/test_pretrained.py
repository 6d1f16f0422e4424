from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from toolkit.api.clips import Clip
from toolkit.api.contracts import DataSpec, Provenance
from toolkit.api.errors import RecipeError, WeightsError
from toolkit.transfer.classifier import Classifier, classification_head, count_features, fitting
from toolkit.transfer.pretrained import SAMPLE_TIMEOUT, TIMEOUT, Transfer
from toolkit.transfer.published import UnreachableError
from toolkit.transfer.weights import Weights

SPEC = DataSpec(("cat", "dog"), size=8)


def backbone() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@dataclass
class Elsewhere:
    """Weights of a library that fetches them itself."""

    reachable: bool = True
    waited: float | None = None
    word: str = "theirs"
    title: str = "their weights"
    licence: str = "mit"

    @property
    def provenance(self) -> Provenance:
        return Provenance(self.title, "https://theirs.example", self.licence)

    def fetch(self, timeout: float) -> Weights:
        self.waited = timeout
        if not self.reachable:
            raise UnreachableError("no network")
        return {**backbone().state_dict(), "fc.weight": torch.zeros(7, 5)}


def built(transfer: Transfer, theirs: Elsewhere, spec: DataSpec = SPEC) -> Classifier:
    start = transfer.start(theirs, spec, "tiny")
    made = backbone()
    start.load(made, ignore=("fc.",))
    return start.classifier(made, classification_head(count_features(made, spec, "tiny"), len(spec.classes)))


def test_weights_of_any_library_fill_the_backbone() -> None:
    torch.manual_seed(0)
    theirs = Elsewhere()
    expected = theirs.fetch(0)
    torch.manual_seed(0)
    model = built(Transfer("theirs", freeze=True), theirs)
    assert all(torch.equal(value, expected[name]) for name, value in model.backbone.state_dict().items())
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 2)
    assert theirs.waited == TIMEOUT
    assert model.notes == ("starting from their weights of tiny, licence mit (https://theirs.example)",)
    assert model.provenance == Provenance("their weights of tiny", "https://theirs.example", "mit")
    assert not any(module.training for module in model.train().backbone.modules())


def test_random_weights_are_not_fetched() -> None:
    theirs = Elsewhere()
    assert built(Transfer(), theirs).notes == ()
    assert theirs.waited is None


def test_a_sample_goes_on_without_them_and_unfrozen() -> None:
    theirs = Elsewhere(reachable=False)
    with pytest.raises(UnreachableError):
        built(Transfer("theirs"), theirs)
    model = built(Transfer("theirs", freeze=True, thaw_epoch=2), theirs, replace(SPEC, sample=True))
    (note,) = model.notes
    assert note.startswith("their weights could not be downloaded: starting from random weights (sample run)")
    assert note.endswith("; the backbone is not frozen")
    assert not model.frozen
    assert theirs.waited == SAMPLE_TIMEOUT


def test_weights_of_another_model_say_whose_they_are(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "other.pt")
    with pytest.raises(WeightsError) as caught:
        built(Transfer(str(tmp_path / "other.pt")), Elsewhere())
    assert caught.value.message == f"{tmp_path / 'other.pt'} for tiny: the weights do not fit the model"


def test_a_plugins_own_notes_follow() -> None:
    start = Transfer(freeze=True).start(Elsewhere(), SPEC, "tiny")
    assert start.classifier(backbone(), nn.Linear(5, 2), notes=["seen otherwise"]).notes == (
        'the backbone is frozen at random weights: set model.weights = "theirs" or a path',
        "seen otherwise",
    )


class OfClips(nn.Module):
    def forward(self, clips: Tensor) -> Tensor:
        return clips.mean(dim=(3, 4)).flatten(1)


def test_features_of_clips_are_counted() -> None:
    spec = replace(SPEC, clip=Clip(frames=4))
    assert count_features(OfClips(), spec, "moving") == 4 * 3
    with pytest.raises(RecipeError) as caught:
        count_features(backbone(), spec, "tiny")
    assert caught.value.lines()[0].startswith("model tiny: input.size: tiny cannot take clips of 4 frames of 8 px (")


def test_a_backbone_that_gives_maps_is_refused() -> None:
    with pytest.raises(RecipeError) as caught:
        count_features(nn.Conv2d(3, 5, 3), SPEC, "tiny")
    assert caught.value.lines() == ["model tiny: model: tiny gives no vector of features for an item"]


def test_what_a_library_refuses_is_the_sizes_fault() -> None:
    with pytest.raises(RecipeError) as caught, fitting(SPEC, "tiny"):
        raise AssertionError("too small\nand more")
    assert caught.value.lines() == ["model tiny: input.size: tiny cannot take images of 8 px (too small)"]
    assert caught.value.next_step == "--set input.size=224"
