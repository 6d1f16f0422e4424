"""What this processor has for products of small integers: targets of int8 depend on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from toolkit.system.machine import PROC

Instructions: TypeAlias = Literal["AMX", "VNNI", "AVX2"]

_FLAGS: Mapping[Instructions, frozenset[str]] = {
    "AMX": frozenset({"amx_int8"}),
    "VNNI": frozenset({"avx512_vnni", "avx_vnni"}),
    "AVX2": frozenset({"avx2"}),
}
"""The best first, each with the flags of /proc/cpuinfo of which one is enough."""


def instructions(proc: Path = PROC) -> Instructions | None:
    """The best of them; None if the processor has nothing of that, or the system does not report it."""
    try:
        lines = (proc / "cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    return next((name for name, enough in _FLAGS.items() if enough & flags), None)
