"""The command demo: it really trains, exports and predicts, and prints the commands that do the same."""

from __future__ import annotations

import re
import shlex
import webbrowser
from pathlib import Path

import pytest

from toolkit.cli.commands import parser
from toolkit.cli.main import main


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_the_demo_learns_exports_and_predicts_as_the_commands_do_that_it_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow: trains for eight epochs, which takes ten seconds of a core."""
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert main(["demo", "--open"]) == 0
    out = capsys.readouterr().out
    assert "built-in SAMPLE" in out.splitlines()[0]
    (run,) = Path("runs/cifar10_cnn_demo").iterdir()
    short = Path("runs/latest")
    assert max(map(len, re.findall(rf"^{short}/.*$", out, re.MULTILINE))) <= 80
    train, export, predict = re.findall(r"^\$ python -m toolkit (.*)$", out, re.MULTILINE)
    assert train == "run cifar10_cnn_demo"
    assert export == f"export {run}"
    assert predict == f"predict exports/cifar10_cnn_demo {short}/pictures --top 2"
    said = r"^done: (\d+) % of the test pictures of the SAMPLE .* guessing recognises 10 %"
    done = re.search(said, out, re.MULTILINE)
    assert done is not None
    assert int(done[1]) > 80
    report = (run / "report.html").resolve()
    assert f"report {run / 'report.html'}" in out
    assert report.is_file()
    assert opened == [report.as_uri()]
    pictures = sorted(path.stem.rpartition("_")[0] for path in (run / "pictures").iterdir())
    assert len(set(pictures)) == 6
    answers = [line.split() for line in out.splitlines() if line.startswith(f"{short}/pictures/")]
    assert sum(answer[1] == Path(answer[0]).stem.rpartition("_")[0] for answer in answers) >= 4
    assert main(["check", *shlex.split(train)[1:]]) == 0
    assert parser().parse_args(shlex.split(export)).run == run
    capsys.readouterr()
    assert main(shlex.split(predict)) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()][1:] == answers


def test_the_demo_is_about_the_sample_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/cifar10").mkdir(parents=True)
    Path("data/cifar10/a.png").touch()
    assert main(["demo"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: demo: data/cifar10 holds data, but the demo uses the built-in sample",
        "next:  cd to another folder",
    ]
    assert not Path("runs").exists()
