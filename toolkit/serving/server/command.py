"""`python -m toolkit serve`: the words of the command in, a server that runs until a signal."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import EXIT_DONE, UsageError, counted, printable
from toolkit.serving.server.settings import MIB, Settings
from toolkit.system.notices import show, warn
from toolkit.system.signals import exit_code, how_ended

if TYPE_CHECKING:
    from toolkit.serving.server.running import Running

EXTRA = "serve"
PAUSES = 10.0
"""Longest wait for a batch, in seconds."""


def serve(
    bundles: Sequence[Path],
    settings: Settings,
    *,
    device: str = "auto",
    precision: str | None = None,
    signed_by: Path | None = None,
    runtime: str = "onnxruntime",
    started: Callable[[Running], object] | None = None,
) -> int:
    """Answer requests to `bundles` until SIGINT or SIGTERM, and then what was accepted; a second signal ends that.

    signed_by: a public key whose owner must have signed each bundle, also one that takes the place of another.
    runtime: what computes the bundles, as `Bundle.load` takes it.
    started: called once requests are answered.

    Returns 0, or after a second signal its exit code. Raises UsageError for settings that have no meaning, a port in
    use and a library that is missing, BundleError for a bundle that cannot be used."""
    check(settings)
    try:
        from uvloop import new_event_loop

        from toolkit.serving.server.models import Opening
        from toolkit.serving.server.running import Running
    except ImportError as error:
        raise missing(error) from error
    running = Running(settings, Opening(device, precision, signed_by, runtime, settings.sessions))
    try:
        running.load(bundles)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(_run(running, started or (lambda _: None)))
    finally:
        running.close()


def missing(error: ImportError) -> UsageError:
    """What to install where a library of the server is missing."""
    return UsageError(
        f"serve: needs {error.name}, which is not installed", next_step=f"pip install 'vision-toolkit[{EXTRA}]'"
    )


def check(settings: Settings) -> None:
    """Raise UsageError unless the settings have a meaning."""
    ports = {"--port": settings.port, "--grpc-port": settings.grpc_port or 0}
    for flag, port in ports.items():
        if not 0 <= port < 1 << 16:
            raise UsageError(f"{flag}: expected a port up to 65535, got {port}", next_step=f"use a free one: {flag} 0")
    if not 0 <= settings.delay <= PAUSES:
        raise UsageError(
            f"--delay-ms: expected 0 to {PAUSES * 1000:g}, got {settings.delay * 1000:g}", next_step="use --delay-ms 2"
        )
    if settings.reconnect < 0:
        raise UsageError(
            f"--reconnect: must be at least 0, got {settings.reconnect:g}",
            next_step="remove --reconnect: what is lost is opened again without end",
        )
    if not 0 < settings.limits.seconds < 1 << 31:
        message = f"--max-seconds: expected a length above 0, got {settings.limits.seconds:g}"
        raise UsageError(message, next_step="use --max-seconds 120")


async def _run(running: Running, started: Callable[[Running], object]) -> int:
    stop, received = asyncio.Event(), list[int]()
    loop = asyncio.get_running_loop()

    def end(number: int) -> None:
        received.append(number)
        if len(received) > 1:
            running.force()
        else:
            show(f"{how_ended(exit_code(number))}; requests that were accepted are answered", file=sys.stderr)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)

    def announce() -> None:
        show(*greeting(running), file=sys.stderr)
        for line in exposure(running.settings):
            warn(line)
        started(running)

    try:
        await running.run(stop, announce)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    return exit_code(received[-1]) if len(received) > 1 else EXIT_DONE


def greeting(running: Running) -> list[str]:
    """What a user reads when the server answers."""
    from toolkit.serving.predict.summary import labels

    lines = []
    for served in running.models:
        bundle = served.bundle
        several = f", {running.settings.sessions} at a time" if running.settings.sessions > 1 else ""
        lines.append(f"{bundle.manifest.name}: {bundle.setting}, batches of up to {served.batcher.batch}{several}")
        lines += [printable(label) for label in labels(bundle.manifest)]
    lines += [f"source {name}: {source.name}" for name, source in running.application.streams.sources.items()]
    limits = running.settings.limits
    lines.append(f"requests of up to {limits.body // MIB} MiB, {counted(limits.waiting, 'input')} waiting at most")
    if running.grpc_port is not None:
        lines.append(f"gRPC on port {running.grpc_port}")
    bearer = " -H 'Authorization: Bearer TOKEN'" if running.settings.token else ""
    lines.append(f"{running.address}  (Ctrl-C ends it)")
    lines.append(f"next:  curl{bearer} -F file=@photo.jpg {running.address}/v1/predict")
    return lines


def exposure(settings: Settings) -> list[str]:
    """What other machines can do."""
    if not settings.exposed:
        return []
    lines = [f"--host {settings.host}: other machines reach this server; what is sent is not encrypted"]
    if settings.token is None:
        lines.append("anyone who reaches it can use the models and read their classes; --token FILE asks for a token")
    return lines
