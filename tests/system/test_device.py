"""Devices and precisions: what is chosen, and what is refused before anything slow."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from toolkit.api.errors import EXIT_USAGE, RunFailed, UsageError
from toolkit.system.device import (
    at_least_float32,
    autocast,
    choose_device,
    choose_precision,
    describe,
    enough_memory,
    make_deterministic,
    use_full_float32,
    use_threads,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """As many GPUs as the test's parameter says; none of them is touched."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)


@pytest.mark.parametrize(
    ("gpus", "name", "chosen"),
    [
        (0, "auto", "cpu"),
        (2, "auto", "cuda"),
        (2, "cpu", "cpu"),
        (1, "cuda", "cuda"),
        (1, "cuda:0", "cuda:0"),
        (2, "cuda:1", "cuda:1"),
    ],
    indirect=["gpus"],
)
@pytest.mark.usefixtures("gpus")
def test_the_device_asked_for_is_chosen(name: str, chosen: str) -> None:
    assert choose_device(name) == torch.device(chosen)


@pytest.mark.parametrize(
    ("gpus", "name", "error"),
    [
        (0, "cuda", 'train.device: "cuda" asked for, 0 CUDA devices found'),
        (1, "cuda:1", 'train.device: "cuda:1" asked for, 1 CUDA devices found'),
    ],
    indirect=["gpus"],
)
@pytest.mark.usefixtures("gpus")
def test_a_device_that_is_not_there_is_refused(name: str, error: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose_device(name)
    assert caught.value.message == error
    assert caught.value.exit_code == EXIT_USAGE
    assert "auto" in (caught.value.next_step or "")


@pytest.mark.parametrize(("has", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_precision_is_bf16_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, has: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has and not including_emulation)
    assert choose_precision("auto", CPU) == precision
    assert choose_precision("auto", CUDA) == precision


def test_a_named_precision_is_kept_where_it_works() -> None:
    assert choose_precision("fp32", CPU) == "fp32"
    assert choose_precision("fp16", CUDA) == "fp16"
    with pytest.raises(UsageError, match="fp16 trains on CUDA only") as caught:
        choose_precision("fp16", CPU)
    assert caught.value.next_step == "use --set train.precision=bf16, or auto"


def test_a_run_goes_on_in_the_precision_it_began_in() -> None:
    assert choose_precision("auto", CPU, "bf16") == "bf16"
    assert choose_precision("bf16", CUDA, "fp32") == "fp32"
    with pytest.raises(UsageError, match="the run began in fp16, which trains on CUDA only") as caught:
        choose_precision("auto", CPU, "fp16")
    assert caught.value.next_step == "resume it where there is a CUDA device"


def test_autocast_computes_in_the_precision() -> None:
    layer, numbers = torch.nn.Linear(2, 2), torch.ones(1, 2)
    with autocast(CPU, "bf16"):
        assert layer(numbers).dtype == torch.bfloat16
    with autocast(CPU, "fp32"):
        assert layer(numbers).dtype == torch.float32
    assert layer.weight.dtype == torch.float32


def test_a_device_is_called_as_people_do() -> None:
    assert describe(CPU) == "1 CPU thread"


@pytest.fixture
def indeterminate() -> Iterator[None]:
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = benchmark


@pytest.mark.usefixtures("indeterminate")
def test_deterministic_is_asked_of_torch() -> None:
    torch.backends.cudnn.benchmark = True
    for _ in range(2):
        make_deterministic()
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
    for _ in range(2):
        make_deterministic(False)
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.benchmark


@pytest.mark.usefixtures("indeterminate")
def test_settings_of_torch_by_others_stay() -> None:
    torch.use_deterministic_algorithms(True)
    make_deterministic(False)
    assert torch.are_deterministic_algorithms_enabled()


def test_float32_is_in_full_until_that_is_taken_back() -> None:
    for wanted in (False, True, True, False, False):
        use_full_float32(wanted)
        assert torch.backends.cudnn.allow_tf32 is not wanted


def test_threads_are_those_asked_for_until_none_are() -> None:
    own = torch.get_num_threads()
    try:
        for count, found in ((None, own), (own + 2, own + 2), (own + 1, own + 1), (None, own), (None, own)):
            use_threads(count)
            assert torch.get_num_threads() == found
    finally:
        torch.set_num_threads(own)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such option")
def test_freed_memory_is_kept() -> None:
    """In a process of its own: blocks taken again and again fault in their pages once."""
    code = """
import resource, torch
from toolkit.system.device import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.zeros(64 << 20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
assert keep_freed_memory()
faults()
print(faults())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    given_back, kept = map(int, done.stdout.split())
    assert kept < given_back / 4


def test_memory_that_the_machine_lacks_names_what_takes_less() -> None:
    with pytest.raises(RunFailed) as caught, enough_memory():
        torch.empty(1 << 50, dtype=torch.uint8)
    asked = "1,125,899,906,842,624 bytes were asked for at once"
    assert caught.value.message == f"too little memory on this machine: {asked}"
    assert "--set train.accumulate=2" in str(caught.value.next_step)
    with pytest.raises(RunFailed, match=r"^too little memory on this machine: Unable to allocate"), enough_memory():
        np.empty(1 << 55, np.uint8)
    with pytest.raises(RunFailed, match=r"^too little memory on this machine$"), enough_memory():
        raise MemoryError
    with pytest.raises(RuntimeError, match="another"), enough_memory():
        raise RuntimeError("another")


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_fewer_bits_than_a_float32_are_filled_up(dtype: torch.dtype, expected: torch.dtype) -> None:
    values = torch.tensor([0.5, -3.0], dtype=dtype)
    found = at_least_float32(values)
    assert found.dtype == expected
    assert found.tolist() == [0.5, -3.0]
