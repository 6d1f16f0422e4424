"""How like features are to those of the classes: the arithmetic against NumPy, and what answers say of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.quarters import Quarters
from toolkit.api.contracts import Batch, DataSpec
from toolkit.training.evaluate import Answered, answer
from toolkit.training.network import Network
from toolkit.training.similarity import Similarity, fit_similarity
from toolkit.training.trust import similarity_weight, trust_scores

SPEC = DataSpec(("a", "b", "c"), 4)


class Plain(nn.Module):
    """A task whose logits are the network's outputs."""

    targets = "index"

    def logits(self, outputs: Tensor) -> Tensor:
        return outputs


def pixels(count: int, *views: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *views, 3, 4, 4), generator=draw, dtype=torch.uint8)


def batches(count: int, targets: list[int], seed: int = 0) -> list[Batch]:
    whole, all_targets = pixels(count, seed=seed), torch.tensor(targets)
    return [Batch(whole[part], all_targets[part], part) for part in torch.arange(count).split(3)]


def normal(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def expected(network: Network, known: list[int], given: Tensor) -> np.ndarray:
    """The largest cosine to the mean of unit vectors of each class."""
    features = normal(network.features(pixels(len(known))).numpy().astype(np.float64))
    means = [features[np.array(known) == number].mean(0) for number in sorted({*known})]
    cosines = normal(network.features(given).numpy().astype(np.float64)) @ normal(np.stack(means)).T
    largest: np.ndarray = cosines.max(1)
    return largest


@pytest.mark.parametrize("known", [[0, 1, 2, 0, 1, 2, 0], [0, 2, 2, 0, 0, 2, 0]], ids=["all", "one class is absent"])
def test_the_similarity_is_the_largest_cosine_to_the_mean_of_a_class(known: list[int]) -> None:
    network = Network(Quarters(), SPEC)
    similarity = fit_similarity(network, batches(len(known), known), classes=3)
    given = pixels(20, seed=1)
    found = similarity(network.features(given))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected(network, known, given), rtol=1e-5)
    assert network.training
    assert not network.state_dict().keys() & {"similarity.directions"}


def test_frozen_parts_stay_in_evaluation_mode() -> None:
    network = Network(Quarters(), SPEC)
    network.model.eval()
    fit_similarity(network, batches(3, [0, 1, 2]), classes=3)
    assert network.training
    assert not network.model.training


def test_features_of_a_known_direction_are_similar_whatever_their_length() -> None:
    similarity = Similarity(torch.eye(2, 3))
    given = torch.tensor([[5.0, 0.0, 0.0], [0.0, 0.1, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 9.0], [-1.0, -1.0, 0.0]])
    assert similarity(given).tolist() == pytest.approx([1, 1, 0.5**0.5, 0, -(0.5**0.5)])


def test_cosines_are_not_rounded_by_autocast() -> None:
    draw = torch.Generator().manual_seed(0)
    similarity, given = Similarity(torch.eye(4)), torch.rand(50, 4, generator=draw)
    with torch.autocast("cpu", torch.bfloat16):
        found = similarity(given)
    assert torch.equal(found, similarity(given))


def test_answers_hold_the_mean_similarity_of_their_views() -> None:
    network, known = Network(Quarters(), SPEC), [0, 1, 2, 0, 1, 2]
    given = pixels(4, 2, seed=1)
    batch = Batch(given.flatten(0, 1), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    plain = answer(network, Plain(), [batch], torch.inference_mode, keep_views=True)  # type: ignore[arg-type]
    assert plain.similarities is None
    network.similarity = fit_similarity(network, batches(len(known), known), classes=3)
    found = answer(network, Plain(), [batch], torch.inference_mode, keep_views=True)  # type: ignore[arg-type]
    assert found.similarities is not None
    each = expected(network, known, batch.pixels).reshape(4, 2)
    np.testing.assert_allclose(found.similarities.numpy(), each.mean(1), rtol=1e-5)
    assert torch.equal(found.logits, plain.logits)
    assert found.views is not None
    assert found.views.shape == (4, 2, 3)


def test_the_weight_lets_confidence_and_similarity_spread_alike() -> None:
    draw = torch.Generator().manual_seed(0)
    logits, alike = torch.randn(500, 4, generator=draw), 0.9 + 0.01 * torch.randn(500, generator=draw)
    answered = Answered(torch.arange(500), logits, logits.argmax(1), similarities=alike)
    weight = similarity_weight(answered)
    confidence = trust_scores(answered, "confidence")
    assert float(weight * alike.std()) == pytest.approx(float(confidence.std()), rel=1e-4)
    both = trust_scores(answered, "similarity", weight)
    np.testing.assert_allclose(both.numpy(), (confidence + weight * alike).numpy(), rtol=1e-6)
    equal = Answered(answered.index, logits, answered.targets, similarities=torch.ones(500))
    assert similarity_weight(equal) == 0
