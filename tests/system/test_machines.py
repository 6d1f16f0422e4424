"""Ranks on several machines, started by torchrun. Network namespaces stand for machines."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.test_launch import SMALL, first_epoch, ranks_of, rest, started
from tests.tiny import overridden
from toolkit.cli.main import main

pytestmark = pytest.mark.long  # several processes load torch
DEADLINE = 300
"""Seconds in which jobs must end: far beyond what it takes."""


@dataclass(frozen=True)
class Machine:
    """A network namespace with one end of a cable."""

    name: str
    cable: str
    address: str

    def cut(self) -> None:
        ip("-n", self.name, "link", "set", self.cable, "down")

    def torchrun(self, leader: str) -> list[str]:
        """The command that starts a rank here, of two machines."""
        # namespaces share a host name, which means none of their addresses
        words = ["env", f"GLOO_SOCKET_IFNAME={self.cable}", *torchrun("--nnodes", "2", "--nproc-per-node", "1")]
        meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{leader}:29500", "--local-addr", self.address]
        host = ["--rdzv-conf", f"is_host={self.address == leader}"]
        return ["ip", "netns", "exec", self.name, *words, *meeting, *host]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def torchrun(*words: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", *words]


def toolkit(*words: str, epochs: int, seconds: int = 60) -> list[str]:
    overrides = [*SMALL, f"train.epochs={epochs}", f"train.rank_timeout={seconds}"]
    return ["-m", "toolkit", *words, *overridden(overrides)]


@pytest.fixture
def machines() -> Iterator[tuple[Machine, Machine]]:
    if shutil.which("ip") is None:
        pytest.skip("ip (iproute2) is not installed")
    one, other = (f"tk{os.getpid()}{side}" for side in "ab")
    with ExitStack() as made:
        try:
            for name in (one, other):
                ip("netns", "add", name)
                made.callback(ip, "netns", "del", name)
            ip("link", "add", one, "netns", one, "type", "veth", "peer", "name", other, "netns", other)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
        found = Machine(one, one, "10.123.0.1"), Machine(other, other, "10.123.0.2")
        for machine in found:
            # as the guide has it: by default a connection is given up after a quarter of an hour
            patience = "echo 5 > /proc/sys/net/ipv4/tcp_retries2"
            ip("netns", "exec", machine.name, "sh", "-c", patience)
            ip("-n", machine.name, "addr", "add", f"{machine.address}/24", "dev", machine.cable)
            for interface in ("lo", machine.cable):
                ip("-n", machine.name, "link", "set", interface, "up")
        yield found


def test_a_link_is_cut_both_machines_end_with_the_cause_and_the_run_goes_on(
    machines: tuple[Machine, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = toolkit("run", "cifar10_cnn", epochs=60, seconds=10)
    first, second = machines
    with (
        started([*first.torchrun(first.address), *command], tmp_path) as one,
        started([*second.torchrun(first.address), *command], tmp_path) as other,
    ):
        first_epoch(one)
        first.cut()
        cut = time.monotonic()
        texts = []
        for process in (one, other):
            texts.append(process.communicate(timeout=DEADLINE)[0])
            print(f"the link was cut {time.monotonic() - cut:.0f} s ago: {texts[-1]}")
    assert all(process.returncode for process in (one, other))
    (run,) = (tmp_path / "runs" / "cifar10_cnn").iterdir()
    resume = f"next:  python -m toolkit run --resume runs/cifar10_cnn/{run.name}\n"
    for text in texts:
        assert "lost the others: " in text
        assert resume in text
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--resume", str(run)]) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_ranks_that_the_launcher_starts_again_go_on_with_their_run(tmp_path: Path) -> None:
    words = torchrun("--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    with started([*words, *toolkit("run", "cifar10_cnn", epochs=20)], tmp_path) as job:
        before = first_epoch(job)
        os.kill(ranks_of(job)[1], signal.SIGKILL)
        text, code = rest(job)
    assert code == 0, text
    assert "started again by the launcher (1 restart): the run continues" in text
    (run,) = (tmp_path / "runs" / "cifar10_cnn").iterdir()
    assert before.count(f"run runs/cifar10_cnn/{run.name}") + text.count(f"run runs/cifar10_cnn/{run.name}") == 2
    epochs = [json.loads(line)["epoch"] for line in (run / "records.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, 21))
    assert (run / "report.html").is_file()
