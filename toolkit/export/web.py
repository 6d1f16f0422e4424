"""A bundle as a page that answers in the browser: one HTML file, which needs no server and loads nothing.

It is the page of `toolkit.serving.server` with the model and onnxruntime-web inside. The latter comes from the npm
registry, in one version whose digest is known.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import os
import shlex
import tarfile
import urllib.request
from dataclasses import asdict
from importlib import resources
from pathlib import Path

from toolkit.api.errors import BundleError, RunFailed, UsageError
from toolkit.api.files import cache_directory, write_atomically
from toolkit.export.folders import ANOTHER_NAME
from toolkit.runs.directory import FIX_AND_REPEAT, explained
from toolkit.serving.bundle.manifest import Manifest
from toolkit.serving.bundle.wire import AGAIN
from toolkit.serving.server.listing import listed, shown_limits
from toolkit.serving.server.page import page, rules
from toolkit.serving.server.settings import Limits

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""The digest of the package, as the registry publishes it."""
REGISTRY = "https://registry.npmjs.org"
_VARIABLES = ("npm_config_registry", "NPM_CONFIG_REGISTRY")
"""Where npm looks for another registry."""
SCRIPT, WASM = "package/dist/ort.wasm.bundle.min.mjs", "package/dist/ort-wasm-simd-threaded.wasm"
LARGEST = 256 << 20
"""Bytes of a model: browsers hold no text that is much longer, and the page is one."""
SECONDS = 30.0
"""How long the registry may stay silent."""
_MARK = '<meta name="generator" content="vision-toolkit web">'
_CARD = "README.md"


def write_web(bundle: Path, manifest: Manifest, place: Path, *, precision: str | None = None) -> Path:
    """Write the page of the bundle at `bundle` to the file `place`, over an earlier one.

    precision: which of the bundle's models; None: the one it prefers.

    Raises UsageError where something else is at `place` and for a model that is too large, BundleError where a file is
    not the one that the manifest names, RunFailed where onnxruntime-web cannot be had or the file not written."""
    check_place(place)
    chosen = precision or next(iter(manifest.models))
    model = _model(bundle, manifest, chosen)
    parts = runtime()
    blocks = {"runtime": parts[SCRIPT], "wasm": parts[WASM], "weights": model}
    data = [
        f'<script type="application/octet-stream" id="{name}">{base64.b64encode(content).decode()}</script>'
        for name, content in blocks.items()
    ]
    facts = json.dumps(_facts(bundle, manifest, chosen), ensure_ascii=False).replace("<", "\\u003c")
    script = (resources.files("toolkit.export") / "web.js").read_text(encoding="utf-8")
    inside = "\n".join([*data, f'<script type="application/json" id="facts">{facts}</script>', ""])
    text = page().replace("<script>", f"{inside}<script>{script}</script>\n<script>", 1)
    policy = f'{_MARK}\n<meta http-equiv="Content-Security-Policy" content="{rules(text, local=True)}">'
    with explained(place, next_step=FIX_AND_REPEAT):
        write_atomically(place, text.replace("<head>", f"<head>\n{policy}", 1).encode())
    return place


def check_place(place: Path) -> None:
    """Raise UsageError where something else than such a page is at `place`."""
    if not os.path.lexists(place):
        return
    if place.is_file():
        with place.open("rb") as file:
            if _MARK.encode() in file.read(1 << 10):
                return
    raise UsageError(f"{place}: exists and is not an exported page", next_step=ANOTHER_NAME)


def runtime() -> dict[str, bytes]:
    """The files of onnxruntime-web by their names in its package, from the cache or the registry. Raises RunFailed."""
    kept = cache_directory() / "npm" / f"{PACKAGE}-{VERSION}.tgz"
    package = kept.read_bytes() if kept.is_file() else b""
    if _integrity(package) != INTEGRITY:
        package = _downloaded(kept)
    with tarfile.open(fileobj=io.BytesIO(package), mode="r:gz") as archive:
        found = {name: archive.extractfile(name) for name in (SCRIPT, WASM)}
        return {name: file.read() for name, file in found.items() if file is not None}


def _downloaded(kept: Path) -> bytes:
    registry = next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), REGISTRY).rstrip("/")
    url = f"{registry}/{PACKAGE}/-/{PACKAGE}-{VERSION}.tgz"
    by_hand = f"npm pack {PACKAGE}@{VERSION} --pack-destination {shlex.quote(str(kept.parent))}"
    next_step = f"run the same command again, or get it yourself: {by_hand}"
    if not url.startswith(("https://", "http://")):
        raise RunFailed(f"{registry}: not the address of an npm registry", next_step=f"use {REGISTRY}")
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as response:  # noqa: S310 - http or https, as checked
            package: bytes = response.read()
        kept.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise RunFailed(f"{url}: cannot be downloaded: {reason}", next_step=next_step) from error
    if (found := _integrity(package)) != INTEGRITY:
        raise RunFailed(f"{url}: its digest is {found}, expected {INTEGRITY}", next_step=next_step)
    write_atomically(kept, package)
    return package


def _integrity(package: bytes) -> str:
    return f"sha512-{base64.b64encode(hashlib.sha512(package).digest()).decode()}"


def _model(bundle: Path, manifest: Manifest, precision: str) -> bytes:
    name = manifest.models[precision]
    path = bundle / name
    if f"{name}.data" in manifest.files or path.stat().st_size > LARGEST:
        raise UsageError(
            f"{path}: is larger than the {LARGEST >> 20} MiB that a page may hold",
            next_step="export a smaller one with: --set export.precision=int8",
        )
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != manifest.files[name]:
        raise BundleError(f"{path}: not the file that was exported", next_step=AGAIN)
    return content


def _facts(bundle: Path, manifest: Manifest, precision: str) -> dict[str, object]:
    """What the page's script knows of the model."""
    card = bundle / _CARD
    return {
        "model": listed(manifest, f"{precision} in this browser", 1),
        "limits": shown_limits(Limits()),
        "card": card.read_text(encoding="utf-8", errors="replace") if _CARD in manifest.files else "",
        "input": asdict(manifest.input),
        "sampling": asdict(manifest.sampling),
        "output": manifest.output,
        "scored": manifest.trust.scored,
        "method": "" if manifest.maps is None else manifest.maps.method,
        "thresholds": None if manifest.thresholds is None else [*manifest.thresholds],
        "trust": {"reject": _dict(manifest.trust.reject), "conformal": _dict(manifest.trust.conformal)},
        "footer": f"Files stay in this browser. {PACKAGE} {VERSION} ({INTEGRITY}) computes the answers.",
    }


def _dict(one: object) -> object:
    return None if one is None else dict(vars(one))
