"""Runs held against each other: made from files alone, so that every answer is known."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests import tiny
from toolkit.api.errors import EXIT_DONE, EXIT_USAGE, EXIT_WORSE
from toolkit.cli.main import main
from toolkit.runs.compare.comparison import Comparison, compare
from toolkit.runs.compare.contender import contenders
from toolkit.runs.compare.page import write_page
from toolkit.runs.compare.tables import FORMATS, Table, as_json, main_table, print_table

CLASSES = ("cat", "dog")
ITEMS = 400
RECIPE = """
seed = {seed}

[data]
name = "image_folder"

[model]
name = "{model}"

[train]
epochs = 2
metric = "accuracy"
direction = "maximize"
"""
PROTOCOL = {"dataset": "image_folder", "split_hash": "0123", "size": 32, "views": "1 centre crop"}


def right(share: float, seed: int = 0, count: int = ITEMS) -> list[bool]:
    """Which items are answered right."""
    return (np.random.default_rng(seed).random(count) < share).tolist()


def write_run(
    run: Path,
    answers: Sequence[bool],
    *,
    model: str = "cnn",
    seed: int = 0,
    protocol: Mapping[str, Any] = PROTOCOL,
    sources: Mapping[str, str] | None = None,
    losses: Sequence[float] = (0.9, 0.6),
    prefix: str = "",
) -> Path:
    """A finished run with these answers to a test split of cats and dogs."""
    run.mkdir(parents=True)
    (run / "recipe.toml").write_text(RECIPE.format(seed=seed, model=model), encoding="utf-8")
    accuracy = sum(answers) / len(answers)
    scores = {"loss": 1 - accuracy, "accuracy": accuracy}
    facts = {
        "recipe": run.parent.name,
        "classes": CLASSES,
        "targets": "index",
        "items": {"train": 800, "valid": 80, "test": len(answers)},
        "sample": False,
        "parameters": 1200,
    }
    found = {"valid": scores, "test": scores, "best_epoch": 2, "protocol": dict(protocol)}
    for name, content in (("facts.json", facts), ("scores.json", found)):
        (run / name).write_text(json.dumps(content), encoding="utf-8")
    lines = [["id", "target", "prediction", "confidence", "class_1", "probability_1", "class_2", "probability_2"]]
    for place, is_right in enumerate(answers):
        target = CLASSES[place % 2]
        said = target if is_right else CLASSES[1 - place % 2]
        other = next(name for name in CLASSES if name != said)
        lines.append([f"{target}/{prefix}{place:04}.png", target, said, "0.8", said, "0.8", other, "0.2"])
    write_csv(run / "predictions.csv", lines)
    if sources:
        write_csv(run / "sources.csv", [["id", "source"], *map(list, sources.items())])
    records = [
        {"epoch": epoch, "step": epoch, "train_loss": loss, "valid": {"loss": loss, "accuracy": 1 - loss}, "lr": {},
         "seconds": 2.0, "valid_seconds": 0.1, "waiting": 0.0, "best": True}
        for epoch, loss in enumerate(losses, 1)
    ]  # fmt: skip
    (run / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return run


def write_csv(path: Path, lines: Sequence[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(lines)


def compared(*runs: Path) -> Comparison:
    return compare(contenders(runs, runs=Path("runs")))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_better_run_is_called_better(here: Path) -> None:
    worse = write_run(here / "runs" / "small" / "1", right(0.7))
    better = write_run(here / "runs" / "wide" / "1", right(0.9, seed=1), model="resnet18")
    found = compared(worse, better)
    (pair,) = found.pairs
    assert pair.significant
    assert pair.test == "exact McNemar test"
    assert pair.difference == pytest.approx(found.measured["wide"].value - found.measured["small"].value)
    assert pair.interval.low < pair.difference < pair.interval.high
    assert found.best is found.contenders[1]
    assert "wide is better than small" in pair.sentence
    assert found.recipes == {"model.name": ("cnn", "resnet18")}


def test_flips_are_counted_by_class_and_by_source(here: Path) -> None:
    ids = [f"{CLASSES[place % 2]}/{place:04}.png" for place in range(8)]
    sources = {name: f"video {place // 4}" for place, name in enumerate(ids)}
    first = write_run(here / "a" / "1", [True, False, True, True, True, True, False, True], sources=sources)
    second = write_run(here / "b" / "1", [True, True, False, True, True, True, True, True], sources=sources)
    (pair,) = compared(first, second).pairs
    assert pair.flips.better == ("dog/0001.png", "cat/0006.png")
    assert pair.flips.worse == ("cat/0002.png",)
    assert pair.flips.by_class == {"cat": (1, 1), "dog": (1, 0)}
    assert pair.flips.by_source == {"video 0": (1, 1), "video 1": (1, 0)}
    assert pair.test == "permutation test over sources"


def test_items_of_one_source_are_one_piece_of_evidence(here: Path) -> None:
    ids = [f"{CLASSES[place % 2]}/{place:04}.png" for place in range(40)]
    sources = {name: f"video {place // 20}" for place, name in enumerate(ids)}
    for name, known in (("alone", None), ("sources", sources)):
        write_run(here / name / "a", [False] * 20 + [True] * 20, sources=known)
        write_run(here / name / "b", [True] * 40, sources=known)
    alone, together = (compared(here / name / "a", here / name / "b").pairs[0] for name in ("alone", "sources"))
    assert alone.significant
    assert not together.significant


def seeds(folder: Path, shares: Sequence[float], model: str = "cnn", first: int = 0) -> Path:
    for place, share in enumerate(shares):
        write_run(folder / f"seed-{place}", right(share, seed=first + place), seed=place, model=model)
    return folder


def test_several_seeds_must_differ_over_runs_and_over_items(here: Path) -> None:
    small, wide = seeds(here / "small", (0.70, 0.71, 0.69)), seeds(here / "wide", (0.9, 0.91, 0.92), "resnet18", 10)
    found = compared(small, wide)
    (pair,) = found.pairs
    assert pair.significant
    assert pair.test == "runs and items"
    assert pair.over_runs.low < pair.difference < pair.over_runs.high
    assert [len(one.runs) for one in found.contenders] == [3, 3]
    assert {*found.contenders[0].answers.values()} <= {f"{right} of 3 right" for right in range(4)}
    spread = compared(seeds(here / "one", (0.5, 0.9, 0.7)), seeds(here / "two", (0.75, 0.95, 0.6), "resnet18", 10))
    assert not spread.pairs[0].significant


def test_two_hundred_comparisons_of_a_model_with_itself(here: Path) -> None:
    """Predictions of one run resampled: each item's answer is the one or the other run's, at random."""
    one, two = right(0.8), right(0.8, seed=1)
    draw, called = np.random.default_rng(0), 0
    base = contenders([write_run(here / "a" / "1", one), write_run(here / "b" / "1", two)], runs=here)
    rows = [side.first.rows for side in base]
    for _ in range(200):
        swapped = draw.integers(0, 2, ITEMS)
        mixed = [[rows[side ^ int(swap)][place] for place, swap in enumerate(swapped)] for side in (0, 1)]
        changed = [_with_rows(side, mixed[place]) for place, side in enumerate(base)]
        called += _significant(changed)
    assert called <= 14


def _with_rows(side: Any, rows: Sequence[Any]) -> Any:
    from dataclasses import replace

    return replace(side, runs=(replace(side.first, rows=rows),))


def _significant(sides: Sequence[Any]) -> bool:
    return compare(sides).pairs[0].significant


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"split_hash": "4567"}, "split_hash: 0123 in a, 4567 in b"),
        ({"size": 64}, "size: 32 in a, 64 in b"),
        ({"frames": "8 x 4 frames at 30/s"}, "frames: absent in a, 8 x 4 frames at 30/s in b"),
    ],
)
def test_unlike_protocols_are_refused_by_name(
    here: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], named: str
) -> None:
    paths = [
        str(write_run(here / "a" / "1", right(0.7))),
        str(write_run(here / "b" / "1", right(0.9), protocol={**PROTOCOL, **change})),
    ]
    assert main(["compare", *paths]) == EXIT_USAGE
    error = capsys.readouterr().err
    assert "the scores do not compare: their protocols differ" in error
    assert named in error
    (anyway,) = re.findall(r"python -m toolkit (compare .*--anyway)", error)
    assert main(anyway.split()) == EXIT_DONE
    shown = capsys.readouterr().out
    assert named in shown
    assert Path("compare.html").is_file()


def test_every_table_holds_every_contender(here: Path) -> None:
    paths = [
        str(write_run(here / name / "1", right(share, seed=place), model=name))
        for place, (name, share) in enumerate((("50% & more_", 0.6), ("b|c", 0.7), ("d", 0.95)))
    ]
    files = [f"table{suffix}" for suffix in FORMATS]
    assert main(["compare", *paths, *(word for file in files for word in ("--output", file))]) == EXIT_DONE
    marked, commas, tex, plain = (Path(file).read_text(encoding="utf-8") for file in files)
    assert "b\\|c" in marked
    assert len({line.replace("\\|", "").count("|") for line in marked.splitlines()}) == 1
    assert marked.count("**") == 2
    rows = list(csv.reader(io.StringIO(commas)))
    assert [row[0] for row in rows] == ["", "50% & more_", "b|c", "d"]
    assert "50\\% \\& more\\_" in tex
    assert tex.count("\\textbf{") == 1
    found = json.loads(plain)
    assert found["best"] == "d"
    assert len(found["pairs"]) == 3
    compile_latex(tex, here)


def compile_latex(table: str, folder: Path) -> None:
    """A LaTeX run, where one is installed."""
    latex = shutil.which("pdflatex")
    if latex is None:
        return
    whole = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}{table}\\end{{document}}"
    (folder / "whole.tex").write_text(whole, encoding="utf-8")
    subprocess.run([latex, "-interaction=nonstopmode", "-halt-on-error", "whole.tex"], cwd=folder, check=True)


def test_bold_only_where_the_best_is_best_beyond_chance(here: Path) -> None:
    found = compared(write_run(here / "a" / "1", right(0.80)), write_run(here / "b" / "1", right(0.80, seed=1)))
    assert found.best is None
    assert "**" not in FORMATS[".md"](found)


def test_a_worse_run_fails_with_6(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = write_run(here / "a" / "1", right(0.9)), write_run(here / "b" / "1", right(0.6, seed=1))
    assert main(["compare", str(good), str(bad), "--fail-if-worse", "accuracy"]) == EXIT_WORSE
    assert re.search(r"worse: b: accuracy \d+\.\d % where a has \d+\.\d % \(p = ", capsys.readouterr().err)
    assert main(["compare", str(bad), str(good), "--fail-if-worse", "accuracy"]) == EXIT_DONE


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ("acuracy", 'no such score; did you mean "accuracy"?'),
        ("loss", "a is one run; a score of the whole split needs two single runs, or several seeds"),
    ],
)
def test_a_score_that_cannot_be_tested_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], metric: str, reason: str
) -> None:
    paths = [str(write_run(here / name / "1", right(0.8, seed=place))) for place, name in enumerate("ab")]
    assert main(["compare", *paths, "--fail-if-worse", metric]) == EXIT_USAGE
    error = capsys.readouterr().err
    assert reason in error
    assert "--fail-if-worse accuracy" in error


def add_replicates(run: Path, losses: Sequence[float]) -> Path:
    """Give a run the loss without each block of items, as training does."""
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    scores["test"]["loss"] = sum(losses) / len(losses)
    scores["intervals"] = {"test": {"loss": [min(losses), max(losses)]}}
    scores["replicates"] = {"test": {"loss": list(losses)}}
    (run / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    return run


def test_another_score_of_single_runs_is_judged_by_blocks_of_items(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both losses vary far more between blocks than their difference does: pairs see it."""
    noise = np.random.default_rng(0).normal(0.5, 0.05, 20)
    good = add_replicates(write_run(here / "a" / "1", right(0.8)), noise.tolist())
    bad = add_replicates(write_run(here / "b" / "1", right(0.8)), (noise + 0.05).tolist())
    same = add_replicates(write_run(here / "c" / "1", right(0.8)), (noise + [0.05, -0.05] * 10).tolist())
    assert main(["compare", str(good), str(bad), "--fail-if-worse", "loss"]) == EXIT_WORSE
    assert "worse: b: loss 0.5" in capsys.readouterr().err
    assert main(["compare", str(good), str(same), "--fail-if-worse", "loss"]) == EXIT_DONE
    assert main(["compare", str(bad), str(good), "--fail-if-worse", "loss"]) == EXIT_DONE
    first = compared(good, bad).scores["loss"][0]
    assert first is not None
    assert first.interval == (noise.min(), noise.max())


def test_other_scores_are_judged_over_seeds(here: Path) -> None:
    good, bad = seeds(here / "good", (0.9, 0.91, 0.92)), seeds(here / "bad", (0.70, 0.71, 0.69), "resnet18", 10)
    assert main(["compare", str(good), str(bad), "--fail-if-worse", "loss"]) == EXIT_WORSE


def test_against_the_last_run_of_the_recipe(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_run(here / "runs" / "r" / "2026-01-01", right(0.8))
    write_run(here / "runs" / "r" / "2026-01-02", right(0.9, seed=1))
    (here / "runs" / "latest").symlink_to("r/2026-01-02")
    assert main(["compare", "runs/latest", "--against-last"]) == EXIT_DONE
    assert "2026-01-01" in capsys.readouterr().out
    assert main(["compare", str(first), "--against-last"]) == EXIT_USAGE
    assert "no earlier run of this recipe has scores" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message", "step"),
    [
        (["a/1"], "needs two runs or more", "compare a/1 RUN or: python -m toolkit compare a/1 --against-last"),
        (["a/1", "a/1"], "a/1: named twice", "compare a/1 RUN"),
        (["a/1", "b/1", "--output", "table.doc"], "unknown format", "--output table.md"),
        (["a/1", "b/1", "--against-last"], "--against-last takes one run", "compare b/1 --against-last"),
        (["a/1", "c"], "c: no such directory", "train a model first: python -m toolkit demo"),
        (["a/1", "mixed"], "its runs differ in more than the seed: model.name", "compare mixed/x mixed/y"),
        (["a/1", "twice"], "twice: x and y have the same seed", "compare twice/y RUN"),
        (["a/1", "young"], "young: has no scores yet", "run --resume young"),
        (["a/1", "bundle"], "bundle: a bundle without an evaluation below runs", "evaluate bundle"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_next_command(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str, step: str
) -> None:
    for name in ("a/1", "b/1", "mixed/x", "twice/x", "twice/y", "young"):
        write_run(here / name, right(0.8))
    write_run(here / "mixed" / "y", right(0.8), model="resnet18")
    (here / "young" / "scores.json").unlink()
    (here / "bundle").mkdir()
    (here / "bundle" / "bundle.json").write_text("{}", encoding="utf-8")
    assert main(["compare", *words]) == EXIT_USAGE
    error = capsys.readouterr().err
    assert message in error
    assert step in error


def test_a_run_by_two_paths_is_named_twice(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(here / "a" / "1", right(0.8))
    assert main(["compare", str(run), "a/1"]) == EXIT_USAGE
    assert "a/1: named twice" in capsys.readouterr().err


def test_a_bundle_is_compared_by_its_latest_evaluation(here: Path) -> None:
    run = write_run(here / "runs" / "r" / "1", right(0.8))
    (here / "exports" / "r").mkdir(parents=True)
    (here / "exports" / "r" / "bundle.json").write_text("{}", encoding="utf-8")
    for time, share in (("1", 0.1), ("2", 0.8)):
        evaluation = write_run(here / "runs" / "r-bundle" / time, right(share))
        scores = json.loads((evaluation / "scores.json").read_text(encoding="utf-8"))
        (evaluation / "scores.json").write_text(json.dumps({**scores, "bundle": "exports/r"}), encoding="utf-8")
    found = compare(contenders([run, Path("exports/r")], runs=Path("runs")))
    assert found.contenders[1].first.directory.path.name == "2"
    assert found.pairs[0].difference == 0


def test_the_latency_of_bundles_is_a_cost(here: Path) -> None:
    run, bundle = (write_run(here / "runs" / name / "2031-01-01", right(0.8)) for name in ("cnn", "cnn-bundle"))
    facts = json.loads((bundle / "facts.json").read_text(encoding="utf-8"))
    (bundle / "facts.json").write_text(json.dumps({**facts, "latency_ms": 12.345}), encoding="utf-8")
    table = main_table(compared(run, bundle))
    place = table.headings.index("latency")
    assert [row[place] for row in table.rows] == ["—", "12.3 ms"]
    sides = json.loads(as_json(compared(run, bundle)))["contenders"]
    assert [side["latency_ms"] for side in sides] == [None, 12.345]


def test_runs_have_no_latency(here: Path) -> None:
    first, second = (write_run(here / name, right(share)) for name, share in (("a", 0.8), ("b", 0.7)))
    assert "latency" not in main_table(compared(first, second)).headings


def test_runs_of_one_recipe_are_named_by_the_values_that_differ(here: Path) -> None:
    runs = [write_run(here / "r" / model, right(0.8), model=model) for model in ("cnn", "resnet18")]
    assert [one.name for one in compared(*runs).contenders] == ['model.name="cnn"', 'model.name="resnet18"']


def test_the_page_shows_flips_of_the_whole_split(here: Path) -> None:
    sides = [write_run(here / name / "1", [answer] * ITEMS) for name, answer in (("bad", False), ("good", True))]
    page = write_page(compared(*sides), here / "compare.html").read_text(encoding="utf-8")
    shown = [int(place) for place in re.findall(r"<span>(?:cat|dog)/(\d+)\.png</span>", page)]
    assert shown == [(2 * place + 1) * ITEMS // 48 for place in range(24)]
    assert "24 of 400, evenly spaced." in page
    assert "Both answered 400 items; 400 became better and 0 worse." in page


def test_a_run_without_an_error_is_not_certain_to_make_none(here: Path) -> None:
    found = compared(write_run(here / "a" / "1", [True] * 40), write_run(here / "b" / "1", right(0.8, count=40)))
    low, high = found.measured["a"].interval
    assert low == pytest.approx(0.9, abs=0.02)
    assert high == 1


def test_runs_of_one_name_are_named_by_their_folders_also_on_the_page(here: Path) -> None:
    for side, seed in (("x", 0), ("y", 1)):
        write_run(here / side / "same" / "seed-0", right(0.8, seed), seed=seed)
    found = compared(here / "x" / "same" / "seed-0", here / "y" / "same" / "seed-0")
    assert [one.name for one in found.contenders] == ["x/same/seed-0", "y/same/seed-0"]
    page = write_page(found, here / "compare.html").read_text(encoding="utf-8")
    assert "<h1>x/same/seed-0, y/same/seed-0</h1>" in page


def test_the_page_is_one_file_with_pictures_of_flipped_items(here: Path) -> None:
    root = tiny.write_images(here / "images")
    recipe = tiny.write_recipe(here, root)
    for seed in (0, 1):
        assert tiny.run(recipe, here / "runs", f"seed={seed}", "train.epochs=1") == EXIT_DONE
    first, second = sorted(one for one in (here / "runs" / "tiny").iterdir())
    rows = (second / "predictions.csv").read_text(encoding="utf-8").splitlines()
    target, said = rows[1].split(",")[1:3]
    other = next(name for name in tiny.CLASSES if name != said)
    rows[1] = rows[1].replace(f"{target},{said},", f"{target},{other if said == target else target},", 1)
    (second / "predictions.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    shutil.copy(first / "predictions.csv", here / "kept.csv")
    assert main(["compare", str(first), str(second)]) == EXIT_DONE
    page = Path("compare.html").read_text(encoding="utf-8")
    assert rows[1].split(",")[0] in page
    assert page.count('<figure class="item">') == page.count('aria-label="Enlarge ') > 0
    assert "http://" not in page
    assert "https://" not in page


@pytest.mark.parametrize(("width", "shown"), [(80, False), (200, True)])
def test_the_columns_of_runs_go_before_a_word_is_broken(width: int, shown: bool) -> None:
    names = ("seed-0", "seed-1", "seed-2")
    rows = tuple(
        (name, "91.1 %", "1.7 %", "86.7 to 95.4 %", *(["89.4 %"] * 3)) for name in ("precision_weighted", "ece")
    )
    table = Table(("score", "mean", "std", "95 % interval", *names), rows, spare=3)
    printed = io.StringIO()
    print_table(table, Console(file=printed, width=width))
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert ("seed-2" in printed.getvalue()) == shown
    assert len(lines) == 6
    assert any("precision_weighted" in line for line in lines)
