"""One server of toy bundles for all tests of the room, since these only read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import model_server, toy_bundle
from toolkit.api.clips import Clip
from toolkit.serving.bundle import Bundle, Conformal, Rejection, Trust
from toolkit.serving.server.running import Running
from toolkit.serving.server.settings import MIB, Limits, Settings

CAREFUL = Trust(reject=Rejection("energy", 8.0, 0.05), conformal=Conformal(0.25, 0.1))
LIMITS = Limits(body=4 * MIB, pixels=1_000_000, seconds=20.0)


class Site(NamedTuple):
    """A server and what it serves."""

    server: Running
    folder: Path

    @property
    def url(self) -> str:
        return self.server.address

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")

    def bundle(self, name: str) -> Bundle:
        return Bundle.load(self.folder / name, device="cpu")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """`images`, `clips`, `sets`, `numbers`, and `careful`, which declines by the energy and has sets of classes."""
    folder = tmp_path_factory.mktemp("served")
    bundles = [
        toy_bundle.write(folder / "images", classes=("dark", "grey", "bright")),
        toy_bundle.write(folder / "clips", clip=Clip(frames=4, rate=2)),
        toy_bundle.write(folder / "sets", classes=("some", "more"), thresholds=(0.5, 0.25)),
        toy_bundle.write(folder / "numbers", classes=("mean", "twice"), numbers=True),
        toy_bundle.write(folder / "careful", trust=CAREFUL),
    ]
    settings = Settings(port=0, grpc_port=0, limits=LIMITS, delay=0.001)
    with model_server.running(bundles, settings) as server:
        yield Site(server, folder)
