"""Targets and answers drawn by code, by the form of targets: here alone the form decides what is right."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from toolkit.api.contracts import TargetForm, Targets

SURE = 20.0
"""How far a confident logit stands above the others, and a wrong number from its target."""


class Answers(NamedTuple):
    """Logits float32 `[N, C]` and targets as an objective takes them."""

    logits: Tensor
    targets: Tensor

    def part(self, places: Any) -> Answers:
        """The items at these places."""
        return Answers(self.logits[places], self.targets[places])


class Drawn(Protocol):
    """One form of targets, of N items with C classes or outputs. Targets of a batch are int64 `[N]` where they are one
    class each, else float32 `[N, C]`."""

    def targets(self, items: int, count: int) -> Targets:
        """Of a split: every class is shown, or every output has different numbers."""

    def right(self, targets: Tensor, count: int) -> Tensor:
        """float32 `[N, C]`: the right answers, as shares of classes or as numbers."""

    def wrong(self, right: Tensor) -> Tensor:
        """float32 `[N, C]`: answers that are all wrong."""

    def agree(self, answers: Tensor, right: Tensor) -> Tensor:
        """bool `[N]`: whether answers, float32 `[N, C]`, decide as the right ones do."""

    def answers(self, items: int, count: int) -> Answers:
        """Mostly right ones."""

    def lacking(self, items: int, count: int) -> Answers:
        """The same, in which the last class neither occurs nor is predicted, or few items are left."""

    def sure(self, items: int, count: int, *, right: bool) -> Answers:
        """Answers that are all right or all wrong."""

    def awkward(self, items: int, count: int) -> Iterator[tuple[str, Answers]]:
        """Targets that lack something."""

    def batch(self, items: int, count: int) -> Tensor:
        """Targets of a training batch of so many items."""

    def changed(self, batch: Tensor, count: int) -> Mapping[str, Tensor]:
        """Targets that an augmentation may be given, by what they are called: as `batch`, or float32 `[N, C]` mixed."""

    def wrong_batch(self, found: Tensor, items: int, count: int) -> str | None:
        """What is wrong with targets that an augmentation gave; None where nothing is."""


class _OfClasses(ABC):
    """What one class an item and sets of classes share."""

    def answers(self, items: int, count: int) -> Answers:
        return self._drawn(items, count, count)

    def lacking(self, items: int, count: int) -> Answers:
        found = self._drawn(items, max(count - 1, 1), count)
        if count > 1:
            found.logits[:, -1] = -SURE
        return found

    @abstractmethod
    def _drawn(self, items: int, occurring: int, count: int) -> Answers:
        """Answers whose targets show each of the first `occurring` classes, and none of the others."""


class _OneClass(_OfClasses):
    def targets(self, items: int, count: int) -> Targets:
        return [item % count for item in range(items)]

    def right(self, targets: Tensor, count: int) -> Tensor:
        return functional.one_hot(targets, count).float()

    def wrong(self, right: Tensor) -> Tensor:
        return right.roll(1, dims=1)

    def agree(self, answers: Tensor, right: Tensor) -> Tensor:
        return answers.argmax(1) == right.argmax(1)

    def sure(self, items: int, count: int, *, right: bool) -> Answers:
        targets = torch.arange(items) % count
        answered = targets if right else (targets + 1) % count
        logits = SURE * torch.eye(count)[answered]
        return Answers(logits - (0.0 if right else SURE) * torch.eye(count)[targets], targets)

    def awkward(self, items: int, count: int) -> Iterator[tuple[str, Answers]]:
        answers = self.answers(items, count)
        yield "a class that neither occurs nor is predicted", self.lacking(items, count)
        yield "one class alone", answers.part(answers.targets == 0)

    def batch(self, items: int, count: int) -> Tensor:
        return torch.arange(items) % count

    def changed(self, batch: Tensor, count: int) -> Mapping[str, Tensor]:
        return {"class indices": batch, "probabilities": self.right(batch, count)}

    def wrong_batch(self, found: Tensor, items: int, count: int) -> str | None:
        if found.dtype != torch.int64:
            what, sums = "a row of targets is not a probability distribution", found.sum(dim=-1)
            one = torch.allclose(sums, torch.ones_like(sums), atol=1e-4)
            return _wrong_floats(found, items, count) or _outside(found, what, sums=one)
        if found.shape != (items,):
            return f"targets are {list(found.shape)}"
        return None if ((found >= 0) & (found < count)).all() else f"a target is not in 0..{count - 1}"

    def _drawn(self, items: int, occurring: int, count: int) -> Answers:
        """Targets show each of the first classes, and none of the others."""
        rng = torch.Generator().manual_seed(1)
        targets = torch.cat((torch.arange(occurring), torch.randint(0, occurring, (items,), generator=rng)))[:items]
        return Answers(torch.randn(items, count, generator=rng) + 1.5 * torch.eye(count)[targets], targets)


class _SetOfClasses(_OfClasses):
    def targets(self, items: int, count: int) -> Targets:
        """One item shows none and others two."""
        return [() if item == 1 else tuple(sorted({item % count, item // 2 % count})) for item in range(items)]

    def right(self, targets: Tensor, count: int) -> Tensor:  # noqa: ARG002
        return targets

    def wrong(self, right: Tensor) -> Tensor:
        return 1 - right

    def agree(self, answers: Tensor, right: Tensor) -> Tensor:
        return ((answers > 0.5) == right).all(1)

    def sure(self, items: int, count: int, *, right: bool) -> Answers:
        sets = self.answers(items, count).targets
        return Answers(SURE * (2 * sets - 1) * (1 if right else -1), sets)

    def awkward(self, items: int, count: int) -> Iterator[tuple[str, Answers]]:
        answers = self.answers(items, count)
        yield "a class that neither occurs nor is predicted", self.lacking(items, count)
        yield "no class in any set", Answers(answers.logits, torch.zeros(items, count))
        yield "every class in every set", Answers(answers.logits, torch.ones(items, count))
        yield "one class alone", answers.part(answers.targets[:, 0] == 1)

    def batch(self, items: int, count: int) -> Tensor:
        """Some of one class, some of two and one of none."""
        shown = torch.eye(count)
        shown[::2] += shown[::2].roll(1, dims=1)
        shown[3:4] = 0
        return shown[torch.arange(items) % count]

    def changed(self, batch: Tensor, count: int) -> Mapping[str, Tensor]:  # noqa: ARG002
        return {"sets": batch, "mixed sets": batch.lerp(batch.roll(1, dims=0), 0.3)}

    def wrong_batch(self, found: Tensor, items: int, count: int) -> str | None:
        return _wrong_floats(found, items, count) or _outside(found, "a target is not in 0..1")

    def _drawn(self, items: int, occurring: int, count: int) -> Answers:
        rng = torch.Generator().manual_seed(1)
        shown = (torch.rand(items, count, generator=rng) < 0.3) & (torch.arange(count) < occurring)
        shown[:occurring] |= torch.eye(count, dtype=torch.bool)[:occurring]
        return Answers(torch.randn(items, count, generator=rng) + 1.5 * (2 * shown - 1), shown.float())


class _Numbers:
    """Numbers with a mean other than 0 and a spread other than 1, unlike for each output."""

    def targets(self, items: int, count: int) -> Targets:
        steps = [(1 + place / 4, 1 + place / 8) for place in range(count)]
        return [tuple(first + item % 4 * step for first, step in steps) for item in range(items)]

    def right(self, targets: Tensor, count: int) -> Tensor:  # noqa: ARG002
        return targets

    def wrong(self, right: Tensor) -> Tensor:
        return right + SURE

    def agree(self, answers: Tensor, right: Tensor) -> Tensor:
        return ((answers - right).abs() < 0.5).all(1)

    def answers(self, items: int, count: int) -> Answers:
        rng = torch.Generator().manual_seed(1)
        targets = 3 + 2 * torch.randn(items, count, generator=rng)
        return Answers(targets + 0.5 * torch.randn(items, count, generator=rng), targets)

    def lacking(self, items: int, count: int) -> Answers:
        return self.answers(items, count).part(slice(0, items // 2))

    def sure(self, items: int, count: int, *, right: bool) -> Answers:
        targets = self.answers(items, count).targets
        return Answers(targets if right else self.wrong(targets), targets)

    def awkward(self, items: int, count: int) -> Iterator[tuple[str, Answers]]:
        answers = self.answers(items, count)
        yield "targets that are all alike", Answers(answers.logits, torch.full((items, count), 3.0))
        yield "targets of 1e6", Answers(answers.logits, answers.targets + 1e6)

    def batch(self, items: int, count: int) -> Tensor:
        return torch.linspace(-2.0, 7.0, items)[:, None] + torch.arange(count)

    def changed(self, batch: Tensor, count: int) -> Mapping[str, Tensor]:  # noqa: ARG002
        return {"numbers": batch}

    def wrong_batch(self, found: Tensor, items: int, count: int) -> str | None:
        return _wrong_floats(found, items, count) or (None if found.isfinite().all() else "a target is not finite")


def _wrong_floats(found: Tensor, items: int, count: int) -> str | None:
    if found.dtype != torch.float32:
        return f"targets are {str(found.dtype).removeprefix('torch.')}"
    return None if found.shape == (items, count) else f"targets are {list(found.shape)}, not [{items}, {count}]"


def _outside(found: Tensor, what: str, *, sums: bool = True) -> str | None:
    return what if not sums or (found < 0).any() or (found > 1 + 1e-4).any() else None


DRAWN: Mapping[TargetForm, Drawn] = {"index": _OneClass(), "set": _SetOfClasses(), "number": _Numbers()}
