"""A plugin-based vision research toolkit: recipes in, trained, evaluated, reported and exported models out."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.api.hookspecs import hookimpl

__version__ = "0.1.0"
__all__ = ["__version__", "hookimpl"]

# Read by onnxruntime when it is imported: without it, versions from 1.29 on send usage data to its authors.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:
    """`hookimpl` when a plugin asks for it: using a bundle does not need pluggy."""
    if name == "hookimpl":
        from toolkit.api.hookspecs import hookimpl

        return hookimpl
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
