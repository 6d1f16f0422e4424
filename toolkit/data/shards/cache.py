"""Blocks of remote shards on the local disk: bounded, shared by all processes of a machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.api.errors import RunFailed
from toolkit.api.files import cache_directory, exclusive, replaced

SPARE = 0.02
"""Share of the cache that is freed at a time: looking for what is oldest takes a while."""


def blocks_folder() -> Path:
    """The folder in the cache directory that holds blocks."""
    return cache_directory() / "blocks"


@dataclass
class BlockCache:
    """Files by the digest of their content. The files used longest ago are removed once all take more than `limit`."""

    limit: int
    """Bytes."""
    folder: Path = field(default_factory=blocks_folder)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._added = self.limit

    def get(self, digest: str, size: int, fetch: Callable[[], bytes]) -> Path:
        """The file with this content; `fetch` brings it if it is not there, in one process at a time.

        Raises RunFailed where the file cannot be written.
        """
        path = self.folder / digest[:2] / digest[2:]
        if self._touched(path, size):
            return path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with exclusive(path.with_name(".lock")):
                if not self._touched(path, size):
                    data = fetch()
                    with replaced(path) as temporary:
                        temporary.write_bytes(data)
        except OSError as error:
            raise RunFailed(
                f"{self.folder}: cannot be written: {error.strerror or error}",
                next_step="free disk space, or choose another folder: export TOOLKIT_CACHE=FOLDER",
            ) from error
        self._make_room(size)
        return path

    def _touched(self, path: Path, size: int) -> bool:
        """Whether a file is there; if so, it counts as used now."""
        with suppress(OSError):
            if path.stat().st_size == size:
                path.touch()
                return True
        return False

    def _make_room(self, size: int) -> None:
        from toolkit.data.store.storage import remove_oldest

        with self._lock:
            self._added += size
            due = self._added > self.limit * SPARE
            self._added = 0 if due else self._added
        if due:
            remove_oldest(self.folder.glob("*/[0-9a-f]*"), int(self.limit * (1 - SPARE)))


def digest_of(data: bytes) -> str:
    """What names a block."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
