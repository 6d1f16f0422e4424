"""The optimizers of torch: each a factory with the arguments of torch's class, and what they mean."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from toolkit.api.contracts import OptimizerFactory

_MEANINGS = {
    "alpha": "weight of the past in the running average of squared gradients",
    "asgd.alpha": "power by which the rate falls",
    "amsgrad": "divide by the largest running average so far (arXiv 1904.09237)",
    "beta2_decay": "power of the step at which the running average of squared gradients forgets",
    "betas": "weights of the past in the running averages of gradients and of their squares",
    "capturable": "whether a CUDA graph may capture the step",
    "centered": "divide by the deviation of gradients from their running average",
    "d": "largest root mean square of an update; larger ones are scaled down",
    "dampening": "share of the gradient that is not added to the momentum",
    "decoupled_weight_decay": "decay the weights themselves instead of adding to the gradients, as `adamw` does",
    "differentiable": "whether gradients flow through the step",
    "eps": "added to a denominator, so that it is not 0",
    "adafactor.eps": "smallest size of a squared gradient (unset: by its type), and of a parameter",
    "etas": "factors of the step size: where the gradient changes its sign, and where it does not",
    "foreach": "whether to step many tensors at once; unset: torch decides",
    "fused": "whether one kernel takes the whole step; unset: yes, unless `foreach` is given",
    "initial_accumulator_value": "where the sums of squared gradients start",
    "lambd": "decay towards 0 as a share of the rate",
    "lr_decay": "how fast the rate falls: it is divided by 1 + this * the number of steps",
    "maximize": "go up instead of down",
    "momentum": "weight of the past steps",
    "momentum_decay": "how fast the momentum reaches its full value",
    "nesterov": "look ahead by the momentum; needs some, and no dampening",
    "rho": "weight of the past in the running average of squared gradients",
    "step_sizes": "smallest and largest step",
    "t0": "step at which averaging begins",
    "weight_decay": "share of a weight that is added to its gradient",
    "adafactor.weight_decay": "share of a weight, times the rate, that each step takes from it",
    "adamw.weight_decay": "share of a weight, times the rate, that each step takes from it",
}


def _offered(kind: type[torch.optim.Optimizer], what: str) -> OptimizerFactory:
    """A factory of this class. It uses the fused implementation where torch has one."""
    name, signature = kind.__name__.lower(), inspect.signature(kind)

    def make(params: list[dict[str, Any]], *, lr: float, **arguments: Any) -> torch.optim.Optimizer:
        fused = {"fused": True} if "fused" in signature.parameters and "foreach" not in arguments else {}
        try:
            return _bare(kind)(params, **({"lr": lr} | fused | arguments))
        except (ValueError, TypeError, RuntimeError) as error:
            raise ValueError(f"{name}: {error}") from error

    params, *own = signature.parameters.values()
    keys = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in own]
    known = {key.name: _MEANINGS.get(f"{name}.{key.name}") or _MEANINGS.get(key.name) for key in keys}
    meanings = "\n".join(f"{key}: {meaning}" for key, meaning in known.items() if meaning)
    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"{what}\n\n{meanings}"
    make.__signature__ = signature.replace(parameters=[params, *keys])  # type: ignore[attr-defined]
    make.__wrapped__ = kind.__init__  # type: ignore[attr-defined] # where the annotations' names are known
    return make


def _bare(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """The optimizer without the wrappers that keep its methods from being compiled.

    Each of them imports torch's compiler, which takes seconds before a run's first step; no optimizer is compiled here.
    """
    take_step: Callable[..., float | None] = inspect.unwrap(kind.step)

    def step(self: torch.optim.Optimizer, closure: Callable[[], float] | None = None) -> float | None:
        with torch.set_grad_enabled(bool(self.defaults.get("differentiable"))):
            return take_step(self, closure)

    guarded = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in guarded}
    return type(kind.__name__, (kind,), methods | {"step": step})


adadelta = _offered(torch.optim.Adadelta, "Adadelta (arXiv 1212.5701): steps as large as past steps were.")
adafactor = _offered(torch.optim.Adafactor, "Adafactor (arXiv 1804.04235): Adam's steps with less memory.")
adagrad = _offered(torch.optim.Adagrad, "Adagrad: steps divided by the root of all squared gradients so far.")
adam = _offered(torch.optim.Adam, "Adam (arXiv 1412.6980): momentum, divided by the size of past gradients.")
adamax = _offered(torch.optim.Adamax, "Adamax (arXiv 1412.6980): Adam, divided by the largest of past gradients.")
adamw = _offered(torch.optim.AdamW, "AdamW (arXiv 1711.05101): Adam with weight decay of its own.")
asgd = _offered(torch.optim.ASGD, "Averaged stochastic gradient descent, with a falling rate.")
nadam = _offered(torch.optim.NAdam, "NAdam: Adam with Nesterov momentum.")
radam = _offered(torch.optim.RAdam, "RAdam (arXiv 1908.03265): Adam without its first, uncertain steps.")
rmsprop = _offered(torch.optim.RMSprop, "RMSprop (arXiv 1308.0850): gradients divided by their recent size.")
rprop = _offered(
    torch.optim.Rprop, "Rprop: steps by the gradients' signs alone, for full batches. A schedule has no effect on it."
)
sgd = _offered(torch.optim.SGD, "Stochastic gradient descent, with momentum where it is given.")
