"""The converter of LiteRT, in a process of its own: `python -m toolkit.export.litert_conversion PROGRAM MODEL`."""

from __future__ import annotations

import sys


def convert(program: str, model: str) -> None:
    """Write the program that `torch.export.save` saved as a model of LiteRT."""
    import litert_torch  # before torch, which takes seconds: it may be missing
    import torch

    exported = torch.export.load(program)
    positional, named = exported.example_inputs
    litert_torch.convert(exported.module(), positional, named).export(model)


if __name__ == "__main__":
    convert(*sys.argv[1:])
