"""A training that is stopped after some events, and goes on in another process's place."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from torch import Tensor

from toolkit.build.assemble import Assembly, assemble, training
from toolkit.build.plan import Plan
from toolkit.training.fit import fit
from toolkit.training.state import Setup, State


def stopped_and_resumed(
    planned: Plan, *, after: int, begin: Callable[[Assembly], tuple[State, Setup]] = training
) -> dict[str, Tensor]:
    """The weights at the end, where a second assembly takes the state that the first has after so many events."""
    first, setup = begin(assemble(planned))
    list(islice(fit(first, setup), after))
    second, setup = begin(assemble(planned, notes=()))
    second.load_state_dict(first.state_dict())
    list(fit(second, setup))
    return second.network.state_dict()
