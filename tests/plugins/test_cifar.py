from __future__ import annotations

import hashlib
import pickle
import tarfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from data_files import real_data, write_image
from torchvision.datasets import CIFAR10

from toolkit.api.contracts import Split
from toolkit.api.errors import DataError
from toolkit.data.images import ArrayItems
from toolkit_cifar import toolkit_datasets
from toolkit_cifar.dataset import MEAN, STD, cifar10
from toolkit_cifar.sample import KINDS, draw_objects

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def image_folders(root: Path, *, train: int = 4, test: int = 1) -> Path:
    for split, count in (("train", train), ("test", test)):
        for number, name in enumerate(("cat", "dog")):
            for image in range(count):
                suffix = ("png", "jpg")[image % 2]
                write_image(root / split / name / f"{image}.{suffix}", number * 100 + image, height=32)
    return root


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with an archive in the form of the official one, 20 images a file, served where torchvision looks."""
    folder = tmp_path / "made" / CIFAR10.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def put(name: str, entry: object) -> str:
        data = pickle.dumps(entry)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    def images(name: str) -> list[str]:
        pixels = rng.integers(0, 256, (20, 3072), dtype=np.uint8)
        return [name, put(name, {"data": pixels, "labels": [n % 10 for n in range(20)]})]

    monkeypatch.setattr(CIFAR10, "train_list", [images(name) for name, _ in CIFAR10.train_list])
    monkeypatch.setattr(CIFAR10, "test_list", [images("test_batch")])
    digest = put("batches.meta", {"label_names": CLASSES})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": digest})
    archive = tmp_path / "made" / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder.parent)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{archive.name}")
        yield folder.parent
        server.shutdown()


def test_the_plugin_names_its_dataset():
    assert toolkit_datasets() == {"cifar10": "toolkit_cifar.dataset:cifar10"}


def test_image_folders_keep_their_own_test_split(tmp_path):
    data = cifar10(image_folders(tmp_path), valid_share=0.25)
    assert data.spec.classes == ("cat", "dog")
    assert (data.spec.size, data.spec.mean, data.spec.std, data.spec.sample) == (32, MEAN, STD, False)
    assert [Counter(split.targets) for split in (data.train, data.valid, data.test)] == [
        {0: 3, 1: 3},
        {0: 1, 1: 1},
        {0: 1, 1: 1},
    ]
    assert data.test.ids == ("test/cat/0.png", "test/dog/0.png")
    assert data.train.read(0).shape == (3, 32, 32)
    assert data.protocol["split"] == "official"
    assert not set(data.train.ids) & set(data.valid.ids)


def test_all_training_images_can_be_trained_on(tmp_path):
    data = cifar10(image_folders(tmp_path), valid_share=0.0)
    assert [len(split) for split in (data.train, data.valid, data.test)] == [8, 0, 2]
    assert data.notes == ()


def test_the_seed_decides_which_images_are_set_aside(tmp_path):
    root = image_folders(tmp_path, train=20)
    first, again, other = (cifar10(root, split_seed=seed) for seed in (0, 0, 1))
    assert first.valid.ids == again.valid.ids != other.valid.ids
    assert first.protocol == again.protocol
    assert first.protocol["split_hash"] != other.protocol["split_hash"]


def test_the_official_files_are_downloaded_verified_and_read(tmp_path, published):
    root = tmp_path / "new" / "root"
    data = cifar10(root, download=True, valid_share=0.1)
    assert data.spec.classes == tuple(CLASSES)
    assert [len(split) for split in (data.train, data.valid, data.test)] == [90, 10, 20]
    assert Counter(data.valid.targets) == dict.fromkeys(range(10), 1)
    raw = pickle.loads((root / CIFAR10.base_folder / "test_batch").read_bytes())["data"][3]
    assert np.array_equal(data.test.read(3).numpy(), raw.reshape(3, 32, 32))
    assert data.test.ids[3] == "test/00003"


def test_a_second_download_needs_no_network(tmp_path, published, monkeypatch):
    cifar10(tmp_path / "root", download=True)
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/nobody-listens.tar.gz")
    assert len(cifar10(tmp_path / "root", download=True).test) == 20


def test_without_a_root_the_download_goes_to_the_cache_directory(tmp_path, published, monkeypatch):
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    assert not cifar10(None, download=True).spec.sample
    assert (tmp_path / "cache" / "cifar10" / CIFAR10.base_folder).is_dir()


@pytest.mark.parametrize("inside", [False, True])
def test_unpacked_official_files_are_read(published, inside):
    data = cifar10(published / CIFAR10.base_folder if inside else published)
    assert len(data.test) == 20
    assert len(set(data.train.keys) | set(data.valid.keys) | set(data.test.keys)) == 120


def test_a_download_that_fails_is_an_error_that_says_what_to_do(tmp_path, published, monkeypatch):
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/nobody-listens.tar.gz")
    with pytest.raises(DataError, match=r"CIFAR-10 could not be downloaded: ") as caught:
        cifar10(tmp_path / "root", download=True)
    assert "cifar.html" in caught.value.next_step


def test_a_download_with_another_checksum_is_refused(tmp_path, published, monkeypatch):
    monkeypatch.setattr(CIFAR10, "tgz_md5", "0" * 32)
    with pytest.raises(DataError, match=r"CIFAR-10 could not be downloaded: .*corrupted"):
        cifar10(tmp_path / "root", download=True)


def test_missing_and_changed_official_files_are_named(published):
    folder = published / CIFAR10.base_folder
    (folder / "data_batch_2").unlink()
    (folder / "test_batch").write_bytes(b"changed")
    with pytest.raises(DataError, match=r"incomplete: data_batch_2, test_batch missing or changed") as caught:
        cifar10(published)
    assert caught.value.path == folder
    assert "data.download = true" in caught.value.next_step


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "does not exist"),
        ((), "is empty"),
        (("cifar-10-python.tar.gz",), "CIFAR-10 files not found, only cifar-10-python.tar.gz"),
        (tuple("abcdefg"), "CIFAR-10 files not found, only a, b, c, d, e and 2 more"),
        (("train/cat/x.jpg",), "CIFAR-10 files not found, only train"),
    ],
)
def test_a_root_without_the_data_is_an_error_that_says_where_to_get_it(tmp_path, names, message):
    root = tmp_path / "root"
    for name in names or ():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    if names == ():
        root.mkdir()
    with pytest.raises(DataError) as caught:
        cifar10(root)
    assert caught.value.message == f"{root}: {message}"
    assert "https://www.cs.toronto.edu/~kriz/cifar.html" in caught.value.next_step


def test_a_root_that_is_a_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"is not a folder"):
        cifar10(write_image(tmp_path / "a.png"))


def test_one_class_is_too_few(tmp_path):
    for split in ("train", "test"):
        write_image(tmp_path / split / "bird" / "1.png")
    with pytest.raises(DataError, match=r"train and test have only one class folder, bird"):
        cifar10(tmp_path)


def test_train_and_test_must_have_the_same_classes(tmp_path):
    image_folders(tmp_path)
    write_image(tmp_path / "train" / "bird" / "1.png")
    with pytest.raises(DataError, match=r"train and test have different classes: only one of them has bird"):
        cifar10(tmp_path)


def test_the_sample_is_marked_and_balanced():
    data = cifar10(None, sample_images=10)
    assert data.spec.sample
    assert data.spec.classes == KINDS
    assert data.notes == ("coloured objects drawn by code",)
    assert [len(split) for split in (data.train, data.valid, data.test)] == [90, 10, 20]
    assert all(isinstance(split, Split) for split in (data.train, data.valid, data.test))
    assert data.train.read(0).shape == (3, 32, 32)
    assert data.train.read(0).dtype == torch.uint8


def test_the_sample_is_the_same_every_time_and_its_splits_differ():
    first, again, test = draw_objects("train", 5), draw_objects("train", 5), draw_objects("test", 5)
    assert torch.equal(first.pixels, again.pixels)
    assert not torch.equal(first.pixels, test.pixels)
    assert len({pixels.numpy().tobytes() for pixels in (*first.pixels, *test.pixels)}) == 100


def test_colour_alone_does_not_distinguish_the_objects_of_the_sample():
    train, test = (draw_objects(split, 60) for split in ("train", "test"))

    def colours(items: ArrayItems) -> torch.Tensor:
        pixels = items.pixels.flatten(2).float()
        return torch.cat([pixels.mean(-1), pixels.std(-1)], dim=1)

    nearest = torch.cdist(colours(test), colours(train)).argmin(dim=1)
    guessed = torch.tensor(train.targets)[nearest]
    assert (guessed == torch.tensor(test.targets)).float().mean() < 0.25


@pytest.mark.real
@pytest.mark.slow
def test_the_real_archive_unpacks_to_what_the_dataset_reads(tmp_path):
    archive = real_data("cifar10-jpeg.tar.xz")
    kept = tmp_path / "kept"
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and Path(member.name).stem in {"0000", "0001"}:
                path = kept / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tar.extractfile(member).read())
    data = cifar10(kept, valid_share=0.0)
    assert len(data.spec.classes) == 10
    assert len(data.train) == len(data.test) == 20
    assert data.train.read(0).shape == (3, 32, 32)
