"""How `init` splits files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugins.data_files import class_folders, write_image
from toolkit.cli.init.division import EACH_ALONE, Divided, divide
from toolkit.cli.init.layout import recognise


def divided(root: Path) -> Divided:
    return divide(recognise(root, videos=False))


def keys(found: Divided) -> dict[str, object]:
    return {choice.key: choice.value for choice in found.choices}


@pytest.mark.parametrize(("images", "shares"), [(2, (0.3, 0.0)), (3, (0.2, 0.2)), (19, (0.2, 0.2)), (20, (0.15, 0.15))])
def test_shares_follow_the_smallest_class(tmp_path: Path, images: int, shares: tuple[float, float]) -> None:
    found = divided(class_folders(tmp_path, images=images))
    assert keys(found) == dict(zip(("valid_share", "test_share"), shares, strict=True))
    assert f"{images} items" in found.choices[0].why
    assert len(found.data.valid) > 0
    assert bool(found.warnings) == (images < 10)


def test_splits_that_folders_give_are_kept(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", images=20)
    class_folders(tmp_path / "test", images=3)
    found = divided(tmp_path)
    assert keys(found) == {"valid_share": 0.15}
    assert (len(found.data.valid), len(found.data.test)) == (6, 6)
    class_folders(tmp_path / "val", images=3)
    assert keys(divided(tmp_path)) == {}


def test_sources_that_names_show_stay_in_one_split(tmp_path: Path) -> None:
    for target, name in enumerate(("run", "sit")):
        for scene in range(12):
            for clip in range(2):
                write_image(tmp_path / name / f"{name}_{scene}_{clip}.png", 1000 * target + 10 * scene + clip)
    found = divided(tmp_path)
    assert keys(found)["group_pattern"] == r"_(\d+)_\d+\.\w+$"
    scenes = [{item.split("_")[1] for item in split.ids} for split in (found.data.train, found.data.valid)]
    assert scenes[0].isdisjoint(scenes[1])
    assert "12 sources" in found.choices[-1].why
    assert found.warnings == (
        "names show 12 sources (the first number), each kept in one split: 0, 1, 10 and 9 more; if these are not "
        'sources, write group_pattern = "(.+)"',
    )


def test_too_few_sources_are_not_kept_apart_and_this_is_said(tmp_path: Path) -> None:
    for target, name in enumerate(("Run", "Sit")):
        for clip in range(5):
            write_image(tmp_path / name / f"v_{name}_g01_c{clip:02}.png", 100 * target + clip)
    found = divided(tmp_path)
    assert keys(found)["group_pattern"] == EACH_ALONE
    assert len(found.data.valid) > 0
    assert any(text.startswith("items of one source are in several splits") for text in found.warnings)


def test_few_groups_are_not_wasted_on_a_test(tmp_path: Path) -> None:
    for target, name in enumerate(("Run", "Sit")):
        for group in range(2):
            for clip in range(10):
                seed = 1000 * target + 100 * group + clip
                write_image(tmp_path / name / f"v_{name}_g{group:02}_c{clip:02}.png", seed)
    found = divided(tmp_path)
    assert keys(found)["test_share"] == 0.0
    assert found.choices[0].why == "there are too few groups for a test as well"
    assert not found.warnings, "the names of UCF101 need no guess"
    assert len(set(found.data.valid.targets)) == 2


def test_classes_that_names_show_are_not_sources_if_a_reader_says_so(tmp_path: Path) -> None:
    rows = ["path,labels"]
    for number, (name, labels) in enumerate((("cat", "animal"), ("dog", "animal"), ("car", "wheels"), ("ship", ""))):
        for item in range(20):
            write_image(tmp_path / f"{name}_{item}.png", 100 * number + item)
            rows.append(f"{name}_{item}.png,{labels}")
    (tmp_path / "train.csv").write_text("\n".join([*rows, ""]), "utf-8")
    (found,) = divided(tmp_path).warnings
    assert found.startswith("names show 4 sources (what comes before the last number), each kept in one split: car, ")
    assert found.endswith('; if these are not sources, write group_pattern = "(.+)" and test_share = 0.15')
