from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from toolkit.api.errors import EXIT_DATA, WeightsError
from toolkit.transfer.weights import Known, Spelling, fits, load_weights


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=0, atol=0)


def test_load_copies_every_tensor() -> None:
    module, other = network(), network()
    load_weights(module, snapshot(other), source="other")
    assert_same(snapshot(module), snapshot(other))


def test_half_precision_is_cast() -> None:
    module, other = network(), network()
    load_weights(module, {name: value.half() for name, value in snapshot(other).items()}, source="other")
    for name, value in module.state_dict().items():
        assert value.dtype == other.state_dict()[name].dtype
        torch.testing.assert_close(value, other.state_dict()[name], rtol=1e-3, atol=1e-3)


def test_batch_norm_counters_may_be_missing() -> None:
    module, other = network(), network()
    weights = snapshot(other)
    del weights["1.num_batches_tracked"]
    load_weights(module, weights, source="other")
    torch.testing.assert_close(module.state_dict()["0.weight"], weights["0.weight"])


def test_ignored_prefixes_are_left_alone_on_both_sides() -> None:
    module, other = network(), network()
    before = snapshot(module)
    weights = snapshot(other) | {"2.weight": torch.zeros(1000, 4), "2.extra": torch.zeros(1)}
    del weights["2.bias"]
    load_weights(module, weights, ignore=("2.",), source="other")
    torch.testing.assert_close(module.state_dict()["2.weight"], before["2.weight"])
    torch.testing.assert_close(module.state_dict()["0.weight"], weights["0.weight"])


@given(
    missing=st.sets(st.sampled_from(["0.weight", "0.bias", "1.running_mean", "2.bias"])),
    unexpected=st.sets(st.text(st.characters(categories=["Ll"]), min_size=1, max_size=5)),
    mis_shaped=st.sets(st.sampled_from(["1.weight", "1.bias", "2.weight"])),
)
def test_every_name_that_does_not_fit_is_listed(missing: set[str], unexpected: set[str], mis_shaped: set[str]) -> None:
    module = network()
    before = snapshot(module)
    weights = {name: value + 1 for name, value in before.items() if name not in missing}
    weights |= {name: torch.zeros(1) for name in unexpected} | {name: torch.zeros(7, 7) for name in mis_shaped}
    if not missing and not unexpected and not mis_shaped:
        load_weights(module, weights, source="other")
        return
    with pytest.raises(WeightsError, match="other: the weights do not fit the model") as caught:
        load_weights(module, weights, source="other")
    assert set(caught.value.missing) == missing
    assert set(caught.value.unexpected) == unexpected
    assert {text.split()[0] for text in caught.value.mis_shaped} == mis_shaped
    assert_same(snapshot(module), before)


def test_the_message_gives_both_shapes() -> None:
    weights = snapshot(network()) | {"2.weight": torch.zeros(5, 4)}
    with pytest.raises(WeightsError) as caught:
        load_weights(network(), weights, source="weights.pt")
    assert caught.value.lines() == [
        "weights.pt: the weights do not fit the model",
        "  1 mis-shaped: 2.weight (5x4 given, 2x4 wanted)",
    ]
    assert caught.value.next_step


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "model.", "backbone.", "encoder.", "net."),
        *("module._orig_mod.", "_orig_mod.module.", "model.backbone.", "module.model.net."),
    ],
)
def test_a_prefix_of_all_names_is_removed(prefix: str) -> None:
    module, other = network(), network()
    changes = load_weights(module, {prefix + name: value for name, value in snapshot(other).items()}, source="other")
    assert_same(snapshot(module), snapshot(other))
    assert changes == [f'prefix "{prefix}" removed']


def test_the_head_may_stand_outside_the_prefix() -> None:
    module, other = network(), network()
    weights = {f"backbone.{name}": value for name, value in snapshot(other).items() if not name.startswith("2.")}
    weights["head.fc.weight"] = torch.zeros(7, 4)
    changes = load_weights(module, weights, ignore=("2.",), source="other")
    torch.testing.assert_close(module.state_dict()["0.weight"], other.state_dict()["0.weight"])
    assert changes == ['prefix "backbone." removed', "dropped head.fc.weight"]


def test_a_prefix_that_the_module_has_stays() -> None:
    module, other = nn.ModuleDict({"encoder": network()}), nn.ModuleDict({"encoder": network()})
    assert load_weights(module, snapshot(other), source="other") == []
    assert_same(snapshot(module), snapshot(other))


def test_a_prefix_that_explains_nothing_is_not_removed() -> None:
    weights = {f"model.{name}": value for name, value in snapshot(network()).items()} | {"more": torch.zeros(1)}
    del weights["model.0.weight"]
    with pytest.raises(WeightsError) as caught:
        load_weights(network(), weights, source="other")
    assert caught.value.missing == ("0.weight",)


def test_a_replaced_head_is_reported() -> None:
    weights = snapshot(network()) | {"2.weight": torch.zeros(1000, 4), "2.bias": torch.zeros(1000)}
    changes = load_weights(network(), weights, ignore=("2.",), source="other")
    assert changes == ["dropped 2.weight (1000x4), 2.bias (1000)"]


THEIRS = Spelling(
    "their library",
    r"first\.query",
    [
        *((rf"first\.{part}", rf"0.weight@{place}") for place, part in enumerate(("query", "key", "value"))),
        (r"first\.offset", r"0.bias"),
        (r"norm\.(.+)", r"1.\1"),
        (r"last\.(.+)", r"2.\1"),
    ],
    dropped=r"pooler\..+",
)


def theirs(module: nn.Module) -> dict[str, Tensor]:
    own = snapshot(module)
    parts = dict(zip(("first.query", "first.key", "first.value"), own["0.weight"].split([1, 1, 2]), strict=True))
    norm = {f"norm.{name.removeprefix('1.')}": value for name, value in own.items() if name.startswith("1.")}
    last = {"last.weight": own["2.weight"][:, :, None, None], "last.bias": own["2.bias"]}
    return {**parts, "first.offset": own["0.bias"], **norm, **last, "pooler.weight": torch.zeros(3)}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_names_of_another_library_are_translated(prefix: str) -> None:
    module, other = network(), network()
    weights = {prefix + name: value for name, value in theirs(other).items()}
    changes = load_weights(module, weights, source="other", known=Known([THEIRS]))
    assert_same(snapshot(module), snapshot(other))
    assert changes[-1] == "names of their library translated"
    assert fits(module, weights, ignore=(), known=Known([THEIRS]))
    assert not fits(module, weights, ignore=())


def test_parts_that_do_not_fit_together_are_missing() -> None:
    weights = theirs(network()) | {"first.key": torch.zeros(1, 9)}
    with pytest.raises(WeightsError) as caught:
        load_weights(network(), weights, source="other", known=Known([THEIRS]))
    assert caught.value.missing == ("0.weight",)


def test_the_plugin_advises_on_weights_that_do_not_fit() -> None:
    def advise(weights: Mapping[str, Tensor], error: WeightsError) -> str | None:
        return f"{len(weights)} given, {len(error.missing)} missing" if error.missing else None

    with pytest.raises(WeightsError) as caught:
        load_weights(network(), {"a": torch.zeros(1)}, source="other", known=Known(advice=advise))
    assert caught.value.next_step == "1 given, 8 missing"
    with pytest.raises(WeightsError) as caught:
        load_weights(network(), snapshot(network()) | {"a": torch.zeros(1)}, source="o", known=Known(advice=advise))
    assert caught.value.next_step == "name the model these weights belong to (--set model.name=NAME), or other weights"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float8_e4m3fn])
def test_an_unusual_precision_is_reported(dtype: torch.dtype) -> None:
    weights = {name: value.to(dtype) if value.is_floating_point() else value for name, value in WHOLE.items()}
    module = network()
    assert load_weights(module, weights, source="other") == [f"cast from {str(dtype).removeprefix('torch.')}"]
    torch.testing.assert_close(module.state_dict()["0.bias"], WHOLE["0.bias"])


WHOLE = {name: torch.ones_like(value) for name, value in snapshot(network()).items()}


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool, torch.complex64])
def test_values_that_are_no_floating_point_numbers_are_refused(dtype: torch.dtype) -> None:
    module = network()
    before = snapshot(module)
    with pytest.raises(WeightsError) as caught:
        load_weights(module, WHOLE | {"0.bias": WHOLE["0.bias"].to(dtype)}, source="other")
    name = str(dtype).removeprefix("torch.")
    assert caught.value.message == f"other: expected floating-point weights, got 0.bias ({name})"
    assert caught.value.exit_code == EXIT_DATA
    assert_same(snapshot(module), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32])
def test_a_counter_may_have_another_type(dtype: torch.dtype) -> None:
    weights = WHOLE | {"1.num_batches_tracked": torch.tensor(3, dtype=dtype)}
    module = network()
    load_weights(module, weights, source="other")
    assert module.state_dict()["1.num_batches_tracked"] == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    module = network()
    before = snapshot(module)
    weights = WHOLE | {name: torch.full_like(WHOLE[name], value, dtype=torch.float64) for name in ("0.bias", "2.bias")}
    with pytest.raises(WeightsError) as caught:
        load_weights(module, weights, source="other")
    message = "other: the weights have values that are not finite (NaN or infinite) in 0.bias, 2.bias"
    assert caught.value.message == message
    assert_same(snapshot(module), before)
