"""torchvision's ImageNet weights: fetched once, checked against the hash in their file name, kept in the cache."""

from __future__ import annotations

import hashlib
import http.client
import queue
import re
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torchvision
from rich.console import Console
from rich.progress import Progress

from toolkit.errors import WeightsError
from toolkit.files import cache_directory, write_atomically
from toolkit.weights import read_weights

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 1 << 20


class UnreachableError(WeightsError):
    """The weights are not in the cache and could not be downloaded."""


def imagenet_weights(name: str, *, timeout: float) -> dict[str, Tensor]:
    """The weights torchvision recommends for its model `name`.

    Looked for in the toolkit's cache, then in that of `torch.hub`, then downloaded into the former.
    timeout: longest wait for the server to answer, and for each piece of the file, in seconds.

    Raises:
        UnreachableError: not on this machine, and not to be had from the server.
        WeightsError: the file is damaged or incomplete.
    """
    url = weights_url(name)
    file_name = url.rpartition("/")[2]
    cached = weights_directory() / file_name
    for path in (cached, Path(torch.hub.get_dir()) / "checkpoints" / file_name):
        if path.is_file():
            _check(path.read_bytes(), path, next_step=f"delete {path} and try again")
            return read_weights(path)
    content = _download(url, cached, timeout)
    _check(content, url, next_step=f"try again, or {_by_hand(url, cached)}")
    write_atomically(cached, content)
    return read_weights(cached)


def weights_url(name: str) -> str:
    """Where torchvision keeps its recommended weights for the model `name`."""
    url: str = torchvision.models.get_model_weights(name).DEFAULT.url
    return url


def weights_directory() -> Path:
    return cache_directory() / "weights"


def _check(content: bytes, source: Path | str, *, next_step: str) -> None:
    """Compare with the start of the SHA-256 that names of torchvision's weights end in."""
    found = re.search(r"-([0-9a-f]{8,64})\.pth$", str(source))
    wanted = found.group(1) if found else ""
    actual = hashlib.sha256(content).hexdigest()[: len(wanted)]
    if not wanted or actual != wanted:
        raise WeightsError(
            f'{source}: damaged: its SHA-256 begins with "{actual}", not with "{wanted}"', next_step=next_step
        )


def _download(url: str, target: Path, timeout: float) -> bytes:
    try:
        response = _open(url, timeout)
        with response:
            return _read(response, target.name)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise UnreachableError(f"{url}: cannot be downloaded: {error}", next_step=_by_hand(url, target)) from error


def _by_hand(url: str, target: Path) -> str:
    return (
        f"on a machine with network download {url}, put {target.name} into {target.parent}, and run again; "
        f"or --set model.weights=PATH names a weights file anywhere"
    )


def _open(url: str, timeout: float) -> http.client.HTTPResponse:
    """Open in a thread: looking up a host name knows no timeout of its own."""
    answers: queue.Queue[http.client.HTTPResponse | Exception] = queue.Queue()

    def request() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=timeout))  # noqa: S310  torchvision's own https address
        except Exception as error:
            answers.put(error)

    threading.Thread(target=request, daemon=True).start()
    try:
        answer = answers.get(timeout=timeout)
    except queue.Empty:
        raise TimeoutError(f"no answer within {timeout:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _read(response: http.client.HTTPResponse, description: str) -> bytes:
    pieces = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"Downloading {description}", total=response.length)
        while piece := response.read(_CHUNK):
            pieces.append(piece)
            progress.advance(task, len(piece))
    return b"".join(pieces)
