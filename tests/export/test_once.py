"""A run that `predict` takes: exported once, kept in the run, and exported again where its checkpoint has changed."""

from __future__ import annotations

import filecmp
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests import tiny
from tests.export.models import other_mean
from toolkit.api.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_PARITY, EXIT_USAGE
from toolkit.cli.main import main
from toolkit.export import once, write
from toolkit.runs.directory import RunDirectory
from toolkit.serving.bundle import read_manifest
from toolkit.training.checkpoint import BestCheckpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose bundle is not made yet."""
    folder = tmp_path_factory.mktemp("once")
    recipe = tiny.write_recipe(folder, tiny.write_images(folder / "images"))
    assert tiny.run(recipe, folder / "runs", "train.epochs=1") == EXIT_DONE
    return tiny.only_run(folder / "runs")


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with its bundle."""
    copied = Path(shutil.copytree(trained, tmp_path_factory.mktemp("exported") / "tiny" / "run"))
    assert predict(copied, picture_of(trained)) == EXIT_DONE
    return copied


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "tiny" / "run"))


@pytest.fixture
def kept(exported: Path, tmp_path: Path) -> Path:
    """A run with its bundle."""
    return Path(shutil.copytree(exported, tmp_path / "tiny" / "run"))


def picture_of(trained: Path) -> str:
    return str(trained.parents[2] / "images" / "test" / "red" / "00.png")


@pytest.fixture
def picture(trained: Path) -> str:
    return picture_of(trained)


def bundles(run: Path) -> list[str]:
    found = RunDirectory(run).bundles
    return sorted(path.name for path in found.iterdir() if path.name != ".lock") if found.exists() else []


def changed_checkpoint(run: Path) -> None:
    replace(BestCheckpoint.load(run / "best.pt"), epoch=7).save(run / "best.pt")


def predict(run: Path, *words: str) -> int:
    return main(["predict", str(run), *words])


def test_a_run_is_exported_once_and_its_bundle_is_used_again(run, picture, capsys) -> None:
    assert predict(run, picture) == EXIT_DONE
    said = capsys.readouterr()
    (name,) = bundles(run)
    kept = f"note: exporting the run once; later calls reuse {run / 'bundles' / name}"
    assert said.err.splitlines()[:2] == [kept, "tiny: fp32 on cpu"]
    assert len(said.out.splitlines()) == 2
    manifest = read_manifest(run / "bundles" / name)
    assert (manifest.name, manifest.gate["fp32"]["items"]) == ("tiny", 6)
    assert predict(run / "best.pt", picture) == EXIT_DONE
    assert "exporting" not in capsys.readouterr().err
    assert bundles(run) == [name]


def test_a_kept_bundle_is_used_without_torch(kept, picture) -> None:
    code = (
        "import sys; from toolkit.cli.main import main; "
        f"assert main(['predict', {str(kept)!r}, {picture!r}]) == 0; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_export_takes_the_bundle_that_predict_has_made(kept, tmp_path, capsys, monkeypatch) -> None:
    (name,) = bundles(kept)
    monkeypatch.setattr(write, "to_onnx", lambda *_: pytest.fail("exported again"))
    capsys.readouterr()
    assert main(["export", str(kept), "--exports", str(tmp_path / "exports"), "--format", "triton"]) == EXIT_DONE
    said = capsys.readouterr().out.splitlines()
    (line,) = (line for line in said if line.startswith("note: "))
    reason = "same checkpoint, recipe and settings; it has passed the gate"
    assert line == f"note: reused {kept / 'bundles' / name}: {reason}"
    place, source = tmp_path / "exports" / "tiny", kept / "bundles" / name
    assert filecmp.dircmp(place, source).left_only == filecmp.dircmp(place, source).right_only == []
    names = [path.name for path in source.iterdir()]
    assert filecmp.cmpfiles(place, source, names, shallow=False) == (names, [], [])
    assert (tmp_path / "exports" / "tiny-triton" / "tiny").is_dir()


@pytest.mark.parametrize("words", [["--name", "other"], ["--set", "export.precision=fp16"], []])
def test_export_exports_again_where_something_differs(kept, tmp_path, capsys, words) -> None:
    if not words:
        changed_checkpoint(kept)
    assert main(["export", str(kept), "--exports", str(tmp_path / "exports"), *words]) == EXIT_DONE
    said = capsys.readouterr().out
    assert "reused" not in said
    assert "gate fp" in said


def test_a_changed_checkpoint_is_exported_again_and_the_old_bundle_goes(kept, picture, capsys) -> None:
    (old,) = bundles(kept)
    changed_checkpoint(kept)
    assert predict(kept, picture) == EXIT_DONE
    assert capsys.readouterr().err.count("exporting") == 1
    (new,) = bundles(kept)
    assert new.split("-")[0] != old.split("-")[0]
    assert read_manifest(kept / "bundles" / new).trained_on["best_epoch"] == 7


def test_other_settings_are_another_bundle_of_the_same_checkpoint(kept, picture) -> None:
    for words in ([], ["--set", "export.precision=fp16"]):
        assert predict(kept, picture, *words) == EXIT_DONE
    first, second = bundles(kept)
    assert first.split("-")[0] == second.split("-")[0]
    assert sorted("fp16" in read_manifest(kept / "bundles" / name).models for name in (first, second)) == [False, True]


def test_a_damaged_bundle_is_exported_again(kept, picture, capsys) -> None:
    (name,) = bundles(kept)
    (kept / "bundles" / name / "model.onnx").write_bytes(b"")
    capsys.readouterr()
    assert predict(kept, picture) == EXIT_DONE
    said = capsys.readouterr().err
    assert "model.onnx: changed or cut short" in said
    assert "exporting again" in said


def test_a_gate_that_fails_ends_as_export_does_and_keeps_nothing(run, picture, tmp_path, capsys, monkeypatch) -> None:
    exported = write.to_onnx
    monkeypatch.setattr(write, "to_onnx", lambda *given: other_mean(exported(*given)))
    assert predict(run, picture) == EXIT_PARITY
    said = capsys.readouterr().err
    assert "differs from the trained one" in said
    assert bundles(run) == []
    prefix = "next:  to accept this: python -m toolkit "
    (accepting,) = (line.removeprefix(prefix) for line in said.splitlines() if line.startswith(prefix))
    assert main([*shlex.split(accepting), "--exports", str(tmp_path / "exports")]) == EXIT_DONE


def test_an_interrupted_export_leaves_nothing_and_says_the_same_command(run, picture, capsys, monkeypatch) -> None:
    monkeypatch.setattr(write, "to_onnx", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    assert predict(run, picture) == EXIT_INTERRUPTED
    assert bundles(run) == []
    assert f"next:  python -m toolkit predict {run} {picture}" in capsys.readouterr().err


@pytest.mark.long  # two processes export; test_who_waits_for_an_export_says_so holds the lock in this one
def test_calls_at_the_same_time_export_once(run, picture) -> None:
    command = [sys.executable, "-m", "toolkit", "predict", str(run), picture]
    calls = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [call.communicate() for call in calls]
    assert [call.returncode for call in calls] == [EXIT_DONE, EXIT_DONE]
    assert said[0][0] == said[1][0]
    assert sum("exporting the run once" in errors for _, errors in said) == 1
    assert len(bundles(run)) == 1


def test_who_waits_for_an_export_says_so(run, picture, capsys) -> None:
    held, released = threading.Event(), threading.Event()
    (run / "bundles").mkdir()

    def hold() -> None:
        with once.exclusive(run / "bundles" / ".lock"):
            held.set()
            released.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)
    threading.Timer(0.5, released.set).start()
    assert predict(run, picture) == EXIT_DONE
    thread.join()
    assert f"note: another process is exporting {run}; waiting for it" in capsys.readouterr().err


def test_a_checkpoint_that_changes_during_the_export_is_not_kept(run, picture, capsys, monkeypatch) -> None:
    papers = write._write_papers

    def changing(*given: object) -> None:
        papers(*given)
        changed_checkpoint(run)

    monkeypatch.setattr(write, "_write_papers", changing)
    assert predict(run, picture) == EXIT_FAILED
    assert f"{run / 'best.pt'}: changed during the export" in capsys.readouterr().err
    assert bundles(run) == []


def test_a_wrong_input_is_refused_before_the_export(run, capsys, monkeypatch) -> None:
    monkeypatch.setattr(once, "bundle_of", lambda *_: pytest.fail("exported"))
    assert predict(run, str(run / "gone.png")) != EXIT_DONE
    assert "gone.png: no such file or folder" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_says_how_to_go_on(run, picture, capsys) -> None:
    (run / "best.pt").unlink()
    assert predict(run, picture) == EXIT_USAGE
    said = capsys.readouterr().err
    assert re.search(r"best\.pt: ", said)
    assert "next:  " in said


def test_a_run_that_cannot_be_written_names_another_folder(run, picture, capsys) -> None:
    (run / "bundles").touch()
    assert predict(run, picture) == EXIT_FAILED
    said = capsys.readouterr().err
    assert f"next:  export it to another folder: python -m toolkit export {run} --exports DIR" in said


def test_overrides_are_for_runs(kept, picture, capsys) -> None:
    bundle = kept / "bundles" / bundles(kept)[0]
    capsys.readouterr()
    assert predict(bundle, picture, "--set", "export.precision=fp16") == EXIT_USAGE
    said = capsys.readouterr().err
    assert f"error: {bundle}: not a run; --set changes how a run is exported" in said
    assert f"next:  python -m toolkit predict {bundle} {picture}" in said
