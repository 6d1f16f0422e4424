"""The report: from a run's files to figures and one page, and the pictures drawn at the end of a run."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import html.parser
import io
import json
import math
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from tests.blank import BLANK
from tests.conftest import painted
from toolkit.api.contracts import EpochRecord
from toolkit.api.errors import DataError, UsageError
from toolkit.runs.files import read_run
from toolkit.runs.predictions import Prediction
from toolkit.runs.report import (
    draw_augmented,
    draw_feature_maps,
    draw_items,
    draw_worst_errors,
    figures,
    statistics,
    write_report,
)
from toolkit.runs.report.contents import percent
from toolkit.runs.significance import wilson_interval

CLASSES = ["calling", "eating", "<script>alert(1)</script>", "$50 & more"]
ITEMS = 60


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def records(epochs: int, scores: dict[str, float | None]) -> list[EpochRecord]:
    return [
        EpochRecord(
            epoch=epoch,
            step=10 * epoch,
            train_loss=2 / epoch,
            valid={"loss": 2.5 / epoch, **scores},
            lr={"backbone": 1e-4 / epoch, "_head": 1e-3 / epoch},
            seconds=12.5,
            valid_seconds=1.5,
            waiting=0.02,
            best=epoch <= 2,
        )
        for epoch in range(1, epochs + 1)
    ]


def write_records(run: Path, rows: list[EpochRecord]) -> None:
    lines = [json.dumps(dataclasses.asdict(row)) + "\n" for row in rows]
    (run / "records.jsonl").write_text("".join(lines), encoding="utf-8")


def write_predictions(run: Path, classes: list[str]) -> None:
    draw = random.Random(0)
    with (run / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            ["id", "target", "prediction", "confidence", "class_1", "probability_1", "class_2", "probability_2"]
        )
        for item in range(ITEMS):
            target = classes[item % len(classes)]
            prediction = target if draw.random() < 0.6 else draw.choice(classes)
            confidence = draw.uniform(0.5, 1)
            other = next(name for name in classes if name != prediction)
            rows.writerow([f"item<{item}>", target, prediction, confidence, prediction, confidence, other, 0.1])


def write_run(run: Path, classes: list[str] = CLASSES, *, sample: bool = False, test: int = ITEMS) -> Path:
    run.mkdir(parents=True)
    (run / "recipe.toml").write_text('# why\nname = "mine"\n\n[data]\nname = "<b>har</b>"\n', encoding="utf-8")
    write_json(
        run / "facts.json",
        {
            "recipe": "mine",
            "started": "2026-11-22T13:05:11",
            "sample": sample,
            "device": "cpu",
            "precision": "bf16",
            "classes": classes,
            "items": {"train": 1200, "valid": 40, "test": test},
            "parameters": 23_600_000,
            "multiply_adds": None,
            "notes": ["2 duplicates <found>"],
            "epochs": 5,
        },
    )
    write_records(run, records(3, {"accuracy": 0.5, "recall_weighted": 0.5, "f1_macro": None}))
    write_predictions(run, classes)
    return run


def write_scores(run: Path, **test: object) -> None:
    valid = {"loss": 0.9, "accuracy": 0.61, "f1_macro": None}
    protocol = {"split_hash": "b5c3a1", "size": 224}
    write_json(
        run / "scores.json",
        {"valid": valid, "test": {**valid, "accuracy": 0.75, **test}, "protocol": protocol, "best_epoch": 2}
        | {
            "intervals": {"test": {"accuracy": [0.601, 0.899]}},
            "baselines": {"test": {"majority": {"accuracy": 0.45}, "chance": {"accuracy": 0.26}}},
        },
    )
    write_json(run / "environment.json", {"python": "3.11", "git": None, "command": ["toolkit", "run", "a b.toml"]})


class Reader(html.parser.HTMLParser):
    """Collects the tags and the visible text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page.replace("<wbr>", ""))  # where a line may break, nothing is seen

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read_page(path: Path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(tmp_path_factory.mktemp("runs") / "mine" / "2026-11-22_13-05-11")
    write_scores(run)
    before = torch.zeros(3, 3, 16, 16, dtype=torch.uint8)
    with painted():
        draw_augmented(run / "figures", before, pixels(3, 3, 24, 24), ["a", "b", "c"])
        write_report(run)
    return run


@pytest.fixture(scope="module")
def page(run: Path) -> Reader:
    return read_page(run / "report.html")


def pixels(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_every_figure_that_files_can_give_is_drawn_for_light_and_dark_pages(run: Path) -> None:
    expected = {
        "loss",
        "score",
        "scores",
        "learning_rate",
        "confusion",
        "confusion_normalised",
        "calibration",
        "augmented",
    }
    assert {path.stem for path in (run / "figures").glob("*.png")} == expected
    assert {path.stem for path in (run / "figures" / "dark").glob("*.png")} == expected
    light, dark = (Image.open(run / "figures" / name) for name in ("loss.png", "dark/loss.png"))
    assert light.size == dark.size
    corners = [image.convert("L").getpixel((2, 2)) for image in (light, dark)]
    assert corners[0] > 200
    assert corners[1] < 60


@pytest.mark.draws
def test_figures_are_the_same_bytes_when_drawn_again(run: Path) -> None:
    before = {path: path.read_bytes() for path in (run / "figures").rglob("*.png")}
    write_report(run)
    assert {path: path.read_bytes() for path in (run / "figures").rglob("*.png")} == before


def test_the_headline_has_the_interval_and_baselines_of_the_scores(page: Reader) -> None:
    assert "test accuracy 75.0 %" in page.text
    assert "60.1 % to 89.9 % (60 items)" in page.text
    assert "chance 26.0 % · most frequent class 45.0 %" in page.text


def test_page_is_self_contained(page: Reader) -> None:
    sources = [tag[name] for _, tag in page.tags for name in ("src", "srcset") if name in tag]
    assert sources
    assert all(source is not None and source.startswith("data:image/") for source in sources)
    assert all(str(link["href"]).startswith("#") for link in page.of("a"))
    assert not page.of("link")


def test_section_links_lead_to_sections(page: Reader) -> None:
    sections = {f"#{section.get('id')}" for section in page.of("section")}
    assert {link["href"] for link in page.of("a")} <= sections


def test_names_and_ids_of_users_are_text_never_markup(run: Path, page: Reader) -> None:
    assert "<script>alert(1)</script>" in page.text
    assert "item<" in page.text
    assert '"<b>har</b>"' in page.text
    assert len(page.of("script")) == 1
    assert not page.of("b") or all("style" in tag for tag in page.of("b"))


def test_only_the_script_of_the_page_may_run(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    allowed = re.search(r"script-src 'sha256-([^']+)'", text)
    script = re.search(r"<script>(.*)</script>\n</body>", text, re.DOTALL)
    assert allowed
    assert script
    assert base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode() == allowed[1]


def test_pictures_have_alternative_text_and_headings_a_scope(page: Reader) -> None:
    assert len(page.of("img")) == 8
    assert all(image["alt"] for image in page.of("img"))
    assert all("scope" in heading for heading in page.of("th"))


def test_page_shows_scores_recipe_protocol_environment_and_notes(page: Reader) -> None:
    for part in (
        "f1_macro undefined undefined",
        "loss 0.9000 0.9000",
        'name = "mine"',
        "split_hash b5c3a1",
        "toolkit run 'a b.toml'",
    ):
        assert part in page.text
    assert "2 duplicates <found>" in page.text
    assert "Started 22 November 2026, 13:05" in page.text
    assert "23.6 M" in page.text
    assert "best: 2" in page.text


@pytest.mark.parametrize(("trained", "speed"), [({"epoch_items": 1000}, "80/s"), ({}, "96/s")])
def test_the_speed_is_that_of_what_was_trained(tmp_path: Path, trained: dict[str, int], speed: str) -> None:
    """Epochs of 12.5 s. A run of an earlier version does not say what one trained: then it is the split's 1200."""
    run = write_run(tmp_path / "run")
    facts = json.loads((run / "facts.json").read_text())
    write_json(run / "facts.json", facts | trained)
    assert f"Speed {speed}" in read_page(write_report(run)).text


def test_missing_pictures_are_said_to_be_missing(page: Reader) -> None:
    assert "No feature maps" in page.text
    assert "No augmented samples" not in page.text


def test_sample_data_is_announced(tmp_path: Path, page: Reader) -> None:
    run = write_run(tmp_path / "run", sample=True)
    assert "SAMPLE DATA" in read_page(write_report(run)).text
    assert "SAMPLE DATA" not in page.text


def test_unfinished_run_gets_a_report_that_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "predictions.csv").unlink()
    page = read_page(write_report(run))
    assert "Unfinished: 3 of 5 epochs." in page.text
    assert "No scores yet" in page.text
    assert (run / "figures" / "loss.png").is_file()


def test_run_that_has_only_its_recipe_gets_a_report(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('name = "x"\n', encoding="utf-8")
    page = read_page(write_report(tmp_path))
    assert "Unfinished: 0 of ? epochs." in page.text
    assert not (tmp_path / "figures").exists()


def test_scores_are_derived_from_predictions_where_no_metric_gave_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ["yes", "no"])
    write_json(run / "scores.json", {"valid": {}, "test": {"loss": 0.5}, "protocol": {}, "best_epoch": 3})
    page = read_page(write_report(run))
    right = sum(not row.wrong for row in read_run(run).predictions)
    assert f"test accuracy {100 * right / ITEMS:.1f} %" in page.text
    assert "expected calibration error" in page.text


def test_scores_of_metrics_win_over_derived_ones(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ["yes", "no"])
    write_scores(run, recall_per_class=[0.123, None], ece=0.077, confusion_matrix=[[20, 10], [5, 25]])
    page = read_page(write_report(run))
    assert "12.3 %" in page.text
    assert "expected calibration error 7.7 %" in page.text
    assert "yes no 10 33.3 %" in page.text


@pytest.mark.parametrize("untested", [{"test": {}}, {}], ids=["run", "bundle"])
def test_scores_without_a_test_split_are_said_to_be_of_valid(tmp_path: Path, untested: dict[str, object]) -> None:
    run = write_run(tmp_path / "run", ["yes", "no"], test=0)
    valid = {"accuracy": 0.75, "ece": 0.077, "recall_per_class": [0.123, None]}
    matrix = {"confusion_matrix": [[20, 10], [5, 25]]}
    write_json(run / "scores.json", {"valid": {**valid, **matrix}, **untested, "protocol": {}})
    page = read_page(write_report(run))
    assert "valid accuracy 75.0 %" in page.text
    assert "62.8 % to 84.2 % (60 items)" in page.text  # Wilson's, as the scores have no interval
    assert "most frequent class 50.0 %" in page.text
    assert "expected calibration error 7.7 %" in page.text
    assert "yes no 10 33.3 %" in page.text
    assert "12.3 %" in page.text
    assert_predictions_are_of(page, "valid")


def assert_predictions_are_of(page: Reader, split: str) -> None:
    assert f"items of the {split} split; rows are targets" in page.text
    assert f"items of the {split} split in one band of confidence" in page.text
    assert f"highest confidence on the {split} split" in page.text
    assert f"One picture of the {split} split" in page.text
    assert ("test split" in page.text) == (split == "test")


def test_predictions_on_test_are_said_to_be_of_test(page: Reader) -> None:
    assert_predictions_are_of(page, "test")


def test_predictions_of_a_run_that_was_stopped_before_its_scores_are_of_the_split_it_has(tmp_path: Path) -> None:
    for split, count in (("valid", 0), ("test", ITEMS)):
        page = read_page(write_report(write_run(tmp_path / split, test=count)))
        assert f"{split} accuracy" in page.text
        assert_predictions_are_of(page, split)


def test_a_run_without_a_split_to_score_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "predictions.csv").write_text("id,target,prediction,confidence\n", encoding="utf-8")
    write_json(run / "scores.json", {"valid": {}, "test": {}, "protocol": {}, "best_epoch": 3})
    page = read_page(write_report(run))
    assert page.text.count("Nothing was scored: the dataset has no validation and no test items.") == 2
    assert "No accuracy was computed." not in page.text
    assert "not finished" not in page.text
    assert page.text.count("No predictions on a validation or a test split.") == 3


def scored_again(run: Path) -> str:
    """The next step for a damaged run: new scores lie in a folder of their own, with a report."""
    scored = run / "evaluations" / "TIME"
    return f"score it again: python -m toolkit evaluate {run}, then report that: python -m toolkit report {scored}"


@pytest.mark.parametrize("left", ["scores.json", "predictions.csv"])
@pytest.mark.parametrize(
    ("facts", "message"),
    [(None, "is missing, and with it the names of the classes"), ("{}", "names no classes")],
    ids=["no facts", "no names"],
)
def test_classes_without_names_are_refused(tmp_path: Path, left: str, facts: str | None, message: str) -> None:
    run = write_run(tmp_path / "run")
    write_scores(run, confusion_matrix=[[1, 0], [0, 1]])
    (run / ("scores.json" if left == "predictions.csv" else "predictions.csv")).unlink()
    (run / "facts.json").unlink()
    if facts is not None:
        (run / "facts.json").write_text(facts)
    with pytest.raises(DataError, match=message) as caught:
        write_report(run)
    assert caught.value.path == run / "facts.json"
    assert caught.value.next_step == scored_again(run)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("name", ["facts.json", "scores.json"])
def test_a_damaged_evaluation_leads_to_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    run = tmp_path / "a run"
    evaluation = write_run(run / "evaluations" / "2026-11-23")
    write_scores(evaluation)
    (evaluation / name).write_text("{")
    monkeypatch.chdir(evaluation)
    for path in (evaluation, Path()):
        with pytest.raises(DataError) as caught:
            write_report(path)
        assert caught.value.next_step == (
            f"evaluate the run again, with the same overrides: python -m toolkit evaluate '{run}'"
        )


def test_a_damaged_evaluation_of_a_bundle_leads_to_the_bundle(tmp_path: Path) -> None:
    evaluation = write_run(tmp_path / "har-bundle" / "2026-11-23")
    (evaluation / "scores.json").write_text("{")
    with pytest.raises(DataError) as caught:
        write_report(evaluation)
    assert str(caught.value.next_step).endswith("python -m toolkit evaluate BUNDLE")


def test_a_thousand_classes_are_limited_to_the_most_confused(tmp_path: Path) -> None:
    classes = [f"class {index}" for index in range(200)]
    run = write_run(tmp_path / "run", classes)
    page = read_page(write_report(run))
    assert "the 40 of 200 classes with most mistakes" in page.text
    assert "class 199" in page.text


def test_class_names_that_the_font_lacks_are_on_the_page(tmp_path: Path) -> None:
    page = read_page(write_report(write_run(tmp_path / "run", ["跑步", "坐\n下"])))
    assert "跑步" in page.text


@pytest.mark.draws
def test_class_names_that_the_font_lacks_are_drawn_without_warning(tmp_path: Path) -> None:
    drawn = figures.save(tmp_path, "confusion", figures.confusion(["跑步", "坐\n下"], [[1, 2], [3, 4]], shares=False))
    assert opened(drawn).width > 500


def test_half_written_last_record_is_skipped_and_reported(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with (run / "records.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"epoch": 4, "st')
    page = read_page(write_report(run))
    assert "Unfinished: 3 of 5 epochs." in page.text
    assert "The last line of records.jsonl was cut short" in page.text


@pytest.mark.parametrize(
    ("place", "message"), [("absent", "absent: no such directory"), (".", r"not a run directory \(it has no recipe")]
)
def test_directory_that_is_not_a_run_is_a_usage_error(tmp_path: Path, place: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        write_report(tmp_path / place)
    assert caught.value.next_step == "train a model first: python -m toolkit demo"


def test_folder_of_runs_leads_to_the_newest(tmp_path: Path) -> None:
    for time in ("2026-01-02", "2026-03-04"):
        (tmp_path / "mine" / time).mkdir(parents=True)
        (tmp_path / "mine" / time / "recipe.toml").touch()
    with pytest.raises(UsageError) as caught:
        write_report(tmp_path)
    assert caught.value.next_step == f"name one of its runs, the latest is {tmp_path / 'mine' / '2026-03-04'}"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("facts.json", "{", "facts.json: not valid JSON"),
        ("records.jsonl", "\udcff\n", "records.jsonl: not UTF-8 text"),
        ("predictions.csv", "id,target\n\udcff", "predictions.csv: not UTF-8 text"),
        ("recipe.toml", "\udcff", "recipe.toml: not UTF-8 text"),
        ("scores.json", "[1]", "scores.json: expected a table, got a list"),
        ("records.jsonl", '{"epoch": 1}\n', "records.jsonl: line 1: not an epoch record .*'step'"),
        ("records.jsonl", "no\n", "records.jsonl: line 1: not an epoch record"),
        ("predictions.csv", "id,target\n1,a\n", "predictions.csv: column prediction is missing"),
        ("predictions.csv", "id,target,prediction,confidence\n1,a,b,high\n", "predictions.csv: line 2: .*'high'"),
        ("scores.json", '{"test": {"confusion_matrix": [[1]]}}', "the confusion matrix has 1 rows, but the run has 4"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    run = write_run(tmp_path / "run")
    (run / name).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=message) as caught:
        write_report(run)
    assert caught.value.path == run / name
    assert caught.value.next_step == scored_again(run)


def test_importing_the_report_loads_no_heavy_package() -> None:
    code = (
        "import sys, toolkit.runs.report; print({'torch', 'numpy', 'matplotlib', 'jinja2', 'PIL'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


def test_a_page_without_slices_has_no_such_part(page: Reader) -> None:
    links = [link["href"] for link in page.of("a")]
    assert "#scores" in links
    assert "#slices" not in links


def test_making_a_page_does_not_load_torch(tmp_path: Path) -> None:
    run, pixel = write_run(tmp_path / "run"), tmp_path / "pixel.png"
    pixel.write_bytes(BLANK)
    code = (
        "import pathlib, sys; from toolkit.runs.report import figures, write_report;"
        # Figures are made, but not painted.
        "pixel = pathlib.Path(sys.argv[2]).read_bytes(); figures._encoded = lambda figure: pixel;"
        "write_report(pathlib.Path(sys.argv[1])); print('matplotlib' in sys.modules, 'torch' in sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, str(run), str(pixel)], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "True False"


@given(st.integers(1, 5000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_wilson_interval_holds_the_share(hits_and_count: tuple[int, int]) -> None:
    hits, count = hits_and_count
    low, high = wilson_interval(hits / count, count)
    assert 0 <= low <= hits / count + 1e-12
    assert hits / count - 1e-12 <= high <= 1


def test_wilson_interval_agrees_with_a_published_example() -> None:
    low, high = wilson_interval(15 / 148, 148)  # Newcombe (1998), table I, method 3
    assert (round(low, 4), round(high, 4)) == (0.0624, 0.1605)
    assert wilson_interval(0.0, 0) == (0.0, 1.0)


def predicted(target: str, prediction: str, confidence: float) -> Prediction:
    return Prediction("id", target, prediction, confidence, {})


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc"), st.floats(0, 1)), min_size=1, max_size=50))
def test_statistics_agree_with_scikit_learn(rows: list[tuple[str, str, float]]) -> None:
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    predictions = [predicted(*row) for row in rows]
    targets, answers, _ = zip(*rows, strict=True)
    matrix = statistics.confusion_matrix("abc", predictions)
    assert matrix == confusion_matrix(targets, answers, labels=list("abc")).tolist()
    shown = statistics.per_class("abc", matrix, {})
    expected = precision_recall_fscore_support(targets, answers, labels=list("abc"), zero_division=math.nan)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [getattr(row, name) for row in shown] == pytest.approx(list(values), nan_ok=True)
    bins = statistics.calibration(predictions)
    assert sum(bins.share) == pytest.approx(1)
    assert 0 <= bins.expected_error <= 1


def test_normalised_rows_are_shares_of_their_target() -> None:
    assert statistics.normalised([[3, 1], [0, 0]]) == [[0.75, 0.25], [0, 0]]


def test_most_confused_and_hardest_classes() -> None:
    matrix = [[8, 2, 0], [0, 10, 0], [5, 0, 5]]
    first, second = statistics.most_confused("abc", matrix, 5)
    assert (first.target, first.prediction, first.count, first.share) == ("c", "a", 5, 0.5)
    assert (second.target, second.prediction) == ("a", "b")
    assert statistics.hardest_classes(matrix, 2) == [0, 2]


def test_worst_errors_are_the_wrong_ones_of_highest_confidence() -> None:
    rows = [predicted("a", "b", 0.4), predicted("a", "a", 0.99), predicted("b", "a", 0.9)]
    assert [row.confidence for row in statistics.worst_errors(rows, 5)] == [0.9, 0.4]


def opened(path: Path | None) -> Image.Image:
    assert path is not None
    return Image.open(io.BytesIO(path.read_bytes()))


@pytest.mark.draws
@pytest.mark.parametrize("shape", [(5, 3, 20, 30), (2, 12, 3, 16, 16), (1, 3, 8, 8)])
def test_sheets_take_images_and_clips_of_any_size(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pictures = pixels(*shape)
    rows = [Prediction("$x$", "a" * 99, "<b>", 0.9, {})] * len(pictures)
    for path in (
        draw_augmented(tmp_path, pictures, pictures, ["60 % cat, 40 % dog"] * len(pictures)),
        draw_worst_errors(tmp_path, pictures, rows),
    ):
        assert opened(path).width > 100


@pytest.mark.draws
def test_sheet_shows_the_pixels_it_was_given(tmp_path: Path) -> None:
    red = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    red[:, 0] = 255
    sheet = opened(draw_augmented(tmp_path, red, 255 - red, ["x"] * 4)).convert("RGB")
    colours = {colour for count, colour in sheet.getcolors(1 << 20) if count > 1000}
    assert {(255, 0, 0), (0, 255, 255)} <= colours


def test_nothing_to_draw_gives_no_sheet(tmp_path: Path) -> None:
    nothing = torch.zeros(0, 3, 8, 8, dtype=torch.uint8)
    assert draw_worst_errors(tmp_path, nothing, []) is None
    assert draw_augmented(tmp_path, nothing, nothing, []) is None
    assert list(tmp_path.iterdir()) == []


class Small(nn.Module):
    """Five convolutions, one of pooled features, and a part kept in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(3 if not stage else 6, 6, 3, padding=1), nn.BatchNorm2d(6)) for stage in range(4)
        )
        self.squeeze = nn.Conv2d(6, 4, 1)
        self.stages[0].eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for stage in self.stages:
            x = stage(x)
        return self.squeeze(x.mean((-2, -1), keepdim=True)).flatten(1)


@pytest.mark.draws
def test_feature_maps_leave_the_model_as_it_was(tmp_path: Path) -> None:
    model = Small()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    assert opened(draw_feature_maps(tmp_path, model, pixels(3, 40, 40), torch.rand(1, 3, 32, 32))).width > 500
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_feature_maps_clean_up_after_a_model_that_fails(tmp_path: Path) -> None:
    model = Small()
    with pytest.raises(RuntimeError):
        draw_feature_maps(tmp_path, model, pixels(3, 8, 8), torch.rand(1, 5, 8, 8))
    assert not any(module._forward_hooks for module in model.modules())
    assert model.training


def test_model_without_convolutions_has_no_feature_maps(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2))
    assert draw_feature_maps(tmp_path, model, pixels(3, 8, 8), torch.rand(1, 3, 8, 8)) is None


def with_items(run: Path) -> list[Prediction]:
    """Pictures of the first two wrong answers and of the first right one; the rows of predictions.csv."""
    rows = read_run(run).predictions
    wrong = [place for place, row in enumerate(rows) if row.wrong][:2]
    right = [place for place, row in enumerate(rows) if not row.wrong][:1]
    draw_items(run / "figures", pixels(3, 3, 24, 24), [*wrong, *right])
    return rows


def test_items_are_pictures_of_their_own_with_their_names(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    rows = with_items(run)
    page = read_page(write_report(run))
    items = [image for image in page.of("img") if str(image["src"]).startswith("data:image/webp")]
    assert len(items) == 3
    confidences = [
        next(row for row in rows if str(image["alt"]).startswith(f"{row.id}:")).confidence for image in items
    ]
    assert confidences[0] >= confidences[1]
    assert [str(button["aria-label"]).startswith("Enlarge item<") for button in page.of("button")] == [True] * 3
    assert "Right answers Spread over the test split." in page.text
    assert "No maps of where answers come from: report RUN --explain draws them." in page.text


def test_pictures_of_items_are_exact_and_replace_those_of_before(tmp_path: Path) -> None:
    pictures = pixels(2, 3, 16, 16)
    draw_items(tmp_path, pictures, [7, 123456])
    assert sorted(path.name for path in (tmp_path / "items").iterdir()) == ["000007.webp", "123456.webp"]
    with Image.open(tmp_path / "items" / "000007.webp") as image:
        assert torch.equal(
            torch.tensor(list(image.convert("RGB").tobytes())), pictures[0].permute(1, 2, 0).flatten().long()
        )
    draw_items(tmp_path, pictures[:1, None].repeat(1, 4, 1, 1, 1), [3])
    assert [path.name for path in (tmp_path / "items").iterdir()] == ["000003.webp"]
    with Image.open(tmp_path / "items" / "000003.webp") as strip:
        assert strip.size == (4 * 16, 16)


CLICK = """
<iframe id="page" src="report.html" style="width:900px;height:900px"></iframe>
<script>
document.getElementById("page").addEventListener("load", (event) => {
  const page = event.target.contentDocument;
  page.querySelector(".item button").click();
  const dialog = page.querySelector("dialog");
  const shown = `open ${dialog.open}, ${dialog.querySelectorAll("img").length} img, ${dialog.textContent}`;
  dialog.querySelector("button").click();
  document.title = `${shown}; then open ${dialog.open}`;
});
</script>
"""


@pytest.mark.slow  # starts a browser
def test_a_click_enlarges_a_picture_and_another_closes_it(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium, which is not installed")
    run = write_run(tmp_path / "run")
    with_items(run)
    write_report(run)
    (run / "click.html").write_text(CLICK, encoding="utf-8")
    quiet = ["--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    words = [browser, *quiet, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom"]
    words.append((run / "click.html").as_uri())
    shown = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    title = re.search(r"<title>(.*?)</title>", shown.stdout, re.DOTALL)
    assert title, shown.stderr
    assert re.fullmatch(r"open true, 1 img, .*item&lt;.*Close; then open false", title[1], re.DOTALL)


def test_the_header_names_model_dataset_and_what_was_changed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "recipe.toml").write_text('[data]\nname = "har"\n\n[model]\nname = "resnet18"\n', encoding="utf-8")
    facts = json.loads((run / "facts.json").read_text())
    changed = {"train.epochs": "3", "data.root": '"/home/someone/photos"'}
    write_json(run / "facts.json", facts | {"changed": changed})
    page = read_page(write_report(run)).text
    assert "model resnet18 · data har · 4 classes" in page
    assert "changed from the recipe file: train.epochs = 3 data.root = …/photos" in page
    assert "someone" not in page


def test_curves_and_confusions_come_before_scores_and_the_protocol(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    places = [text.index(f'<section id="{name}"') for name in ("training", "confusion", "classes", "errors", "scores")]
    assert places == sorted(places)
    assert places[-1] < text.index("Protocol:")


def test_verdicts_stand_at_the_top_with_their_keys(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    facts = json.loads((run / "facts.json").read_text())
    write_json(run / "facts.json", facts | {"class_items": {"calling": 90, "eating": 10}})
    text = write_report(run).read_text(encoding="utf-8")
    assert text.index("Unbalanced classes: 10 training items of eating, 90 of calling") < text.index("<nav")
    assert re.search("What this means Too few items .* Unbalanced classes", Reader(text).text)
    assert "Try</span> <code>" not in text  # this recipe has no key that would help


def test_the_files_that_notes_are_about_are_listed_up_to_a_limit(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert 'href="#files"' not in write_report(run).read_text(encoding="utf-8")
    rows = [f"a/{number}.jpg,duplicate under another label,b/{number}.jpg\n" for number in range(25)]
    (run / "files.csv").write_text("path,problem,other\n" + "".join(rows), encoding="utf-8")
    page = read_page(write_report(run)).text
    assert "25 files that notes are about, the first 20 of them; all are in files.csv." in page
    assert "a/19.jpg duplicate under another label b/19.jpg" in page
    assert "a/20.jpg" not in page


def test_equal_scores_share_a_row(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    scores = {"loss": 0.5, "log_loss": 0.50000001, "accuracy": 0.75, "recall_macro": 0.75, "auc": None, "pr": None}
    write_json(run / "scores.json", {"valid": scores, "test": {**scores, "recall_macro": 0.7}, "protocol": {}})
    page = read_page(write_report(run)).text
    for row in (
        "loss = log_loss 0.5000 0.5000",
        "accuracy 75.0 % 75.0 %",
        "recall_macro 75.0 % 70.0 %",
        "auc undefined undefined pr undefined undefined",
    ):
        assert row in page


@pytest.mark.parametrize(
    ("valid", "why"),
    [({}, "The dataset has no validation split."), ({"loss": 0.5}, "No score but the loss is computed")],
)
def test_why_there_is_no_curve_of_a_score(tmp_path: Path, valid: dict[str, float], why: str) -> None:
    run = write_run(tmp_path / "run")
    write_records(run, [dataclasses.replace(one, valid=valid) for one in records(3, {})])
    assert why in read_page(write_report(run)).text


def test_a_percentage_never_breaks_into_two_lines() -> None:
    assert percent(1.0) == "100.0\N{NO-BREAK SPACE}%"


def test_a_large_matrix_has_a_colour_bar_and_a_small_one_numbers() -> None:
    from matplotlib import rc_context

    for classes, bars in ((20, 1), (21, 2)):
        with rc_context():
            drawn = figures.confusion(["x"] * classes, [[1.0] * classes] * classes, shares=True)(figures.LIGHT)
        assert len(drawn.axes) == bars


def test_legends_stand_outside_the_axes() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    rows = records(3, {"accuracy": 0.5, "recall": 0.4})
    for drawing in (
        figures.loss_curves(rows, 2),
        figures.score_curves(rows, ["accuracy", "recall"], 2),
        figures.learning_rates(rows),
        figures.reliability(statistics.calibration([predicted("a", "a", 0.9)])),
    ):
        drawn = drawing(figures.LIGHT)
        FigureCanvasAgg(drawn).draw()
        assert not drawn.legends[0].get_window_extent().overlaps(drawn.axes[0].get_window_extent())


def test_a_run_on_ranks_shows_which_wait_longest() -> None:
    rows = [dataclasses.replace(row, rank_waiting=[0.01 * rank for rank in range(9)]) for row in records(2, {})]
    rows[0] = dataclasses.replace(rows[0], rank_waiting=[0.5, 0.1])  # the run went on with more ranks
    drawn = figures.waiting_by_rank(rows)(figures.LIGHT)
    names = [text.get_text().strip() for text in drawn.legends[0].get_texts()]
    assert names == ["rank 0", "rank 1", "rank 8", "rank 7", "rank 6", "rank 5"]


def test_a_run_on_ranks_shows_which_are_slow() -> None:
    rows = [dataclasses.replace(row, rank_speeds=[100.0, 40.0, 0.0, 90.0]) for row in records(3, {})]
    rows[0] = dataclasses.replace(rows[0], rank_speeds=[])  # the run began on one rank
    drawn = figures.speed_by_rank(rows)(figures.LIGHT)
    names = [text.get_text().strip() for text in drawn.legends[0].get_texts()]
    assert names == ["rank 1", "rank 3", "rank 0"]
    first, *later = zip(*(line.get_ydata() for line in drawn.axes[0].get_lines()), strict=True)
    assert all(map(math.isnan, first))
    assert later == [(40, 90, 100)] * 2
