"""A look at the data of a recipe; `check` shows it, so most of it is tested there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from toolkit.api.errors import DataError
from toolkit.build.inspection import inspect


def test_a_training_split_without_items_leads_to_the_keys_of_its_dataset() -> None:
    plan: Any = SimpleNamespace(one=lambda kind: SimpleNamespace(name=f"my_{kind}"))
    data: Any = SimpleNamespace(train=())
    with pytest.raises(DataError, match="the training split has no items") as caught:
        inspect(plan, data)
    assert caught.value.next_step == "see how to divide it: python -m toolkit plugins show my_dataset"
