"""Weights of the Hugging Face Hub, from a server on this machine: what is fetched, and each way in which that fails."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save
from torch import nn

from tests.hub_server import COMMIT, Hub, serving_hub
from toolkit.api.contracts import DataSpec, Provenance
from toolkit.api.errors import EXIT_DATA, EXIT_USAGE, ToolkitError, UsageError, WeightsError
from toolkit.cli.main import main
from toolkit.transfer.classifier import Classifier
from toolkit.transfer.hub import Repository, read_json
from toolkit.transfer.licences import LicenceError
from toolkit.transfer.pretrained import Transfer
from toolkit.transfer.published import Published, UnreachableError

CARD = b"---\nlicense: apache-2.0\n---\n# Tiny\n"
SPEC = DataSpec(("cat", "dog"), size=8)
ADDRESS = "https://huggingface.co/acme/tiny"
OTHERS = Published("theirs", "their weights", "https://theirs.example/weights.pth", licence="mit")


def tiny_weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Linear(3 * 8 * 8, 5).state_dict()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The Hub, with a card and weights of a tiny network."""
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)  # between tries
    with serving_hub() as hub:
        hub.files = {"README.md": CARD, "model.safetensors": save(tiny_weights())}
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )
        yield hub


def built(weights: str = "hub:acme/tiny", spec: DataSpec = SPEC, **arguments: Any) -> Classifier:
    start = Transfer(weights, **arguments).start(OTHERS, spec, "tiny")
    layer = nn.Linear(3 * 8 * 8, 5)
    start.load(layer)
    return start.classifier(nn.Sequential(nn.Flatten(), layer), nn.Linear(5, 2))


def fetched(hub: Hub) -> list[str]:
    return [request.partition(" ")[2] for request in hub.asked if request.startswith("GET")]


def test_weights_are_fetched_once_and_their_commit_and_licence_are_recorded(hub: Hub) -> None:
    model = built()
    assert all(torch.equal(value, tiny_weights()[name]) for name, value in model.backbone[1].state_dict().items())  # type: ignore[index]
    assert model.provenance == Provenance("weights acme/tiny of tiny", ADDRESS, "apache-2.0", COMMIT)
    note = f"starting from weights acme/tiny of tiny at revision {COMMIT}, licence apache-2.0 ({ADDRESS})"
    assert model.notes == (note,)
    assert fetched(hub) == ["README.md", "model.safetensors"]
    hub.asked.clear()
    built(f"hub:acme/tiny@{COMMIT}")
    assert fetched(hub) == []


def test_offline_the_cache_is_used(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    built()
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert built().provenance.revision == COMMIT  # type: ignore[union-attr]
    assert hub.asked == []


def test_several_files_are_read_by_their_index(hub: Hub) -> None:
    weights = tiny_weights()
    parts = {f"model-0000{number}-of-00002.safetensors": name for number, name in enumerate(weights, 1)}
    hub.files = {"README.md": CARD, **{part: save({name: weights[name]}) for part, name in parts.items()}}
    index = {"weight_map": {name: part for part, name in parts.items()}}
    hub.files["model.safetensors.index.json"] = json.dumps(index).encode()
    assert all(torch.equal(value, weights[name]) for name, value in built().backbone[1].state_dict().items())  # type: ignore[index]


def test_a_download_that_breaks_off_goes_on_where_it_stopped(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 256)
    hub.cut["model.safetensors"] = [600, 1100]
    assert all(torch.equal(value, tiny_weights()[name]) for name, value in built().backbone[1].state_dict().items())  # type: ignore[index]
    assert [request.rpartition(" ")[2] for request in hub.asked if "bytes=" in request] == ["bytes=512-", "bytes=1024-"]


def test_a_licence_that_is_not_allowed_is_refused_before_a_byte_of_the_weights(hub: Hub) -> None:
    hub.files["README.md"] = b"---\nlicense: cc-by-nc-4.0\n---\n"
    with pytest.raises(LicenceError) as raised:
        built()
    assert raised.value.lines() == [
        'weights acme/tiny of tiny have the licence "cc-by-nc-4.0"; model.licences allows apache-2.0, bsd-2-clause, '
        "bsd-3-clause, cc-by-4.0, cc0-1.0, mit"
    ]
    assert raised.value.next_step == """to accept that licence: --set 'model.licences=["cc-by-nc-4.0"]'"""
    assert raised.value.exit_code == EXIT_DATA
    assert not [request for request in hub.asked if "safetensors" in request]
    assert built(licences=("mit", "CC-BY-NC-4.0")).provenance.licence == "cc-by-nc-4.0"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        (b"# Tiny\n", "unknown"),
        (b"---\ntags: [a]\n---\n", "unknown"),
        (b"---\nlicense: [\n---\n", "unknown"),
        (b"---\nlicense: other\nlicense_name: dinov3-license\n---\n", "dinov3-license"),
        (b"---\r\nlicense: MIT\r\n---\r\n", "mit"),
        (None, "unknown"),
    ],
)
def test_the_card_says_the_licence(hub: Hub, card: bytes | None, licence: str) -> None:
    hub.files.pop("README.md")
    if card is not None:
        hub.files["README.md"] = card
    assert Repository("acme/tiny").licence == licence


def test_an_unknown_licence_has_to_be_allowed_by_that_word(hub: Hub) -> None:
    hub.files["README.md"] = b"# Tiny\n"
    with pytest.raises(LicenceError) as raised:
        built(licences=("mit",))
    assert raised.value.message == "weights acme/tiny of tiny name no licence; model.licences allows mit"
    assert raised.value.next_step == """to accept that licence: --set 'model.licences=["mit", "unknown"]'"""
    assert built(licences=("unknown",)).provenance is not None


def test_a_run_prints_the_licence_and_keeps_it_with_the_commit_when_it_goes_on(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    hub.files["model.safetensors"] = save(timm.create_model("test_resnet").state_dict())
    settings = (
        *("model=timm", "model.model=test_resnet", "model.weights=hub:acme/tiny", "data.sample_clips=3", "augment=[]"),
        *("input.size=32", "train.epochs=1", "train.batch=8", "data.valid_share=0.2", "train.schedule=constant"),
    )
    words = [word for one in settings for word in ("--set", one)]
    assert main(["run", "har_resnet50", "--runs", str(tmp_path / "runs"), *words]) == 0, capsys.readouterr().err
    shown = " ".join("".join(capsys.readouterr()).split())
    assert f"weights acme/tiny of test_resnet at revision {COMMIT}, licence apache-2.0" in shown
    (facts,) = (tmp_path / "runs").glob("*/2*/facts.json")
    kept = read_json(facts)["weights"]
    assert (kept["licence"], kept["revision"], kept["address"]) == ("apache-2.0", COMMIT, ADDRESS)
    gated(hub)
    assert main(["run", "--resume", str(facts.parent), "--extend", "2"]) == 0, capsys.readouterr().err
    assert read_json(facts)["weights"] == kept


def gated(hub: Hub) -> None:
    hub.status, hub.code = 401, "GatedRepo"


def another_digest(hub: Hub) -> None:
    hub.digests["model.safetensors"] = "0" * 64


def without_digest(hub: Hub) -> None:
    hub.digests["model.safetensors"] = "W/abc"


def truncated(hub: Hub) -> None:
    hub.cut["model.safetensors"] = [100] * 20


def out_of_order(hub: Hub) -> None:
    hub.status = 500


def pickled_alone(hub: Hub) -> None:
    hub.files["pytorch_model.bin"] = hub.files.pop("model.safetensors")


def damaged(hub: Hub) -> None:
    hub.files["model.safetensors"] = hub.files["model.safetensors"][:-40]


def leading_outside(hub: Hub) -> None:
    hub.files.pop("model.safetensors")
    hub.files["model.safetensors.index.json"] = b'{"weight_map": {"weight": "../../weights.safetensors"}}'


def gone(hub: Hub) -> None:
    hub.files.clear()


def nothing(_: Hub) -> None:
    """The server is in order, the name is not."""


@pytest.mark.parametrize(
    ("broken", "weights", "message", "next_step"),
    [
        (another_digest, "hub:acme/tiny", "model.safetensors is damaged: its checksum is", "was deleted"),
        (without_digest, "hub:acme/tiny", "the server gives no checksum of model.safetensors", "a server that gives"),
        (
            truncated,
            "hub:acme/tiny",
            "model.safetensors cannot be downloaded",
            "try again; or run `hf download acme/tiny",
        ),
        (gated, "hub:acme/tiny", "its publisher requires you to accept terms first", f"accept the terms at {ADDRESS}"),
        (nothing, "hub:acme/other", "acme/other: no such repository", "check the name in model.weights"),
        (nothing, "hub:acme/tiny@v2", 'acme/tiny has no revision "v2"', f"name one of those at {ADDRESS}/tree/main"),
        (nothing, "hub:tiny", '"tiny": expected organisation/name', "write it as in hub:facebook/dinov2-small"),
        (out_of_order, "hub:acme/tiny", "README.md cannot be downloaded", "try again; or run"),
        (pickled_alone, "hub:acme/tiny", "has no model.safetensors, and weights in other formats are not", "none"),
        (damaged, "hub:acme/tiny", "damaged, or not a weights file", "fetch or write the file again"),
        (leading_outside, "hub:acme/tiny", "expected names of safetensors files in model.safetensors.index.json", ""),
        (gone, "hub:acme/tiny", "has no model.safetensors", "name another repository"),
    ],
)
def test_a_download_that_fails(hub: Hub, broken: Any, weights: str, message: str, next_step: str) -> None:
    broken(hub)
    with pytest.raises(WeightsError) as raised:
        built(weights, licences=("apache-2.0", "unknown"))
    assert message in raised.value.message
    assert next_step in str(raised.value.next_step)
    assert raised.value.exit_code == EXIT_DATA


def test_a_damaged_file_is_not_kept(hub: Hub) -> None:
    another_digest(hub)
    with pytest.raises(WeightsError):
        built()
    hub.digests.clear()
    assert built().provenance is not None


def test_a_file_that_is_damaged_in_the_cache_is_found(hub: Hub) -> None:
    built()
    blob = Repository("acme/tiny").file("model.safetensors").resolve()
    blob.write_bytes(bytes(blob.stat().st_size))
    with pytest.raises(WeightsError, match="is damaged: its checksum"):
        built()
    assert built().provenance is not None


def test_no_space(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(WeightsError) as raised:
        built()
    assert raised.value.message == f"{tmp_path / 'cache' / 'weights'}: no space left for README.md of acme/tiny"
    assert raised.value.next_step == "free disk space, or set TOOLKIT_CACHE to a folder on another disk"
    assert not isinstance(raised.value, UnreachableError)


def test_offline_without_the_file(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UnreachableError) as raised:
        built()
    assert raised.value.message == "acme/tiny: README.md is not in the cache, and HF_HUB_OFFLINE forbids downloads"
    assert str(raised.value.next_step).startswith("unset HF_HUB_OFFLINE; or run `hf download acme/tiny")


def test_a_sample_goes_on_without_them(hub: Hub) -> None:
    out_of_order(hub)
    model = built(spec=DataSpec(("cat", "dog"), size=8, sample=True), freeze=True)
    assert model.notes == (
        "weights acme/tiny could not be downloaded: starting from random weights (sample run); "
        "the backbone is not frozen",
    )
    assert not model.frozen


def test_a_sample_does_not_go_on_with_a_licence_that_is_not_allowed(hub: Hub) -> None:
    with pytest.raises(LicenceError):
        built(spec=DataSpec(("cat", "dog"), size=8, sample=True), licences=("mit",))


def test_without_the_package_the_error_names_an_extra(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(UsageError) as raised:
        built()
    assert raised.value.message == "the model acme/tiny needs the package huggingface_hub, which is not installed"
    assert raised.value.next_step == 'pip install "vision-toolkit[transformers]"'
    assert raised.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize("content", [b"[1]", b"{", b""])
def test_json_that_is_no_table(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ToolkitError, match="config"):
        read_json(tmp_path / "config.json")
