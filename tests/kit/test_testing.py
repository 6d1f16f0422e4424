"""The conformance kit: each rule finds what breaks it, sound components pass, and reports help."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.broken_components import BROKEN, SETS, SOUND, SPEC, Broken, Soft, SoftSets, sound_dataset
from tests.inner_pytest import inner_pytest
from tests.installed import install
from toolkit.api.contracts import Augmentation, Batch, Data, DataSpec, InputDesign, Model
from toolkit.api.errors import UsageError
from toolkit.data.videos import VideoFiles
from toolkit.kit.testing import Case, conformance, examine, image_folders, rules, video_folders
from toolkit.kit.testing.case import Kind
from toolkit.kit.testing.examination import failure
from toolkit.recipe.kinds import KINDS

test_sound_components = conformance(*SOUND)


def broken_by(kind: str, rule: str) -> Broken:
    (found,) = [one for one in BROKEN if (one.case.kind, one.rule) == (kind, rule)]
    return found


@pytest.mark.parametrize(("kind", "rule"), [(kind, rule.name) for kind in KINDS for rule in rules(kind)])
def test_each_rule_finds_what_breaks_it_and_no_other_does(
    kind: str, rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    broken = broken_by(kind, rule)
    found = {one.rule.name: one for one in examine(broken.case, slow=rule in {"onnx", "processes"})}
    if found[rule].skipped == "there is no CUDA device here":
        pytest.skip("there is no CUDA device here")
    assert found[rule].what, found[rule].skipped
    asked = {name for name, one in found.items() if not one.skipped}
    assert {name for name, one in found.items() if one.what} == {rule, *broken.also & asked}


def test_every_counter_example_breaks_a_rule_that_exists() -> None:
    assert {(one.case.kind, one.rule) for one in BROKEN} == {
        (kind, rule.name) for kind in KINDS for rule in rules(kind)
    }


def test_a_case_may_be_of_every_kind() -> None:
    assert get_args(Kind) == tuple(KINDS)


def test_an_augmentation_that_expects_a_generator_reads_what_the_core_gives() -> None:
    def old(spec: DataSpec) -> Callable[..., Batch]:
        """Noise."""

        def changed(batch: Batch, rng: torch.Generator) -> Batch:
            return replace(batch, pixels=torch.randint(0, 9, batch.pixels.shape, dtype=torch.uint8, generator=rng))

        return changed

    (finding,) = examine(Case("augmentation", old), only=["pixels"])
    assert str(finding.what).startswith(
        "raised PluginError: expected an augmentation (batch: Batch, draws: Draws), "
        "got (batch: Batch, rng: torch.Generator) -> Batch"
    )


# What rules share


@pytest.fixture
def counted() -> tuple[Case, list[Path]]:
    """A dataset in a folder, and the roots that it was built for."""
    roots: list[Path] = []

    def noise(root: Path) -> Data:
        """Noise, drawn by code."""
        roots.append(root)
        return sound_dataset(None)

    return Case("dataset", noise, root=image_folders), roots


READING = ("items", "pixels", "disjoint", "balance")


def test_rules_that_only_read_share_the_data_whose_folder_goes_with_the_last(
    counted: tuple[Case, list[Path]],
) -> None:
    case, roots = counted
    assert [one.what for one in examine(case, only=READING)] == [None] * len(READING)
    assert len(roots) == 1
    assert not roots[0].exists()
    list(examine(case, only=["repeatable"]))
    assert len(roots) == 3


def test_the_tests_of_a_case_share_it_too(counted: tuple[Case, list[Path]]) -> None:
    case, roots = counted
    test = conformance(case, only=READING)
    (mark,) = test.pytestmark  # type: ignore[attr-defined]
    for number, rule in mark.args[1]:
        test(number, rule)
    assert len(roots) == 1


# Reports


def test_a_failing_test_names_component_contract_finding_and_documentation(tmp_path: Path) -> None:
    (case,) = [one.case for one in BROKEN if one.rule == "reference"]
    (finding,) = examine(case, only=["reference"])
    shown = failure(finding, "metric of Acme")
    assert shown is not None
    first, contract, seen, where = shown.splitlines()
    assert first == "metric of Acme: reference"
    assert contract.endswith(finding.rule.contract)
    assert "accuracy with all classes is 63.5" in seen
    assert where == "  see docs/reference/rules.md#metric-reference"


def test_what_a_component_raises_is_reported_with_its_place() -> None:
    (case,) = [one.case for one in BROKEN if one.rule == "channels_last"]
    (finding,) = examine(case, only=["channels_last"])
    assert str(finding.what).startswith("raised RuntimeError: view size is not compatible")
    assert re.search(r"\(tests\.broken_components, line \d+\)$", str(finding.what))


@pytest.mark.parametrize("leaves", [SystemExit, GeneratorExit, BaseException, MemoryError])
def test_a_component_that_leaves_does_not_end_the_examination(leaves: type[BaseException]) -> None:
    def leaving(spec: DataSpec) -> None:
        """Leaves."""
        raise leaves("at once")

    found = {one.rule.name: one for one in examine(Case("metric", leaving))}
    assert found.pop("arguments").what is None
    assert found.pop("device").skipped or torch.cuda.is_available()
    assert all(f"raised {leaves.__name__}: at once" in str(one.what) for one in found.values())


def test_an_interrupt_interrupts() -> None:
    def interrupted(spec: DataSpec) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(examine(Case("metric", interrupted)))


def test_an_excuse_is_reported_instead_of_a_verdict() -> None:
    (broken,) = [one.case for one in BROKEN if one.rule == "reference"]
    (finding,) = examine(replace(broken, excused={"reference": "we count in percent"}), only=["reference"])
    assert (finding.what, finding.skipped) == (None, "we count in percent")


@pytest.mark.parametrize(
    ("case", "only", "message"),
    [
        (Case("modle", "cnn"), None, 'there are no rules for the kind "modle"'),  # type: ignore[arg-type]
        (Case("metric", "acuracy"), None, 'Case: factory: unknown metric "acuracy"; did you mean "accuracy"?'),
        (Case("metric", "accuracy"), ["batchs"], 'metrics have no rule "batchs"; did you mean "batches"?'),
        (Case("metric", "accuracy", excused={"sklearn": "no"}), None, 'metrics have no rule "sklearn"'),
    ],
)
def test_a_case_that_is_wrong_is_reported(case: Case, only: list[str] | None, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        list(examine(case, only=only))
    assert caught.value.message == message
    assert caught.value.next_step


def test_arguments_that_are_wrong_are_reported() -> None:
    with pytest.raises(UsageError, match=r"args\.k: "):
        list(examine(Case("metric", "top_k", {"k": "five"})))


def test_a_component_that_cannot_be_imported_breaks_every_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = "from toolkit import hookimpl\n@hookimpl\ndef toolkit_metrics(): return {'lost': 'acme_gone:lost'}\n"
    install(tmp_path, "acme-lost", {"acme_lost": hook}, {"main": "acme_lost"})
    monkeypatch.syspath_prepend(str(tmp_path))
    found = list(examine(Case("metric", "lost")))
    assert len(found) == len(rules("metric"))
    shown = [str(one.what) for one in found if not one.skipped]
    assert all("acme-lost[main] 1.0: cannot import acme_gone:lost" in text for text in shown)


# What it leaves alone


def test_global_generators_are_left_as_they_were() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    list(examine(Case("model", "cnn", {"widths": [4]}, spec=SPEC), slow=False))
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_importing_the_kit_loads_nothing_heavy() -> None:
    code = "import sys, toolkit.kit.testing; print(*{m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pytest", "pydantic", "av", "PIL"} & set(done.stdout.split())


# Defaults


def test_a_model_is_tried_small_and_then_as_it_is_usual() -> None:
    def picky(spec: DataSpec) -> nn.Module:
        """Of 224 pixels."""
        if spec.size < 224:
            raise ValueError("size: must be 224")
        return nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(3 * 49, len(spec.classes)))

    (finding,) = examine(Case("model", picky), only=["logits"])
    assert finding.what is None


def test_a_model_of_clips_is_tried_with_what_it_was_designed_for() -> None:
    seen = set()

    def of_clips(spec: DataSpec) -> nn.Module:
        """Of clips."""
        seen.add((spec.frames, spec.size))
        return nn.Sequential(nn.Flatten(2), nn.Linear(3 * spec.size**2, len(spec.classes)), Mean())

    offered = Model(of_clips, takes=InputDesign(frames=5, rate=2, size=112, stored=128))
    assert [one.what for one in examine(Case("model", offered), only=["logits", "takes"])] == [None, None]
    assert seen == {(5, 64)}


class Mean(nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return logits.mean(dim=1)


def test_a_dataset_without_a_sample_is_asked_for_a_root() -> None:
    found = {one.rule.name: one for one in examine(Case("dataset", "video_folder"), slow=False)}
    assert "give the Case a root" in str(found["items"].skipped)
    assert found["missing"].skipped is None


def test_a_task_is_asked_with_targets_of_its_form() -> None:
    seen = set()

    def of_sets(spec: DataSpec) -> SoftSets:
        """Sigmoids."""
        seen.add(spec.targets)
        if spec.targets != "set":
            raise ValueError("of_sets: takes sets of classes")
        return SoftSets(len(spec.classes))

    assert {one.what for one in examine(Case("task", of_sets), slow=False)} == {None}
    assert seen == {"index", "set"}


def test_a_teacher_in_training_mode_is_found() -> None:
    def distilled(spec: DataSpec) -> Soft:
        """Softmax, with a teacher that drops."""
        objective = Soft(len(spec.classes))
        objective.teacher.append(nn.Dropout(0.0)).train()
        objective.teacher[1].eval()
        return objective

    (finding,) = examine(Case("task", distilled), only=["owned"])
    assert finding.what == "teacher is frozen, and a Dropout in it is in training mode"


class StrictF1:
    """F1 of each class, which counts as present from a probability of 0.9 on."""

    def __init__(self) -> None:
        self.taken = [(torch.empty(0, 4), torch.empty(0, 4))]

    def update(self, logits: Tensor, targets: Tensor) -> None:
        self.taken.append((logits.detach().clone(), targets.clone()))

    def compute(self) -> dict[str, list[float]]:
        logits, targets = (torch.cat(column) for column in zip(*self.taken, strict=True))
        present = (logits >= 2.2).float()
        return {"f1_per_class": (2 * (present * targets).sum(0) / (present + targets).sum(0)).tolist()}


def test_mixed_sets_are_no_probabilities_but_stay_in_range() -> None:
    def findings(factor: float) -> set[str]:
        def scaled(spec: DataSpec) -> Augmentation:
            """Targets times a number."""
            return lambda batch, draws: replace(batch, targets=batch.targets * factor)

        return {one.rule.name for one in examine(Case("augmentation", scaled, spec=SETS)) if one.what}

    assert "targets" not in findings(0.5)
    assert "targets" in findings(1.5)


def test_scores_of_sets_are_compared_with_scikit_learns() -> None:
    def strict_f1(spec: DataSpec) -> StrictF1:
        """`f1_per_class`: F1 of each class."""
        return StrictF1()

    found = {one.rule.name: one.what for one in examine(Case("metric", strict_f1, spec=SETS))}
    assert "f1_per_class with all classes is [" in str(found.pop("reference"))
    assert found == dict.fromkeys(found)


# In pytest

FIXTURES = """
from pathlib import Path

from toolkit.kit.testing import Case, conformance

test_metric = conformance(Case("metric", "accuracy"), Case("metric", "top_k", {"k": 2}), only=["scores", "bounds"])


def test_fixtures(image_class_folders, video_class_folders, image_spec, clip_spec):
    assert len(list(image_class_folders.rglob("*.png"))) == 24
    assert len(list(video_class_folders.rglob("*.mp4"))) == 12
    assert (image_spec.size, clip_spec.frames) == (32, 4)
"""


def test_the_pytest_plugin_gives_fixtures_and_each_case_its_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-v")  # as developers have it
    (tmp_path / "test_acme.py").write_text(FIXTURES, encoding="utf-8")
    done = inner_pytest(tmp_path, "-v", "-p", "toolkit.kit.testing.pytest_plugin")
    assert done.returncode == 0, done.stdout
    for name in ("accuracy-scores", "accuracy-bounds", "top_k-scores", "top_k-bounds"):
        assert f"test_metric[{name}] PASSED" in done.stdout


def test_the_pytest_plugin_is_light() -> None:
    code = "import sys, toolkit.kit.testing.pytest_plugin; print(*{m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pydantic", "av", "PIL"} & set(done.stdout.split())


def test_samples_are_of_the_classes_and_numbers_that_are_asked_for(tmp_path: Path) -> None:
    images = image_folders(tmp_path / "images", classes=("a", "b", "c"), per_class=2)
    videos = video_folders(tmp_path / "videos", classes=("a",), per_class=1, frames=7)
    assert sorted(path.parent.name for path in images.rglob("*.png")) == ["a", "a", "b", "b", "c", "c"]
    (video,) = videos.rglob("*.mp4")
    split = VideoFiles(("a/00.mp4",), (0,), ("key",), (video,))
    assert len(split.times(0)) == 7
    assert next(split.read(0, [3])).shape == (3, 48, 64)
