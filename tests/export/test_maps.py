"""Heat maps that a graph gives: those of `explain`, for the networks that can have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tests import toy_bundle
from tests.export.models import noise
from tests.training.test_explain import CLIPS, OBJECTIVE, SPEC, Colours, Framewise, InTime
from toolkit.api.contracts import DataSpec
from toolkit.api.errors import EXIT_DONE, EXIT_PARITY, UsageError
from toolkit.cli.main import main
from toolkit.export import maps
from toolkit.export.graph import to_onnx
from toolkit.export.half import to_fp16
from toolkit.export.integers import to_int8
from toolkit.serving.bundle import Bundle, read_manifest
from toolkit.training.explain import explain, linear_map
from toolkit.training.network import Network


class Deep(nn.Module):
    """Convolutions with features of their own, then a mean and a linear layer."""

    def __init__(self, head: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU())
        self.head = nn.Linear(8, 3) if head is None else head

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(pixels).mean((2, 3)))
        return logits


class Pathway(nn.Module):
    """Convolutions over time."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv3d(6, 8, 3, padding=1))
        self.head = nn.Linear(8, 3)

    def forward(self, clips: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(clips.movedim(1, 2)).mean((2, 3, 4)))
        return logits


def network(model: nn.Module, spec: DataSpec = SPEC) -> Network:
    return Network(model, spec).eval()


def pictures(spec: DataSpec = SPEC, count: int = 3) -> np.ndarray:
    clip = () if spec.frames is None else (spec.frames,)
    return noise(count, *clip, spec.stored_size, spec.stored_size, 3)


@pytest.mark.parametrize(
    ("model", "spec"),
    [(Deep, SPEC), (Colours, SPEC), (Pathway, CLIPS), (lambda: Framewise(Deep()), CLIPS)],
    ids=["deep", "colours", "pathway", "framewise"],
)
def test_the_graph_gives_the_maps_of_explain(model: Any, spec: DataSpec) -> None:
    torch.manual_seed(0)
    trained, frames = network(model(), spec), pictures(spec)
    seen = torch.from_numpy(frames).movedim(-1, -3)
    found = linear_map(trained, OBJECTIVE, seen[:1])
    assert found is not None
    graph = to_onnx(trained, OBJECTIVE.logits, spec, {"classes": "[]"}, maps=found)
    assert [value.name for value in graph.graph.output] == ["probabilities", "maps"]
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    given = torch.from_numpy(session.run(["maps"], {"frames": frames})[0])
    assert given.shape == (3, 3, *found.extent)
    for number in range(3):
        expected = explain(trained, OBJECTIVE, seen, [number] * 3)
        assert expected is not None
        mode = "bilinear" if spec.frames is None else "trilinear"
        resized = nn.functional.interpolate(given[:, number, None], size=expected.values.shape[1:], mode=mode)[:, 0]
        if len(found.extent) == 3 and found.extent[0] == spec.frames:  # of single frames, each is resized by itself
            flat = nn.functional.interpolate(given[:, number], size=expected.values.shape[2:], mode="bilinear")
            resized = flat
        resized = resized.relu()
        scaled = resized / resized.flatten(1).amax(1).clamp_min(1e-12).view(-1, *[1] * (resized.ndim - 1))
        torch.testing.assert_close(scaled, expected.values, atol=1e-4, rtol=1e-4)


def test_reduced_precision_has_nearly_the_same_maps() -> None:
    torch.manual_seed(0)
    trained, frames = network(Deep()), pictures()
    found = linear_map(trained, OBJECTIVE, torch.from_numpy(frames[:1]).movedim(-1, -3))
    graph = to_onnx(trained, OBJECTIVE.logits, SPEC, {"classes": "[]"}, maps=found)

    def mapped(model: onnx.ModelProto) -> np.ndarray:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        given: np.ndarray = session.run(["maps"], {"frames": frames})[0]
        return given

    exact = mapped(graph)
    np.testing.assert_allclose(mapped(to_fp16(graph)), exact, atol=0.01 * exact.max())
    np.testing.assert_allclose(mapped(to_int8(graph, [frames])), exact, atol=0.1 * exact.max())


@pytest.mark.parametrize(
    ("model", "spec"),
    [
        (lambda: Deep(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))), SPEC),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3)), SPEC),
        (InTime, CLIPS),
    ],
    ids=["a layer that is not linear", "no feature maps", "two pathways"],
)
def test_what_depends_on_the_input_has_no_such_maps(model: Any, spec: DataSpec) -> None:
    torch.manual_seed(0)
    assert linear_map(network(model(), spec), OBJECTIVE, torch.from_numpy(pictures(spec, 1)).movedim(-1, -3)) is None


def test_an_export_that_asks_for_maps_of_such_a_network_is_refused() -> None:
    class Asked:
        spec, objective, device = SPEC, OBJECTIVE, torch.device("cpu")
        network = network(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3)))

        class recipe:  # noqa: N801
            class model:  # noqa: N801
                name = "flat"

    with pytest.raises(UsageError, match=r"export\.maps: the model flat cannot give heat maps") as caught:
        maps.found_map(Asked)  # type: ignore[arg-type]
    assert "python -m toolkit explain RUN INPUT" in str(caught.value.next_step)


@pytest.mark.slow
def test_an_exported_bundle_has_the_maps_that_were_compared(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(run), "--exports", str(tmp_path), "--set", "export.maps=true"]
    assert main(words) == EXIT_DONE
    manifest = read_manifest(tmp_path / "tiny")
    assert manifest.graph_outputs == ("probabilities", "maps")
    assert manifest.maps is not None
    assert manifest.gate["fp32"]["maps"]["mean_difference"] < 1e-4
    bundle = Bundle.load(tmp_path / "tiny", device="cpu")
    found = bundle.maps(noise(5, 50, 40, 3))
    assert found.shape == (5, len(manifest.classes), *manifest.maps.extent)
    assert found.min() == 0
    assert set(found.max((2, 3)).flatten().tolist()) <= {0.0, 1.0}
    monkeypatch.setattr(maps, "LIMITS", {"fp32": -1.0})
    assert main(words) == EXIT_PARITY
    assert "heat maps of the exported model differ from those of the trained one by" in capsys.readouterr().err


def test_a_bundle_without_maps_says_how_to_have_them(tmp_path: Path) -> None:
    bundle = Bundle.load(toy_bundle.write(tmp_path / "toy"), device="cpu")
    with pytest.raises(UsageError, match="has no heat maps") as caught:
        bundle.maps(noise(1, 16, 16, 3))
    assert caught.value.next_step == "export the run again with: --set export.maps=true"


@pytest.mark.parametrize(
    ("fit", "size", "seen"),
    [
        ("crop", (20, 40), (0.375, 0.25, 0.25, 0.5)),
        ("crop", (40, 20), (0.25, 0.375, 0.5, 0.25)),
        ("stretch", (20, 40), (0.25, 0.25, 0.5, 0.5)),
    ],
)
def test_what_a_map_covers(tmp_path: Path, fit: Any, size: tuple[int, int], seen: tuple[float, ...]) -> None:
    bundle = Bundle.load(toy_bundle.write(tmp_path / "toy", fit=fit), device="cpu")
    assert bundle.seen(*size) == seen
