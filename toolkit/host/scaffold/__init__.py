"""`plugins new`: a complete package with working components, tests, a recipe, a licence and a workflow for CI."""

from __future__ import annotations

from toolkit.host.scaffold.package import write_package

__all__ = ["write_package"]
