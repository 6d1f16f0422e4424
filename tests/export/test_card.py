"""The model card: what it says, that hostile names stay text, and that its lines of Python run as they stand."""

from __future__ import annotations

import ast
import io
import math
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import PIL.ImageOps
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests import toy_bundle
from tests.odd_images import READ
from toolkit.api.clips import Clip
from toolkit.api.errors import printable
from toolkit.data.pixels import decode_pixels
from toolkit.export.card import MATRIX_CLASSES, card, code, confusions, in_words, score, snippet, text, words
from toolkit.runs.report.statistics import ClassScores
from toolkit.serving.bundle import Bundle, Rejection, Trust
from toolkit.serving.bundle.manifest import Manifest, read_manifest

FLIP = 'run/a_1.jpg: "dark" became "bright", margin 0.0121'
GATE: dict[str, dict[str, Any]] = {
    "fp32": {"items": 270, "squares": {"batch_sizes": [1, 5], "largest_difference": 1.25e-06, "flips": []}},
    "int8": {"items": 270, "squares": {"batch_sizes": [1, 5], "largest_difference": 0.03125, "flips": [FLIP] * 7}},
}
"""As `toolkit.export.gate` sums it up."""


def manifest(tmp_path: Path, **changes: Any) -> Manifest:
    return read_manifest(toy_bundle.write(tmp_path / "toy", **changes))


def section(page: str, heading: str) -> str:
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page, flags=re.MULTILINE | re.DOTALL)
    assert found, f"the card has no section {heading!r}"
    return found[1]


def body(page: str) -> str:
    """The card without its front matter."""
    return page.split("---\n", 2)[2]


def rows(table: str) -> list[list[str]]:
    """The cells of all rows of the tables in `table`."""
    lines = [line for line in table.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def python_blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("reject", "what"),
    [
        (Rejection("energy", 8.0, 0.05), "energy is below 8"),
        (Rejection("similarity", 2.0, 0.05, 0.5), "confidence + 0.5 x similarity is below 2"),
    ],
)
def test_the_card_says_what_is_declined_and_names_the_output(tmp_path: Path, reject: Rejection, what: str) -> None:
    page = card(manifest(tmp_path, trust=Trust(reject=reject)), None)
    assert f"an answer whose {what} is declined" in page
    assert f"| output | `{reject.score}` | float32 | `[N]` | " in page
    assert "; for unknown inputs it is low |" in page


# The lines of Python


def run_lines(folder: Path, page: str, *images: Path) -> str:
    """What the card's Python prints, saved in the bundle's folder as the card says."""
    (lines,) = python_blocks(page)
    (folder / "classify.py").write_text(lines, encoding="utf-8")
    command = [sys.executable, "-I", "-X", "utf8", "classify.py", *map(str, images)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_lines_are_few_and_need_three_packages(tmp_path: Path) -> None:
    lines = snippet(manifest(tmp_path))
    assert len(lines.splitlines()) == 6
    assert max(map(len, lines.splitlines())) <= 120
    (imported,) = re.findall(r"^import (.*)$", lines, flags=re.MULTILINE)
    packages = {name.split()[0].split(".")[0] for name in imported.split(", ")}
    assert packages - set(sys.stdlib_module_names) == {"numpy", "onnxruntime", "PIL"}


@pytest.mark.parametrize(("shade", "expected"), [(20, "dark"), (230, "größte Helle")])
def test_the_lines_run_as_they_stand(tmp_path: Path, shade: int, expected: str) -> None:
    page = card(manifest(tmp_path, classes=("dark", "größte Helle")), None)
    image = tmp_path / "photo one.png"
    Image.new("L", (21, 13), shade).save(image)
    name, _, probability = run_lines(tmp_path / "toy", page, image).strip().rpartition(" ")
    assert name == expected
    assert 0.5 < float(probability) <= 1


def test_the_lines_see_the_pixels_of_training(tmp_path: Path) -> None:
    """Of every odd image that training reads."""
    lines = snippet(manifest(tmp_path)).splitlines()
    seen = compile("\n".join(line for line in lines if line.startswith("image =")), "card", "exec")
    assert 'np.asarray(image.convert("RGB"))[None]' in lines[-2]
    for name, data in READ.items():
        found: dict[str, Any] = {"PIL": PIL, "np": np, "sys": SimpleNamespace(argv=["", io.BytesIO(data)])}
        exec(seen, found)
        assert np.array_equal(np.asarray(found["image"].convert("RGB")), decode_pixels(data)), name


@pytest.mark.parametrize(
    ("clip", "shown", "expected"),
    [
        (Clip(frames=3, rate=2, fps=10), [40, 255, 40, 255, 40, 255, 255, 255], "dark"),
        (Clip(frames=3, rate=2, fps=10), [255, 0, 255, 0, 255, 0, 0, 0], "bright"),
        (Clip(frames=9, rate=1, fps=10, short="loop"), [0, 0, 255], "dark"),
        (Clip(frames=9, rate=1, fps=10, short="hold"), [0, 0, 255], "bright"),
        (Clip(frames=2, sampling="segments"), [0, 255, 255, 0, 0, 0, 255, 0], "bright"),
    ],
)
def test_the_lines_of_a_model_of_clips_take_one_of_a_video(
    tmp_path: Path, clip: Clip, shown: list[int], expected: str
) -> None:
    page = card(manifest(tmp_path, clip=clip, precisions=("int8", "fp32")), None)
    video = write_video(tmp_path / "video.mkv", shown)
    assert run_lines(tmp_path / "toy", page, video).split()[0] == expected
    assert f"uint8 | `[N, {clip.frames}, H, W, 3]`" in page
    (lines,) = python_blocks(page)
    assert len(lines.splitlines()) == 5
    assert max(map(len, lines.splitlines())) <= 120


def write_video(path: Path, shown: list[int]) -> Path:
    """A video of flat grey frames of these levels, ten a second, none of them lost to compression."""
    with av.open(str(path), "w") as video:
        stream = video.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "bgr0"
        for level in shown:
            pixels = np.full((24, 32, 3), level, np.uint8)
            video.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        video.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        (None, "Of a video, the middles of 4 equal parts are classified, and averaged."),
        (
            Clip(frames=13, rate=6, clips=10, crops=3),
            "Of a video, 10 clips in time (13 frames, 0.2 seconds apart) and of each both ends and the centre of its "
            "long side are classified, and their probabilities averaged.",
        ),
        (
            Clip(frames=8, sampling="segments", average="logits"),
            "Of a video, 1 clip in time (one frame of each of 8 equal parts of it) and of each its centre are "
            "classified, and their logits averaged.",
        ),
    ],
)
def test_how_a_video_is_answered_is_shown(tmp_path: Path, clip: Clip | None, expected: str) -> None:
    assert expected in card(manifest(tmp_path, clip=clip), None)


def test_the_lines_name_the_preferred_model(tmp_path: Path) -> None:
    found = manifest(tmp_path, precisions=("int8", "fp32"), models={"int8": "model.fp32.onnx", "fp32": "model.onnx"})
    assert 'InferenceSession("model.fp32.onnx"' in snippet(found)
    assert "`model.fp32.onnx` is int8, `model.onnx` is fp32." in card(found, None)


SETS = {"classes": ("some", "größte Helle", "most"), "thresholds": (0.5, 0.45, 0.3)}


@pytest.mark.parametrize(
    ("shade", "expected"), [(0, []), (60, ["some"]), (130, ["some", "größte Helle"]), (255, SETS["classes"])]
)
def test_the_lines_for_sets_print_each_class_that_reaches_its_threshold(
    tmp_path: Path, shade: int, expected: list[str]
) -> None:
    found = manifest(tmp_path, **SETS)
    page = card(found, None)
    image = tmp_path / "photo.png"
    Image.new("L", (21, 13), shade).save(image)
    printed = run_lines(tmp_path / "toy", page, image)
    answers = Bundle.load(tmp_path / "toy", device="cpu").predict(np.full((13, 21, 3), shade, np.uint8))
    assert answers.sets == [tuple(expected)]
    assert [*ast.literal_eval(f"[{printed.strip().replace(') (', '), (')}]")] == [
        (name, pytest.approx(p))
        for name, p in zip(answers.classes, answers.probabilities[0].tolist(), strict=True)
        if name in answers.sets[0]
    ]
    (lines,) = python_blocks(page)
    assert len(lines.splitlines()) == 7
    assert max(map(len, lines.splitlines())) <= 120


def test_the_lines_for_sets_take_a_clip_of_a_video(tmp_path: Path) -> None:
    page = card(manifest(tmp_path, clip=Clip(frames=3, rate=2, fps=10), **SETS), None)
    video = write_video(tmp_path / "video.mkv", [40, 255, 40, 255, 90, 255, 255, 255])
    assert run_lines(tmp_path / "toy", page, video).startswith("('some', 0.5")
    (lines,) = python_blocks(page)
    assert len(lines.splitlines()) == 6
    assert max(map(len, lines.splitlines())) <= 120


# What the card says


def test_a_set_of_classes_is_shown_with_its_thresholds(tmp_path: Path) -> None:
    scores = (
        ClassScores("some", 0.5, 1.0, 2 / 3, 4, threshold=0.25),
        ClassScores("a|b", math.nan, 0.0, 0.0, 7, threshold=0.5),
    )
    page = card(manifest(tmp_path, form="set", thresholds=(0.25, 0.5)), None, scores)
    assert rows(section(page, "Classes")) == [
        ["class", "threshold", "precision", "recall", "F1", "items"],
        ["some", "0.2500", "0.5000", "1.0000", "0.6667", "4"],
        ["a\\|b", "0.5000", "—", "0.0000", "0.0000", "7"],
    ]
    assert "softmax" not in page
    assert "sigmoid are inside" in page
    assert "It answers with a set of classes" in page
    assert '`metadata_props["thresholds"]`' in page
    assert "always answers with" not in page
    assert "the probability of each class by itself" in page


def test_one_class_an_answer_has_no_table_of_classes(tmp_path: Path) -> None:
    page = card(manifest(tmp_path), [[1, 0], [0, 1]])
    assert "## Classes" not in page
    assert "threshold" not in page


def test_a_sample_is_shown_first_and_in_bold(tmp_path: Path) -> None:
    page = card(manifest(tmp_path, sample=True), None)
    assert body(page).splitlines()[2].startswith("> **SAMPLE: this model was trained on pictures drawn by code")
    assert "Trained on the SAMPLE" in section(page, "Limits of use")


def test_real_data_is_not_called_a_sample(tmp_path: Path) -> None:
    assert "SAMPLE" not in card(manifest(tmp_path), [[1, 0], [0, 1]])


def test_scores_stand_side_by_side(tmp_path: Path) -> None:
    scores = {"torch": {"accuracy": 0.91234, "loss": 0.5}, "fp32": {"accuracy": 0.91234}, "int8": {"accuracy": 0.9}}
    page = card(manifest(tmp_path, precisions=("fp32", "int8"), scores=scores, gate=GATE), None)
    table = rows(section(page, "Scores"))
    assert table[:3] == [
        ["score", "trained model", "fp32", "int8"],
        ["accuracy", "0.9123", "0.9123", "0.9000"],
        ["loss", "0.5000", "—", "—"],
    ]


def test_what_the_gate_found_is_shown_by_precision(tmp_path: Path) -> None:
    page = card(manifest(tmp_path, precisions=("fp32", "int8"), gate=GATE), None)
    scores = section(page, "Scores")
    assert rows(scores)[2:7] == [
        ["found", "fp32", "int8"],
        ["items", "270", "270"],
        ["squares: batch sizes", "1, 5", "1, 5"],
        ["squares: largest difference", "1.25e-06", "0.0312"],
        ["squares: flips", "0", "7"],
    ]
    assert f"\n- int8, squares: {'; '.join([FLIP] * 5)} and 2 more\n" in scores
    assert "- fp32" not in scores


def test_where_there_is_no_validation_split_the_test_split_is_named(tmp_path: Path) -> None:
    found = manifest(tmp_path, gate={"fp32": {"split": "test", "items": 3}})
    page = card(found, [[2, 0], [1, 0]])
    assert "validation" not in page
    assert "On the test split, from raw files" in page
    assert "The test split. Rows" in page


def test_a_precision_that_was_not_looked_at_has_a_dash(tmp_path: Path) -> None:
    page = card(manifest(tmp_path, gate={"fp32": {"items": 3}, "int8": {"notes": ["not calibrated"]}}), None)
    assert rows(section(page, "Scores"))[3:5] == [["items", "3", "—"], ["notes", "—", "not calibrated"]]


def test_without_a_gate_nothing_is_claimed(tmp_path: Path) -> None:
    assert "compared with the trained model" not in card(manifest(tmp_path), None)


def test_training_protocol_and_notes_are_on_the_card(tmp_path: Path) -> None:
    page = card(
        manifest(
            tmp_path,
            recipe='name = "toy"\n[model]\nname = "resnet50"\nweights = "imagenet"\n',
            trained_on={
                "dataset": "har",
                "model": "resnet50",
                "sample": False,
                "items": {"train": 1260},
                "best_epoch": 4,
                "notes": ["one*", "two"],
            },
            protocol={"dataset": "har", "sample": False, "skipped": {}},
            versions={"torch": "2.15.0"},
        ),
        None,
    )
    training = section(page, "Training")
    assert ["model", "name resnet50, weights imagenet"] in rows(training)
    assert ["items", "train 1,260"] in rows(training)
    assert [name for name, _ in rows(training)[1:]] == ["model", "dataset", "items", "best epoch", "torch"]
    assert ["torch", "2.15.0"] in rows(training)
    assert "\n- one\\*\n- two\n" in training
    assert "<details>" in training
    assert '```toml\nname = "toy"\n' in training
    protocol = rows(section(page, "Scores"))
    assert protocol[-3:] == [["dataset", "har"], ["sample", "no"], ["skipped", "none"]]


@pytest.mark.parametrize("revision", [None, "0123abcd"])
def test_the_weights_that_a_model_started_from_are_on_the_card(tmp_path: Path, revision: str | None) -> None:
    weights = {"title": "weights a/b", "address": "https://b.example", "licence": "mit", "revision": revision}
    trained_on = {"dataset": "har", "model": "net", "sample": False, "weights": weights}
    training = rows(section(card(manifest(tmp_path, trained_on=trained_on), None), "Training"))
    assert ["started from", f"weights a/b{' at revision 0123abcd' if revision else ''}"] in training
    assert ["licence of these weights", "mit, https://b.example"] in training


@pytest.mark.parametrize(("recipe", "expected"), [('model = "cnn"\n', "name cnn"), ("seed = 0\n", None)])
def test_a_model_may_be_a_name_alone(tmp_path: Path, recipe: str, expected: str | None) -> None:
    found = dict(row for row in rows(section(card(manifest(tmp_path, recipe=recipe), None), "Training")) if row[0])
    assert found.get("model") == expected


@pytest.mark.parametrize(
    ("fit", "expected"), [("crop", "resizes the short side to 16"), ("stretch", "resizes both sides to")]
)
def test_the_resampling_is_shown(tmp_path: Path, fit: Any, expected: str) -> None:
    page = card(manifest(tmp_path, fit=fit), None)
    assert expected in page
    assert "8 x 8 pixels" in page


def test_every_file_is_listed_with_its_checksum(tmp_path: Path) -> None:
    found = manifest(tmp_path, precisions=("fp32", "int8"))
    listed = dict(rows(section(card(found, None), "Files"))[1:])
    assert listed == {
        "`model.onnx` (fp32)": f"`{found.files['model.onnx']}`",
        "`model.int8.onnx` (int8)": f"`{found.files['model.int8.onnx']}`",
    }


# The confusion matrix


def test_the_confusion_matrix_is_a_table(tmp_path: Path) -> None:
    table = rows(section(card(manifest(tmp_path), [[7, 1.0], [0, 1200]]), "Confusion matrix"))
    assert table == [["", "", "1", "2"], ["1", "dark", "7", "1"], ["2", "bright", "0", "1200"]]


def test_without_one_there_is_no_section(tmp_path: Path) -> None:
    assert "Confusion" not in card(manifest(tmp_path), None)


def test_of_many_classes_the_most_confused_are_shown(tmp_path: Path) -> None:
    count = MATRIX_CLASSES + 10
    matrix = [[100.0 if row == column else 0.0 for column in range(count)] for row in range(count)]
    matrix[25][3], matrix[7][29], matrix[29][28] = 5, 2, 1
    names = [f"class {index}" for index in range(count)]
    shown = confusions(names, matrix)
    assert len(shown.classes) == MATRIX_CLASSES
    assert {"class 25", "class 3", "class 7", "class 29", "class 28"} <= set(shown.classes)
    page = section(card(manifest(tmp_path, classes=names), matrix), "Confusion matrix")
    assert "The 20 classes of 30" in page
    table = rows(page)
    assert table[0][-1] == "other"
    assert all(len(row) == MATRIX_CLASSES + 3 for row in table)


@given(st.integers(1, 26), st.randoms(use_true_random=False))
def test_no_prediction_is_lost_from_a_row(count: int, random: Any) -> None:
    matrix = [[random.randrange(9) for _ in range(count)] for _ in range(count)]
    shown = confusions([str(index) for index in range(count)], matrix)
    for name, row in zip(shown.classes, shown.rows, strict=True):
        assert sum(row) == sum(matrix[int(name)])


# Names and values


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    classes = ("<script>alert(1)</script>", "a | b", "*bold* _it_", "[x](http://e)", "two\nlines", "`tick`")
    page = card(manifest(tmp_path, classes=classes, recipe='note = "```"\n'), [[1] * 6] * 6)
    assert "<script" not in page.replace("\\<script", "")
    table = rows(section(page, "Confusion matrix"))
    assert [len(row) for row in table] == [8] * 7
    assert table[3][1] == r"\*bold\* \_it\_"
    assert table[4][1] == r"\[x\](http://e)"
    assert table[5][1] == "two lines"
    assert '````toml\nnote = "```"\n````' in page


@given(st.text(max_size=30))
def test_a_text_is_one_line_and_one_cell(value: str) -> None:
    shown = text(value)
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)(\\\\)*[|<`*]", shown)
    assert re.sub(r"\\(.)", r"\1", shown) == printable(" ".join(value.split()))
    assert shown.isprintable()


@pytest.mark.parametrize(
    ("value", "shown"),
    [("walking_dog", "walking_dog"), ("_a_", r"\_a\_"), ("1_000", "1_000"), ("a\\b", "a\\\\b"), ("C#", "C\\#")],
)
def test_only_what_would_be_markup_is_escaped(value: str, shown: str) -> None:
    assert text(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [("a", "`a`"), ("a`b", "`` a`b ``"), ("a|b", r"`a\|b`"), ("a\nb", "`a b`")]
)
def test_code_spans_hold_any_name(value: str, shown: str) -> None:
    assert code(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "yes"),
        (12345, "12,345"),
        (0.00012345, "0.000123"),
        (None, "—"),
        ([], "none"),
        (list(range(8)), "0, 1, 2, 3, 4 and 3 more"),
        ({"a_b": {"c": 1}}, "a b c 1"),
        ("a|b", r"a\|b"),
    ],
)
def test_values_are_written_in_words(value: Any, shown: str) -> None:
    assert in_words(value) == shown


def test_scores_without_a_value_are_a_dash() -> None:
    assert [score(None), score(float("nan")), score(0.5)] == ["—", "—", "0.5000"]
    assert words("top_k") == "top k"


@settings(max_examples=10)
@given(
    sample=st.booleans(),
    clips=st.booleans(),
    gated=st.booleans(),
    notes=st.lists(st.just("note"), max_size=2),
    versions=st.dictionaries(st.just("torch"), st.just("2"), max_size=1),
)
def test_every_card_is_tidy(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    sample: bool,
    clips: bool,
    gated: bool,
    notes: list[str],
    versions: dict[str, str],
) -> None:
    """One blank line between blocks, one heading of each name, tables without gaps."""
    found = manifest(
        tmp_path_factory.mktemp("tidy"),
        sample=sample,
        clip=Clip(frames=2) if clips else None,
        gate=GATE if gated else {},
        trained_on={"dataset": "toy", "notes": notes},
        versions=versions,
    )
    page = card(found, [[1, 0], [0, 1]] if sample else None)
    assert "\n\n\n" not in page
    assert page.endswith(".\n")
    headings = re.findall(r"^## .*$", page, flags=re.MULTILINE)
    assert len(headings) == len(set(headings)) == (7 if sample else 6)
    assert not re.search(r"^\|.*\n\n\|", page, flags=re.MULTILINE)
    assert not re.search(r"^[^|\n].*\n\|", page, flags=re.MULTILINE)


# The run's own scores, and what hubs read


RESULTS = {
    "valid": {
        "role": "chose the epoch",
        "items": 1270,
        "precision": "bf16",
        "scores": {"accuracy": 0.3, "f1_macro": 0.25},
        "intervals": {"accuracy": [0.28, 0.33]},
    },
    "test": {
        "role": "chose nothing",
        "items": 270,
        "scores": {"accuracy": 0.25, "f1_macro": 0.2},
        "intervals": {"accuracy": [0.2, 0.31]},
    },
}


def front(page: str) -> dict[str, Any]:
    read = yaml.safe_load(page.split("---\n", 2)[1])
    assert isinstance(read, dict)
    return read


def test_test_scores_stand_next_to_validation_scores(tmp_path: Path) -> None:
    scores = section(card(manifest(tmp_path, results=RESULTS), None), "Scores")
    assert rows(scores)[:3] == [
        ["score", "validation (1,270 items)", "test (270 items)"],
        ["accuracy", "0.3000 (0.2800 to 0.3300)", "0.2500 (0.2000 to 0.3100)"],
        ["f1 macro", "0.2500", "0.2000"],
    ]
    assert "What the run scored with its trained model in bf16. The ranges are 95 % intervals." in scores
    plain = {split: {**found, "intervals": {}} for split, found in RESULTS.items()}
    assert "intervals" not in section(card(manifest(tmp_path / "plain", results=plain), None), "Scores")
    assert "The validation split chose the epoch" in scores
    assert "The test split chose nothing: quote its scores." in scores


def test_a_card_without_scores_of_the_run_has_no_table_of_them(tmp_path: Path) -> None:
    scores = section(card(manifest(tmp_path), None), "Scores")
    assert rows(scores)[0][1] == "trained model"
    assert "chose" not in scores


def test_the_front_matter_is_what_hubs_read(tmp_path: Path) -> None:
    recipe = '[model]\nname = "resnet18"\n[export]\nlicense = "mit"\n'
    read = front(card(manifest(tmp_path, results=RESULTS, recipe=recipe, trained_on={"dataset": "har"}), None))
    assert (read["license"], read["library_name"], read["pipeline_tag"]) == ("mit", "onnx", "image-classification")
    assert read["tags"] == ["onnx", "onnxruntime", "vision-toolkit", "resnet18"]
    assert read["metrics"] == ["accuracy", "f1"]
    (model,) = read["model-index"]
    (result,) = model["results"]
    assert model["name"] == "toy"
    assert result["dataset"] == {"name": "har", "type": "har", "split": "test"}
    assert {metric["name"]: metric["value"] for metric in result["metrics"]} == {"accuracy": 0.25, "f1_macro": 0.2}


def test_hubs_get_validation_scores_only_where_there_are_no_others(tmp_path: Path) -> None:
    read = front(card(manifest(tmp_path, results={"valid": RESULTS["valid"]}), None))
    assert read["model-index"][0]["results"][0]["dataset"]["split"] == "validation"


def test_hubs_get_no_scores_of_a_sample(tmp_path: Path) -> None:
    read = front(card(manifest(tmp_path, results=RESULTS, sample=True, clip=Clip(frames=2)), None))
    assert "model-index" not in read
    assert "sample-data" in read["tags"]
    assert (read["license"], read["pipeline_tag"]) == ("unknown", "video-classification")


def test_hostile_names_stay_values_of_the_front_matter(tmp_path: Path) -> None:
    name = "a: b\n---\n# [x](javascript:y)"
    read = front(card(manifest(tmp_path, results=RESULTS, trained_on={"dataset": name}), None))
    assert read["model-index"][0]["results"][0]["dataset"]["name"] == "a: b --- # [x](javascript:y)"
