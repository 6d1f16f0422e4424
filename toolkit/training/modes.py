"""Training and evaluation mode of a module's parts, which may differ: frozen ones stay in evaluation mode."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import nn


def is_frozen(network: nn.Module) -> bool:
    """Whether training leaves a network as it is: no gradient reaches it, and no module is in training mode."""
    trained = any(parameter.requires_grad for parameter in network.parameters())
    return not trained and not any(module.training for module in network.modules())


class evaluating(AbstractContextManager[None]):  # noqa: N801 - a context manager
    """Puts a module into evaluation mode and each of its modules back into its own mode."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __enter__(self) -> None:
        self._modes = [(module, module.training) for module in self._module.modules()]
        self._module.eval()

    def __exit__(self, *error: object) -> None:
        for module, mode in self._modes:
            module.training = mode
