"""Shards on several ranks, from a server whose connections break: killed and resumed, a run ends with the same bits."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.ranks import launched
from tests.shard_files import write_tars
from tests.shard_servers import http
from tests.system.test_launch import first_epoch, last, ranks_of, rest, started
from toolkit.api.errors import EXIT_FAILED
from toolkit.cli.main import main

RECIPE = """
[data]
name = "shards"
url = "{url}/train"
index = "{index}"
valid_share = 0.05
test_share = 0.05

[input]
size = 32
memory_gb = 0
cache_gb = 0.0015 # neither all blocks nor all decoded pixels fit

[model]
name = "cnn"
widths = [4]

[train]
epochs = 3
batch = 32
precision = "fp32"
checkpoint_minutes = 0.02
rank_timeout = 60

[train.optimizer]
name = "sgd"
lr = 0.01
"""


@pytest.mark.long  # seven processes load torch
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_killed_rank_changes_nothing_though_connections_break(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    write_tars(tmp_path / "served" / "train", 80, 14)
    with http(tmp_path / "served", dropped_every=7) as served:
        assert main(["data", "index", f"{served.url}/train", "--output", "shards.index"]) == 0
        recipe = RECIPE.format(url=served.url, index="shards.index")
        (tmp_path / "shards.toml").write_text(recipe, encoding="utf-8")
        printed = tmp_path / "printed.txt"
        served.parts.clear()
        assert launched(partial(main, ["run", "shards.toml"]), 2, printed) == [0, 0], printed.read_text()
        assert served.dropped
        assert served.parts.total() <= 80 * 1.1 * 3 + 2 * 80 * 4, "two splits that are evaluated are read too"
        wanted = last(tmp_path / "runs" / "latest")

        command = [sys.executable, "-m", "toolkit", "run", "shards.toml", "--ranks", "2", "--runs", "killed"]
        with started(command, tmp_path) as killed:
            first_epoch(killed)
            os.kill(ranks_of(killed)[1], signal.SIGKILL)
            text, code = rest(killed)
        assert code == EXIT_FAILED, text
        run = next((tmp_path / "killed" / "shards").glob("2*"))
        assert launched(partial(main, ["run", "--resume", str(run)]), 2, printed) == [0, 0], printed.read_text()
        found = last(run)
    assert all(torch.equal(found[name], weight) for name, weight in wanted.items())
