"""The command serve."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import UsageError
from toolkit.cli.parser import ATTEMPTS, add_signature, add_use, count
from toolkit.cli.places import BUNDLE

if TYPE_CHECKING:
    from argparse import Namespace

    from toolkit.cli.parser import Parser

_MAKE = "python -c 'import secrets; print(secrets.token_urlsafe())' > "


def fill(parser: Parser) -> None:
    parser.does(_serve, (f"serve {BUNDLE}", f"serve {BUNDLE} --port 8080 --grpc-port 8081"))
    parser.add_argument("bundles", metavar="BUNDLE", type=Path, nargs="+", help="bundles, each of another name")
    parser.add_argument("--host", metavar="HOST", default="127.0.0.1", help="where to listen (default: this machine)")
    parser.add_argument("--port", metavar="PORT", type=int, default=8000, help="of HTTP; 0: a free one (default: 8000)")
    parser.add_argument("--grpc-port", metavar="PORT", type=int, help="of gRPC; 0: a free one (default: no gRPC)")
    parser.add_argument("--token", metavar="FILE", type=Path, help="a file with the token that requests must bring")
    named = "a further name under which clients reach the server; may be repeated"
    parser.add_argument("--allow-host", metavar="NAME", action="append", default=[], help=named)
    fetched = "let requests name files at http(s)://HOST, or with '*' at any public address; may be repeated"
    parser.add_argument("--allow-urls", metavar="HOST", action="append", default=[], help=fetched)
    followed = "a camera's number or a live URL that clients may listen to; may be repeated"
    parser.add_argument("--source", metavar="NAME=PLACE", action="append", default=[], help=followed)
    parser.add_argument("--reconnect", metavar="N", type=int, help=ATTEMPTS)
    parser.add_argument("--batch", metavar="N", type=count, help="most inputs of a batch (default: suits the device)")
    several = "batches of a model to compute at a time, each on its share of the cores (default: 1)"
    parser.add_argument("--sessions", metavar="N", type=count, default=1, help=several)
    waits = "how long an input waits for others to share its batch (default: 2)"
    parser.add_argument("--delay-ms", metavar="MS", type=float, default=2.0, help=waits)
    full = "inputs of a model that may wait; more are refused with status 429 (default: 256)"
    parser.add_argument("--max-waiting", metavar="N", type=count, default=256, help=full)
    parser.add_argument("--max-mb", metavar="MB", type=count, default=64, help="size of a request (default: 64)")
    pixels = "millions of pixels of an image or a frame (default: 50)"
    parser.add_argument("--max-megapixels", metavar="MP", type=count, default=50, help=pixels)
    length = "length of a video (default: 120)"
    parser.add_argument("--max-seconds", metavar="SECONDS", type=float, default=120.0, help=length)
    add_signature(parser)
    parser.add_argument("--log", action="store_true", help="print each request as a line of JSON on standard error")
    add_use(parser)


def _serve(options: Namespace) -> int:
    from toolkit.serving.server import serve
    from toolkit.serving.server.settings import MIB, Limits, Settings

    settings = Settings(
        host=options.host,
        port=options.port,
        grpc_port=options.grpc_port,
        token=None if options.token is None else _token(options.token),
        names=options.allow_host,
        url_hosts=options.allow_urls,
        sources=options.source,
        reconnect=math.inf if options.reconnect is None else options.reconnect,
        batch=options.batch,
        sessions=options.sessions,
        delay=options.delay_ms / 1000,
        limits=Limits(
            body=options.max_mb * MIB,
            pixels=options.max_megapixels * 1_000_000,
            seconds=options.max_seconds,
            waiting=options.max_waiting,
        ),
        log=options.log,
    )
    return serve(
        options.bundles,
        settings,
        device=options.device or "auto",
        precision=options.precision,
        signed_by=options.require_signature,
        runtime=options.runtime or "onnxruntime",
    )


def _token(path: Path) -> str:
    """The first line of the file. Raises UsageError where it has none."""
    import shlex

    try:
        with path.open(encoding="utf-8") as file:
            token = file.readline(1 << 12).strip()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text"
        raise UsageError(f"--token {path}: {reason}", next_step=f"{_MAKE}{shlex.quote(str(path))}") from error
    if not token.isascii() or not token.isprintable() or not token:
        raise UsageError(
            f"--token {path}: expected a line of ASCII characters", next_step=f"{_MAKE}{shlex.quote(str(path))}"
        )
    return token
