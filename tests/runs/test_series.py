"""Several runs as one: seeds, folds, grids; stopped, resumed, summed up."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests import tiny
from tests.runs.test_compare import PROTOCOL, right, write_run
from toolkit.api.errors import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, EXIT_USAGE, RunFailed, Stopped, UsageError
from toolkit.cli.main import main
from toolkit.runs.compare.comparison import compare
from toolkit.runs.compare.contender import contenders
from toolkit.runs.directory import RunDirectory
from toolkit.runs.files import read_run
from toolkit.runs.series import session
from toolkit.runs.series.members import Asked, Member, members_of, read_members, split_values, write_members

SMALL = ("train.epochs=1", "model.widths=[4,4]")
FOLDED = """
[data]
name = "image_folder"
valid_share = 0.2

[input]
size = 32

[model]
name = "cnn"
widths = [4, 4]

[train]
epochs = 1
batch = 8
device = "cpu"
precision = "fp32"

[train.optimizer]
name = "sgd"
lr = 0.05
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tiny.write_recipe(tmp_path, tiny.write_images(tmp_path / "images"))


def run(*words: str) -> int:
    return main(["run", *words])


def test_seeds_folds_and_points_multiply() -> None:
    members = members_of(Asked(2, 3, (("a", ("1", "2")), ("b", ("x",)))), seed=5)
    assert len(members) == 12
    assert members[0] == Member("point-00_fold-0_seed-5", {"a": "1", "b": "x"}, 0, 5)
    assert members[-1].overrides(3) == ["a=2", "b=x", "data.folds=3", "data.fold=2", "seed=6"]
    assert [one.run for one in members_of(Asked(seeds=2), 0)] == ["seed-0", "seed-1"]
    assert [one.run for one in members_of(Asked(folds=2), 0)] == ["fold-0", "fold-1"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("model.name=cnn,resnet18", ("model.name", ("cnn", "resnet18"))),
        ("model.widths=[8, 8],[16,16]", ("model.widths", ("[8, 8]", "[16,16]"))),
        ('data.root="a,b",c', ("data.root", ('"a,b"', "c"))),
        ("augment=[{name = 'flip', p = 0.5}],[]", ("augment", ("[{name = 'flip', p = 0.5}]", "[]"))),
    ],
)
def test_commas_inside_of_brackets_part_no_values(text: str, wanted: tuple[str, tuple[str, ...]]) -> None:
    assert split_values(text) == wanted


@pytest.mark.parametrize("text", ["model.name", "model.name=", "model.name=a,,b", "=a"])
def test_a_grid_without_values_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected KEY=VALUE,VALUE"):
        split_values(text)


def test_seeds_are_runs_in_one_folder_with_a_summary(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(recipe), "--seeds", "2", *tiny.overridden(SMALL)) == EXIT_DONE
    shown = capsys.readouterr().out
    folder = tiny.only_run(Path("runs")).resolve()
    if folder.name.startswith("seed-"):
        folder = folder.parent
    members = read_members(folder)
    assert [one.run for one in members] == ["seed-0", "seed-1"]
    for one in members:
        assert RunDirectory(folder / one.run).report.is_file()
        assert RunDirectory(folder / one.run).recipe_name == "tiny"
    for name in ("table.md", "table.csv", "table.tex", "table.json", "series.html"):
        assert (folder / name).is_file()
        assert f"{folder.name}/{name}" in shown
    page = (folder / "series.html").read_text(encoding="utf-8")
    assert "Made by <code>python -m toolkit run</code>" in page
    assert "Holm" not in page  # nothing is compared
    assert re.search(r"score .* mean .* std .* 95 % interval .* seed-0 .* seed-1", shown)
    (side,) = json.loads((folder / "table.json").read_text(encoding="utf-8"))["contenders"]
    scores = [json.loads((folder / one.run / "scores.json").read_text(encoding="utf-8")) for one in members]
    assert side["values"]["accuracy"] == [one["test"]["accuracy"] for one in scores]
    assert main(["compare", str(folder), str(folder / "seed-0")]) == EXIT_DONE


def test_a_stopped_series_goes_on_where_it_stopped(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def train(path: Path, **_: object) -> None:
        trained.append(path.name)
        if trained == ["seed-0", "seed-1"]:
            raise Stopped("stopped by SIGTERM", exit_code=EXIT_STOPPED, next_step="run --resume MEMBER")
        finish(path)

    monkeypatch.setattr(session, "resume_run", train)
    assert run(str(recipe), "--seeds", "3", *tiny.overridden(SMALL)) == EXIT_STOPPED
    (again,) = re.findall(r"next:  python -m toolkit (run --resume .*)", capsys.readouterr().err)
    assert main(again.split()) == EXIT_DONE
    assert trained == ["seed-0", "seed-1", "seed-1", "seed-2"]
    assert (Path("runs") / "latest").resolve().name == "seed-2"
    assert main(again.split()) == EXIT_DONE
    assert len(trained) == 4


def test_a_failed_run_is_named_and_the_others_are_summed_up(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(path: Path, **_: object) -> None:
        if path.name == "point-00":
            raise RunFailed("weights became non-finite")
        finish(path)

    monkeypatch.setattr(session, "resume_run", train)
    words = ("--grid", "train.optimizer.lr=0.1,0.2", *tiny.overridden(SMALL))
    assert run(str(recipe), *words) == EXIT_FAILED
    error = capsys.readouterr().err
    assert "1 of 2 runs failed" in error
    assert "point-00: weights became non-finite" in error
    assert "run --resume runs/tiny/" in error
    folder = read_folder()
    rows = (folder / "table.csv").read_text(encoding="utf-8").splitlines()
    assert [row.partition(",")[0] for row in rows] == ["", "train.optimizer.lr=0.2"]


def finish(path: Path) -> None:
    """What training leaves, without training."""
    recipe = (path / "recipe.toml").read_text(encoding="utf-8")
    shutil.rmtree(path)
    write_run(path, right(0.8))
    (path / "recipe.toml").write_text(recipe, encoding="utf-8")
    (path / "report.html").write_text("", encoding="utf-8")


def test_a_learning_curve_is_a_series_of_fractions(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "resume_run", lambda path, **_: finish(path))
    assert run(str(recipe), "--fractions", "0.5,1", "--seeds", "2", *tiny.overridden(SMALL)) == EXIT_DONE
    folder = read_folder()
    members = read_members(folder)
    assert [(one.point, one.seed) for one in members] == [
        ({"data.fraction": share}, seed) for share in ("0.5", "1") for seed in (0, 1)
    ]
    assert (folder / "table.csv").read_text(encoding="utf-8").count("data.fraction=") == 2
    assert "Learning curve" in (folder / "series.html").read_text(encoding="utf-8")
    assert "unlike protocols" not in capsys.readouterr().out


@pytest.mark.parametrize("text", ["0.1", "0,1", "0.1,0.1", "0.5,1.5", "a,b", "0.1,,1", "nan,1"])
def test_fractions_that_make_no_curve_are_refused(recipe: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert run(recipe.name, "--fractions", text) == EXIT_USAGE
    error = capsys.readouterr().err
    assert f"--fractions {text}: expected different shares of the training items, above 0 and up to 1" in error
    assert "next:  such as --fractions 0.1,0.3,1" in error


def test_a_run_on_a_part_of_the_items_says_so(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(recipe), *tiny.overridden((*SMALL, "data.fraction=0.5"))) == EXIT_DONE
    assert "train 12," in capsys.readouterr().out
    made = read_run(tiny.only_run(Path("runs")))
    assert made.scores["protocol"]["train_fraction"] == 0.5


def read_folder() -> Path:
    (series,) = Path("runs/tiny").glob("*/series.json")
    return series.parent


def test_folds_test_every_item_once(recipe: Path) -> None:
    text = FOLDED.replace("[data]", f'[data]\nroot = "{recipe.parent / "images" / "train"}"')
    folded = tiny.write_recipe(recipe.parent, text=text)
    assert run(str(folded), "--folds", "2") == EXIT_DONE
    runs = [read_run(read_folder() / f"fold-{fold}") for fold in range(2)]
    tested = [row.id for one in runs for row in one.rows]
    assert len(tested) == len({*tested}) == 30
    assert [(one.scores["protocol"]["folds"], one.scores["protocol"]["fold"]) for one in runs] == [(2, 0), (2, 1)]


def test_two_series_of_folds_are_compared_item_by_item(recipe: Path) -> None:
    for name, share in (("a", 0.6), ("b", 0.9)):
        folder = recipe.parent / name
        for fold in range(2):
            protocol = {**PROTOCOL, "fold": fold, "split_hash": str(fold)}
            write_run(
                folder / f"fold-{fold}",
                right(share, seed=fold, count=100),
                protocol=protocol,
                prefix=f"{fold}-",
                seed=fold,
            )
        write_members(folder, [Member(f"fold-{fold}", {}, fold, 0) for fold in range(2)])
    (pair,) = compare(contenders([recipe.parent / name for name in "ab"], runs=Path("runs"))).pairs
    assert (pair.items, pair.test) == (200, "exact McNemar test")
    assert pair.significant


@pytest.mark.parametrize(
    ("words", "message", "step"),
    [
        (["--folds", "3"], 'the dataset "cifar10" has a test split of its own', "--seeds 5"),
        (["--folds", "1"], "expected an integer of at least 2", "run --help"),
        (["--seeds", "2", "--find-lr"], "--find-lr has no meaning with --seeds", "run tiny.toml --seeds 2"),
        (["--seeds", "2", "--ranks", "2"], "--ranks has no meaning with --seeds", "run tiny.toml --seeds 2"),
        (["--grid", "model.name=cnn,resnet8"], "tiny.toml with model.name=resnet8", "fix the values of --grid"),
        (["--grid", "model.name"], "expected KEY=VALUE,VALUE", "--grid train.optimizer.lr=0.1,0.3"),
    ],
)
def test_what_no_series_can_be_is_refused_before_any_run(
    recipe: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str, step: str
) -> None:
    assert run(recipe.name, *words) == EXIT_USAGE
    error = capsys.readouterr().err
    assert message in error
    assert step in error
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "flag"), [(["--set", "seed=2"], "--set"), (["--extend", "3"], "--extend"), (["--seeds", "2"], "--seeds")]
)
def test_a_series_resumes_as_it_began(
    recipe: Path, capsys: pytest.CaptureFixture[str], words: list[str], flag: str
) -> None:
    folder = recipe.parent / "made"
    folder.mkdir()
    (folder / "series.json").write_text('{"members": []}', encoding="utf-8")
    assert run("--resume", "made", *words) == EXIT_USAGE
    error = capsys.readouterr().err
    assert f"{flag} has no meaning with --resume of a series" in error
    assert "next:  python -m toolkit run --resume made" in error


def test_a_damaged_list_of_members_is_an_error(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = recipe.parent / "made"
    folder.mkdir()
    (folder / "series.json").write_text('{"members": [1]}', encoding="utf-8")
    assert run("--resume", "made") == EXIT_USAGE
    assert "made/series.json: cannot be read" in capsys.readouterr().err
    assert main(["compare", "made", "made"]) == EXIT_USAGE
