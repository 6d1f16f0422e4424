"""What a run prints at its end, typed as it stands; and the link to the run that began last."""

from __future__ import annotations

import os
import re
import shlex
import threading
from contextlib import chdir
from pathlib import Path

import pytest

from tests import tiny
from toolkit.cli.main import main
from toolkit.runs.latest import followed, point_at

CONSTANT = tiny.RECIPE.replace("one_cycle", "constant").replace("epochs = 2", "epochs = 1")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp("data") / "my images")


def steps(text: str) -> dict[str, str]:
    """The commands that a run has printed, by their purpose."""
    return dict(re.findall(r"^next:  ([a-z ]+)\n  (python -m toolkit .*)$", text, re.MULTILINE))


def typed(command: str) -> int:
    return main(shlex.split(command)[3:])


def test_every_next_step_works_as_it_is_printed(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tiny.write_recipe(tmp_path, images, text=CONSTANT)
    assert tiny.run(recipe, Path("my runs")) == 0
    printed = capsys.readouterr().out
    run = tiny.only_run(Path("my runs"))
    found = steps(printed)
    assert found["export the model"] == f"python -m toolkit export '{run}'"
    assert found["predict"].startswith(f"python -m toolkit predict '{run}' '{images}/test/")
    assert found["train longer"] == f"python -m toolkit run --resume '{run}' --extend 2"
    assert f"report {run / 'report.html'}" in printed
    for command in found.values():
        assert typed(command) == 0, command
    assert (tmp_path / "exports" / "tiny" / "bundle.json").is_file()
    assert steps(capsys.readouterr().out)["train longer"].endswith("--extend 4")


def test_a_run_whose_schedule_has_ended_goes_on_from_its_weights_where_its_model_takes_any(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text, expected in (("small", tiny.WITHOUT_WEIGHTS, False), ("large", tiny.RECIPE, True)):
        short = text.replace("epochs = 2\nbatch = 8", "epochs = 1\nbatch = 12")
        recipe = tiny.write_recipe(tmp_path, images, text=short)
        assert tiny.run(recipe, Path(name)) == 0
        found = steps(capsys.readouterr().out)
        assert ("train longer" in found) == expected
    assert typed(found["train longer"]) == 0
    assert "starting from the weights of large/tiny/" in capsys.readouterr().out


# A browser


@pytest.fixture
def browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that writes what it is asked to show into this file."""
    seen = tmp_path / "seen"
    script = tmp_path / "browser"
    script.write_text(f'#!/bin/sh\nprintf %s "$1" > {seen}\n')
    script.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(script))
    monkeypatch.setattr("webbrowser._tryorder", None)  # found again, with this variable
    monkeypatch.setattr("webbrowser._browsers", {})
    return seen


def test_the_report_is_opened_where_that_is_asked_for(tmp_path: Path, images: Path, browser: Path) -> None:
    recipe = tiny.write_recipe(tmp_path, images, text=CONSTANT)
    assert main(["run", str(recipe), "--runs", str(tmp_path / "my runs"), "--open"]) == 0
    run = tiny.only_run(tmp_path / "my runs")
    assert browser.read_text() == (run / "report.html").as_uri()
    browser.unlink()
    assert main(["report", str(run)]) == 0
    assert not browser.exists()
    assert main(["report", str(run), "--open"]) == 0
    assert browser.read_text() == (run / "report.html").as_uri()


def test_without_a_browser_the_file_is_named(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webbrowser.open", lambda url: False)
    assert tiny.run(tiny.write_recipe(tmp_path, images, text=CONSTANT), tmp_path / "runs") == 0
    run = tiny.only_run(tmp_path / "runs")
    capsys.readouterr()
    assert main(["report", str(run), "--open"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"report {run / 'report.html'}\n"
    assert printed.err == f"note: no browser found on this machine: open {run / 'report.html'} on another one\n"


# runs/latest


def test_latest_leads_to_the_run_that_began_last_and_is_not_one_itself(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.runs.session.draw_pictures", lambda *arguments: {})
    monkeypatch.chdir(tmp_path)
    recipe = tiny.write_recipe(tmp_path, images, text=CONSTANT)
    assert tiny.run(recipe, Path("runs")) == 0
    first = tiny.only_run(Path("runs"))
    assert tiny.run(recipe, Path("runs")) == 0
    (second,) = {*Path("runs/tiny").iterdir()} - {first}
    assert Path("runs/latest").resolve() == second.resolve()
    assert os.readlink("runs/latest") == str(second.relative_to("runs")), "runs may be moved as a whole"  # noqa: PTH115
    capsys.readouterr()
    assert main(["run", "--resume", "runs/latest"]) == 0
    assert f"run --resume {second} --extend 2" in capsys.readouterr().out, "the run itself is named"
    assert main(["report", "runs/latest"]) == 0
    assert main(["evaluate", "runs/latest"]) == 0
    capsys.readouterr()
    (second / "recipe.toml").rename(second / "gone")
    assert main(["report", "runs"]) == 2
    assert capsys.readouterr().err.endswith(f"next:  python -m toolkit report {first}\n")


def test_a_recipe_called_latest_keeps_its_folder(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.runs.session.draw_pictures", lambda *arguments: {})
    runs = tmp_path / "runs"
    for name in ("tiny", "latest", "tiny"):
        assert tiny.run(tiny.write_recipe(tmp_path, images, text=CONSTANT, name=name), runs) == 0
    assert not (runs / "latest").is_symlink()
    assert len(list((runs / "latest").iterdir())) == 1
    assert len(list((runs / "tiny").iterdir())) == 2
    assert f"note: {runs / 'latest'} is not a symbolic link" in capsys.readouterr().err


def test_where_no_link_can_be_made_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    point_at(tmp_path / "tiny" / "now", tmp_path)
    assert capsys.readouterr().err == f"note: {tmp_path / 'latest'}: cannot be made: Operation not permitted\n"
    assert list(tmp_path.iterdir()) == []


def test_runs_that_begin_at_once_leave_one_whole_link(tmp_path: Path) -> None:
    runs = [tmp_path / "tiny" / f"{number}" for number in range(8)]
    for run in runs:
        run.mkdir(parents=True)
    threads = [threading.Thread(target=point_at, args=(run, tmp_path)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert followed(tmp_path / "latest") in runs
    assert {path.name for path in tmp_path.iterdir()} == {"tiny", "latest"}


def test_a_link_to_a_run_that_is_gone_is_named_by_that_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").mkdir()
    point_at(tmp_path / "runs" / "tiny" / "gone", tmp_path / "runs")
    with chdir(tmp_path):
        assert main(["report", "runs/latest"]) == 2
    assert capsys.readouterr().err.startswith("error: runs/tiny/gone: no such directory")
