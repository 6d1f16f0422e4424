"""Writing a recipe, and the digest of what it computes."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from tests.recipe.texts import LISTS, SMALLEST
from toolkit.recipe.read import load
from toolkit.recipe.tables import Recipe
from toolkit.recipe.write import digest, to_toml

KEYS = st.text(max_size=6).filter(lambda key: key not in {"name", "root"})


VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.dates()
    | st.times()
    | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


USES = st.builds(
    lambda name, args: {"name": name, **args},
    st.text(min_size=1, max_size=8),
    st.dictionaries(KEYS, VALUES, max_size=3),
)


@given(
    model=USES,
    data=USES,
    augment=st.lists(USES, max_size=3),
    scale=st.floats(0, 9),
    root=st.none() | st.text(min_size=1, max_size=9),
)
def test_toml_round_trip(tmp_path_factory, model, data, augment, scale, root):
    tables = tomllib.loads(SMALLEST) | {
        "model": model,
        "data": data | ({} if root is None else {"root": root}),
        "augment": augment,
    }
    tables["train"]["optimizer"]["parts"] = {"head.x": {"lr_scale": scale}}
    recipe = Recipe.model_validate({**tables, "name": "r"})
    path = tmp_path_factory.mktemp("recipes") / "r.toml"
    path.write_text(to_toml(recipe), encoding="utf-8", newline="")
    assert load(path) == recipe


def test_the_digest_counts_what_is_computed(write):
    def of(*overrides: str) -> str:
        return digest(load(write(LISTS), overrides))

    assert of("train.batch=9") != of()
    assert of("model.width=9") != of()
    assert of("augment.crop.padding=9") != of()
    assert (
        of(
            "data.root=x",
            "train.device=cpu",
            "trackers=['tensorboard']",
            "input.workers=1",
            "input.on_corrupt=skip",
            "train.checkpoint_minutes=1",
        )
        == of()
    )
    assert digest(load(write(LISTS), name="other")) == of()
    assert len(of()) == 64
