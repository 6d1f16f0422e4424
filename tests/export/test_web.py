"""The page that answers in the browser, and how onnxruntime-web is had."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests import live_servers, resizing_bundle, toy_bundle
from tests.keyboard import choose
from tests.live_servers import answers
from toolkit.api.clips import Clip
from toolkit.api.errors import BundleError, RunFailed, UsageError
from toolkit.export import web
from toolkit.export.web import PACKAGE, SCRIPT, VERSION, WASM, runtime, write_web
from toolkit.serving.bundle import Bundle, Conformal, Rejection, Trust, read_manifest
from toolkit.serving.predict import predict_files

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
TRUST = Trust(reject=Rejection("energy", 8.0, 0.05), conformal=Conformal(0.25, 0.1))


def package(script: bytes = b"code") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, content in ((SCRIPT, script), (WASM, b"\0asm")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a package of which the digest is the expected one."""
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(web, "INTEGRITY", web._integrity(PACKED))
    return tmp_path / "cache" / "npm" / f"{PACKAGE}-{VERSION}.tgz"


PACKED = package()


@pytest.fixture
def written(cache: Path, tmp_path: Path) -> str:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(PACKED)
    folder = toy_bundle.write(tmp_path / "toy", classes=("</script>", "b"), trust=TRUST)
    return write_web(folder, read_manifest(folder), tmp_path / "toy.html").read_text(encoding="utf-8")


def test_the_package_is_downloaded_once_from_the_registry_that_npm_uses(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live_servers.acting([answers("200 OK", PACKED)]) as url:
        monkeypatch.setenv("npm_config_registry", url)
        assert runtime() == {SCRIPT: b"code", WASM: b"\0asm"}
    assert cache.read_bytes() == PACKED
    assert runtime()[SCRIPT] == b"code"  # nobody listens there any more


def test_a_package_of_another_digest_is_refused_and_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with live_servers.acting([answers("200 OK", package(b"evil"))]) as url:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", url)
        with pytest.raises(RunFailed, match=r"its digest is sha512-\S+, expected sha512-") as caught:
            runtime()
    assert f"npm pack {PACKAGE}@{VERSION} --pack-destination " in str(caught.value.next_step)
    assert not cache.exists()


def test_a_damaged_package_in_the_cache_is_downloaded_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(PACKED[:-9])
    with live_servers.acting([answers("200 OK", PACKED)]) as url:
        monkeypatch.setenv("npm_config_registry", url)
        assert runtime()[WASM] == b"\0asm"
    assert cache.read_bytes() == PACKED


@pytest.mark.parametrize(("act", "reason"), [(answers("404 Not Found"), "Not Found"), (None, "refused")])
def test_a_registry_that_does_not_give_it_is_named(
    act: live_servers.Act | None, reason: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live_servers.acting([] if act is None else [act]) as url:
        monkeypatch.setenv("npm_config_registry", url)
        with pytest.raises(RunFailed, match=rf"{PACKAGE}-{VERSION}.tgz: cannot be downloaded: .*{reason}"):
            runtime()


def test_an_address_that_is_not_of_the_web_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "file:///etc")
    with pytest.raises(RunFailed, match="file:///etc: not the address of an npm registry"):
        runtime()


def test_the_page_has_all_that_it_needs_and_asks_nobody(written: str) -> None:
    assert "connect-src 'none'" in written
    assert not re.search(r"""(src|href)=["']?https?:""", written)
    assert base64.b64encode(b"code").decode() in written
    assert f"{PACKAGE} {VERSION} ({web.INTEGRITY})" in written
    (facts,) = re.findall(r'id="facts">(.*?)</script>', written, re.DOTALL)
    assert "</script>" not in facts
    assert '"declined"' not in facts
    assert '"threshold": 8.0' in facts


def test_a_page_is_replaced_and_nothing_else_is(written: str, tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    write_web(folder, read_manifest(folder), tmp_path / "toy.html")
    (tmp_path / "mine.html").write_text("mine")
    (tmp_path / "folder.html").mkdir()
    for name in ("mine.html", "folder.html"):
        with pytest.raises(UsageError, match=f"{name}: exists and is not an exported page"):
            write_web(folder, read_manifest(folder), tmp_path / name)


def test_a_model_that_is_too_large_or_changed_is_refused(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "toy"
    manifest = read_manifest(folder)
    with monkeypatch.context() as patched:
        patched.setattr(web, "LARGEST", 10)
        with pytest.raises(UsageError, match="is larger than the 0 MiB that a page may hold") as caught:
            write_web(folder, manifest, tmp_path / "toy.html")
        assert "--set export.precision=int8" in str(caught.value.next_step)
    (folder / "model.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match="not the file that was exported"):
        write_web(folder, manifest, tmp_path / "toy.html")


def test_a_folder_that_cannot_be_written_is_named(written: str, tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    (tmp_path / "a").write_text("a file")
    with pytest.raises(RunFailed, match="/a: cannot be written: Not a directory"):
        write_web(folder, read_manifest(folder), tmp_path / "a" / "b.html")


# In a browser, with the real package


@pytest.fixture
def real_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of the registry, kept between runs of the tests."""
    monkeypatch.setenv("TOOLKIT_CACHE", str(Path(tempfile.gettempdir()) / f"toolkit-tests-{os.getuid()}"))
    try:
        runtime()
    except RunFailed as error:
        pytest.skip(f"onnxruntime-web cannot be had: {error}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


ASK = """async ([name, type, data, every, maps]) => {
  const form = new FormData();
  form.append("file", new File([Uint8Array.from(atob(data), (char) => char.charCodeAt(0))], name, { type }));
  if (every) form.append("every", every);
  if (maps) form.append("maps", maps);
  return (await (await local("/v1/predict", { body: form })).json());
}"""


def opened(browser: Browser, folder: Path, problems: list[str], **how: Any) -> Page:
    place = write_web(folder, read_manifest(folder), folder.with_suffix(".html"))
    page = browser.new_page(**how)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    page.on("request", lambda asked: problems.append(asked.url) if asked.url.startswith("http") else None)
    page.goto(place.as_uri())
    return page


def answered(page: Page, path: Path, kind: str, every: str = "", maps: str = "") -> dict[str, Any]:
    data = base64.b64encode(path.read_bytes()).decode()
    said = page.evaluate(ASK, [path.name, kind, data, every, maps])
    assert "answers" in said, said
    (answer,) = said["answers"]
    return dict(answer)


def by_class(answer: dict[str, Any]) -> dict[str, float]:
    return {one["class"]: one["probability"] for one in answer["classes"]}


@pytest.mark.long
@pytest.mark.usefixtures("real_package")
@pytest.mark.parametrize(
    "reject", [Rejection("energy", 8.0, 0.05), Rejection("similarity", 2.0, 0.05, 0.5)], ids=["energy", "similarity"]
)
def test_the_page_answers_as_predict_does_with_no_server(browser: Browser, tmp_path: Path, reject: Rejection) -> None:
    """Opened from a file: images of several sizes, through the page itself and by its own requests."""
    folder = resizing_bundle.write(
        tmp_path / "toy", classes=("dark", "grey", "bright"), trust=replace(TRUST, reject=reject)
    )
    bundle, draws, problems = Bundle.load(folder, device="cpu"), np.random.default_rng(0), list[str]()
    page = opened(browser, folder, problems)
    for number, size in enumerate([(16, 16), (37, 53), (90, 20)]):
        pixels = draws.integers(30 * number, 160 + 30 * number, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photo.png")
        expected = bundle.predict(pixels)
        found = answered(page, tmp_path / "photo.png", "image/png")
        assert by_class(found) == pytest.approx(dict(expected.top(3)[0]), abs=1e-4)
        assert found["prediction"] == [*expected.sets[0]]
        assert found["declined"] == expected.declined[0]
        assert found["plausible"] == [*(expected.plausible or [])[0]]
    page.set_input_files("#files", tmp_path / "photo.png")
    page.wait_for_selector(".result[aria-busy=false]", timeout=60_000)
    assert page.locator(".bars li span").first.inner_text() == expected.labels[0]
    assert "Files stay in this browser" in page.locator("footer").inner_text()
    (tmp_path / "text.png").write_text("hello")
    data = base64.b64encode(b"hello").decode()
    assert page.evaluate(ASK, ["a.png", "image/png", data, "", ""]) == {"error": "this browser cannot decode it"}
    assert problems == []
    page.close()


@pytest.mark.long
@pytest.mark.usefixtures("real_package")
@pytest.mark.parametrize(
    ("screen", "colours"),
    [({"width": 1400, "height": 900}, "light"), ({"width": 390, "height": 844}, "dark")],
    ids=["wide light", "narrow dark"],
)
def test_the_page_is_for_everyone(browser: Browser, tmp_path: Path, screen: Any, colours: Any) -> None:
    """By the keyboard alone, read by axe, without scrolling to the side: the answer, and the heat map over it."""
    folder = resizing_bundle.write(tmp_path / "toy", maps=8)
    bundle, problems = Bundle.load(folder, device="cpu"), list[str]()
    pixels = np.full((40, 40, 3), 30, np.uint8)
    pixels[20:, 20:] = 250
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    page = opened(browser, folder, problems, viewport=screen, color_scheme=colours)
    page.on("filechooser", lambda _: None)
    expect(page.locator("#about")).to_contain_text("It gives heat maps of images.")
    choose(page, tmp_path / "photo.png")
    page.wait_for_selector(".result[aria-busy=false]", timeout=60_000)
    assert page.locator(".bars li span").first.inner_text() == bundle.predict(pixels[None]).labels[0]
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName === 'SELECT' && !!document.activeElement.closest('.heat')"):
            break
    page.keyboard.press("ArrowDown")
    expect(page.locator("#status")).to_contain_text("Grad-CAM of dark over photo.png: strongest in the lower right.")
    expect(page.locator(".result canvas")).to_be_visible()
    found = Axe().run(page).response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= screen["width"]
    assert problems == []
    page.close()


@pytest.mark.long
@pytest.mark.usefixtures("real_package")
def test_heat_maps_are_those_of_the_bundle(browser: Browser, tmp_path: Path) -> None:
    folder = resizing_bundle.write(tmp_path / "toy", classes=("dark", "grey", "bright"), maps=8)
    bundle, problems = Bundle.load(folder, device="cpu"), list[str]()
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    page = opened(browser, folder, problems)
    maps = answered(page, tmp_path / "photo.png", "image/png", maps="true")["maps"]
    expected = bundle.maps(pixels[None])[0]
    assert [one["name"] for one in maps["of"]] == [name for name, _ in bundle.predict(pixels[None]).top(3)[0]]
    for one in maps["of"]:
        number = bundle.manifest.classes.index(one["name"])
        np.testing.assert_allclose(one["values"], expected[number], atol=1e-4)
    assert [maps[name] for name in ("left", "top", "width", "height")] == pytest.approx(bundle.seen(30, 50))
    assert problems == []
    page.close()


def write_webm(path: Path, shades: list[int], rate: int = 10) -> Path:
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libvpx", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in shades:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), shade, np.uint8), format="rgb24")
            video.mux(stream.encode(frame))
        video.mux(stream.encode())
    return path


@pytest.mark.long
@pytest.mark.usefixtures("real_package")
@pytest.mark.parametrize("clip", [None, Clip(frames=4, rate=3, clips=2, average="logits")])
def test_videos_are_answered_by_the_same_frames(browser: Browser, tmp_path: Path, clip: Clip | None) -> None:
    """A browser decodes and converts colours in its own way, so answers agree less closely than those to images."""
    classes = [f"{shade}" for shade in range(8)]
    folder = resizing_bundle.write(tmp_path / "toy", classes=classes, clip=clip)
    path = write_webm(tmp_path / "clip.webm", [24 * (number // 3) for number in range(30)])
    output = tmp_path / "answers.jsonl"
    problems: list[str] = []
    page = opened(browser, folder, problems)
    found = answered(page, path, "video/webm", "1")
    assert predict_files(folder, [str(path)], device="cpu", output=output, top=8) == 0
    row = json.loads(output.read_text())
    assert found["prediction"] == [row["class_1"]]
    assert by_class(found)[row["class_1"]] == pytest.approx(row["probability_1"], abs=0.05)
    assert [moment["start"] for moment in found["moments"]] == ([0, 1, 2, 3] if clip is None else [0, 1, 2])[
        : len(found["moments"])
    ]
    assert len({moment["prediction"][0] for moment in found["moments"]}) > 1
    assert problems == []
    page.close()
