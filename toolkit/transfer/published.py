"""Weights that others have published: fetched once, checked by their SHA-256, kept in the cache directory."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from toolkit.api.contracts import Provenance
from toolkit.api.errors import WeightsError
from toolkit.api.files import cache_directory, replaced, write_atomically
from toolkit.transfer.licences import UNKNOWN

if TYPE_CHECKING:
    import http.client
    import urllib.request

    from toolkit.transfer.names import Weights

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Published:
    """A weights file at an address of its publisher.

    Where the publisher gives no SHA-256, that of the first file used is kept next to it in the cache, and a file that
    comes later with another is refused. This shows every change, but does not prove that the first file was right.
    """

    word: str
    """What a recipe writes for it: `imagenet`, say."""
    title: str
    """What it is called on screen: "ImageNet weights", say."""
    url: str
    sha256: str | None = None
    """The first hex digits of the file's SHA-256, as many as the publisher gives."""
    licence: str = UNKNOWN
    """As model hubs name it: `apache-2.0`, say."""

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]

    @property
    def provenance(self) -> Provenance:
        return Provenance(self.title, self.url, self.licence)

    def fetch(self, timeout: float) -> Weights:
        """The weights: from the toolkit's cache, else from that of `torch.hub`, else downloaded into the former.

        A download that breaks off goes on where it stopped, for as long as each try brings more of the file.
        timeout: longest wait for the server to answer, and for each piece of the file, in seconds.

        Raises:
            UnreachableError: not on this machine, and the server does not send them.
            WeightsError: the file is damaged, or is no longer the one that was used first.
        """
        import torch

        from toolkit.transfer.files import read_weights

        cached = weights_directory() / self.file_name
        for path in (cached, Path(torch.hub.get_dir()) / "checkpoints" / self.file_name):
            if path.is_file():
                self._check(path, source=path, next_step=f"delete {path} and try again")
                return read_weights(path)
        by_hand = (
            f"on a machine with network download {self.url}, put {cached.name} into {cached.parent}, and run again; "
            f"or --set model.weights=PATH names a weights file anywhere"
        )
        with replaced(cached) as arriving:
            _download(self.url, arriving, timeout, by_hand=by_hand)
            self._check(arriving, source=self.url, next_step=f"try again, or {by_hand}")
        return read_weights(cached)

    def _check(self, path: Path, *, source: Path | str, next_step: str) -> None:
        """Compare with the publisher's digest, else with that of the first file used, kept as `sha256sum` writes it."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        kept = weights_directory() / f"{self.file_name}.sha256"
        if self.sha256 is not None and not digest.startswith(self.sha256):
            begins = digest[: len(self.sha256)]
            message = f'{source}: damaged: its SHA-256 begins with "{begins}", not with "{self.sha256}"'
            raise WeightsError(message, next_step=next_step)
        if self.sha256 is None and not kept.is_file():
            write_atomically(kept, f"{digest}  {self.file_name}\n".encode())
        elif self.sha256 is None and digest != (first := kept.read_text(encoding="utf-8").partition(" ")[0]):
            raise WeightsError(
                f'{source}: changed since its first use: its SHA-256 was "{first}" and is "{digest}"',
                next_step=f"{next_step}; if the change is meant, delete {kept}",
            )


class UnreachableError(WeightsError):
    """The weights are not in the cache and could not be downloaded."""


def weights_directory() -> Path:
    """The folder in the cache directory that holds weights files."""
    return cache_directory() / "weights"


def _download(url: str, target: Path, timeout: float, *, by_hand: str) -> None:
    import http.client
    import urllib.error

    from rich.console import Console
    from rich.progress import Progress

    with target.open("wb") as file, Progress(console=Console(stderr=True), transient=True) as progress:
        show = partial(progress.update, progress.add_task(f"Downloading {url.rpartition('/')[2]}", total=None))
        while True:
            start = file.tell()
            try:
                return _receive(url, file, timeout, show)
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, urllib.error.HTTPError):
                    error.close()
                if file.tell() <= start:
                    raise UnreachableError(f"{url}: cannot be downloaded: {error}", next_step=by_hand) from error


def _receive(url: str, file: IO[bytes], timeout: float, show: Callable[..., None]) -> None:
    """Append the rest of what is at `url` to `file`; from the start where the server cannot send a part."""
    import http
    import urllib.request

    request = urllib.request.Request(url)  # noqa: S310 - a publisher's own https address
    if file.tell():
        request.add_header("Range", f"bytes={file.tell()}-")
    with _open(request, timeout) as response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            file.seek(0)
            file.truncate()
        whole = None if response.length is None else file.tell() + response.length
        while piece := response.read(_CHUNK):
            file.write(piece)
            show(completed=file.tell(), total=whole)
    if whole is not None and file.tell() < whole:
        raise ConnectionError(f"it broke off after {file.tell()} of {whole} bytes")


def _open(request: urllib.request.Request, timeout: float) -> http.client.HTTPResponse:
    """Open in a thread: looking up a host name knows no timeout of its own."""
    import urllib.request

    answer: Future[http.client.HTTPResponse] = Future()

    def ask() -> None:
        try:
            answer.set_result(urllib.request.urlopen(request, timeout=timeout))  # noqa: S310 - as above
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.result(timeout)
    except TimeoutError:
        raise TimeoutError(f"no answer within {timeout:g} s") from None
