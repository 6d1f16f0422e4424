"""What gives features of a dataset, and when kept ones are the same."""

from __future__ import annotations

from pathlib import Path

import torch
import torchvision

from tests import tiny
from toolkit.api.errors import EXIT_DONE
from toolkit.build.plan import Plan, plan
from toolkit.host.registry import discover
from toolkit.recipe.read import parse
from toolkit.runs.data_check.features import _key, extractor, features


def planned(folder: Path, *overrides: str) -> Plan:
    recipe = tiny.write_recipe(folder, tiny.write_images(folder / "images"))
    return plan(parse(recipe, list(overrides)), discover())


def test_features_are_kept_although_a_new_head_is_drawn(tmp_path: Path) -> None:
    """Weights of other classes have no head for these: the one that is drawn is the same each time."""
    weights = tmp_path / "weights.pt"
    torch.save(torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict(), weights)
    recipe = planned(tmp_path)
    first, second = (_key(extractor(recipe, "shufflenet_v2_x0_5", str(weights))) for _ in range(2))
    assert first == second


def test_a_run_sees_items_in_the_size_that_it_was_trained_with(tmp_path: Path) -> None:
    """Which its own dataset chose; the one that is checked would choose another."""
    recipe = planned(tmp_path, "data.name=image_folder")
    assert recipe.data().spec.size != 32
    assert tiny.run(tmp_path / "tiny.toml", tmp_path / "runs", "train.epochs=1") == EXIT_DONE
    run = tiny.only_run(tmp_path / "runs")
    spec = extractor(recipe, None, str(run)).data.spec
    assert (spec.size, spec.stored_size, spec.fit) == (32, 32, "crop")


def test_items_of_a_split_that_cannot_be_decoded_at_all_have_rows_nevertheless(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    torch.save(torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict(), weights)
    recipe = planned(tmp_path)
    damaged = list((tmp_path / "images/test").rglob("*.png"))
    for path in damaged:
        path.write_text(str(path))
    found = features(extractor(recipe, "shufflenet_v2_x0_5", str(weights)), progress=lambda _: None)
    assert len(found.values) == 30 + len(damaged)
    assert found.known.sum() == 30
