"""The recipes of published models: planned with the line of their header, and one of them run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from toolkit.api.contracts import DataSpec
from toolkit.build.plan import plan
from toolkit.cli.main import main
from toolkit.host.registry import discover
from toolkit.recipe.read import parse
from toolkit.recipe.shipped import shipped
from toolkit_vision.wide import wide_resnet

NAMES = (
    "cifar10_resnet18",
    "cifar10_vgg16",
    "cifar10_wrn28_10",
    "har_convnext_timm",
    "har_dinov2_probe",
    "har_mvit_v2_s",
    "har_openclip",
    "har_videomae_s",
    "har_vjepa2_l_probe",
)


def sample_settings(name: str) -> list[str]:
    """What the header gives for the built-in sample."""
    header = " ".join(line.lstrip("# ") for line in shipped()[name].read_text().split("\n\n")[0].splitlines())
    line = header.partition("On the built-in sample")[2]
    return [word for word in shlex.split(re.sub(r"^[^:]*:", "", line)) if word != "--set"]


@pytest.mark.parametrize("name", NAMES)
def test_the_header_says_how_to_run_it_on_the_sample(name: str) -> None:
    settings = sample_settings(name)
    planned = plan(parse(shipped()[name], settings), discover())
    assert planned.resolved.train.epochs == 1
    assert settings[0] == "model.weights=none" or name.startswith("cifar10")
    data = planned.data()
    assert data.spec.sample
    assert len(data.train) <= 400


def test_the_shipped_recipes_accept_no_licence_for_their_users() -> None:
    assert not [name for name in NAMES if "licences" in str(parse(shipped()[name]).tables["model"])]


def test_one_of_them_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    smaller = ["data.sample_images=8", "model.depth=10", "train.batch=16", "data.valid_share=0.2"]
    words = [word for one in (*sample_settings("cifar10_wrn28_10"), *smaller) for word in ("--set", one)]
    assert main(["run", "cifar10_wrn28_10", "--runs", str(tmp_path), *words]) == 0, capsys.readouterr().err
    assert next(tmp_path.glob("*/*/report.html")).is_file()


@pytest.mark.parametrize(("depth", "width", "millions"), [(28, 10, 36.5), (16, 8, 11.0), (40, 4, 8.9)])
def test_the_published_number_of_parameters(depth: int, width: int, millions: float) -> None:
    with torch.device("meta"):
        model = wide_resnet(DataSpec(tuple(map(str, range(10))), 32), depth=depth, width=width)
    assert sum(one.numel() for one in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_a_depth_that_there_is_not() -> None:
    with pytest.raises(ValueError, match=r"^depth: must be 4 more than a multiple of 6, got 20$"):
        wide_resnet(DataSpec(("a", "b"), 32), depth=20)
