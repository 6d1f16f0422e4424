"""The bench of a GPU, without one: how parts run, fail and go on later; and a rehearsal of the cheap ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
import zipfile
from importlib import import_module, metadata
from pathlib import Path

import pytest
import torch

from bench.__main__ import main
from bench.data import Options
from bench.gpu import checkout, command
from bench.gpu.parts import PARTS
from bench.gpu.records import Run, summary
from bench.gpu.reference import epochs
from bench.gpu.results import Results, table
from bench.gpu.rows import Row
from bench.gpu.schedule import Outcome, Setting, failures, in_own_process, rows_of, run_parts
from bench.gpu.suite import counted
from bench.pairs import Paired
from tests import gpu_parts
from toolkit.api.errors import EXIT_DATA, EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, EXIT_USAGE, DataError, UsageError

MACHINE = {
    "device": "One GPU",
    "environment": {"packages": {"torch": "2.11.0"}, "hardware": {"cuda": "13.0"}, "git": None},
}
FOREVER = float("inf")


def opened(folder: Path, *, rehearsal: bool = False, source: str = "abc", device: str = "One GPU") -> Results:
    return Results.open(folder, rehearsal=rehearsal, machine={**MACHINE, "device": device}, source=source)


def setting(folder: Path) -> Setting:
    return Setting(Options(None, folder), rehearsal=False)


@pytest.mark.parametrize(
    ("row", "line", "missed"),
    [
        (Row("x", 1.5, "s", 3), "x 1.5 s n=3", False),
        (Row("x", 0.9, "times", 3, (0.8, 0.92), (0.9, 1.1), 0.95), "goal >= 0.95: missed", True),
        (Row("x", 0.97, "times", 3, (0.96, 0.99), at_least=0.95), "goal >= 0.95: met", False),
        (Row("x", 0.97, "times", 3, (0.9, 0.99), at_least=0.95), "goal >= 0.95: noisy", False),
        (Row("x", 1.2, "s", 3, at_most=1.0), "goal <= 1: missed", True),
        (Row("x", 0.9, "s", 3, at_most=1.0, facts=("sd 1",)), "goal <= 1: met; sd 1", False),
        (Row("x", skipped="needs more", at_least=0.95), "x needs more", False),
        (Row("x", 1.0, "s", 2, peak_gib=1.234), "memory=1.23 GiB", False),
    ],
)
def test_a_row_is_one_line_and_knows_its_goal(row: Row, line: str, missed: bool) -> None:
    assert line in str(row)
    assert row.missed is missed
    assert Row.read(json.loads(json.dumps(row.as_json()))) == row


def test_a_ratio_has_its_interval_and_its_noise() -> None:
    paired = Paired(ours=(1.0, 1.0, 1.0), theirs=(2.0, 2.5, 3.0), repeats=(1.0, 1.2))
    row = Row.of_ratio("x", paired, at_least=2.0)
    assert (row.value, row.n, row.interval, row.floor) == (2.5, 3, (2.0, 3.0), (1.0, 1.2))


def test_a_finished_part_does_not_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = (gpu_parts.part("raising"), gpu_parts.part("good"))
    for _ in range(2):
        assert command.run(parts, setting(tmp_path), opened(tmp_path), FOREVER) == []
    assert (tmp_path / "ran").read_text().split() == ["raising", "good", "raising"]
    assert "good: first 1 s n=3\ngood: second needs more\n" in capsys.readouterr().out


def test_parts_that_were_never_tried_come_before_those_that_failed(tmp_path: Path) -> None:
    results = opened(tmp_path)
    results.keep(gpu_parts.part("raising"), Outcome("failed", 1.0, ()))
    results.keep(gpu_parts.part("good"), Outcome("done", 1.0, ()))
    parts = tuple(map(gpu_parts.part, ("raising", "good", "crashing")))
    assert [part.name for part in results.due(parts)] == ["crashing", "raising"]


def test_a_part_that_does_not_fit_is_left_and_a_shorter_one_runs(tmp_path: Path) -> None:
    parts = [gpu_parts.part("crashing", seconds=10_000), gpu_parts.part("good")]
    kept: list[str] = []
    left = run_parts(parts, setting(tmp_path), time.monotonic() + 5_000, lambda part, outcome: kept.append(part.name))
    assert ([part.name for part in left], kept) == (["crashing"], ["good"])


@pytest.mark.parametrize(
    ("name", "rows", "cause"),
    [
        ("crashing", ["before the crash"], "ended by SIGKILL"),
        ("raising", ["before the error"], "exit code 1: ValueError: not this way"),
        ("refusing", [], "exit code 1: too little memory"),
        ("missing", [], "exit code 1: AttributeError: module 'tests.gpu_parts' has no attribute 'missing'"),
    ],
)
def test_a_part_that_fails_keeps_its_rows_and_says_why(name: str, rows: list[str], cause: str, tmp_path: Path) -> None:
    outcome = in_own_process(f"tests.gpu_parts:{name}", setting(tmp_path), 60)
    assert (outcome.state, outcome.cause) == ("failed", cause)
    assert [row.what for row in rows_of(outcome)] == [*rows, "failed"]
    assert name != "raising" or "last words" in outcome.details
    assert failures([outcome])


def test_a_part_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    outcome = in_own_process("tests.gpu_parts:endless", setting(tmp_path), 0.2)
    assert (outcome.state, outcome.cause.partition(":")[0]) == ("failed", "took more than 0.2 s")


def test_figures_of_another_machine_or_source_are_refused(tmp_path: Path) -> None:
    opened(tmp_path).keep(gpu_parts.part("good"), Outcome("done", 1.0, (Row("x", 1.0, "s", 2),)))
    assert opened(tmp_path).parts["good"].found == (Row("x", 1.0, "s", 2),)
    for other, what in (({"source": "def"}, "source: expected def, got abc"), ({"device": "B"}, "device: expected B")):
        with pytest.raises(UsageError, match=f"figures of another {what}") as refused:
            opened(tmp_path, **other)  # type: ignore[arg-type] # strings, both
        assert refused.value.next_step is not None
        assert "--output FOLDER" in refused.value.next_step


def test_a_folder_that_cannot_be_made_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").touch()
    machine_is(monkeypatch, Outcome("done", 1.0, (MACHINE,)))
    assert main(["gpu", "--output", str(tmp_path / "taken")]) == EXIT_USAGE
    printed = capsys.readouterr().err
    assert f"error: --output {tmp_path / 'taken'}: File exists\n" in printed
    assert "next:  python -m bench gpu --output FOLDER\n" in printed


def test_a_rehearsal_has_a_file_of_its_own_and_a_label_in_every_row(tmp_path: Path) -> None:
    for rehearsal in (False, True):
        part, outcome = gpu_parts.part("good"), Outcome("done", 1.0, (Row("x", 1.0, "s", 2), Row("y | z", 2.0, "s", 2)))
        opened(tmp_path, rehearsal=rehearsal).keep(part, outcome)
    assert json.loads((tmp_path / "rehearsal.json").read_text())["label"] == "REHEARSAL"
    measured, rehearsed = (table(tmp_path / name).splitlines() for name in ("gpu.json", "rehearsal.json"))
    assert measured[0] == "One GPU, torch 2.11.0, CUDA 13.0, source abc"
    assert measured[-1] == "| good | y / z | 2 s |  |  | 2 |  |  |"
    assert "REHEARSAL" not in "\n".join(measured)
    assert rehearsed[0].startswith("REHEARSAL: tiny sizes on a CPU, no figure here is a result. ")
    assert all(line.startswith("| REHEARSAL good |") for line in rehearsed[4:])


@pytest.mark.parametrize("text", [None, "{", "[]", '{"parts": {}}', '{"parts": {"x": {}}}'])
def test_a_table_of_no_figures_is_refused(text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gpu.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError):
        table(path)
    assert main(["gpu", "--table", str(path)]) == EXIT_DATA
    printed = capsys.readouterr().err
    assert f"error: {path}: not a file of figures: " in printed
    assert "next:  name a gpu.json or rehearsal.json that python -m bench gpu wrote" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--minutes", "0"], "--minutes: must be a number above 0, got 0"),
        (["--minutes", "nan"], "--minutes: must be a number above 0, got nan"),
        (["--minutes", "many"], "--minutes: must be a number above 0, got many"),
        (["--parts", "epoch"], 'no part is called "epoch"; did you mean "epochs"?'),
        (["--pairs", "1"], "--pairs: must be a whole number, at least 2, got 1"),
    ],
)
def test_a_wrong_command_line_ends_with_2(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["gpu", *words])
    assert left.value.code == EXIT_USAGE
    assert message in capsys.readouterr().err


def test_the_commands_of_the_documents_are_understood() -> None:
    text = (checkout.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = [line.split()[4:] for line in text.splitlines() if line.startswith("python -m bench gpu ")]
    assert len(lines) > 3
    assert all(command.parser().parse_args(words) for words in lines)


def machine_is(monkeypatch: pytest.MonkeyPatch, outcome: Outcome) -> None:
    monkeypatch.setattr(command, "in_own_process", lambda entry, setting, seconds: outcome)


@pytest.mark.parametrize(("built", "why"), [("13.0", "torch is built for CUDA 13.0"), (None, "built without CUDA")])
def test_without_a_gpu_the_next_step_is_a_rehearsal(
    built: str | None, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"device": None, "environment": {"torch_built_for_cuda": built}}
    machine_is(monkeypatch, Outcome("done", 1.0, (found,)))
    assert main(["gpu"]) == EXIT_USAGE
    printed = capsys.readouterr().err
    assert "error: no CUDA device found" in printed
    assert why in printed
    assert "next:  rehearse on the CPU: python -m bench gpu --rehearse\n" in printed


def test_libraries_that_are_missing_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cause = "exit code 1: ModuleNotFoundError: No module named 'optuna'"
    machine_is(monkeypatch, Outcome("failed", 1.0, (), cause, ("Traceback", cause)))
    assert main(["gpu"]) == EXIT_USAGE
    printed = capsys.readouterr().err
    assert f"error: the libraries cannot be imported: {cause}" in printed
    assert "python -m bench gpu --wheels FOLDER" in printed


@pytest.mark.slow  # trains and exports in several processes, each of tiny size
def test_a_rehearsal_measures_the_cheap_parts_and_then_has_nothing_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cheap = ("cifar10_94", "airbench94", "resnet50", "predict_fp32", "loader", "decoder")
    words = ["gpu", "--rehearse", "--output", str(tmp_path), "--parts", ",".join(cheap)]
    assert main([*words, "--minutes", "0.001"]) == EXIT_STOPPED
    printed = capsys.readouterr().out
    assert f"left for the next call: {', '.join(cheap)} (up to 200 s each)" in printed
    assert f"next: python -m bench {' '.join(words)} --minutes 0.001\n" in printed
    assert main([*words, "--minutes", "60"]) == EXIT_DONE, capsys.readouterr().out
    first = capsys.readouterr().out
    kept = (tmp_path / "rehearsal.json").read_bytes()
    outcomes = json.loads(kept)["parts"]
    assert {name: one["state"] for name, one in outcomes.items()} == dict.fromkeys(cheap, "done")
    assert all(line.startswith(("REHEARSAL", "| ", "kept in")) for line in first.splitlines() if line)
    assert main(words) == EXIT_DONE
    assert (tmp_path / "rehearsal.json").read_bytes() == kept


def test_the_measured_functions_exist() -> None:
    for part in PARTS:
        module, _, function = part.entry.partition(":")
        assert callable(getattr(import_module(module), function))
    assert len({part.name for part in PARTS}) == len(PARTS)
    assert max(part.seconds for part in PARTS) < 60 * command.MINUTES - command.START


def test_a_missed_goal_or_a_failed_part_ends_with_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine_is(monkeypatch, Outcome("done", 1.0, (MACHINE,)))

    def run(parts: object, setting: Setting, results: Results, ends: float) -> list[object]:
        results.keep(gpu_parts.part("good"), Outcome("done", 1.0, (Row("x", 1.0, "s", 2, at_most=0.5),)))
        return []

    monkeypatch.setattr(command, "run", run)
    assert main(["gpu", "--output", str(tmp_path)]) == EXIT_FAILED


def test_a_test_that_is_skipped_on_a_gpu_has_not_passed(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    cases = '<testcase name="a"/><testcase name="b"><skipped/></testcase><testcase name="c"><error/></testcase>'
    report.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    row = counted(report, rehearsal=False)
    assert (row.value, row.n, row.facts) == (1, 3, ("failed: c", "skipped: b"))
    assert row.missed
    assert not counted(report, rehearsal=True).missed


def test_means_of_runs_have_their_spread_and_their_goals() -> None:
    runs = [Run(seconds=0.8, accuracy=94.0, one_view=93.0), Run(seconds=1.0, accuracy=94.4, one_view=93.4)]
    accuracy, one_view, seconds = summary(runs, ("said",), 2**31, goals=True)
    assert accuracy.value == pytest.approx(94.2)
    assert accuracy.interval == pytest.approx((93.8, 94.6))
    assert (accuracy.verdict, accuracy.facts[1:]) == ("goal >= 94: noisy", ("said",))
    assert (one_view.value, one_view.verdict) == (pytest.approx(93.2), "")
    assert (seconds.value, seconds.verdict, seconds.peak_gib) == (pytest.approx(0.9), "goal <= 1: noisy", 2)


def test_the_reference_mirrors_in_turns_and_cuts_at_a_place_of_its_own(seeded: None) -> None:
    rising = torch.arange(8.0).expand(64, 3, 8, 8)
    first, second, third = epochs(rising, 3)
    assert first.shape == rising.shape
    mirrored = [(crops[:, 0, 0, 4] < crops[:, 0, 0, 3]) for crops in (first, second, third)]
    assert 0 < mirrored[0].sum() < 64
    assert torch.equal(mirrored[1], ~mirrored[0])
    assert torch.equal(mirrored[2], mirrored[0])
    assert len(set(first[~mirrored[0], 0, 0, 3].tolist())) == 5


def test_wheels_are_installed_where_only_this_call_finds_them(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "carried-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried.py", "answer = 42\n")
        wheel.writestr("carried-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n")
        wheel.writestr("carried-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("carried-1.0.dist-info/RECORD", "")
    before = list(sys.path), os.environ.get("PYTHONPATH")
    with checkout.importable(tmp_path):
        shown = subprocess.run(
            [sys.executable, "-c", "import carried; print(carried.answer)"], capture_output=True, text=True, check=True
        )
        assert shown.stdout == "42\n"
        assert metadata.version("carried") == "1.0"
    assert (list(sys.path), os.environ.get("PYTHONPATH")) == before


@pytest.mark.parametrize(("name", "message"), [(None, "no wheel found there"), ("bad.whl", "pip cannot install them")])
def test_a_folder_that_pip_cannot_install_is_refused(
    name: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name is not None:
        (tmp_path / name).touch()
    assert main(["gpu", "--wheels", str(tmp_path)]) == EXIT_USAGE
    printed = capsys.readouterr().err
    assert f"error: --wheels {tmp_path}: {message}" in printed
    assert "next:  name a folder of wheels, one version of each package: python -m bench gpu --wheels FOLDER" in printed


def test_a_checkout_that_is_not_installed_offers_its_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "_is_installed", lambda: False)
    project = tomllib.loads((checkout.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    with checkout.importable(None):
        (declared,) = metadata.distributions(path=[sys.path[2]])
        offered = {entry.name: entry.value for entry in declared.entry_points if entry.group == "toolkit"}
    assert offered == project["entry-points"]["toolkit"]
