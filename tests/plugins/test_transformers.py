"""Models of transformers: what they are built of, what their weights and processors say, and each refusal.

The networks are small and random; `tests.tiny_transformers` writes them as a publisher would.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torch import nn

from tests.hub_server import COMMIT, Hub, serving_hub
from tests.tiny_transformers import FAMILIES, OF_CLIPS, write_source, write_weights
from toolkit.api.clips import Clip
from toolkit.api.contracts import DataSpec, InputDesign
from toolkit.api.errors import RecipeError, ToolkitError, UsageError, WeightsError
from toolkit.export.graph import to_onnx
from toolkit.training.network import Network
from toolkit.transfer.attentive import AttentiveProbe
from toolkit.transfer.layers import layers_of
from toolkit.transfer.licences import LicenceError
from toolkit.transfer.positions import Positions
from toolkit.transfer.trained import TrainedRun
from toolkit_transformers.lora import Lora
from toolkit_transformers.models import _known, transformer
from toolkit_transformers.networks import Encoder, encoder_of, network_of, positions_of
from toolkit_transformers.published import PUBLISHED
from toolkit_transformers.sources import Source, design

SIDES = {"videoprism_vision_model": 36, "dinov2": 28}
IMAGES = DataSpec(tuple("abc"), size=32)
CLIPS = DataSpec(tuple("abc"), size=32, clip=Clip(frames=4))


def spec_of(family: str) -> DataSpec:
    clip = Clip(frames=4) if family in OF_CLIPS else None
    return DataSpec(tuple("abc"), size=SIDES.get(family, 32), clip=clip)


def inputs(spec: DataSpec, batch: int = 2) -> torch.Tensor:
    clip = () if spec.frames is None else (spec.frames,)
    return torch.randn(batch, *clip, 3, spec.size, spec.size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Any]:
    """A small network of each kind, its folder with weights, and itself as transformers makes it."""
    folder = write_source(tmp_path_factory.mktemp("source"), request.param, size=SIDES.get(request.param, 32))
    return request.param, folder, write_weights(folder)


def test_features_are_those_of_the_published_network(family: tuple[str, Path, Any]) -> None:
    name, folder, theirs = family
    spec = spec_of(name)
    model = transformer(spec, source=str(folder), weights="pretrained").eval()
    pixels = inputs(spec)
    with torch.no_grad():
        answer = theirs(**{theirs.main_input_name: pixels})
        features = model.backbone(pixels)
        if hasattr(theirs, "classifier"):
            expected, found = answer.logits.flatten(1), theirs.classifier(features)
        else:
            expected, found = answer.pooler_output, features
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert f"starting from weights {folder} of {type(theirs).__name__}" in model.notes[0]
    assert model.provenance is None
    assert not model.notes[1:]


@pytest.mark.parametrize("taken", ["vit", "dinov2", "siglip", "timesformer", "videoprism_vision_model"])
def test_positions_of_another_size_are_interpolated_by_transformers(taken: str, tmp_path: Path) -> None:
    folder = write_source(tmp_path, taken, size=SIDES.get(taken, 32))
    write_weights(folder)
    spec = spec_of(taken)
    side = 2 * spec.size
    model = transformer(replace(spec, size=side), source=str(folder), weights="pretrained").eval()
    assert model.notes[1:] == (f"positions interpolated from {spec.size} px to {side} px",)
    assert model(inputs(replace(spec, size=side))).isfinite().all()


@pytest.mark.parametrize(("frames", "side"), [(4, 64), (8, 32), (8, 64)])
def test_positions_of_vivit_are_interpolated_when_they_are_loaded(frames: int, side: int, tmp_path: Path) -> None:
    folder = write_source(tmp_path / "source", "vivit")
    theirs = write_weights(folder)
    spec = DataSpec(tuple("abc"), size=side, clip=Clip(frames=frames))
    model = transformer(spec, source=str(folder), weights="pretrained").eval()
    table = theirs.vivit.embeddings.position_embeddings.detach()
    wanted = torch.Size([1, 1 + frames // 2 * (side // 16) ** 2, 32])
    expected = Positions("", "frames", count=frames // 2, published=2).fitted(table, wanted)
    assert expected
    ours: Any = model.backbone.network
    assert torch.equal(ours.vivit.embeddings.position_embeddings, expected.value)
    grid = f"2x2x2 to {frames // 2}x{side // 16}x{side // 16}"
    assert model.notes[1:] == (f"positions vivit.embeddings.position_embeddings interpolated from {grid}",)
    assert model(inputs(spec)).isfinite().all()

    small = transformer(CLIPS, source=str(folder))
    run = TrainedRun(Path("best.pt"), dict(small.state_dict()), CLIPS.classes, "transformers")
    known = _known(ours, positions_of(ours, Source(str(folder)).config))
    assert f"position_embeddings interpolated from {grid}; the head" in run.load_into(model, "", CLIPS.classes, known)


def test_the_encoder_may_be_saved_alone(family: tuple[str, Path, Any], tmp_path: Path) -> None:
    name, _, theirs = family
    encoder = encoder_of(theirs)
    save_file(
        {key: value.contiguous() for key, value in encoder.state_dict().items()}, tmp_path / "encoder.safetensors"
    )
    folder = write_source(tmp_path / "source", name)
    model = transformer(
        spec_of(name), source=str(folder), head="attentive", weights=str(tmp_path / "encoder.safetensors")
    )
    assert "encoder.safetensors" in model.notes[0]
    ours = model.backbone.network.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(value, ours[key]) for key, value in encoder.state_dict().items() if key in ours)


def test_what_a_network_takes_is_what_its_processor_says(family: tuple[str, Path, Any]) -> None:
    name, folder, _ = family
    frames, rate = (4, Source(str(folder)).takes.rate) if name in OF_CLIPS else (None, None)
    size = SIDES.get(name, 32)
    assert design(source=str(folder)) == InputDesign(frames, rate, size, size + 4, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("MCG-NJU/videomae-small-finetuned-kinetics", 22.0),
        ("MCG-NJU/videomae-base-finetuned-kinetics", 86.5),
        ("facebook/dinov2-base", 86.6),
        ("facebook/dinov2-small", 22.1),
        ("facebook/timesformer-base-finetuned-k400", 121.4),
        ("facebook/vjepa2-vitl-fpc64-256", 303.9),
        ("google/vit-base-patch16-224", 86.4),
        ("google/vivit-b-16x2-kinetics400", 88.9),
    ],
)
def test_the_published_number_of_parameters(name: str, millions: float) -> None:
    takes = PUBLISHED[name].takes
    spec = DataSpec(tuple("ab"), takes.size, clip=Clip(takes.frames, takes.rate or 1) if takes.frames else None)
    with torch.device("meta"):
        network = network_of(Source(name).config, spec, name)
    encoder = encoder_of(network)
    assert sum(one.numel() for one in encoder.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)
    # As BEiT counts layers: the embeddings, and each block.
    assert len(layers_of(Encoder(network, tokens=True, size=takes.size))) == 1 + network.config.num_hidden_layers


def test_every_published_one_is_counted() -> None:
    (mark,) = test_the_published_number_of_parameters.pytestmark  # type: ignore[attr-defined]
    assert {name for name, _ in mark.args[1]} == PUBLISHED.keys()


# Heads and adapters


@pytest.fixture(scope="module")
def videomae(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_source(tmp_path_factory.mktemp("videomae"), "videomae"))


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_source(tmp_path_factory.mktemp("dinov2"), "dinov2"))


def test_an_image_encoder_sees_the_frames_of_a_clip_one_by_one(dinov2: str) -> None:
    images, clips = (transformer(spec, source=dinov2).eval() for spec in (IMAGES, CLIPS))
    clips.backbone[1].load_state_dict(images.backbone.state_dict())  # type: ignore[index]
    clips.head[0].load_state_dict(images.head.state_dict())  # type: ignore[index]
    pixels = inputs(CLIPS)
    expected = torch.stack([images(pixels[:, frame]) for frame in range(4)]).mean(dim=0)
    torch.testing.assert_close(clips(pixels), expected)


def test_positions_and_tokens_do_not_decay(dinov2: str) -> None:
    names = set(transformer(CLIPS, source=dinov2).no_weight_decay())
    inside = "backbone.1.network.dinov2.embeddings"
    assert names == {f"{inside}.{name}" for name in ("cls_token", "mask_token", "position_embeddings")}


def test_drop_path_reaches_the_network(dinov2: str) -> None:
    model = transformer(IMAGES, source=dinov2, drop_path=0.4)
    rates = {one.drop_prob for one in model.modules() if type(one).__name__.endswith("DropPath")}
    assert max(rates) == 0.4


def test_a_probe_on_frames_attends_to_the_tokens_of_all_of_them(dinov2: str) -> None:
    model = transformer(CLIPS, source=dinov2, head="attentive", freeze=True).eval()
    pixels = inputs(CLIPS)
    tokens = model.backbone(pixels)
    assert tokens.shape == (8, 5, 32)  # 2 clips x 4 frames, 4 patches and the class token
    torch.testing.assert_close(model(pixels), model.head[2](tokens.reshape(2, 20, 32)))  # type: ignore[index]


def test_the_probe_is_attention_of_a_learned_query() -> None:
    probe = AttentiveProbe(128, 3).eval()
    tokens = torch.randn(2, 7, 128)
    normed = probe.before(tokens)
    keys, values = probe.keys_values(normed).split(128, dim=-1)
    pooled = []
    for head in range(2):
        part = slice(64 * head, 64 * head + 64)
        scores = (keys[..., part] @ probe.query[0, 0, part]) / math.sqrt(64)
        pooled.append((scores.softmax(dim=1).unsqueeze(-1) * values[..., part]).sum(dim=1))
    summed = probe.query[0] + probe.out(torch.cat(pooled, dim=1))
    expected = probe.classify(summed + probe.mixing(probe.after(summed)))
    torch.testing.assert_close(probe(tokens), expected)


@pytest.mark.slow  # tracing takes seconds
def test_low_rank_matrices_train_alone_and_are_merged_at_export(videomae: str) -> None:
    import onnxruntime

    model = transformer(CLIPS, source=videomae, lora=Lora(rank=2, alpha=6.0, layers=("query", "value")))
    trained = [name for name, one in model.backbone.named_parameters() if one.requires_grad]
    assert trained
    assert all(".lora_" in name for name in trained)
    for name, one in model.named_parameters():
        if ".lora_B" in name:
            nn.init.normal_(one, std=0.2)
    network = Network(model, CLIPS).eval()
    adapted = {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}
    assert len(adapted) == 4
    wanted = {}
    for name, layer in adapted.items():
        found: Any = layer
        down, up = found.lora_A["default"].weight, found.lora_B["default"].weight
        wanted[name] = found.base_layer.weight + 6.0 / 2 * (up @ down)
    graph = to_onnx(network, lambda outputs: outputs, CLIPS, {})
    assert not [tensor.name for tensor in graph.graph.initializer if "lora" in tensor.name]
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    frames = torch.randint(0, 256, (3, 4, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = network(frames.movedim(-1, -3)).softmax(dim=1)
    torch.testing.assert_close(
        torch.from_numpy(session.run(None, {"frames": frames.numpy()})[0]), expected, rtol=0, atol=1e-4
    )
    assert {name for name, module in model.named_modules() if hasattr(module, "lora_A")} == adapted.keys()
    model.backbone.fold()  # type: ignore[operator]
    for name, weight in wanted.items():
        torch.testing.assert_close(model.get_submodule(name).weight, weight)


def test_checkpointing_changes_memory_not_gradients(videomae: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = transformer(CLIPS, source=videomae, checkpointing=checkpointing).train()
        model(inputs(CLIPS)).square().sum().backward()
        gradients.append([one.grad for one in model.parameters()])
        assert model.backbone.network.is_activation_checkpointing is checkpointing  # type: ignore[union-attr]
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


# Refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"head": "lstm"}, 'head: "lstm" combines frames, but SOURCE sees whole clips: use "attentive"'),
        ({"head": "attentive", "hidden": 8}, "hidden: the attentive head has a layer of its own width"),
        ({"lora": Lora(), "freeze": True}, "lora: needs freeze = false: a frozen backbone trains nothing"),
        ({"lora": Lora(layers=("qq",))}, 'lora: no layer of the backbone ends in "qq"; its layers end in '),
        ({"revision": "v2"}, "revision: SOURCE is a folder, which has none"),
        (
            {"source": "MCG-NJU"},
            'source: expected a folder, or organisation/name of the Hugging Face Hub, got "MCG-NJU"',
        ),
        ({"thaw_epoch": 1}, "thaw_epoch: needs freeze = true"),
        ({"drop_path": 0.1}, "drop_path: SOURCE has no branches that could be dropped"),
    ],
)
def test_arguments_that_do_not_go_together(videomae: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message.replace("SOURCE", videomae))):
        transformer(CLIPS, **{"source": videomae, **arguments})


def test_a_network_of_clips_on_images(videomae: str) -> None:
    with pytest.raises(RecipeError) as raised:
        transformer(IMAGES, source=videomae)
    assert raised.value.problems[0].message.endswith("takes clips: add a [clip] table (published with frames = 4)")
    assert raised.value.next_step == "--set clip.frames=4"


def test_a_kind_of_network_that_transformers_does_not_have(tmp_path: Path) -> None:
    folder = write_source(tmp_path, "vit", model_type="dinov22")
    with pytest.raises(RecipeError) as raised:
        transformer(IMAGES, source=str(folder))
    (line,) = raised.value.lines()
    assert re.search(
        r'is of the kind "dinov22", which transformers [\d.]+ does not have; did you mean "dinov2"\?', line
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "has no config.json"),
        ("config.json", "{", "cannot be read as JSON"),
        ("preprocessor_config.json", None, "the size, mean and std of its input are unknown"),
        ("preprocessor_config.json", "{}", "expected three numbers as image_mean of its processor, got None"),
    ],
)
def test_a_folder_that_lacks_something(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    folder = write_source(tmp_path, "vit")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(WeightsError) as raised:
        design(source=str(folder))
    assert message in raised.value.message
    assert raised.value.next_step or "image_mean" in message


def test_weights_in_other_formats_are_not_read(tmp_path: Path) -> None:
    folder = write_source(tmp_path, "vit")
    (folder / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(WeightsError, match=r"weights in other formats are not read: they may run code"):
        transformer(IMAGES, source=str(folder), weights="pretrained")


def test_code_of_a_repository_is_never_run(tmp_path: Path) -> None:
    folder = write_source(tmp_path, "vit", auto_map={"AutoModel": "evil.Evil", "AutoConfig": "evil.Config"})
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: ...\nclass Config: ...\n")
    transformer(IMAGES, source=str(folder))
    assert not (tmp_path / "ran").exists()
    assert "evil" not in sys.modules


@pytest.mark.parametrize(("missing", "mis_shaped"), [(1, 0), (0, 1)])
def test_weights_that_do_not_fit(tmp_path: Path, missing: int, mis_shaped: int) -> None:
    folder = write_source(tmp_path, "vit")
    write_weights(folder)
    weights = load_file(folder / "model.safetensors")
    names = [name for name in weights if name.endswith("cls_token") or "attention" in name]
    if missing:
        weights.pop(next(name for name in names if name.endswith("weight")))
    else:
        weights[next(name for name in names if name.endswith("cls_token"))] = torch.zeros(1, 1, 8)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="the weights do not fit the model") as raised:
        transformer(IMAGES, source=str(folder), weights="pretrained")
    assert (len(raised.value.missing), len(raised.value.mis_shaped)) == (missing, mis_shaped)


def test_pooling_that_the_weights_lack_starts_at_random_values(tmp_path: Path) -> None:
    folder = write_source(tmp_path, "vjepa2")
    write_weights(folder)
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    notes = transformer(CLIPS, source=str(folder), weights="pretrained").notes
    assert re.search(r"no pooler\..* and \d+ more; random values there", notes[1])
    assert len(transformer(CLIPS, source=str(folder), weights="pretrained", head="attentive").notes) == 1


def test_without_transformers_the_error_names_the_extra(videomae: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError) as raised:
        transformer(CLIPS, source=videomae)
    assert raised.value.message == 'model "transformers" needs the package transformers, which is not installed'
    assert raised.value.next_step == 'pip install "vision-toolkit[transformers]"'


# The Hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    folder = write_source(tmp_path / "source", "videomae")
    write_weights(folder)
    with serving_hub() as hub:
        hub.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        hub.files["README.md"] = b"---\nlicense: mit\n---\n"
        template = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield hub


def test_a_source_of_the_hub(hub: Hub) -> None:
    assert design(source="acme/tiny", weights="pretrained").frames == 4
    model = transformer(CLIPS, source="acme/tiny", weights="pretrained")
    assert model.provenance is not None
    assert (model.provenance.revision, model.provenance.licence) == (COMMIT, "mit")
    assert not [file for file in hub.asked if file.endswith((".py", ".bin"))]
    hub.asked.clear()
    transformer(CLIPS, source="acme/tiny", revision=COMMIT)  # as a run that goes on builds it
    assert not [request for request in hub.asked if request.startswith("GET")]


def test_a_licence_is_refused_before_anything_but_the_card_is_fetched(hub: Hub) -> None:
    hub.files["README.md"] = b"---\nlicense: cc-by-nc-4.0\n---\n"
    with pytest.raises(LicenceError):
        design(source="acme/tiny", weights="pretrained")
    assert {request.partition(" ")[2] for request in hub.asked} == {"README.md"}


def test_a_licence_that_is_known_is_refused_without_a_request(hub: Hub) -> None:
    with pytest.raises(LicenceError, match="have the licence"):
        design(source="MCG-NJU/videomae-small-finetuned-kinetics", weights="pretrained")
    assert hub.asked == []


def test_a_repository_without_a_configuration(hub: Hub) -> None:
    del hub.files["config.json"]
    with pytest.raises(ToolkitError, match=r"acme/tiny: has no config\.json"):
        design(source="acme/tiny")
