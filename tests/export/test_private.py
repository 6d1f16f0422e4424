"""What leaves the machine names none of its folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import tiny
from toolkit.api.errors import EXIT_DATA, EXIT_DONE
from toolkit.cli.main import main
from toolkit.serving.bundle import read_manifest

SECRET = "home-of-somebody"


@pytest.fixture(scope="module")
def somebody(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, its report and its bundle, all below one private folder, where one image is damaged."""
    home = tmp_path_factory.mktemp("private") / SECRET
    root = tiny.write_images(home / "my photos")
    (root / "test" / "red" / "00.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    recipe = tiny.write_recipe(home, root)
    skipping = ["input.on_corrupt=skip", "input.corrupt_limit=0.5"]
    assert tiny.run(recipe, home / "runs", "train.epochs=1", *skipping) == EXIT_DONE
    run = tiny.only_run(home / "runs")
    assert main(["export", str(run), "--exports", str(home / "exports")]) == EXIT_DONE
    return home


def leaks(*folders: Path) -> list[str]:
    """Files that name the private folder."""
    files = [path for folder in folders for path in ([folder] if folder.is_file() else folder.rglob("*"))]
    assert files
    return [str(path) for path in files if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_a_bundle_names_no_folder_of_the_machine(somebody: Path) -> None:
    bundle = somebody / "exports" / "tiny"
    assert leaks(bundle) == []
    assert 'root = "my photos"' in read_manifest(bundle).recipe
    assert 'root = "my photos"' in (bundle / "README.md").read_text(encoding="utf-8")


def test_a_report_names_no_folder_of_the_machine(somebody: Path) -> None:
    run = tiny.only_run(somebody / "runs")
    assert leaks(run / "report.html") == []
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "my photos" in page
    assert "00.png" in page
    assert SECRET in (run / "recipe.toml").read_text(encoding="utf-8")


def test_the_evaluation_of_a_bundle_names_none_in_its_report(somebody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(somebody)
    words = ["evaluate", str(somebody / "exports" / "tiny"), "--set", f"data.root={somebody / 'my photos'}"]
    assert main(words) == EXIT_DONE
    assert leaks(tiny.only_run(somebody / "runs", "tiny-bundle") / "report.html") == []


def test_a_bundle_asks_where_its_data_lies(somebody: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = somebody / "exports" / "tiny"
    assert main(["evaluate", str(bundle)]) == EXIT_DATA
    said = capsys.readouterr().err
    assert 'a bundle keeps the name of its data\'s folder ("my photos"), not where the folder is' in said
    assert f"next:  name the folder: python -m toolkit evaluate {bundle} --set data.root=FOLDER" in said


def test_a_bundle_has_the_scores_of_its_run(somebody: Path) -> None:
    results = read_manifest(somebody / "exports" / "tiny").results
    scores = json.loads((tiny.only_run(somebody / "runs") / "scores.json").read_text(encoding="utf-8"))
    assert {split: (found["role"], found["items"]) for split, found in results.items()} == {
        "valid": ("chose the epoch", 6),
        "test": ("chose nothing", 11),
    }
    assert results["test"]["scores"]["accuracy"] == scores["test"]["accuracy"]
    low, high = results["test"]["intervals"]["accuracy"]
    assert low <= scores["test"]["accuracy"] <= high


def test_a_bundle_of_other_data_has_no_scores_of_the_run(somebody: Path, tmp_path: Path) -> None:
    other = tiny.write_images(tmp_path / "other", seed=1)
    (other / "test" / "red" / "03.png").unlink()
    run = tiny.only_run(somebody / "runs")
    words = ["export", str(run), "--exports", str(tmp_path), "--set", f"data.root={other}"]
    assert main(words) == EXIT_DONE
    assert read_manifest(tmp_path / "tiny").results == {}


def test_the_next_command_after_an_export_works(somebody: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tiny.only_run(somebody / "runs")
    assert main(["export", str(run), "--exports", str(somebody / "exports")]) == EXIT_DONE
    import shlex

    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("next:  python -m toolkit predict ")
    assert main(shlex.split(last)[4:]) == EXIT_DONE
