"""Names and format of a run's checkpoints: for training, which writes them, and for models that start from one."""

from __future__ import annotations

from typing import Final

FORMAT: Final = 2
"""Stands in each checkpoint; another one belongs to another version of the toolkit."""
BEST: Final = "best.pt"
LAST: Final = "last.pt"
