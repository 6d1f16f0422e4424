"""Damaged and hostile checkpoints and weights files: each is refused by name, or used as it says.

`TOOLKIT_MUTATIONS=300` tries so many of each family.
"""

from __future__ import annotations

import io
import pickle
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests import tiny
from tests.hostile.damage import ODD, distort, replace_file, scramble
from tests.hostile.trials import MUTATIONS, Trial
from toolkit.api.errors import EXIT_DONE, EXIT_USAGE, WeightsError
from toolkit.runs.directory import RunDirectory
from toolkit.system.checkpoints import seal
from toolkit.transfer.weights import load_weights, read_weights


def odd_tensors() -> list[Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of nested and sparse tensors
        return [
            torch.zeros(0),
            torch.zeros(3, device="meta"),
            torch.full((8,), float("nan")),
            torch.ones(2, 2).to_sparse(),
            torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
            torch.ones(8, dtype=torch.complex64),
            torch.ones(8, dtype=torch.float8_e4m3fn),
            torch.ones(8, dtype=torch.bool),
            torch.ones(8, dtype=torch.float64),
            torch.ones(1).expand(1 << 40),
            torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        ]


def forged(content: Any, draw: Random) -> Any:
    """`content` with other values, some of them tensors, or other tensors of the same name."""
    distort(content, draw, values=(*ODD, *odd_tensors()))
    tensors = [(table, key) for table, key in _tables(content) if isinstance(table[key], Tensor) and _fits(table[key])]
    if tensors and draw.random() < 0.5:
        table, key = draw.choice(tensors)
        value = table[key]
        changes = [value.double, value.half, value.flatten, value.clone, value.bool, value.cfloat]
        table[key] = draw.choice(changes)()
    return content


def _tables(content: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield content, key
            yield from _tables(value)


def write(content: Any, path: Path, *, sealed: bool) -> None:
    archive = io.BytesIO()
    torch.save(content, archive)
    if sealed:
        seal(archive)
    path.write_bytes(archive.getvalue())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run without its figures."""
    folder = tmp_path_factory.mktemp("run")
    recipe = tiny.write_recipe(folder, tiny.write_images(folder / "images"))
    assert tiny.run(recipe, folder / "runs") == EXIT_DONE
    run = tiny.only_run(folder / "runs")
    shutil.rmtree(run / "figures")
    return RunDirectory(run)


def damage_a_file(path: Path, draw: Random) -> None:
    data = path.read_bytes()
    while (damaged := scramble(data, draw)) == data:
        pass
    path.write_bytes(damaged)


def forge_a_file(path: Path, draw: Random) -> None:
    content = torch.load(path, weights_only=True)
    write(forged(content, draw), path, sealed=draw.random() < 0.9)


def replace_a_file(path: Path, draw: Random) -> None:
    replace_file(path, draw, kinds=("fifo", "device", "dangling", "folder", "sparse", "socket", "loop", "empty"))


@pytest.mark.parametrize(
    ("damage", "may_work", "count"), [(damage_a_file, False, 6), (forge_a_file, True, 12), (replace_a_file, False, 8)]
)
def test_a_damaged_checkpoint_is_refused_by_name_or_works(
    damage: Callable[[Path, Random], None],
    may_work: bool,
    count: int,
    trial: Trial,
    finished: RunDirectory,
    tmp_path: Path,
) -> None:
    """The last one by `run --resume`, the best one by `evaluate`."""
    outcomes, wrong = Counter[int](), []
    for number in range(MUTATIONS or count):
        run = RunDirectory(tmp_path / f"run{number}")
        shutil.copytree(finished.path, run.path)
        run.scores.unlink()
        path, words = ((run.best, ["evaluate"]), (run.last, ["run", "--resume"]))[number % 2]
        damage(path, Random(number))
        outcome = trial(*words, run.path)
        faults = list(outcome.faults())
        if outcome.code not in ((EXIT_DONE, EXIT_USAGE) if may_work else (EXIT_USAGE,)):
            faults.append(f"ended with {outcome.code}")
        if outcome.code and path.name not in outcome.error:
            faults.append("did not name the checkpoint")
        wrong += [f"mutation {number}: {faults}\n{outcome}"] * bool(faults)
        outcomes[outcome.code] += 1
        shutil.rmtree(run.path)
    print(f"{damage.__name__}: {dict(outcomes)}")
    assert not wrong, "\n".join(wrong)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def write_weights(path: Path, draw: Random) -> None:
    """A weights file of one of the forms that people have, mostly with something wrong."""
    content: Any = dict(network().state_dict())
    if draw.random() < 0.9:
        content = forged(content, draw)
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    form = draw.randrange(5)
    if form == 0:
        path.write_bytes(pickle.dumps(draw.choice(ODD)))
    elif form == 1 and all(_is_plain(value) for value in tensors.values()):
        save_file({name: value.clone() for name, value in tensors.items()}, path)
    else:
        torch.save(draw.choice([content, {"state_dict": content}, {"model": content, "epoch": 3}]), path)
    if draw.random() < 0.3:
        damage_a_file(path, draw)


def _is_plain(value: Tensor) -> bool:
    if value.layout is not torch.strided or value.is_meta or value.is_quantized or value.is_nested:
        return False
    return _fits(value)


def _fits(value: Tensor) -> bool:
    """Whether memory holds it; an expanded tensor may be larger."""
    return value.layout is not torch.strided or value.is_nested or value.untyped_storage().nbytes() >= value.nbytes


def loaded(model: nn.Module, path: Path) -> tuple[WeightsError | None, list[str]]:
    try:
        return None, load_weights(model, read_weights(path), source=str(path))
    except WeightsError as error:
        return error, []


@pytest.mark.filterwarnings("ignore")  # torch warns of the tensors that are saved here
def test_a_damaged_weights_file_is_refused_or_used_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path, outcomes = tmp_path / "weights.pt", Counter[str]()
    for number in range(MUTATIONS or 60):
        write_weights(path, Random(number))
        model = network()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        refused, notes = loaded(model, path)
        after = model.state_dict()
        if refused:
            assert refused.message.startswith(str(path)), f"mutation {number}: {refused.message}"
            assert refused.next_step
            assert all(torch.equal(value, before[name]) for name, value in after.items())
        assert all(bool(torch.isfinite(value).all()) for value in after.values()), f"mutation {number}"
        outcomes["refused" if refused else "reported" if notes else "used"] += 1
    print(dict(outcomes))
    assert len(outcomes) > 1
