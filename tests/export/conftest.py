"""Runs, a bundle and graphs that the tests of several modules export and use, each made once."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from tests.export.models import SQUARES, WHOLE
from toolkit.api.clips import Clip
from toolkit.api.contracts import DataSpec
from toolkit.api.errors import EXIT_DONE
from toolkit.cli.main import main
from toolkit.export.graph import to_onnx
from toolkit.training.network import Network
from toolkit_tasks.classification import Classification

RECIPE = """
[data]
name = "cifar10"
sample_images = 400
[model]
name = "cnn"
widths = [16, 32, 64]
[train]
epochs = 1
batch = 64
precision = "fp32"
[train.optimizer]
name = "adam"
lr = 0.003
"""


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the sample, just good enough for its answers to differ."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.toml").write_text(RECIPE)
    assert main(["run", str(folder / "tiny.toml"), "--runs", str(folder)]) == EXIT_DONE
    (made,) = (folder / "tiny").iterdir()
    return made


@pytest.fixture(scope="session")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    exports = tmp_path_factory.mktemp("exports")
    words = ["export", str(run), "--exports", str(exports), "--set", 'export.precision=["fp32","fp16","int8"]']
    assert main([*words, "--set", "export.int8.max_drop=5"]) == EXIT_DONE
    return exports / "tiny"


@pytest.fixture(scope="session")
def graph() -> tuple[Network, DataSpec, onnx.ModelProto]:
    spec = DataSpec(classes=("dark", "bright", "other"), size=16, stored=20)
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    norm.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]
    layers = nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 49, 3)
    network = Network(nn.Sequential(*layers), spec).eval()
    return network, spec, to_onnx(network, Classification(0.0, None).logits, spec, {"classes": "[]"})


CLIP_RECIPE = """
[data]
name = "har"
sample_clips = 6
[clip]
frames = 4
rate = 6
clips = 2
crops = {crops}
average = "{average}"
[model]
name = "cnn"
widths = [8, 8]
[train]
epochs = 2
batch = 16
device = "cpu"
precision = "fp32"
[train.optimizer]
name = "adam"
lr = 0.01
"""


@pytest.fixture(scope="session")
def clip_graph() -> tuple[Network, DataSpec, onnx.ModelProto]:
    clip = Clip(frames=4)
    spec = DataSpec(classes=("dark", "bright", "other"), size=16, stored=20, clip=clip)
    torch.manual_seed(0)
    layers = nn.Conv3d(3, 16, (1, 3, 3)), nn.BatchNorm3d(16), nn.ReLU(), nn.Conv3d(16, 16, 3), nn.BatchNorm3d(16)
    network = Network(_TimeSecond(nn.Sequential(*layers, nn.ReLU(), nn.Conv3d(16, 16, (1, 3, 3)))), spec).eval()
    return network, spec, to_onnx(network, Classification(0.0, None).logits, spec, {"classes": "[]"})


class _TimeSecond(nn.Module):
    """Convolutions over time, as models of clips have them, and a pooling that wants to know what it pools."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers
        self.head = nn.Linear(16, 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features = torch.nn.functional.adaptive_avg_pool3d(self.layers(pixels.movedim(1, 2)), 1)
        logits: torch.Tensor = self.head(features.view(features.shape[0], -1))
        return logits


@pytest.fixture(scope="session", params=[WHOLE, SQUARES], ids=["whole", "squares"])
def clip_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the sample's clips."""
    folder = tmp_path_factory.mktemp("clips")
    crops, average = request.param
    (folder / "tiny.toml").write_text(CLIP_RECIPE.format(crops=crops, average=average))
    assert main(["run", str(folder / "tiny.toml"), "--runs", str(folder)]) == EXIT_DONE
    (made,) = (folder / "tiny").iterdir()
    return made
