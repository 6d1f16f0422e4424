"""Optimizers of torch, and learning-rate schedules."""

from __future__ import annotations

from toolkit import hookimpl

OPTIMIZERS = (
    *("adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "asgd"),
    *("nadam", "radam", "rmsprop", "rprop", "sgd"),
)
"""Lower-case names of the classes of `torch.optim`. Skipped: LBFGS needs a closure, SparseAdam sparse gradients, and
Muon takes matrices only: `muon` is our own, for filters."""


@hookimpl
def toolkit_optimizers() -> dict[str, str]:
    own = {"muon": "toolkit_optim.muon:muon"}
    return {name: f"toolkit_optim.optimizers:{name}" for name in OPTIMIZERS} | own


@hookimpl
def toolkit_schedules() -> dict[str, str]:
    names = ("constant", "cosine", "linear", "one_cycle", "plateau", "step")
    return {name: f"toolkit_optim.schedules:{name}" for name in names}
