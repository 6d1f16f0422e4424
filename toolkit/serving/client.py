"""A client of `python -m toolkit serve`, with the standard library alone."""

from __future__ import annotations

import http.client
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from toolkit.api.errors import DataError

BUSY = 429
ASK = "see /openapi.json of the server"


class Client:
    """Asks one server. Not for several threads at a time."""

    def __init__(self, url: str, *, token: str = "", patience: float = 60.0) -> None:
        """url: such as `http://127.0.0.1:8000`. token: what the server was started with, if it asks for one. patience:
        seconds for which a request is sent again while the server is busy, and for which an answer may take."""
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.netloc, timeout=patience)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._patience = patience

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def models(self) -> list[dict[str, Any]]:
        """What each model takes and answers with. Raises DataError where the server refuses."""
        listed: list[dict[str, Any]] = self._asked("GET", "/v1/models")["models"]
        return listed

    def predict(
        self, files: Sequence[Path | str], *, model: str | None = None, top: int = 3, every: float | None = None
    ) -> list[dict[str, Any]]:
        """The answer to each image or video, or its `error`, in their order.

        model: required where the server has several. top: classes of each answer. every: answer videos also every so
        many seconds. Raises DataError where the server refuses, OSError for a file that cannot be read."""
        fields = {"model": model, "top": top, "every": every}
        kept = {name: str(value) for name, value in fields.items() if value is not None}
        body, kind = _form(kept, [Path(file) for file in files])
        answers: list[dict[str, Any]] = self._asked("POST", "/v1/predict", body, {"Content-Type": kind})["answers"]
        return answers

    def stream(self, source: str, *, model: str | None = None, top: int = 3) -> Iterator[dict[str, Any]]:
        """The answers to a source of the server, each as it comes, until the source ends.

        Raises DataError where the server refuses or loses the source, OSError where the connection is lost."""
        fields = {"source": source, "model": model, "top": top}
        query = urlencode({name: value for name, value in fields.items() if value is not None})
        with closing(self._connection):
            self._connection.request("GET", f"/v1/stream?{query}", headers=self._headers)
            with self._connection.getresponse() as response:
                if response.status != http.client.OK:
                    raise DataError(f"/v1/stream: status {response.status}: {_reason(response.read())}", next_step=ASK)
                kind = ""
                for line in map(bytes.strip, response):
                    field, _, value = line.decode().partition(": ")
                    kind = value if field == "event" else kind
                    said = json.loads(value) if field == "data" else {}
                    if said and kind == "answer":
                        yield said
                    if said.get("failed"):
                        raise DataError(f"/v1/stream: {said['message']}", next_step=ASK)

    def _asked(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        until = time.monotonic() + self._patience
        while True:
            self._connection.request(method, path, body, {**self._headers, **(headers or {})})
            with self._connection.getresponse() as response:
                status, said = response.status, response.read()
                wait = float(response.headers.get("Retry-After", 1))
            self._connection.close()  # a server closes one that is idle, and the next request would be lost
            if status == http.client.OK:
                return json.loads(said)
            if status != BUSY or time.monotonic() + wait > until:
                raise DataError(f"{path}: status {status}: {_reason(said)}", next_step=ASK)
            time.sleep(wait)


def _form(fields: Mapping[str, str], files: Sequence[Path]) -> tuple[bytes, str]:
    """A body of multipart/form-data, and its type."""
    border = uuid.uuid4().hex
    named = [(f'name="{name}"', value.encode()) for name, value in fields.items()]
    named += [(f'name="file"; filename="{_quoted(file.name)}"', file.read_bytes()) for file in files]
    parts = [f"--{border}\r\nContent-Disposition: form-data; {name}\r\n\r\n".encode() + data for name, data in named]
    return b"\r\n".join([*parts, f"--{border}--\r\n".encode()]), f"multipart/form-data; boundary={border}"


def _quoted(name: str) -> str:
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _reason(said: bytes) -> str:
    try:
        return str(json.loads(said)["error"])
    except (ValueError, KeyError, TypeError):
        return "no reason is given"
