"""Each family of models on its whole way: trained, stopped and resumed, exported, held by the gate, quantized."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import tiny
from tests.tiny_openclip import add_tiny
from tests.tiny_transformers import kept_source
from toolkit.api.contracts import EpochRecord
from toolkit.api.errors import EXIT_DONE
from toolkit.cli.main import main
from toolkit.serving.bundle import Bundle, read_manifest

CLOSE = 1e-4


@dataclass(frozen=True)
class Family:
    model: str
    size: int = 32
    frames: int | None = None

    @property
    def recipe(self) -> str:
        data = 'name = "cifar10"\nsample_images = 60' if self.frames is None else 'name = "har"\nsample_clips = 4'
        clip = "" if self.frames is None else f"[clip]\nframes = {self.frames}\nrate = 4\n"
        return (
            f"[data]\n{data}\n[input]\nsize = {self.size}\n{clip}[model]\n{self.model}\n"
            '[train]\nepochs = 2\nbatch = 8\nprecision = "fp32"\ndevice = "cpu"\n'
            '[train.optimizer]\nname = "adamw"\nlr = 1e-3\nlayer_decay = 0.75\ndecay_norms_and_biases = false\n'
        )


FAMILIES = {
    "torchvision images": Family('name = "shufflenet_v2_x0_5"'),
    "torchvision video": Family('name = "mc3_18"', frames=2),
    "pytorchvideo": Family('name = "x3d_xs"', frames=4),
    "timm": Family('name = "timm"\nmodel = "test_vit"', size=64),
    "transformers video": Family(f'name = "transformers"\nsource = "{kept_source("videomae")}"', frames=4),
    "transformers images": Family(f'name = "transformers"\nsource = "{kept_source("dinov2")}"', size=28),
    "openclip": Family(f'name = "openclip"\nmodel = "{add_tiny()}"\nfreeze = false'),
}


def weights(run: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(run / "last.pt", weights_only=True)["state"]["network"]
    return found


@pytest.mark.long  # tracing, quantizing and the gate take 10 to 60 s a family
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_trained_resumed_exported_and_quantized(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.runs.test_resume import resumed, signalling

    recipe = tiny.write_recipe(tmp_path, text=FAMILIES[name].recipe)
    assert tiny.run(recipe, tmp_path / "whole") == EXIT_DONE
    with monkeypatch.context() as patch:
        patch.setattr("toolkit.runs.loop.fit", signalling(EpochRecord, 1, 15))
        assert tiny.run(recipe, tmp_path / "stopped") != EXIT_DONE
    assert resumed(capsys) == EXIT_DONE
    whole, stopped = (tiny.only_run(tmp_path / folder) for folder in ("whole", "stopped"))
    expected, found = weights(whole), weights(stopped)
    assert all(torch.equal(found[key], value) for key, value in expected.items())

    words = ["export", str(whole), "--exports", str(tmp_path), "--set", 'export.precision=["fp32","int8"]']
    assert main([*words, "--set", "export.int8.max_drop=100"]) == EXIT_DONE, capsys.readouterr().err
    manifest = read_manifest(tmp_path / "tiny")
    assert max(manifest.gate["fp32"][side]["largest_difference"] for side in ("squares", "raw_files")) < CLOSE
    assert {"fp32", "int8", "torch"} <= manifest.scores.keys()
    assert manifest.gate["int8"]["squares"]["largest_difference"] > 0  # measured, and shown by export

    family, bundle = FAMILIES[name], Bundle.load(tmp_path / "tiny", device="cpu", precision="fp32")
    clip = () if family.frames is None else (family.frames,)
    frames = np.random.default_rng(0).integers(0, 256, (3, *clip, family.size, family.size, 3), dtype=np.uint8)
    alone = np.concatenate([bundle.predict(frames[item : item + 1]).probabilities for item in range(3)])
    for batch in (2, 3):
        np.testing.assert_allclose(bundle.predict(frames[:batch]).probabilities, alone[:batch], atol=CLOSE)
