"""The dataset by the toolkit's rules, and what those cannot know: files, columns and messages."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from toolkit.api.contracts import Data, DataSpec
from toolkit.api.errors import DataError
from toolkit.data.loader import Loader
from toolkit.data.store.images import ImageStore
from toolkit.kit.testing import Case, conformance

from toolkit_parquet.columns import Columns, read_images, read_labels
from toolkit_parquet.dataset import parquet
from toolkit_parquet.rows import ParquetImages, Place, RowGroups

RECIPE = Path(__file__).parents[1] / "toolkit_parquet.toml"
NAMES = ("cat", "dog", "owl")


def picture(number: int, side: int = 24) -> bytes:
    """A PNG file of noise, another one for each number."""
    noise = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    written = io.BytesIO()
    Image.fromarray(noise).save(written, "png")
    return written.getvalue()


def write(
    path: Path,
    labels: Sequence[object],
    images: Sequence[bytes | None],
    *,
    names: Sequence[str] | None = NAMES,
    columns: tuple[str, str] = ("image", "label"),
) -> Path:
    """A file as `datasets` writes it."""
    features: dict[str, Any] = {columns[0]: {"_type": "Image"}}
    if names:
        features[columns[1]] = {"names": list(names), "_type": "ClassLabel"}
    table = pa.table(
        {
            columns[0]: [{"bytes": image, "path": f"{row}.png"} for row, image in enumerate(images)],
            columns[1]: list(labels),
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=7)
    return path


def balanced(path: Path, count: int, first: int = 0, **others: Any) -> Path:
    return write(path, [row % 3 for row in range(count)], [picture(first + row) for row in range(count)], **others)


def of_the_hub(folder: Path) -> Path:
    """A dataset with three splits, one of them in two files."""
    balanced(folder / "data" / "train-00000-of-00002.parquet", 24)
    balanced(folder / "data" / "train-00001-of-00002.parquet", 24, first=100)
    balanced(folder / "data" / "validation-00000-of-00001.parquet", 9, first=200)
    balanced(folder / "data" / "test-00000-of-00001.parquet", 12, first=300)
    return folder


def one_file(folder: Path) -> Path:
    return balanced(folder / "photos.parquet", 60)


test_components = conformance(
    Case("dataset", "toolkit-parquet:parquet", root=of_the_hub),
    Case("dataset", "toolkit-parquet:parquet", root=one_file),
)


def test_the_recipe_runs(tmp_path: Path) -> None:
    changed = (f"data.root={of_the_hub(tmp_path / 'data')}", "data.image=image", "model.widths=[8]", "train.epochs=1")
    changes = [word for change in changed for word in ("--set", change)]
    subprocess.run([sys.executable, "-m", "toolkit", "run", RECIPE, "--runs", tmp_path, *changes], check=True)
    scores = json.loads(next(tmp_path.glob("*/*/scores.json")).read_text(encoding="utf-8"))
    assert {"cohen_kappa", "matthews_corrcoef", "auroc_macro"} <= scores["test"].keys()


def sizes(data: Data) -> tuple[int, int, int]:
    return len(data.train), len(data.valid), len(data.test)


def train_of(data: Data) -> ParquetImages:
    assert isinstance(data.train, ParquetImages)
    return data.train


def test_splits_are_those_of_the_files(tmp_path: Path) -> None:
    data = parquet(of_the_hub(tmp_path))
    assert sizes(data) == (48, 9, 12)
    assert data.test.ids[11] == "data/test-00000-of-00001.parquet:11"
    assert data.spec.classes == NAMES
    assert data.spec.size == 24
    assert data.protocol["split"] == "files"
    assert "split_seed" not in data.protocol


def test_a_split_that_is_missing_is_taken_from_train(tmp_path: Path) -> None:
    balanced(tmp_path / "train.parquet", 60)
    balanced(tmp_path / "test.parquet", 12, first=100)
    data = parquet(tmp_path, valid_share=0.2)
    assert sizes(data) == (48, 12, 12)
    assert data.protocol["valid_share"] == 0.2
    assert "test_share" not in data.protocol


@pytest.mark.parametrize("name", ["train/0000", "validation/0000", "test/0000", "training_set-1", "dev", "eval.2"])
def test_the_split_is_told_by_the_beginning_of_a_name_or_by_the_folder(tmp_path: Path, name: str) -> None:
    balanced(tmp_path / "train-0.parquet" if "/" not in name else tmp_path / "train" / "1.parquet", 30)
    balanced(tmp_path / f"{name}.parquet", 9, first=100)
    data = parquet(tmp_path)
    expected = "valid" if name[0] in "vd" else "test" if name.startswith(("test", "eval")) else "train"
    assert f"{name}.parquet:8" in (*getattr(data, expected).ids, *data.valid.ids, *data.test.ids)
    assert (expected == "train") == ("test_share" in data.protocol and "valid_share" in data.protocol)


def test_a_folder_called_as_a_split_may_be_the_root(tmp_path: Path) -> None:
    balanced(tmp_path / "test" / "all.parquet", 30)
    assert sum(sizes(parquet(tmp_path / "test"))) == 30


def test_one_file_may_be_the_root(tmp_path: Path) -> None:
    data = parquet(balanced(tmp_path / "test-of-something.parquet", 30))
    assert sizes(data) == (21, 3, 6)
    assert data.protocol["split"] == "stratified"


def test_pixels_are_those_of_the_file_whatever_is_kept(tmp_path: Path) -> None:
    path = balanced(tmp_path / "all.parquet", 30)
    places = tuple(Place(path, row // 7, row % 7) for row in range(30))
    for kept in (0, 5_000, 10**9):
        split = ParquetImages(("",) * 30, (0,) * 30, ("",) * 30, places, RowGroups("image", kept))
        order = np.random.default_rng(0).permutation(90) % 30
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(split.read, order.tolist()))
        for row, pixels in zip(order.tolist(), found, strict=True):
            expected = np.asarray(Image.open(io.BytesIO(picture(row))))
            assert torch.equal(pixels, torch.from_numpy(expected.copy()).movedim(-1, 0))


def test_an_epoch_reads_each_row_group_about_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without blocks, an epoch of these 40 row groups reads hundreds."""
    path = balanced(tmp_path / "train.parquet", 40 * 7)
    places = tuple(Place(path, row // 7, row % 7) for row in range(280))
    names = tuple(map(str, range(280)))
    split = ParquetImages(names, (0, 1) * 140, names, places, RowGroups("image", kept=0))
    reads: list[int] = []

    def counted(file: Any, number: int, column: str) -> Any:
        reads.append(number)
        return read_images(file, number, column)

    monkeypatch.setattr("toolkit_parquet.rows.read_images", counted)
    spec = DataSpec(("a", "b"), size=24)
    loader = Loader(ImageStore(split, spec, None, workers=2), spec, torch.device("cpu"))
    assert sum(len(batch.index) for batch in loader.training(8, [], seed=0, epoch=0, start=0)) == 280
    assert sorted({*reads}) == list(range(40))
    assert len(reads) <= 44


def test_a_split_can_be_pickled(tmp_path: Path) -> None:
    train = train_of(parquet(of_the_hub(tmp_path)))
    pixels = train.read(5)
    assert torch.equal(pickle.loads(pickle.dumps(train)).read(5), pixels)


def test_identical_images_stay_on_one_side(tmp_path: Path) -> None:
    images = [picture(row // 2) for row in range(80)]
    write(tmp_path / "all.parquet", [row // 2 % 2 for row in range(80)], images, names=("cat", "dog"))
    data = parquet(tmp_path, valid_share=0.25, test_share=0.25)
    for split in (data.train, data.valid, data.test):
        assert all(split.keys.count(key) == 2 for key in split.keys)
    assert "40 sets of byte-identical images, each kept on one side of the split" in data.notes


def test_identical_images_in_files_of_different_splits_are_told(tmp_path: Path) -> None:
    balanced(tmp_path / "train.parquet", 30)
    balanced(tmp_path / "test.parquet", 12, first=29)
    assert "1 sets of byte-identical images, 1 of them in files of different splits" in parquet(tmp_path).notes


@pytest.mark.parametrize(
    ("labels", "names", "classes", "first"),
    [
        ([2, 0, 1], NAMES, NAMES, "owl"),
        (["owl", "cat", "dog"], None, NAMES, "owl"),
        ([10, 9, 100], None, ("9", "10", "100"), "10"),
    ],
)
def test_labels_are_indices_of_names_or_texts_or_numbers(
    tmp_path: Path, labels: list[object], names: Sequence[str] | None, classes: tuple[str, ...], first: str
) -> None:
    write(tmp_path / "train.parquet", labels * 10, [picture(row) for row in range(30)], names=names)
    data = parquet(tmp_path, valid_share=0, test_share=0)
    assert data.spec.classes == classes
    assert data.train.targets[0] == classes.index(first)


def test_texts_of_a_dictionary_are_labels(tmp_path: Path) -> None:
    images = [{"bytes": picture(row)} for row in range(3)]
    table = pa.table({"image": images, "label": pa.array(["cat", "dog", "cat"]).dictionary_encode()})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read_labels(tmp_path / "a.parquet", Columns("image", "label")).values == ("cat", "dog", "cat")


def test_plain_binary_is_an_image(tmp_path: Path) -> None:
    table = pa.table({"image": [picture(row) for row in range(30)], "label": [0, 1] * 15})
    pq.write_table(table, tmp_path / "a.parquet")
    assert train_of(parquet(tmp_path)).read(0).shape == (3, 24, 24)


def test_rows_without_a_label_are_skipped(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0, -1, None, *[1, 2, 0] * 9], [picture(row) for row in range(30)])
    write(tmp_path / "test.parquet", [-1] * 6, [picture(100 + row) for row in range(6)])
    data = parquet(tmp_path)
    assert sum(sizes(data)) == 28
    assert len(data.test) > 0
    assert "skipped 8 rows without a label, of test.parquet, train.parquet" in data.notes


def test_files_of_no_split_are_skipped_beside_those_of_one(tmp_path: Path) -> None:
    balanced(of_the_hub(tmp_path) / "data" / "unsupervised-0.parquet", 9, first=500)
    data = parquet(tmp_path)
    assert sum(sizes(data)) == 69
    assert "skipped files that belong to no split: data/unsupervised-0.parquet" in data.notes


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    images = [picture(row) for row in range(30)]
    broken = write(tmp_path / "train.parquet", [0, 1, 2] * 10, [*images[:4], b"no image", None, *images[6:]])
    train = train_of(parquet(tmp_path, valid_share=0, test_share=0))
    for row, what in ((4, "cannot be decoded: "), (5, "has no image")):
        with pytest.raises(DataError) as raised:
            train.read(row)
        assert raised.value.message.startswith(f"{broken}: row {row} {what}")
        assert ".cpp" not in raised.value.message
        assert raised.value.next_step == 'Write the file again, or set input.on_corrupt = "skip".'


def failing(root: Path, **keys: Any) -> DataError:
    with pytest.raises(DataError) as raised:
        parquet(root, **keys)
    assert raised.value.next_step
    return raised.value


def test_a_folder_without_files_is_told(tmp_path: Path) -> None:
    (tmp_path / "train.csv").touch()
    assert "holds no .parquet file, only train.csv" in failing(tmp_path).message


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and no more")
    assert failing(tmp_path).message.startswith(f"{tmp_path / 'train.parquet'}: cannot be read: ")


@pytest.mark.parametrize(
    ("keys", "message", "next_step"),
    [
        ({}, "column image is not there; the columns are img, label", "--set data.image=img"),
        ({"image": "label"}, "column label holds int64, no images; the columns are img, label", "--set data.image=img"),
        ({"image": "img", "label": "img"}, "no labels; the columns are img, label", "--set data.label=label"),
    ],
)
def test_a_wrong_column_is_told(tmp_path: Path, keys: Mapping[str, str], message: str, next_step: str) -> None:
    error = failing(balanced(tmp_path / "a.parquet", 9, columns=("img", "label")), **keys)
    assert error.message.endswith(message)
    assert error.next_step == next_step


def test_several_datasets_in_one_folder_are_told(tmp_path: Path) -> None:
    for name in ("large", "small"):
        balanced(tmp_path / name / "train" / "0.parquet", 9)
    error = failing(tmp_path)
    assert error.message.endswith("holds files of several datasets, in large, small")
    assert error.next_step == f"give one of these folders: --set data.root={tmp_path / 'small'}"


def test_files_that_name_other_classes_are_told(tmp_path: Path) -> None:
    balanced(tmp_path / "train.parquet", 9)
    balanced(tmp_path / "test.parquet", 9, names=("a", "b", "c"))
    assert failing(tmp_path).message.endswith("column label has other class names than test.parquet")


def test_files_with_numbers_and_texts_are_told(tmp_path: Path) -> None:
    balanced(tmp_path / "train.parquet", 9, names=None)
    write(tmp_path / "test.parquet", ["a", "b"], [picture(1), picture(2)], names=None)
    assert failing(tmp_path).message.endswith("column label holds numbers here and texts elsewhere")


def test_a_label_beyond_the_names_is_told(tmp_path: Path) -> None:
    error = failing(write(tmp_path / "a.parquet", [0, 3], [picture(0), picture(1)]))
    assert error.message.endswith("row 1: column label holds 3, expected one of its 3 classes")


def test_nothing_to_train_on_is_told(tmp_path: Path) -> None:
    balanced(tmp_path / "test.parquet", 9)
    assert failing(tmp_path).message.endswith("holds no labelled row to train on")


def test_shares_that_leave_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^test_share: must leave a share for train, got 0\.6 and 0\.5"):
        parquet(tmp_path, valid_share=0.5, test_share=0.6)
