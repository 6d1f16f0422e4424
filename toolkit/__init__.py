"""A plugin-based vision research toolkit: recipes in, trained, evaluated, reported and exported models out."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.api.hookspecs import hookimpl
    from toolkit.notebook import Run, open_run, run

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "hookimpl", "open_run", "run"]

# Read by onnxruntime when it is imported: without it, versions from 1.29 on send usage data to its authors.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:
    """Each name when it is asked for: using a bundle needs no pluggy, and a plugin needs nothing that runs recipes."""
    if name == "hookimpl":
        from toolkit.api.hookspecs import hookimpl

        return hookimpl
    if name in {"Run", "open_run", "run"}:
        from toolkit import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
