"""Zero-shot by the names of classes: the arithmetic against a plain reference, and each refusal."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save, save_file
from torch.nn import functional

from tests import tiny
from tests.hub_server import COMMIT, Hub, serving_hub
from tests.tiny_openclip import SIZE, add_tiny
from toolkit.api.clips import Clip
from toolkit.api.contracts import DataSpec, InputDesign
from toolkit.api.errors import EXIT_DONE, UsageError
from toolkit.cli.main import main
from toolkit.recipe.checking import check
from toolkit.recipe.kinds import KINDS
from toolkit.recipe.reading import read_signature
from toolkit.training.network import Network
from toolkit.transfer.licences import LicenceError
from toolkit_openclip.models import TEMPERATURE, zero_shot
from toolkit_openclip.names import Named, design

TINY = add_tiny()
CLASSES = ("riding_a_bike", "sitting", "clapping")
IMAGES = DataSpec(CLASSES, size=SIZE)
CLIPS = DataSpec(CLASSES, size=SIZE, clip=Clip(frames=3))
TEMPLATES = ("a photo of {}.", "a person who is {}")


@pytest.fixture(scope="module")
def theirs() -> Any:
    torch.manual_seed(0)
    return open_clip.create_model(TINY, load_weights=False).eval()


@pytest.fixture(scope="module")
def file(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("openclip") / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in theirs.state_dict().items()}, path)
    return str(path)


def reference(theirs: Any, images: torch.Tensor) -> torch.Tensor:
    """Zero-shot as the paper has it: the class whose averaged sentences are nearest."""
    tokens = open_clip.get_tokenizer(TINY)
    sentences = [[template.format(name) for template in TEMPLATES] for name in ("riding a bike", "sitting", "clapping")]
    with torch.no_grad():
        text = torch.stack(
            [functional.normalize(theirs.encode_text(tokens(three)), dim=-1).mean(0) for three in sentences]
        )
        seen = functional.normalize(theirs.encode_image(images), dim=-1)
    return TEMPERATURE * seen @ functional.normalize(text, dim=-1).T


def test_images_are_classified_as_by_the_paper(theirs: Any, file: str) -> None:
    model = zero_shot(IMAGES, model=TINY, weights=file, templates=TEMPLATES).eval()
    images = torch.randn(4, 3, SIZE, SIZE)
    torch.testing.assert_close(model(images), reference(theirs, images), rtol=1e-4, atol=1e-3)


def test_of_a_clip_the_mean_of_the_embeddings_counts(theirs: Any, file: str) -> None:
    model = zero_shot(CLIPS, model=TINY, weights=file, templates=TEMPLATES).eval()
    clips = torch.randn(2, 3, 3, SIZE, SIZE)
    with torch.no_grad():
        frames = functional.normalize(theirs.encode_image(clips.flatten(0, 1)), dim=-1).unflatten(0, (2, 3))
        text = model.head[-1].text  # type: ignore[index]
        expected = TEMPERATURE * functional.normalize(frames.mean(dim=1), dim=-1) @ text.T
    torch.testing.assert_close(model(clips), expected, rtol=1e-4, atol=1e-3)


def test_training_fits_the_temperature_alone_and_changes_no_answer(file: str) -> None:
    model = zero_shot(IMAGES, model=TINY, weights=file)
    trained = [name for name, one in model.named_parameters() if one.requires_grad]
    assert trained == ["head.1.log_temperature"]
    images = torch.randn(6, 3, SIZE, SIZE)
    before = model.eval()(images)
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.1)
    functional.cross_entropy(model.train()(images), torch.arange(6) % 3).backward()
    optimizer.step()
    after = model.eval()(images)
    assert not torch.allclose(before, after)
    assert torch.equal(before.argmax(dim=1), after.argmax(dim=1))


def test_no_text_encoder_is_left_in_the_model(file: str) -> None:
    names = zero_shot(IMAGES, model=TINY, weights=file).state_dict()
    assert not [name for name in names if "token_embedding" in name or "text_projection" in name]


def test_another_size_gets_positions_in_between(theirs: Any, file: str) -> None:
    model = zero_shot(DataSpec(CLASSES, size=64), model=TINY, weights=file).eval()
    positions = model.backbone.positional_embedding  # type: ignore[union-attr]
    assert positions.shape == (17, 64)
    assert torch.equal(positions[0], theirs.visual.positional_embedding[0])
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_what_a_model_takes() -> None:
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    assert design(model=TINY) == InputDesign(None, None, SIZE, SIZE, mean=mean, std=std)
    found = design(model="ViT-B-16-SigLIP2:webli")
    assert (found.size, found.mean) == (224, (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "ViT-B-33"}, 'model: open_clip has no model "ViT-B-33"; did you mean "ViT-B-32"?'),
        ({"model": "ViT-B-32:laion2b"}, 'model: open_clip has no weights "laion2b" of ViT-B-32; '),
        ({"weights": "pretrained"}, f"model: name weights on the Hugging Face Hub, as {TINY}:TAG; tags: "),
        ({"templates": ()}, "templates: expected at least one"),
    ],
)
def test_what_open_clip_does_not_have(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        zero_shot(IMAGES, **{"model": TINY, **arguments})


@pytest.mark.parametrize("template", ["a photo", "{} and {}"])
def test_a_template_has_one_place_for_the_name(template: str) -> None:
    signature = read_signature(zero_shot, KINDS["model"].given)
    _, problems = check(signature, {"model": TINY, "templates": [template]}, "model")
    assert f'must have one {{}} where the name of the class goes, got "{template}"' in str(problems[0])


def test_without_open_clip_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UsageError) as raised:
        zero_shot(IMAGES, model=TINY)
    assert raised.value.next_step == 'pip install "vision-toolkit[openclip]"'


@pytest.fixture
def hub(theirs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda _: ["small"])
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {"hf_hub": "acme/tiny/"})
    with serving_hub() as hub:
        weights = {name: value.contiguous() for name, value in theirs.state_dict().items()}
        hub.files = {"README.md": b"---\nlicense: mit\n---\n", "open_clip_model.safetensors": save(weights)}
        template = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield hub


def test_published_weights(theirs: Any, hub: Hub) -> None:
    assert Named.of(f"{TINY}:small").repository.name == "acme/tiny"
    model = zero_shot(IMAGES, model=f"{TINY}:small", weights="pretrained")
    assert model.provenance is not None
    assert (model.provenance.licence, model.provenance.revision) == ("mit", COMMIT)
    assert torch.equal(model.backbone.conv1.weight, theirs.visual.conv1.weight)  # type: ignore[union-attr]
    hub.asked.clear()
    with pytest.raises(LicenceError):
        zero_shot(IMAGES, model=f"{TINY}:small", weights="pretrained", licences=("apache-2.0",))
    assert not [request for request in hub.asked if "safetensors" in request]


RECIPE = """
[data]
name = "cifar10"
valid_share = 0.2

[model]
name = "openclip"
model = "{model}"
weights = "{weights}"

[train]
epochs = 1
batch = 8
device = "cpu"
precision = "fp32"

[train.optimizer]
name = "sgd"
lr = 0.01
"""


def test_a_ladder_has_a_step_without_training(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    root = tiny.write_images(tmp_path / "images")
    recipe = tiny.write_recipe(tmp_path, root, text=RECIPE.format(model=TINY, weights=file))
    assert main(["ladder", str(recipe), "--until", "zero-shot"]) == EXIT_DONE
    assert "step 2 of 2: no training, classes known by their names" in capsys.readouterr().out
    step = tiny.only_run(Path("runs")) / "zero-shot"
    spec = replace(IMAGES, classes=tiny.CLASSES)
    model = zero_shot(spec, model=TINY, weights=file).eval()
    assert model.zero_shot
    network = Network(model, spec)
    predicted = {}
    for path in sorted((root / "test").rglob("*.png")):
        pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
        with torch.no_grad():
            predicted[f"test/{path.parent.name}/{path.name}"] = tiny.CLASSES[int(network(pixels[None]).argmax())]
    rows = csv.DictReader((step / "predictions.csv").read_text(encoding="utf-8").splitlines())
    assert {row["id"]: row["prediction"] for row in rows} == predicted


@pytest.mark.parametrize(("name", "millions"), [("ViT-B-32", 87.85), ("RN50", 38.32)])
@pytest.mark.usefixtures("undrawn")
def test_the_published_number_of_parameters(name: str, millions: float) -> None:
    """Of the image encoder, as open_clip's docs/model_profile.csv has it."""
    visual: Any = open_clip.create_model(name, load_weights=False).visual
    assert sum(one.numel() for one in visual.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_random_weights_know_no_names() -> None:
    assert not zero_shot(IMAGES, model=TINY).zero_shot
