"""A run with divided weights: every file of a run, and it goes on with whole ones."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from tests.ranks import launched
from tests.system.test_launch import words
from toolkit.cli.main import main


@pytest.mark.slow  # two ranks train and report
def test_a_run_with_divided_weights_goes_on_with_whole_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    printed = tmp_path / "printed.txt"
    more = ("train.strategy=fsdp", "train.ema=0.9", 'metrics=["accuracy"]', 'train.schedule={name="constant"}')
    command = [*words("cifar10_cnn", epochs=1)[3:], *(word for one in more for word in ("--set", one))]
    assert launched(partial(main, command), 2, printed) == [0, 0], printed.read_text()
    text = printed.read_text()
    assert "on 2 ranks, each on 1 CPU thread, fp32" in text
    (run,) = (tmp_path / "runs" / "cifar10_cnn").glob("2*")
    assert len(json.loads((run / "environment.json").read_text())["ranks"]) == 2
    assert (run / "report.html").is_file()
    (record,) = map(json.loads, (run / "records.jsonl").read_text().splitlines())
    assert len(record["rank_waiting"]) == 2
    assert record["rank_speeds"] == []  # ranks with divided weights answer at one pace
    whole = ["run", "--resume", str(run), "--extend", "2", "--set", "train.strategy=ddp"]
    assert main(whole) == 0
    assert [record["epoch"] for record in map(json.loads, (run / "records.jsonl").read_text().splitlines())] == [1, 2]
