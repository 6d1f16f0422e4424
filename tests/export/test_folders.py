"""Folders that an export leaves for other programs: what they may replace, and what all of them hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import toy_bundle
from toolkit.api.errors import RunFailed, UsageError
from toolkit.export.folders import LABELS, meaning, placed, require_replaceable, write_labels
from toolkit.serving.bundle import read_manifest


def test_only_a_folder_of_its_kind_or_an_empty_one_is_replaced(tmp_path: Path) -> None:
    place = tmp_path / "model"
    require_replaceable(place, kind="a model", mark="model.xml")
    place.mkdir()
    require_replaceable(place, kind="a model", mark="model.xml")
    (place / "work.txt").touch()
    with pytest.raises(UsageError, match=r"model: exists and is not a model \(it has no model.xml\)") as caught:
        require_replaceable(place, kind="a model", mark="model.xml")
    assert caught.value.next_step == "give another name with --name NAME, or remove it"
    (place / "model.xml").touch()
    require_replaceable(place, kind="a model", mark="model.xml")


def test_a_place_that_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = pytest.raises(RunFailed, match="/file: cannot be written: Not a directory")
    with refused, placed(tmp_path / "file" / "model"):
        pytest.fail("there is nowhere to write")


def test_labels_have_a_line_each_and_the_meaning_has_the_names(tmp_path: Path) -> None:
    manifest = read_manifest(toy_bundle.write(tmp_path / "toy", classes=("dark\nroom", "a  b"), thresholds=(0.5, 0.25)))
    write_labels(tmp_path, manifest)
    assert (tmp_path / LABELS).read_text() == "dark room\na b\n"
    assert meaning(manifest) == {
        "classes": ["dark\nroom", "a  b"],
        "thresholds": [0.5, 0.25],
        "fit": "crop",
        "recipe_digest": "0" * 64,
    }
