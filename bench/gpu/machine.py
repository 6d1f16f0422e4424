"""What the figures of a GPU are of: the device, the versions, the source."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from bench.gpu.schedule import Setting

ROOT = Path(__file__).parents[2]
MEASURED = ("bench", "toolkit", "plugins", "recipes")


def describe(setting: Setting) -> Iterator[dict[str, Any]]:
    """`device`, None where CUDA finds no GPU and this is not a rehearsal; `environment`, as a run records it."""
    import torch

    from toolkit.system.device import choose_device, describe
    from toolkit.system.environment import describe_environment

    device = choose_device("cpu" if setting.rehearsal else "auto")
    found = device.type == "cuda" or setting.rehearsal
    environment = describe_environment(device)
    del environment["command"]
    if not found:
        environment["torch_built_for_cuda"] = torch.version.cuda
    yield {"device": describe(device) if found else None, "environment": environment}


def source() -> str:
    """A digest of the code that is measured: a checkout without its history has no commit."""
    digest = sha256()
    for folder in MEASURED:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".py", ".toml"}:
                digest.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]
