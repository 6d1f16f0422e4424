"""Bundles that are replaced while they are served."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests import model_server, toy_bundle
from toolkit.api.errors import UsageError
from toolkit.serving.bundle import MANIFEST
from toolkit.serving.server import running
from toolkit.serving.server.metrics import Metrics
from toolkit.serving.server.models import Models, Opening
from toolkit.serving.server.settings import Settings

BRIGHT = np.full((16, 16, 3), 250, np.uint8)


def replace(bundle: Path, **changes: Any) -> None:
    """As `export` replaces a bundle: the new one is whole before it takes the place."""
    new = toy_bundle.write(bundle.with_name("new") / bundle.name, **changes)
    shutil.rmtree(bundle)
    new.rename(bundle)


def with_models(bundles: list[Path], work: Callable[[Models], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        with ThreadPoolExecutor(2) as pool:
            models = Models(Settings(), Opening("cpu"), Metrics(), pool)
            models.load(bundles)
            try:
                return await work(models)
            finally:
                await models.close()

    return asyncio.run(run())


def test_a_bundle_that_is_replaced_answers_from_then_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = toy_bundle.write(tmp_path / "toy")

    async def work(models: Models) -> None:
        old = models["toy"]
        assert await models.refresh() == []
        replace(bundle, classes=("low", "middle", "high"), created="2032-01-01T00:00:00+00:00")
        assert await models.refresh() == ["toy"]
        assert models["toy"].bundle.manifest.classes == ("low", "middle", "high")
        assert (await models["toy"].ask([BRIGHT])).shape == (1, 3)
        assert (await old.ask([BRIGHT])).shape == (1, 2)  # by a request that came before
        assert await models.refresh() == []

    with_models([bundle], work)
    assert capsys.readouterr().err == "note: toy: reloaded, exported 2032-01-01T00:00:00+00:00\n"


def test_one_that_cannot_be_used_leaves_the_old_one_and_is_reported_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = toy_bundle.write(tmp_path / "toy")

    async def work(models: Models) -> None:
        (bundle / MANIFEST).write_text("{", encoding="utf-8")
        assert await models.refresh() == []
        assert await models.refresh() == []
        assert (await models["toy"].ask([BRIGHT])).shape == (1, 2)
        replace(bundle)
        assert await models.refresh() == ["toy"]

    with_models([bundle], work)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("warning: toy: goes on with the bundle of 2031-02-03T04:05:06+00:00: ")
    assert "not valid JSON" in first
    assert second.startswith("note: toy: reloaded")


def test_another_bundle_in_its_place_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = toy_bundle.write(tmp_path / "toy")

    async def work(models: Models) -> None:
        replace(bundle, name="other")
        assert await models.refresh() == []

    with_models([bundle], work)
    assert 'is called "other", expected "toy"' in capsys.readouterr().err


def test_one_that_is_gone_goes_on_from_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = toy_bundle.write(tmp_path / "toy")

    async def work(models: Models) -> None:
        shutil.rmtree(bundle)
        assert await models.refresh() == []
        assert (await models["toy"].ask([BRIGHT])).shape == (1, 2)

    with_models([bundle], work)
    assert capsys.readouterr().err == ""


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    bundles = [toy_bundle.write(tmp_path / place / "toy") for place in ("a", "b")]

    async def nothing(models: Models) -> None:
        pass

    with pytest.raises(UsageError, match=r'b/toy: is called "toy" as .*a/toy is') as refused:
        with_models(bundles, nothing)
    assert refused.value.next_step == "export one of them under another name with: --name NAME"


def test_a_server_sees_by_itself_that_a_bundle_was_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "LOOKS", 0.01)
    bundle = toy_bundle.write(tmp_path / "toy")
    with model_server.running([bundle], Settings(port=0)) as server:
        replace(bundle, classes=("a", "b", "c"))
        shape = [-1, 2]
        while shape == [-1, 2]:  # as a client would see it
            shape = httpx.get(f"{server.address}/v2/models/toy").json()["outputs"][0]["shape"]
        assert shape == [-1, 3]
        assert 'toolkit_reloads_total{model="toy"} 1.0' in httpx.get(f"{server.address}/metrics").text
