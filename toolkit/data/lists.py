"""Videos named in lists: which file each line means, what it shows, and which split it belongs to."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from toolkit.api.errors import DataError, counted, first_few
from toolkit.api.files import files_below
from toolkit.data.division import Given
from toolkit.data.folders import Found, Listing
from toolkit.data.tables import read_lines, read_table

KINETICS = ("label", "youtube_id", "time_start", "time_end")
_OFFICIAL = (
    "Unpack the split files there: UCF101TrainTestSplits-RecognitionTask.zip of UCF101, or test_train_splits.rar of "
    "HMDB51; or leave data.official_split out."
)
_OF_FRAMES = re.compile(r"\S+ \d+")


@dataclass(frozen=True)
class Lists:
    """Which lists a recipe asks for."""

    train: str | None = None
    valid: str | None = None
    test: str | None = None
    official_split: int | None = None

    def __post_init__(self) -> None:
        if self.official_split and self.files:
            raise ValueError(f"official_split: leaves no room for {next(iter(self.files))}")
        if self.files and not self.train:
            raise ValueError(f"train: is needed beside {next(iter(self.files))}")

    @property
    def given(self) -> bool:
        return bool(self.official_split or self.files)

    @property
    def files(self) -> dict[str, str]:
        """The lists that are named, by split."""
        named = {"train": self.train, "valid": self.valid, "test": self.test}
        return {split: file for split, file in named.items() if file is not None}


class Named(NamedTuple):
    """A video as a list names it."""

    path: str
    label: str
    split: str


class VideoList(NamedTuple):
    """What a list, or a set of official files, names."""

    place: Path
    videos: list[Named]
    partial: bool = False
    """Whether it was published for videos that may be gone by now."""


def find_listed(root: Path, lists: Lists) -> Found:
    """The videos below `root` that lists name, with their splits. Raises DataError when a list cannot be read, names
    what is not there, or contradicts another; the message tells all that is of one kind."""
    number = lists.official_split
    read = [_official(root, number)] if number else [read_list(root / file, name) for name, file in lists.files.items()]
    files = _Files(root, {PurePosixPath(video.path).suffix.lower() for one in read for video in one.videos})
    located = [_locate(files, one) for one in read]
    videos = [video for one in located for video in one.videos]
    problems = [one.told for one in located if not one.usable] or list(_contradictions(videos))
    if problems:
        raise DataError(
            "; ".join(problems),
            path=root,
            next_step=_hint(located)
            or f"Correct the lists: paths are relative to {root}, and each video stands in one of them.",
        )
    listing, splits = _listing(root, videos)
    given = Given(splits, f"official split {number}" if number else "lists")
    return Found(listing, videos=True, notes=tuple(_notes(located, videos)), given=given)


def _hint(located: Iterable[_Located]) -> str | None:
    """What to do where the lists are of another form."""
    missing = [path for one in located for path in one.missing]
    if missing and all(_OF_FRAMES.fullmatch(path) for path in missing):
        return (
            "Lines of a folder, its number of frames and a label are MMAction2's lists of extracted frames: list the "
            "videos themselves, as lines of a path and a label."
        )
    return None


def _listing(root: Path, videos: Iterable[Named]) -> tuple[Listing, tuple[str, ...]]:
    """The videos in order of path, each once, and their splits. Labels that are numbers are in the order of these."""
    paths, labels, splits = zip(*sorted(set(videos)), strict=True)
    numeric = all(label.isdecimal() for label in labels)
    classes = tuple(sorted(set(labels), key=int if numeric else None))
    numbers = {label: number for number, label in enumerate(classes)}
    return Listing(root, paths, tuple(numbers[label] for label in labels), classes), splits


def read_list(file: Path, split: str) -> VideoList:
    """The videos that a list names: a CSV file with the columns path,label, or those of Kinetics; or lines of a path
    and, after the last blank, a label."""
    read = _read_list(file, split)
    if not read.videos:
        raise DataError("names no videos", path=file, next_step="Write a line of a path and a label for each video.")
    return read


def _read_list(file: Path, split: str) -> VideoList:
    lines = read_lines(file)
    header = [cell.strip().lower() for cell in lines[0][1].split(",")] if lines else []
    if "youtube_id" in header:
        return VideoList(file, [_of_kinetics(file, line, row, split) for line, row in read_table(file, KINETICS)], True)
    if "path" in header or (file.suffix.lower() == ".csv" and len(header) > 1):
        rows = read_table(file, ("path", "label"))
        return VideoList(file, [Named(path, label, split) for _, (path, label) in rows])
    return VideoList(file, [_of_line(file, line, text, split) for line, text in lines])


def _of_line(file: Path, line: int, text: str, split: str) -> Named:
    path, *label = text.rsplit(maxsplit=1)
    if not label:
        raise DataError(
            f"line {line}: has no label, only {text}",
            path=file,
            next_step="Write a path, a blank and a label; for official lists set data.official_split instead.",
        )
    return Named(path, label[0], split)


def _of_kinetics(file: Path, line: int, row: Sequence[str], split: str) -> Named:
    label, name, *times = row
    try:
        start, end = (round(float(time)) for time in times)
    except (ValueError, OverflowError):
        raise DataError(
            f"line {line}: time_start and time_end must be seconds, got {','.join(times)}", path=file
        ) from None
    return Named(f"{name}_{start:06d}_{end:06d}.mp4", label, split)


def _official(root: Path, number: int) -> VideoList:
    """An official split, its files in `root` or a folder of it."""
    of_ucf = [_beside(root, f"{split}list{number:02d}.txt") for split in ("train", "test")]
    if all(of_ucf):
        named = zip(("train", "test"), of_ucf, strict=True)
        return VideoList(
            root, [_of_ucf(file, *line, split) for split, (file, *_) in named for line in read_lines(file)]
        )
    if of_hmdb := _beside(root, f"*_test_split{number}.txt"):
        return VideoList(root, [one for file in of_hmdb for one in _of_hmdb(file)])
    raise DataError(
        f"has no official split {number}: neither trainlist{number:02d}.txt and testlist{number:02d}.txt of UCF101 nor "
        f"<class>_test_split{number}.txt of HMDB51",
        path=root,
        next_step=_OFFICIAL,
    )


def _beside(root: Path, name: str) -> list[Path]:
    places = ([place for place in root.glob(form) if not place.name.startswith(".")] for form in (name, f"*/{name}"))
    return sorted(next(filter(None, places), []))


def _of_ucf(file: Path, line: int, text: str, split: str) -> Named:
    """`Class/video.avi`, in the list for training with the number of the class."""
    path = PurePosixPath(text.split(maxsplit=1)[0])
    if not path.parent.name:
        raise DataError(f"line {line}: must name a class folder and a video, got {text}", path=file)
    return Named(str(path), path.parent.name, split)


def _of_hmdb(file: Path) -> Iterator[Named]:
    """`video.avi N`: N is 1 for training, 2 for the test and 0 for neither."""
    label = file.name.rpartition("_test_split")[0]
    for line, text in read_lines(file):
        name, _, number = text.rpartition(" ")
        if not name or number not in ("0", "1", "2"):
            raise DataError(f"line {line}: must name a video and 0, 1 or 2, got {text}", path=file)
        if number != "0":
            yield Named(f"{label}/{name.strip()}", label, "train" if number == "1" else "test")


class _Files:
    """The files below a root, found by the last parts of their paths."""

    def __init__(self, root: Path, suffixes: Collection[str]) -> None:
        self._root = root
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for item in sorted(files_below(root, suffixes)):
            self._by_name[item.rpartition("/")[2]].append(item)

    def find(self, written: str) -> str | None:
        """The path, relative to the root, of the one file whose path is `written` or ends like that; None when there is
        none. DataError when there are several."""
        wanted = written.replace("\\", "/").removeprefix(f"{self._root.as_posix()}/").removeprefix("./")
        candidates = self._by_name.get(wanted.rpartition("/")[2], [])
        found = [item for item in candidates if f"/{item}".endswith(f"/{wanted}")]
        if wanted in found or len(found) < 2:
            return wanted if wanted in found else next(iter(found), None)
        raise DataError(
            f"{written} may be any of {first_few(found)}",
            path=self._root,
            next_step="Write paths relative to that folder.",
        )


class _Located(NamedTuple):
    """A list, each video of it with its path relative to the root, and those that are not there."""

    of: VideoList
    videos: list[Named]
    missing: list[str]

    @property
    def told(self) -> str:
        missing = counted(len(self.missing), "video")
        return f"{self.of.place.name}: {missing} named there not found: {first_few(self.missing)}"

    @property
    def usable(self) -> bool:
        return not self.missing or (self.of.partial and bool(self.videos))


def _locate(files: _Files, of: VideoList) -> _Located:
    places = [(video, files.find(video.path)) for video in of.videos]
    return _Located(
        of,
        [Named(place, video.label, video.split) for video, place in places if place is not None],
        [video.path for video, place in places if place is None],
    )


def _contradictions(videos: Sequence[Named]) -> Iterator[str]:
    """What is said of one video in one place and otherwise in another; classes that cannot be learnt."""
    for what, several in (("split", _with_several(videos, "split")), ("label", _with_several(videos, "label"))):
        if several:
            yield f"{counted(len(several), 'video')} in more than one {what}: {first_few(several)}"
    learnt = {video.label for video in videos if video.split == "train"}
    if unlearnt := sorted({video.label for video in videos} - learnt):
        yield f"{counted(len(unlearnt), 'label')} not among those to train on: {first_few(unlearnt)}"
    if len(learnt) < 2:
        yield f"{counted(len(learnt), 'label')} to train on, and two are needed"


def _with_several(videos: Iterable[Named], said: Literal["split", "label"]) -> list[str]:
    values: dict[str, set[str]] = defaultdict(set)
    for video in videos:
        values[video.path].add(getattr(video, said))
    return sorted(path for path, found in values.items() if len(found) > 1)


def _notes(located: Sequence[_Located], videos: Sequence[Named]) -> Iterator[str]:
    for one in located:
        if one.missing:
            yield f"{one.told}; left out"
    twice = sorted(path for path, count in Counter(video.path for video in videos).items() if count > 1)
    if twice:
        yield f"{counted(len(twice), 'video')} named more than once: {first_few(twice)}"
