"""Memory that runs out, by values that a recipe may have: a sentence and exit code 1, and no plugin is blamed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny
from tests.hostile.trials import Trial
from toolkit.api.errors import EXIT_FAILED

ROOM = 400 << 20
"""Bytes that a command may take beyond what its imports take."""


HUGE = (["input.size=3000"], ["input.size=500", "train.batch=4096", "model.widths=[512, 8]"])


@pytest.mark.parametrize("overrides", HUGE, ids=" ".join)
def test_a_valid_recipe_that_needs_more_than_there_is(overrides: list[str], trial: Trial, tmp_path: Path) -> None:
    recipe = tiny.write_recipe(tmp_path, tiny.write_images(tmp_path / "images"))
    words = ["run", recipe, "--runs", tmp_path / "runs", *tiny.overridden(overrides)]
    outcome = trial(*words, memory=ROOM)
    assert list(outcome.faults()) == [], outcome
    assert outcome.code == EXIT_FAILED
    assert "error: too little memory on this machine" in outcome.error
