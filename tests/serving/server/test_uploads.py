"""Answers to files: the same as `predict` has, or what is wrong with each."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests import model_server, toy_bundle
from tests.serving.server.conftest import Site
from tests.video_files import write_video
from toolkit.cli.main import main
from toolkit.serving.server.settings import Settings


def png(level: int, side: int = 20, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side + 3), (level,) * 3).save(file, form)
    return file.getvalue()


def video(folder: Path, frames: int = 20, **how: Any) -> bytes:
    return write_video(folder / "clip.mp4", frames, **how).read_bytes()


def sent(site: Site, *files: tuple[str, bytes], **fields: Any) -> httpx.Response:
    return httpx.post(f"{site.url}/v1/predict", files=[("file", file) for file in files], data=fields, timeout=60)


def predicted(site: Site, name: str, path: Path, *words: str) -> list[dict[str, Any]]:
    """The rows of the command `predict`."""
    output = path.parent / "rows.jsonl"
    assert (
        main(["predict", str(site.folder / name), str(path), "--device", "cpu", "--output", str(output), *words]) == 0
    )
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_several_images_are_answered_in_their_order(site: Site) -> None:
    answer = sent(site, ("b.png", png(250)), ("a.jpg", png(5, form="JPEG")), model="images", top=1)
    assert answer.status_code == 200
    first, second = answer.json()["answers"]
    assert (answer.json()["model"], first["name"], second["name"]) == ("images", "b.png", "a.jpg")
    assert (first["prediction"], second["prediction"]) == (["bright"], ["dark"])
    assert [one["class"] for one in first["classes"]] == ["bright"]
    assert first["kind"] == "image"


def test_the_images_of_one_request_share_a_batch(tmp_path: Path) -> None:
    settings = Settings(port=0, delay=10.0, batch=3)
    with model_server.running([toy_bundle.write(tmp_path / "toy")], settings) as server:
        files = [("file", ("a.png", png(level))) for level in (250, 5, 250)]
        answers = httpx.post(f"{server.address}/v1/predict", files=files, timeout=60).json()["answers"]
        metrics = httpx.get(f"{server.address}/metrics").text
    assert [one["prediction"] for one in answers] == [["bright"], ["dark"], ["bright"]]
    assert 'toolkit_batch_size_sum{model="toy"} 3.0' in metrics
    assert 'toolkit_batch_size_count{model="toy"} 1.0' in metrics


def test_an_image_is_answered_as_predict_answers_it(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(120))
    (found,) = sent(site, ("a.png", path.read_bytes()), model="images").json()["answers"]
    (row,) = predicted(site, "images", path)
    for rank, one in enumerate(found["classes"], 1):
        assert one["class"] == row[f"class_{rank}"]
        assert one["probability"] == pytest.approx(row[f"probability_{rank}"], abs=1e-6)


def test_sets_and_numbers_have_their_own_form(site: Site) -> None:
    (found,) = sent(site, ("a.png", png(200)), model="sets").json()["answers"]
    assert found["prediction"] == ["some", "more"]
    (found,) = sent(site, ("a.png", png(200)), model="numbers").json()["answers"]
    assert [(one["output"], round(one["value"])) for one in found["values"]] == [("mean", 200), ("twice", 400)]


def test_declined_answers_say_so(site: Site) -> None:
    dark, bright = sent(site, ("a.png", png(20)), ("b.png", png(255)), model="careful").json()["answers"]
    assert (dark["declined"], bright["declined"]) == (True, False)
    assert (dark["plausible"], bright["plausible"]) == (["dark"], ["bright"])
    (plain,) = sent(site, ("a.png", png(20)), model="images").json()["answers"]
    assert plain.keys().isdisjoint({"declined", "plausible"})


def test_a_video_is_answered_as_predict_answers_it_as_a_whole_and_over_time(site: Site, tmp_path: Path) -> None:
    data = video(tmp_path)
    for name in ("clips", "images"):
        (found,) = sent(site, ("clip.mp4", data), model=name, every=0.5, pictures="true").json()["answers"]
        (whole,) = predicted(site, name, tmp_path / "clip.mp4")
        moments = predicted(site, name, tmp_path / "clip.mp4", "--every", "0.5")
        assert (found["kind"], found["seconds"]) == ("video", 2.0)
        assert found["classes"][0]["probability"] == pytest.approx(whole["probability_1"], abs=1e-6)
        assert [one["start"] for one in found["moments"]] == [row["start"] for row in moments]
        for one, row in zip(found["moments"], moments, strict=True):
            assert one["classes"][0]["probability"] == pytest.approx(row["probability_1"], abs=1e-6)
            picture = base64.b64decode(one["picture"].removeprefix("data:image/jpeg;base64,"))
            assert Image.open(io.BytesIO(picture)).size == (16, 16)


def test_damage_is_reported(site: Site, tmp_path: Path) -> None:
    data = bytearray(video(tmp_path, 40, gop=2))
    for place in range(len(data) // 3, len(data) // 2):
        data[place] = 0
    (found,) = sent(site, ("clip.mp4", bytes(data)), model="images").json()["answers"]
    assert found["notes"][0].startswith("damaged: clip.mp4: ")


def test_base64_in_json_is_answered_alike(site: Site) -> None:
    asked = {"model": "images", "inputs": [{"name": "b.png", "data": base64.b64encode(png(250)).decode()}], "top": 3}
    answer = httpx.post(f"{site.url}/v1/predict", json=asked)
    assert answer.json() == sent(site, ("b.png", png(250)), model="images", top=3).json()


def test_a_file_that_cannot_be_read_does_not_keep_others_from_their_answer(site: Site) -> None:
    answer = sent(site, ("a.txt", b"hello"), ("b.png", png(250)), model="images")
    first, second = answer.json()["answers"]
    assert answer.status_code == 200
    assert first == {"name": "a.txt", "error": "cannot be decoded: it is not a JPEG, PNG, WebP, BMP, TIFF, GIF, "
                     "AVIF or HEIC image"}  # fmt: skip
    assert second["prediction"] == ["bright"]


PSD = b"8BPS" + bytes(40)


@pytest.mark.parametrize(
    ("name", "file", "status", "says"),
    [
        ("images", ("a.png", b""), 422, "a.png: cannot be decoded: it is empty"),
        ("images", ("a.png", png(0)[:60]), 422, "a.png: cannot be decoded: its PNG data is damaged"),
        ("images", ("a.jpg", PSD), 422, "its format is Photoshop (PSD), which is not supported"),
        ("images", ("a.png", png(0, 1000)), 422, "it has more than 1 million pixels"),
        ("clips", ("a.png", png(0)), 422, "a.png: an image, but this model takes video clips"),
        ("clips", ("a.mp4", b"\0\0\0\x18ftypisom" + bytes(100)), 422, "a.mp4: "),
        ("images", ("../../a\n.png", b""), 422, "cannot be decoded: it is empty"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    site: Site, name: str, file: tuple[str, bytes], status: int, says: str
) -> None:
    answer = sent(site, file, model=name)
    assert (answer.status_code, says in answer.json()["error"]) == (status, True), answer.text
    assert "toolkit-" not in answer.text  # no file of the server is named


def test_a_video_that_is_too_long_or_too_large_is_refused(site: Site, tmp_path: Path) -> None:
    answer = sent(site, ("a.mp4", video(tmp_path, 30, rate=1)), model="images")
    assert (answer.status_code, answer.json()["error"]) == (413, "a.mp4: a video of 30 s; the limit is 20 s")
    answer = sent(site, ("a.mp4", video(tmp_path, 2, size=(1280, 800))), model="images")
    assert answer.json()["error"] == "a.mp4: frames of 1280 x 800 pixels; the limit is 1,000,000 pixels"


def test_a_codec_that_predict_refuses_is_refused(site: Site, tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 4, codec="magicyuv", pix_fmt="gbrp")
    answer = sent(site, ("clip.avi", path.read_bytes()), model="images")
    assert answer.status_code == 422
    assert 'clip.avi: the codec "magicyuv" is not supported' in answer.json()["error"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "model: expected one of images, clips, sets, numbers"),
        ({"model": "imagse"}, 'no model is called "imagse"'),
        ({"model": "images", "top": "0"}, "top: expected an integer of at least 1, got 0"),
        ({"model": "images", "top": "x"}, "top: expected an integer of at least 1, got x"),
        ({"model": "images", "every": "0"}, "every: expected at least 0.05 seconds, got 0"),
        ({"model": "images", "every": "nan"}, "every: expected at least 0.05 seconds, got nan"),
    ],
)
def test_a_field_without_meaning_says_why(site: Site, fields: dict[str, str], says: str) -> None:
    answer = sent(site, ("a.png", png(0)), **fields)
    assert answer.status_code in (400, 404)
    assert says in answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "kind", "status", "says"),
    [
        (b"x", "text/plain", 415, "expected multipart/form-data, or application/json with base64"),
        (b"--a--\r\n", "multipart/form-data; boundary=a", 400, "model: expected one of images"),
        (b"x", "multipart/form-data; boundary=a", 400, "nvalid multipart data"),
        (b"x", "multipart/form-data", 400, "expected multipart/form-data with a boundary"),
        (b"{}", "application/json", 400, "inputs: expected a list of 1 to 64 objects"),
        (b'{"inputs": [5]}', "application/json", 400, 'inputs[0]: expected an object with either "data" or "url"'),
        (b'{"inputs": [{"data": "%"}]}', "application/json", 400, "inputs[0].data: expected base64"),
        (b'{"inputs": [{"data": 5}]}', "application/json", 400, "inputs[0].data: expected base64"),
        (b'{"inputs": [{"url": "http://a/b"}]}', "application/json", 403, "this server fetches no files"),
    ],
)
def test_a_malformed_body_says_why(site: Site, content: bytes, kind: str, status: int, says: str) -> None:
    if kind.endswith("json") and content != b"{}":
        content = content.replace(b"{", b'{"model": "images", ', 1)
    answer = httpx.post(f"{site.url}/v1/predict", content=content, headers={"Content-Type": kind})
    assert (answer.status_code, says in answer.json()["error"]) == (status, True), answer.text


def test_too_many_files_are_refused(site: Site) -> None:
    answer = sent(site, *(("a.png", b"") for _ in range(65)), model="images")
    assert answer.status_code == 400
    assert "64" in answer.json()["error"]


def test_moments_have_a_limit(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.serving.server.uploads.MOST_MOMENTS", 3)
    answer = sent(site, ("a.mp4", video(tmp_path)), model="images", every=0.5)
    assert answer.status_code == 413
    assert answer.json()["error"] == "a.mp4: every: at least 0.7 for this video, got 0.5"


def test_an_animation_is_what_the_model_takes(site: Site) -> None:
    file = io.BytesIO()
    frames = [Image.new("L", (20, 20), level) for level in (0, 80, 160, 240)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=200)
    (found,) = sent(site, ("a.gif", file.getvalue()), model="images").json()["answers"]
    assert (found["kind"], found["prediction"]) == ("image", ["dark"])
    (found,) = sent(site, ("a.gif", file.getvalue()), model="clips").json()["answers"]
    assert found["kind"] == "video"


def test_heat_maps_come_with_the_part_of_the_picture_that_they_cover(tmp_path: Path) -> None:
    folder = toy_bundle.write(tmp_path / "mapped", classes=("dark", "grey", "bright"), maps=16)
    image = Image.new("RGB", (40, 20), (10, 10, 10))
    image.paste((200, 200, 200), (20, 0, 40, 10))  # the square is the middle: its upper right quarter
    file = io.BytesIO()
    image.save(file, "PNG")
    with model_server.running([folder], Settings(port=0, grpc_port=0)) as server:
        address = f"{server.address}/v1/predict"
        given = {"file": ("a.png", file.getvalue())}
        (found,) = httpx.post(address, files=given, data={"maps": "true", "top": 2}).json()["answers"]
        (plain,) = httpx.post(address, files=given, data={"top": 2}).json()["answers"]
        (listed,) = httpx.get(f"{server.address}/v1/models").json()["models"]
        tensor = {"name": "frames", "datatype": "UINT8", "shape": [1, 16, 16, 3], "data": [0] * (16 * 16 * 3)}
        raw = httpx.post(f"{server.address}/v2/models/mapped/infer", json={"inputs": [tensor]}).json()
        known = httpx.get(f"{server.address}/v2/models/mapped").json()
    maps = found.pop("maps")
    assert found == plain
    assert listed["maps"]
    # The inference protocol has the answers alone.
    assert [one["name"] for one in raw["outputs"]] == [one["name"] for one in known["outputs"]] == ["probabilities"]
    assert maps["method"] == "Grad-CAM"
    assert [one["name"] for one in maps["of"]] == [one["class"] for one in plain["classes"]]
    assert maps["of"][0]["values"][0] == [pytest.approx(0.05, abs=0.01), 1.0]
    assert maps["of"][0]["values"][1] == [pytest.approx(0.05, abs=0.01)] * 2
    # The model sees the central half of a square of the short side.
    assert [maps[name] for name in ("left", "top", "width", "height")] == [0.375, 0.25, 0.25, 0.5]


@pytest.mark.parametrize(
    ("name", "why"), [("images", "was exported without export.maps=true"), ("clips", "takes video clips")]
)
def test_a_model_without_heat_maps_is_named(site: Site, name: str, why: str) -> None:
    answer = sent(site, ("a.png", png(20)), model=name, maps="true")
    assert (answer.status_code, answer.json()["error"]) == (400, f"maps: {name} gives no heat maps: it {why}")
