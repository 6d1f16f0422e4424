"""The checksum of bundle.json, of all that it holds but what users may edit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.api.errors import BundleError
from toolkit.serving.bundle.wire import AGAIN

SEAL = "sha256"
_EDITABLE = frozenset({"thresholds"})


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """What bundle.json says, with its checksum."""
    return {**content, SEAL: _checksum(content)}


def without_seal(claimed: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What the bundle.json at `path` says. Raises BundleError where its checksum is missing or another."""
    content = {key: value for key, value in claimed.items() if key != SEAL}
    if claimed.get(SEAL) != _checksum(content):
        raise BundleError(
            f'{path}: changed since the export: it does not match its "{SEAL}" '
            f"(only {', '.join(sorted(_EDITABLE))} may be edited)",
            next_step=AGAIN,
        )
    return content


def _checksum(content: Mapping[str, Any]) -> str:
    """Of the values, not of how they are written: an editor may indent a file in another way."""
    read_back = json.loads(json.dumps({key: value for key, value in content.items() if key not in _EDITABLE}))
    return hashlib.sha256(json.dumps(read_back, sort_keys=True).encode()).hexdigest()
