"""A training that is stopped after some events, and goes on in another process's place."""

from __future__ import annotations

from itertools import islice

from torch import Tensor

from toolkit.build.assemble import assemble, training
from toolkit.build.plan import Plan
from toolkit.training.fit import fit


def stopped_and_resumed(planned: Plan, *, after: int) -> dict[str, Tensor]:
    """The weights at the end, where a second assembly takes the state that the first has after so many events."""
    first, setup = training(assemble(planned))
    list(islice(fit(first, setup), after))
    second, setup = training(assemble(planned, notes=()))
    second.load_state_dict(first.state_dict())
    list(fit(second, setup))
    return second.network.state_dict()
