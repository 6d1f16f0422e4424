"""The addresses of the server over HTTP, and what each does."""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from toolkit.api.errors import ToolkitError, printable
from toolkit.serving.server import v2
from toolkit.serving.server.fetching import fetch
from toolkit.serving.server.forms import read_form
from toolkit.serving.server.guard import Guard, failure, refusal
from toolkit.serving.server.listing import MOST_FILES, gives_maps, listed, shown_limits
from toolkit.serving.server.metrics import CONTENT_TYPE, Metrics
from toolkit.serving.server.models import Models, Served
from toolkit.serving.server.openapi import document
from toolkit.serving.server.page import page, policy
from toolkit.serving.server.refusals import BAD, FAILED, NOT_READY, TOO_LARGE, UNSUPPORTED, Refused
from toolkit.serving.server.settings import Settings
from toolkit.serving.server.streams import Streams
from toolkit.serving.server.tensors import SERVER, configuration, given, metadata
from toolkit.serving.server.uploads import Answering, Upload, answer_all
from toolkit.system.notices import warn

if TYPE_CHECKING:
    from starlette.types import ASGIApp

T = TypeVar("T")
LEAST_EVERY = 0.05
"""Shortest time between two moments, in seconds."""
_SMALL = 1 << 16
"""Bytes of a body that is parsed at once: a larger one by a thread, so that others are answered meanwhile."""
_CARD = "README.md"


@dataclass
class Application:
    """What answers requests. `ready` and `draining` are the server's to change."""

    models: Models
    settings: Settings
    metrics: Metrics
    pool: Executor
    """Threads that parse and decode."""
    streams: Streams
    ready: bool = False

    def asgi(self) -> Guard:
        """The whole application, guarded."""
        app: ASGIApp = Starlette(
            routes=[*self._routes()],
            exception_handlers={
                Refused: lambda _, error: refusal(error),
                HTTPException: _http_error,  # type: ignore[dict-item]
                ToolkitError: _toolkit_error,  # type: ignore[dict-item]
                ClientDisconnect: lambda *_: Response(status_code=BAD),
                Exception: lambda *_: failure(FAILED, "the server failed; its log says why"),
            },
        )
        app.router.redirect_slashes = False  # type: ignore[attr-defined]
        self.metrics.listening.set_function(lambda: self.streams.listeners)
        return Guard(app, self.settings, self.metrics)

    def _routes(self) -> list[Route]:
        model = "/v2/models/{name}"
        versioned = f"{model}/versions/{{version}}"
        return [
            Route("/", self.page, methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
            Route("/metrics", self.prometheus, methods=["GET"]),
            Route("/v1/models", self.listed, methods=["GET"]),
            Route("/v1/models/{name}/card", self.card, methods=["GET"]),
            Route("/v1/predict", self.predict, methods=["POST"]),
            Route("/v1/stream", self.stream, methods=["GET"]),
            Route("/v2", self.server, methods=["GET"]),
            Route("/v2/health/live", self.live, methods=["GET"]),
            Route("/v2/health/ready", self.is_ready, methods=["GET"]),
            Route("/v2/repository/index", self.index, methods=["POST"]),
            *(Route(place, self.model, methods=["GET"]) for place in (model, versioned)),
            *(Route(f"{place}/ready", self.model_ready, methods=["GET"]) for place in (model, versioned)),
            *(Route(f"{place}/config", self.config, methods=["GET"]) for place in (model, versioned)),
            *(Route(f"{place}/infer", self.infer, methods=["POST"]) for place in (model, versioned)),
        ]

    async def page(self, _: Request) -> Response:
        return HTMLResponse(page(), headers={"Content-Security-Policy": policy()})

    async def openapi(self, _: Request) -> Response:
        return JSONResponse(document(self.settings))

    async def prometheus(self, _: Request) -> Response:
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def listed(self, _: Request) -> Response:
        models = [listed(one.bundle.manifest, one.bundle.setting, one.batcher.batch) for one in self.models]
        limits = shown_limits(self.settings.limits)
        return JSONResponse({"models": models, "limits": limits, "sources": [*self.streams.sources]})

    async def card(self, request: Request) -> Response:
        bundle = self.models[request.path_params["name"]].bundle
        if _CARD not in bundle.manifest.files:
            return PlainTextResponse("")
        text = (bundle.path / _CARD).read_text(encoding="utf-8", errors="replace")
        return PlainTextResponse(text, media_type="text/markdown")

    async def predict(self, request: Request) -> Response:
        asked = await self._files(request)
        answers = await answer_all(asked.answering, asked.uploads)
        return JSONResponse({"model": asked.answering.served.name, "answers": answers})

    async def stream(self, request: Request) -> Response:
        asked = request.query_params
        served = self._chosen(asked.get("model"))
        top = _whole("top", asked.get("top", 3), len(served.bundle.manifest.classes))
        name = asked.get("source", "")
        self.streams.check(name)
        return StreamingResponse(self.streams.events(name, served, top), media_type="text/event-stream")

    async def server(self, _: Request) -> Response:
        return JSONResponse(SERVER)

    async def live(self, _: Request) -> Response:
        return JSONResponse({"live": True})

    async def is_ready(self, _: Request) -> Response:
        return JSONResponse({"ready": self.ready}, 200 if self.ready else NOT_READY)

    async def index(self, _: Request) -> Response:
        listed = [{"name": served.name, "version": "1", "state": "READY"} for served in self.models]
        return JSONResponse(listed)

    async def model(self, request: Request) -> Response:
        return JSONResponse(metadata(self._served(request).bundle.manifest))

    async def model_ready(self, request: Request) -> Response:
        return JSONResponse({"name": self._served(request).name, "ready": self.ready})

    async def config(self, request: Request) -> Response:
        return JSONResponse(configuration(self._served(request)))

    async def infer(self, request: Request) -> Response:
        served = self._served(request)
        manifest = served.bundle.manifest
        body, size = await request.body(), request.headers.get(v2.HEADER)
        asked, identity = await self._parsed(body, lambda: v2.request(body, size, manifest, self.settings.limits))
        answers = await served.ask(list(asked.pixels))
        content, headers = v2.response(served, identity, [given(one, answers, manifest) for one in asked.outputs])
        return Response(content, headers=headers)

    def _served(self, request: Request) -> Served:
        return self.models.versioned(request.path_params["name"], request.path_params.get("version"))

    async def _parsed(self, body: bytes, parse: Callable[[], T]) -> T:
        if len(body) < _SMALL:
            return parse()
        return await asyncio.get_running_loop().run_in_executor(self.pool, parse)

    async def _files(self, request: Request) -> _Asked:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            return await self._form(request)
        if kind == "application/json":
            return await self._json(request)
        raise Refused(UNSUPPORTED, "expected multipart/form-data, or application/json with base64")

    async def _form(self, request: Request) -> _Asked:
        body, kind = await request.body(), request.headers["content-type"]
        form = await self._parsed(body, lambda: read_form(body, kind))
        return _Asked(self._answering(form.fields), [Upload(name, data) for name, data in form.files])

    async def _json(self, request: Request) -> _Asked:
        body = await request.body()
        claimed = await self._parsed(body, lambda: v2.parsed(body))
        listed = claimed.get("inputs")
        if not isinstance(listed, list) or not 0 < len(listed) <= MOST_FILES:
            raise Refused(BAD, f"inputs: expected a list of 1 to {MOST_FILES} objects")
        answering, loop = self._answering(claimed), asyncio.get_running_loop()
        room = self.settings.limits.body
        uploads = []
        for place, one in enumerate(listed):
            upload = await loop.run_in_executor(self.pool, self._upload, place, one, room)
            room -= len(upload.data)
            uploads.append(upload)
        return _Asked(answering, uploads)

    def _upload(self, place: int, claimed: object, room: int) -> Upload:
        if not isinstance(claimed, dict) or ("data" in claimed) == ("url" in claimed):
            raise Refused(BAD, f'inputs[{place}]: expected an object with either "data" or "url"')
        if "url" in claimed:
            if room <= 0:
                raise Refused(TOO_LARGE, f"the files are larger than {self.settings.limits.body:,} bytes together")
            return fetch(str(claimed["url"]), self.settings.url_hosts, room)
        try:
            data = base64.b64decode(claimed["data"], validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise Refused(BAD, f"inputs[{place}].data: expected base64") from error
        return Upload(str(claimed.get("name") or f"input {place}"), data)

    def _answering(self, fields: Mapping[str, Any]) -> Answering:
        served = self._chosen(fields.get("model"))
        top = _whole("top", fields.get("top", 3), len(served.bundle.manifest.classes))
        pictures, maps = (str(fields.get(name, "")).lower() in ("true", "1") for name in ("pictures", "maps"))
        if maps and not gives_maps(served.bundle.manifest):
            why = "takes video clips" if served.bundle.manifest.clip else "was exported without export.maps=true"
            raise Refused(BAD, f"maps: {served.name} gives no heat maps: it {why}")
        every = _seconds(fields.get("every"))
        return Answering(served, self.settings.limits, self.pool, top, every, pictures=pictures, maps=maps)

    def _chosen(self, name: object) -> Served:
        """The model of this name; without a name the only one."""
        every: list[Served] = [*self.models]
        if name is None and len(every) == 1:
            return every[0]
        if not isinstance(name, str):
            raise Refused(BAD, f"model: expected one of {', '.join(served.name for served in every)}")
        return self.models[name]


@dataclass(frozen=True)
class _Asked:
    answering: Answering
    uploads: list[Upload]


def _whole(name: str, value: object, most: int) -> int:
    """A number of at least 1, cut to `most`."""
    try:
        found = int(str(value))
    except ValueError:
        found = 0
    if found < 1:
        raise Refused(BAD, f"{name}: expected an integer of at least 1, got {printable(str(value)[:40])}")
    return min(found, most)


def _seconds(value: object) -> float | None:
    if value is None or value == "":
        return None
    try:
        found = float(str(value))
    except ValueError:
        found = math.nan
    if not LEAST_EVERY <= found < math.inf:
        raise Refused(BAD, f"every: expected at least {LEAST_EVERY:g} seconds, got {printable(str(value)[:40])}")
    return found


def _http_error(_: Request, error: HTTPException) -> Response:
    return failure(error.status_code, str(error.detail), error.headers)


def _toolkit_error(_: Request, error: ToolkitError) -> Response:
    warn(printable(error.message))
    return failure(FAILED, "the model cannot answer this; the server's log says why")
