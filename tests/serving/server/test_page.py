"""The page in a real browser: what it shows equals `predict`, for everyone, on any screen."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests import model_server, toy_bundle
from tests.keyboard import choose
from tests.serving.server.conftest import Site
from tests.serving.server.test_guard import TOKEN
from tests.serving.server.test_uploads import png, predicted, video
from toolkit.serving.server.page import page, policy
from toolkit.serving.server.settings import Settings

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    flags = [
        *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
        *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
    ]
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield made
        made.close()


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """The page, which fails the test where its script fails or it asks another server."""
    problems: list[str] = []
    with browser.new_context(**options) as context:
        page = context.new_page()
        # Playwright takes the file chooser over only once someone listens, and does not wait for Chromium to do so.
        page.on("filechooser", lambda _: None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        page.on("request", lambda asked: problems.append(asked.url) if not is_own(asked.url, url) else None)
        page.goto(url)
        yield page
    refused = "Failed to load resource: the server responded with a status of 4"
    assert [problem for problem in problems if not problem.startswith(refused)] == []


def is_own(asked: str, url: str) -> bool:
    return asked.startswith((url, "blob:", "data:"))


def give(page: Page, *files: tuple[str, str, bytes]) -> None:
    """Drop files on the page."""
    listed = [{"name": name, "type": kind, "data": base64.b64encode(data).decode()} for name, kind, data in files]
    transfer = page.evaluate_handle(
        """(files) => { const transfer = new DataTransfer();
        for (const file of files) transfer.items.add(new File(
            [Uint8Array.from(atob(file.data), (char) => char.charCodeAt(0))], file.name, { type: file.type }));
        return transfer; }""",
        listed,
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})


def rows(page: Page, place: int = 0, side: int = 0) -> list[tuple[str, float]]:
    """Classes and percentages of one answer."""
    found = page.locator(".result").nth(place).locator(".side").nth(side).locator(".bars li")
    texts = [one.locator("span").all_inner_texts() for one in found.all()]
    return [(name, float(share.removesuffix(" %"))) for name, share in texts]


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in ("serious", "critical")]


def done(page: Page, count: int) -> None:
    expect(page.locator(".result[aria-busy=false]")).to_have_count(count, timeout=60_000)


@needs_browser
def test_dropped_images_and_a_video_are_answered_as_predict_answers_them(
    browser: Browser, site: Site, tmp_path: Path
) -> None:
    with opened(browser, site.url, viewport=WIDE) as shown:
        clip = tmp_path / "clip.mp4"
        files = [("a.png", png(120)), ("b.png", png(250)), ("clip.mp4", video(tmp_path))]
        expect(shown.locator("#about")).to_contain_text("images takes images, and videos by their frames")
        expect(shown.locator("#asks")).to_be_hidden()
        give(shown, *((name, "video/mp4" if name.endswith("mp4") else "image/png", data) for name, data in files))
        done(shown, 3)
        for place, (name, data) in enumerate(files):
            (tmp_path / name).write_bytes(data)
            (row,) = predicted(site, "images", tmp_path / name)
            expected = [(row[f"class_{rank}"], 100 * row[f"probability_{rank}"]) for rank in (1, 2, 3)]
            assert rows(shown, place) == [(label, pytest.approx(share, abs=0.051)) for label, share in expected]
        moments = predicted(site, "images", clip, "--every", "1")
        buttons = shown.locator(".strip button")
        assert buttons.count() == len(moments)
        buttons.nth(1).hover()
        assert rows(shown, 2)[0] == (moments[1]["class_1"], pytest.approx(100 * moments[1]["probability_1"], abs=0.051))
        expect(buttons.nth(1)).to_have_attribute("aria-pressed", "true")
        assert serious(shown) == []


@needs_browser
def test_two_models_stand_side_by_side_on_a_narrow_dark_screen(browser: Browser, site: Site, tmp_path: Path) -> None:
    with opened(browser, site.url, viewport=NARROW, color_scheme="dark") as shown:
        shown.select_option("#model", "clips")
        shown.select_option("#other", "sets")
        give(shown, ("clip.mp4", "video/mp4", video(tmp_path)), ("a.png", "image/png", png(200)))
        done(shown, 2)
        assert [len(rows(shown, 0, side)) for side in (0, 1)] == [2, 2]
        expect(shown.locator(".result").nth(1).locator(".wrong")).to_have_text(
            "a.png: an image, but this model takes video clips"
        )
        expect(shown.locator(".result").nth(1).locator(".side").nth(1)).to_contain_text("some, more")
        assert shown.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
        assert serious(shown) == []


@needs_browser
def test_the_keyboard_is_enough(browser: Browser, site: Site, tmp_path: Path) -> None:
    with opened(browser, site.url, viewport=WIDE) as shown:
        expect(shown.locator("#model option")).not_to_have_count(0)
        (tmp_path / "b.png").write_bytes(png(250))
        choose(shown, tmp_path / "b.png")
        done(shown, 1)
        expect(shown.locator("#status")).to_have_text("b.png: bright.")
        shown.locator("#card summary").focus()
        shown.keyboard.press("Enter")
        expect(shown.locator("#card pre")).to_have_text("# toy\n")
        shown.locator("#code summary").focus()
        shown.keyboard.press("Enter")
        code = shown.locator("#snippets pre").nth(1).inner_text()
        (tmp_path / "photo.jpg").write_bytes(png(250, form="JPEG"))
        run = code.replace('"photo.jpg"', repr(str(tmp_path / "photo.jpg"))).replace("print(", "found = (")
        scope: dict[str, Any] = {}
        exec(run, scope)
        assert scope["found"][0]["prediction"] == ["bright"]
        assert serious(shown) == []


@needs_browser
def test_the_camera_gives_pictures_and_clips(browser: Browser, site: Site) -> None:
    with opened(browser, site.url, viewport=WIDE) as shown:
        expect(shown.locator("#model option")).not_to_have_count(0)
        shown.click("#webcam")
        expect(shown.locator("#live")).to_be_visible()
        expect(shown.locator("#live")).not_to_have_js_property("videoWidth", 0)
        shown.click("#shoot")
        done(shown, 1)
        assert len(rows(shown)) == 3
        shown.click("#record")
        done(shown, 2)
        assert shown.locator(".result").nth(1).locator(".strip button").count() >= 1
        shown.click("#webcam")
        expect(shown.locator("#camera")).to_be_hidden()


@needs_browser
def test_the_page_asks_for_the_token(browser: Browser, tmp_path: Path) -> None:
    bundle = toy_bundle.write(tmp_path / "toy", classes=("<b>dark</b>", "bright"))
    with (
        model_server.running([bundle], Settings(port=0, token=TOKEN)) as server,
        opened(browser, server.address, viewport=WIDE) as shown,
    ):
        expect(shown.locator("#status")).to_contain_text("expected the header Authorization: Bearer TOKEN")
        shown.fill("#token", TOKEN)
        shown.keyboard.press("Tab")
        expect(shown.locator("#about")).to_contain_text("<b>dark</b>")
        give(shown, ("<img src=x>.png", "image/png", png(5)))
        done(shown, 1)
        assert rows(shown)[0][0] == "<b>dark</b>"


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of a model that gives heat maps and one that does not."""
    folder = tmp_path_factory.mktemp("mapped")
    bundles = [toy_bundle.write(folder / "mapped", maps=16), toy_bundle.write(folder / "plain")]
    with model_server.running(bundles, Settings(port=0, grpc_port=0)) as server:
        yield server.address


def corner() -> bytes:
    """A picture that is bright in its lower right quarter."""
    image = Image.new("RGB", (40, 40), (20, 20, 20))
    image.paste((240, 240, 240), (20, 20, 40, 40))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


PIXEL = """([x, y]) => { const canvas = document.querySelector(".result canvas");
    return [...canvas.getContext("2d").getImageData(x * canvas.width, y * canvas.height, 1, 1).data].slice(0, 3); }"""


@needs_browser
@pytest.mark.parametrize(("screen", "colours"), [(WIDE, "light"), (NARROW, "dark")])
def test_a_heat_map_covers_the_picture_on_request(
    browser: Browser, mapped: str, screen: dict[str, int], colours: str
) -> None:
    """By the keyboard alone, and in words for those who do not see it."""
    with opened(browser, mapped, viewport=screen, color_scheme=colours) as shown:
        expect(shown.locator("#about")).to_contain_text("It gives heat maps of images.")
        give(shown, ("a.png", "image/png", corner()))
        done(shown, 1)
        chooser = shown.get_by_label("Heat map of")
        assert chooser.locator("option").all_inner_texts() == ["none", "dark", "bright"]
        chooser.focus()
        shown.keyboard.press("ArrowDown")
        said = "Grad-CAM of dark over a.png: strongest in the lower right"
        expect(shown.locator("#status")).to_have_text(f"{said}.")
        expect(shown.get_by_role("img", name=said)).to_be_visible()
        expect(shown.locator(".result img.shown")).to_be_hidden()
        dark, hot = (shown.evaluate(PIXEL, place) for place in ([0.35, 0.35], [0.65, 0.65]))
        assert hot[0] - hot[2] > 60 > dark[0] - dark[2]  # the colour of what counts
        assert shown.evaluate("document.documentElement.scrollWidth") <= screen["width"]
        assert serious(shown) == []
        shown.keyboard.press("ArrowUp")
        expect(shown.locator(".result canvas")).to_have_count(0)
        expect(shown.locator(".result img.shown")).to_be_visible()


@needs_browser
def test_without_features_there_is_no_heat_map_and_the_page_says_so(browser: Browser, mapped: str) -> None:
    with opened(browser, mapped, viewport=WIDE) as shown:
        shown.select_option("#model", "plain")
        expect(shown.locator("#about")).to_contain_text("It gives no heat maps.")
        shown.select_option("#other", "mapped")
        give(shown, ("a.png", "image/png", corner()))
        done(shown, 1)
        assert shown.get_by_label("Heat map of").count() == 1
        assert shown.locator(".side").nth(1).get_by_label("Heat map of").count() == 1


def test_the_page_is_one_file_that_loads_nothing_from_elsewhere(site: Site) -> None:
    answer = httpx.get(site.url)
    assert answer.text == page()
    assert answer.headers["content-security-policy"] == policy()
    assert "default-src 'none'" in policy()
    assert "unsafe" not in policy()
    assert "http://" not in page()
    assert "https://" not in page()
