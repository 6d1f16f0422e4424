"""A schedule: the rate falls with the root of the step."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from toolkit.api.contracts import Curve, Direction, Horizon, Schedule


def inverse_sqrt(
    horizon: Horizon,
    direction: Direction,
    *,
    hold_epochs: Annotated[float, Field(gt=0)] = 1.0,
    cooldown: Annotated[float, Field(ge=0, le=1)] = 0.1,
) -> Schedule:
    """The full rate, then one that falls with the root of the step (arXiv 1706.03762), and at last to 0 (2106.04560).

    So training can be continued for longer: only the last part knows where the end is.

    hold_epochs: epochs at the full rate
    cooldown: share of training in which the rate falls to 0 besides, 0 to 1
    """
    held, falling = max(hold_epochs * horizon.steps_per_epoch, 1.0), max(cooldown * horizon.steps, 1.0)
    return Curve(lambda step: math.sqrt(held / max(step, held)) * min(1.0, (horizon.steps - step) / falling))
