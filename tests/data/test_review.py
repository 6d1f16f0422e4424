"""Items that a reviewed file excludes, and labels that it changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.small import SPEC, Reels, Squares
from toolkit.api.contracts import Data, Split, VideoSplit
from toolkit.api.errors import DataError
from toolkit.data.review import reviewed
from toolkit.data.videos import FramesOf

SETS = replace(SPEC, classes=("dark", "bright", "round"), targets="set")


def data(**changes: object) -> Data:
    return replace(Data(SPEC, Squares(6), Squares(4), Squares(0), {"split": "x"}, ("a note",)), **changes)  # type: ignore[arg-type]


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_without_files_the_data_stays_as_it_is() -> None:
    whole = data()
    assert reviewed(whole, None, None) is whole


def test_items_are_excluded_from_every_split(tmp_path: Path) -> None:
    file = written(tmp_path / "issues.csv", "item\nsquare/001.png\nsquare/005.png\n")
    found = reviewed(data(), file, None)
    assert found.train.ids == tuple(f"square/00{number}.png" for number in (0, 2, 3, 4))
    assert found.valid.ids == tuple(f"square/00{number}.png" for number in (0, 2, 3))
    assert (len(found.train), found.train.targets) == (4, (0, 0, 1, 0))
    assert found.train.keys == tuple(Squares(6).keys[number] for number in (0, 2, 3, 4))
    assert isinstance(found.train, Split)
    assert not isinstance(found.train, VideoSplit)
    assert (found.train.read(2) == Squares(6).read(3)).all()
    assert len(found.test) == 0
    assert found.notes == ("a note", f"excluded 2 items by {file}")


def test_only_rows_that_say_so_exclude(tmp_path: Path) -> None:
    text = "kind,item,decision\nleak,square/001.png,exclude\nleak,square/002.png,keep\nleak,square/003.png,\n"
    found = reviewed(data(), written(tmp_path / "issues.csv", text), None)
    assert found.train.ids == tuple(f"square/00{number}.png" for number in (0, 2, 3, 4, 5))


def test_labels_are_changed_where_one_is_given(tmp_path: Path) -> None:
    text = "item,label,given\nsquare/001.png,dark,bright\nsquare/002.png,,dark\n"
    file = written(tmp_path / "labels.csv", text)
    found = reviewed(data(), None, file)
    assert found.train.targets == (0, 0, 0, 1, 0, 1)
    assert found.valid.targets == (0, 0, 0, 1)
    assert found.notes[-1] == f"changed 1 label by {file}"
    assert found.test is data().test or len(found.test) == 0


def test_labels_of_sets_are_names_between_bars(tmp_path: Path) -> None:
    class Sets(Squares):
        @property
        def targets(self) -> list[tuple[int, ...]]:  # type: ignore[override]
            return [(number % 2,) for number in range(self.count)]

    file = written(tmp_path / "labels.csv", "item,label\nsquare/000.png,round|dark\n")
    found = reviewed(data(spec=SETS, train=Sets(3)), None, file)
    assert found.train.targets == ((0, 2), (1,), (0,))


def test_a_split_that_nothing_concerns_is_the_same_object(tmp_path: Path) -> None:
    whole = data()
    found = reviewed(whole, written(tmp_path / "a.csv", "item\nsquare/005.png\n"), None)
    assert found.valid is whole.valid


def test_the_protocol_has_a_hash_of_each_file(tmp_path: Path) -> None:
    first = written(tmp_path / "a.csv", "item\nsquare/001.png\n")
    labels = written(tmp_path / "labels.csv", "item,label\nsquare/000.png,bright\n")
    one = reviewed(data(), first, labels).protocol
    assert one.keys() == {"split", "exclude", "relabel"}
    other = reviewed(data(), written(tmp_path / "b.csv", "item\nsquare/002.png\n"), labels).protocol
    assert one["exclude"] != other["exclude"]
    assert one["relabel"] == other["relabel"]


def test_videos_stay_videos_and_their_frames_follow(tmp_path: Path) -> None:
    file = written(tmp_path / "a.csv", "item\nreel/001.mp4\n")
    labels = written(tmp_path / "l.csv", "item,label\nreel/002.mp4,bright\n")
    none = Reels(0)
    found = reviewed(data(train=Reels(3), valid=FramesOf(Reels(3), 2), test=none), file, labels)
    assert isinstance(found.train, VideoSplit)
    assert found.train.ids == ("reel/000.mp4", "reel/002.mp4")
    assert [int(frame[0, 0, 0]) for frame in found.train.read(1, [3])] == [43]
    assert list(found.train.times(1)) == Reels(3).times(2)
    assert found.valid.ids == ("reel/000.mp4#0", "reel/000.mp4#1", "reel/002.mp4#0", "reel/002.mp4#1")
    assert found.valid.targets == (0, 0, 1, 1)


def test_paths_follow_where_there_are_some(tmp_path: Path) -> None:
    class Files(Squares):
        @property
        def paths(self) -> list[Path]:
            return [Path(name) for name in self.ids]

    file = written(tmp_path / "a.csv", "item\nsquare/000.png\n")
    found = reviewed(data(train=Files(2)), file, None)
    assert found.train.paths == (Path("square/001.png"),)  # type: ignore[union-attr]
    assert found.valid.paths == ()  # type: ignore[union-attr]


Use = Callable[[Path], Data]
REFUSED: dict[str, tuple[str, str, str, str]] = {
    "unknown item": (
        "exclude",
        "item\nsquare/001.png\nsquare/999.png\n",
        "line 3: names 1 item that the data does not have: square/999.png",
        "Names are those of the data, such as square/000.png.",
    ),
    "no column": (
        "exclude",
        "path\nsquare/001.png\n",
        "line 1: the header has no column item; it reads path",
        "Make the first line item",
    ),
    "unknown decision": (
        "exclude",
        "item,decision\nsquare/001.png,exlude\n",
        "line 2: invalid decision 'exlude'; did you mean \"exclude\"?",
        "Write exclude, keep or nothing.",
    ),
    "nothing excluded": (
        "exclude",
        "item,decision\nsquare/001.png,keep\n",
        "excludes no item",
        "Write exclude into the column decision of a row, or remove data.exclude from the recipe.",
    ),
    "unknown class": (
        "relabel",
        "item,label\nsquare/001.png,brigt\n",
        'line 2: no class "brigt"; did you mean "bright"?',
        "The classes are dark, bright.",
    ),
    "nothing relabelled": (
        "relabel",
        "item,label\nsquare/001.png,\n",
        "changes no label",
        "Write the right class into the column label of a row, or remove data.relabel from the recipe.",
    ),
    "two labels": (
        "relabel",
        "item,label\nsquare/001.png,dark\nsquare/001.png,bright\n",
        "line 3: square/001.png has another label than in an earlier line",
        "Keep one of the lines.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_fits_badly_is_refused(tmp_path: Path, case: str) -> None:
    what, text, message, step = REFUSED[case]
    file = written(tmp_path / "file.csv", text)
    with pytest.raises(DataError) as caught:
        reviewed(data(), *((file, None) if what == "exclude" else (None, file)))
    assert caught.value.message == f"{file}: {message}"
    assert caught.value.next_step == step


def test_numbers_have_no_labels(tmp_path: Path) -> None:
    file = written(tmp_path / "labels.csv", "item,label\nsquare/001.png,dark\n")
    with pytest.raises(DataError, match="gives labels, but this data has numbers"):
        reviewed(data(spec=replace(SPEC, targets="number")), None, file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv"):
        reviewed(data(), tmp_path / "gone.csv", None)
