"""A plugin-based vision research toolkit: recipes in, trained, evaluated and reported models out."""

from toolkit.hookspecs import hookimpl

__version__ = "0.1.0"
__all__ = ["__version__", "hookimpl"]
