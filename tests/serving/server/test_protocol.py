"""The Open Inference Protocol as `tritonclient` speaks it, over HTTP and gRPC, against what `Bundle` answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tritonclient import grpc as over_grpc
from tritonclient import http as over_http
from tritonclient.utils import InferenceServerException

from tests.serving.server.conftest import LIMITS, Site
from toolkit.serving.server.v2 import HEADER


@pytest.fixture(scope="module", params=["http", "grpc"])
def client(request: pytest.FixtureRequest, site: Site) -> Iterator[Any]:
    kind = {"http": over_http, "grpc": over_grpc}[request.param]
    address = site.host if request.param == "http" else f"127.0.0.1:{site.server.grpc_port}"
    with kind.InferenceServerClient(address) as made:
        made.kind = kind
        yield made


def pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    levels = np.linspace(0, 200, shape[0], dtype=np.uint8).reshape(-1, *[1] * (len(shape) - 1))
    return np.random.default_rng(seed).integers(0, 50, shape, np.uint8) + levels


def asked(client: Any, frames: NDArray[Any], *, kind: str = "UINT8", **how: Any) -> Any:
    given = client.kind.InferInput("frames", list(frames.shape), kind)
    given.set_data_from_numpy(frames, **how)
    return given


def body(frames: NDArray[np.uint8], **changes: Any) -> dict[str, Any]:
    tensor = {"name": "frames", "datatype": "UINT8", "shape": list(frames.shape), "data": frames.ravel().tolist()}
    return {"inputs": [{**tensor, **changes}]}


def test_the_server_is_live_ready_and_says_what_it_is(client: Any, site: Site) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("images")
    assert client.is_model_ready("images", "1")
    found = client.get_server_metadata()
    name, extensions = (found["name"], found["extensions"]) if isinstance(found, dict) else (
        found.name,
        list(found.extensions),
    )  # fmt: skip
    assert name == "vision-toolkit"
    assert extensions == ["binary_tensor_data", "classification", "model_configuration"]


def as_json(client: Any, call: Any, *words: Any) -> Any:
    return call(*words) if client.kind is over_http else call(*words, as_json=True)


def test_metadata_and_configuration_are_those_of_the_bundle(client: Any) -> None:
    found = as_json(client, client.get_model_metadata, "clips")
    assert [int(side) for side in found["inputs"][0]["shape"]] == [-1, 4, -1, -1, 3]
    assert (found["inputs"][0]["name"], found["outputs"][0]["name"]) == ("frames", "probabilities")
    config = as_json(client, client.get_model_config, "sets")
    config = config.get("config", config)
    assert config["max_batch_size"] == 16
    assert json.loads(config["parameters"]["thresholds"]["string_value"]) == [0.5, 0.25]


@pytest.mark.parametrize(
    ("name", "shape"), [("images", (5, 16, 16, 3)), ("images", (2, 33, 20, 3)), ("clips", (3, 4, 16, 16, 3))]
)
def test_answers_are_those_of_the_bundle(client: Any, site: Site, name: str, shape: tuple[int, ...]) -> None:
    frames = pixels(*shape)
    found = client.infer(name, [asked(client, frames)], request_id="seven")
    np.testing.assert_allclose(
        found.as_numpy("probabilities"), site.bundle(name).predict(frames).probabilities, atol=1e-6
    )
    response = found.get_response()
    assert (response["id"] if isinstance(response, dict) else response.id) == "seven"


def test_numbers_are_an_output_too(client: Any, site: Site) -> None:
    frames = pixels(2, 16, 16, 3)
    found = client.infer("numbers", [asked(client, frames)]).as_numpy("values")
    np.testing.assert_allclose(found, site.bundle("numbers").estimate(frames).values, rtol=1e-6)


def test_declined_answers_and_sets_are_outputs_too(client: Any, site: Site) -> None:
    frames = np.stack([np.full((16, 16, 3), level, np.uint8) for level in (0, 127, 255)])
    found = client.infer("careful", [asked(client, frames)])
    answers = site.bundle("careful").predict(frames)
    assert found.as_numpy("declined").tolist() == answers.declined == [True, True, False]
    assert found.as_numpy("plausible").tolist() == [[True, False], [True, True], [False, True]]
    assert answers.scores is not None
    np.testing.assert_allclose(found.as_numpy("energy"), answers.scores, rtol=1e-6)
    assert found.as_numpy("probabilities").shape == (3, 2)
    alone = client.infer("careful", [asked(client, frames)], outputs=[client.kind.InferRequestedOutput("declined")])
    assert alone.as_numpy("declined").tolist() == answers.declined
    assert alone.as_numpy("probabilities") is None


def test_outputs_are_described_as_they_are_given(client: Any) -> None:
    found = as_json(client, client.get_model_metadata, "careful")["outputs"]
    described = [(one["name"], one["datatype"], [int(side) for side in one["shape"]]) for one in found]
    assert described == [
        ("probabilities", "FP32", [-1, 2]),
        ("energy", "FP32", [-1]),
        ("declined", "BOOL", [-1]),
        ("plausible", "BOOL", [-1, 2]),
    ]
    config = as_json(client, client.get_model_config, "careful")
    kinds = [one["data_type"] for one in config.get("config", config)["output"]]
    assert kinds == ["TYPE_FP32", "TYPE_FP32", "TYPE_BOOL", "TYPE_BOOL"]


def test_json_and_bytes_are_answered_alike(site: Site) -> None:
    frames = pixels(2, 12, 16, 3)
    expected = site.bundle("images").predict(frames).probabilities
    with over_http.InferenceServerClient(site.host) as client:
        client.kind = over_http
        for sent in (True, False):
            for got in (True, False):
                wanted = [over_http.InferRequestedOutput("probabilities", binary_data=got)]
                found = client.infer("images", [asked(client, frames, binary_data=sent)], outputs=wanted)
                np.testing.assert_allclose(found.as_numpy("probabilities"), expected, atol=1e-6)


def test_classes_come_with_their_names(client: Any) -> None:
    wanted = client.kind.InferRequestedOutput("probabilities", class_count=2)
    bright = np.full((1, 16, 16, 3), 250, np.uint8)
    found = client.infer("images", [asked(client, bright)], outputs=[wanted]).as_numpy("probabilities")
    assert [text.decode().split(":")[1:] for text in found[0]] == [["2", "bright"], ["1", "grey"]]


@pytest.mark.parametrize(
    ("name", "version", "says"),
    [("imagse", "", 'no model is called "imagse"; there are images,'), ("images", "2", 'has no version "2", only 1')],
)
def test_an_unknown_model_is_named(client: Any, name: str, version: str, says: str) -> None:
    with pytest.raises(InferenceServerException, match=says):
        client.infer(name, [asked(client, pixels(1, 16, 16, 3))], model_version=version)


@pytest.mark.parametrize(
    ("name", "frames", "kind", "says"),
    [
        ("images", np.zeros((1, 16, 16, 3), np.float32), "FP32", "expected datatype UINT8, got FP32"),
        ("images", np.zeros((1, 16, 3), np.uint8), "UINT8", r"expected shape \[-1, -1, -1, 3\], got \[1, 16, 3\]"),
        ("images", np.zeros((1, 16, 16, 4), np.uint8), "UINT8", r"needed uint8 \[H, W, 3\]"),
        ("clips", np.zeros((1, 3, 16, 16, 3), np.uint8), "UINT8", r"needed uint8 \[4, H, W, 3\]"),
        ("images", np.zeros((1, 1001, 1000, 3), np.uint8), "UINT8", "1001 x 1000; the limit is 1,000,000 pixels"),
    ],
)
def test_a_tensor_that_does_not_fit_says_why(client: Any, name: str, frames: Any, kind: str, says: str) -> None:
    with pytest.raises(InferenceServerException, match=says):
        client.infer(name, [asked(client, frames, kind=kind)])


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"name": "pixels"}, 400, 'expected "frames", got "pixels"'),
        ({"shape": None}, 400, "inputs[0].shape: expected a list of integers"),
        ({"shape": [1, -1, 2, 3]}, 400, "expected shape [-1, -1, -1, 3], got [1, -1, 2, 3]"),
        ({"shape": [1, True, 2, 3]}, 400, "expected shape"),
        ({"shape": [1, 1, 3, 3]}, 400, "its data does not have the shape [1, 1, 3, 3]"),
        ({"data": [256] * 6}, 400, "expected integers from 0 to 255"),
        ({"data": [-1] * 6}, 400, "expected integers from 0 to 255"),
        ({"data": [0.5] * 6}, 400, "expected integers from 0 to 255"),
        ({"data": [True] * 6}, 400, "expected integers from 0 to 255"),
        ({"data": ["a"] * 6}, 400, "expected integers from 0 to 255"),
        ({"data": [1 << 70] * 6}, 400, "expected integers from 0 to 255"),
        ({"data": [[1], [2, 3]]}, 400, "its data does not have the shape"),
        ({"parameters": 5}, 400, "inputs[0].parameters: expected an object"),
        ({"parameters": {"binary_data_size": 7}}, 400, "binary_data_size: 0 bytes follow the JSON"),
    ],
)
def test_a_malformed_tensor_in_json_says_why(site: Site, changes: dict[str, Any], status: int, says: str) -> None:
    answer = httpx.post(f"{site.url}/v2/models/images/infer", json=body(pixels(1, 1, 2, 3), **changes))
    assert (answer.status_code, says in answer.json()["error"]) == (status, True), answer.text


@pytest.mark.parametrize(
    ("content", "headers", "says"),
    [
        (b"", {}, "not valid JSON"),
        (b"[" * 100_000, {}, "not valid JSON"),
        (b"[]", {}, "expected a JSON object"),
        (b'{"inputs": []}', {}, "inputs: expected a list of one object"),
        (b'{"inputs": [{}], "id": 5}', {}, "id: expected a string"),
        (b"{}", {HEADER: "9"}, "expected a number of bytes up to 2"),
        (b"{}", {HEADER: "-1"}, "expected a number of bytes up to 2"),
    ],
)
def test_a_malformed_request_says_why(site: Site, content: bytes, headers: dict[str, str], says: str) -> None:
    answer = httpx.post(f"{site.url}/v2/models/images/infer", content=content, headers=headers)
    assert (answer.status_code, says in answer.json()["error"]) == (400, True), answer.text


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        ([], "outputs: expected a list of 1 to 16 objects"),
        ([5], "outputs: expected objects"),
        ([{"name": "logits"}], 'output: expected "probabilities", got "logits"'),
        ([{"name": "probabilities", "parameters": {"classification": -1}}], "expected a number of classes"),
    ],
)
def test_a_malformed_output_says_why(site: Site, outputs: list[Any], says: str) -> None:
    asked_for = {**body(pixels(1, 1, 2, 3)), "outputs": outputs}
    answer = httpx.post(f"{site.url}/v2/models/images/infer", json=asked_for)
    assert (answer.status_code, says in answer.json()["error"]) == (400, True), answer.text


def test_large_json_is_refused_before_it_is_read(site: Site) -> None:
    content = b" " * (LIMITS.message + 1)
    answer = httpx.post(f"{site.url}/v2/models/images/infer", content=content)
    assert answer.status_code == 413


def test_the_repository_lists_the_models(site: Site) -> None:
    with over_http.InferenceServerClient(site.host) as client:
        assert [one["name"] for one in client.get_model_repository_index()] == [
            "images",
            "clips",
            "sets",
            "numbers",
            "careful",
        ]


@pytest.mark.parametrize("title", ["infer.py", "ask.py"])
def test_the_code_of_the_guide_prints_the_likeliest_classes(
    title: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 24), (250,) * 3).save("photo.jpg")
    guide = (Path(__file__).parents[3] / "docs" / "how-to" / "serve.md").read_text(encoding="utf-8")
    (code,) = re.findall(rf'```python title="{title}"\n(.*?)```', guide, re.DOTALL)
    exec(code.replace("127.0.0.1:8000", site.host).replace('"har"', '"images"'), {})
    found = capsys.readouterr().out
    assert re.findall("bright|grey", found.partition("]")[2] or found) == ["bright", "grey"]
