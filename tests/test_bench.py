"""The benches' arithmetic, on timings that are made up: nothing here depends on the machine's speed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bench import __main__ as command
from bench import loader, postgres, predict, scale, segments, startup, train, tune
from bench.data import Options
from bench.instructions import instructions
from bench.load import Usage, others_share, usage
from bench.pairs import (
    Effort,
    Figure,
    Interval,
    Paired,
    Skipped,
    Watch,
    bootstrap,
    compare,
    in_turns,
    interleave,
    unwatched,
)
from bench.peers import command as peers
from bench.storages import SPACE, filled
from toolkit.api.contracts import Data, DataSpec
from toolkit.api.errors import (
    EXIT_DATA,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_STOPPED,
    EXIT_UNREAD,
    EXIT_USAGE,
    RunFailed,
    Stopped,
)
from toolkit.build.assemble import assemble
from toolkit.build.plan import Plan, plan
from toolkit.data.images import ArrayItems, ImageFiles
from toolkit.data.videos import ArrayVideos, FramesOf
from toolkit.host.registry import discover
from toolkit.recipe.read import parse
from toolkit.serving.predict.choosing import Answered
from toolkit.system.machine import allowed_cores, physical_cores, processor
from toolkit.training.checkpoint import LastCheckpoint

TWICE_AS_FAST = Paired(ours=(1.0, 1.1, 0.9), theirs=(2.0, 2.2, 1.8), repeats=(1.0, 1.1))


def taking(*seconds: float) -> Callable[[], float]:
    times = cycle(seconds)
    return lambda: next(times)


def test_sides_take_turns_at_going_first() -> None:
    said: list[str] = []

    def side(name: str) -> Callable[[], float]:
        def run() -> float:
            said.append(name)
            return 1.0

        return run

    interleave(side("a"), side("b"), 3)
    assert "".join(said) == "abbaab"


def test_several_sides_take_turns_and_share_one_floor() -> None:
    ours, theirs = taking(1, 2, 4), {"a": taking(10, 20, 80), "b": taking(3, 6, 5)}
    found = in_turns(ours, theirs, 3, watch=unwatched)  # in order: 1 10 3 | 6 20 2 | 4 80 5
    assert found == {
        "a": Paired((1, 2, 4), (10, 20, 80), (3 / 6, 2 / 4)),
        "b": Paired((1, 2, 4), (3, 6, 5), (3 / 6, 2 / 4)),
    }


def test_a_pair_is_made_of_neighbours_and_a_repeat_of_one_side() -> None:
    paired = interleave(taking(1, 2, 4), taking(10, 20, 80), 3)  # in order: 1 10 | 20 2 | 4 80
    assert list(paired.ours) == [1, 2, 4]
    assert list(paired.theirs) == [10, 20, 80]
    assert list(paired.ratios) == [10, 10, 20]
    assert list(paired.repeats) == [10 / 20, 2 / 4]


def test_the_ratio_is_the_median_of_pairs_and_above_one_where_ours_is_faster() -> None:
    paired = Paired(ours=(1, 1, 1), theirs=(2, 3, 100), repeats=(1, 1))
    assert paired.ratio == 3


def test_a_drift_of_the_machine_leaves_the_ratio_alone() -> None:
    slower = [1.0, 1.5, 2.0, 4.0, 8.0]
    paired = interleave(taking(*slower), taking(*(3 * seconds for seconds in slower)), 5)
    assert paired.ratio == 3
    assert paired.interval == Interval(3, 3)


def test_the_interval_comes_from_the_data_alone() -> None:
    values = [0.9, 1.0, 1.1, 1.2, 5.0]
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(values).low >= 0.9
    assert bootstrap(values).high <= 5.0
    assert bootstrap(values).holds(1.1)


def test_the_interval_narrows_with_more_pairs() -> None:
    def width(count: int) -> float:
        values = torch.rand(count, generator=torch.Generator().manual_seed(0)).tolist()
        interval = bootstrap(values)
        return interval.high - interval.low

    assert width(100) < width(5) / 2


FIVE = Paired(ours=(1.0,) * 5, theirs=(2.0, 2.0, 2.0, 2.2, 1.8), repeats=(1.0, 1.1, 1.0, 1.0))
APART = replace(FIVE, theirs=(1.0, 2.2, 2.0, 2.4, 2.7))
BUSY = replace(FIVE, load=0.25)


@pytest.mark.parametrize(
    ("figure", "line", "verdict"),
    [
        (Figure("x/y", FIVE), "x/y ratio=2 ci=[1.8,2.2] n=5 aa=[1,1.1]", "met"),
        (Figure("x", FIVE, 1.5), "x ratio=2 ci=[1.8,2.2] n=5 aa=[1,1.1] target>=1.5; met", "met"),
        (Figure("x", FIVE, 2.5), "x ratio=2 ci=[1.8,2.2] n=5 aa=[1,1.1] target>=2.5; MISSED", "missed"),
        (Figure("x", FIVE, facts=("a=1", "b=2")), "x ratio=2 ci=[1.8,2.2] n=5 aa=[1,1.1] a=1 b=2", "met"),
        (
            Figure("x", FIVE, 1.5, faults=("loads torch",)),
            "x ratio=2 ci=[1.8,2.2] n=5 aa=[1,1.1] target>=1.5; MISSED, loads torch",
            "missed",
        ),
        (
            Figure("x", FIVE, 1.5, late=("p99 4",)),
            "x ratio=2 ci=[1.8,2.2] n=5 aa=[1,1.1] target>=1.5; MISSED, p99 4",
            "missed",
        ),
        (
            Figure("x", FIVE, 1.5, instructions="AMX"),
            "x ratio=2 ci=[1.8,2.2] n=5 aa=[1,1.1] target>=1.5 for AMX; met",
            "met",
        ),
        (
            Figure("x", APART, 1.9),
            "x ratio=2.2 ci=[1,2.7] n=5 aa=[1,1.1] target>=1.9; noisy: the interval holds the target",
            "noisy",
        ),
        (
            Figure("x", TWICE_AS_FAST, 1.5),
            "x ratio=2 ci=[2,2] n=3 aa=[1,1.1] target>=1.5; noisy: fewer than 5 pairs",
            "noisy",
        ),
        (
            Figure("x", replace(FIVE, repeats=(1.0, 1.4, 0.8, 1.5)), 1.5),
            "x ratio=2 ci=[1.8,2.2] n=5 aa=[0.8,1.5] target>=1.5; noisy: "
            "the same code against itself differs by as much",
            "noisy",
        ),
        (
            Figure("x", BUSY, 1.5),
            "x ratio=2 ci=[1.8,2.2] n=5 aa=[1,1.1] load=25% target>=1.5; noisy: other processes took 25% of the cores",
            "noisy",
        ),
        (
            Figure("x", BUSY, late=("p99 4",)),
            "x ratio=2 ci=[1.8,2.2] n=5 aa=[1,1.1] load=25%; noisy: the machine is busy, p99 4",
            "noisy",
        ),
        (
            Figure("x", BUSY, 2.5, faults=("loads torch",)),
            "x ratio=2 ci=[1.8,2.2] n=5 aa=[1,1.1] load=25% target>=2.5; MISSED, loads torch",
            "missed",
        ),
    ],
)
def test_a_figure_is_one_line_and_says_what_was_missed(figure: Figure, line: str, verdict: str) -> None:
    assert str(figure) == line
    assert figure.verdict == verdict


@pytest.mark.parametrize(("repeats", "ratio"), [((1.3, 1.4), 1.2), ((0.7, 0.8), 1.2), ((1.3, 1.4), 1 / 1.2)])
def test_noise_of_the_same_code_counts_in_both_directions(repeats: tuple[float, ...], ratio: float) -> None:
    paired = Paired(ours=(1.0,) * 5, theirs=(ratio,) * 5, repeats=repeats)
    assert paired.doubts(1.0) == ("the same code against itself differs by as much",)
    assert replace(paired, repeats=(1.0, 1.0)).doubts(1.0) == ()


class Clocked:
    """Two sides on a clock that only they move."""

    def __init__(self, ours: Callable[[], float], theirs: Callable[[], float]) -> None:
        self._sides, self.now = (ours, theirs), 0.0

    def run(self, side: int) -> float:
        seconds = self._sides[side]()
        self.now += seconds
        return seconds

    def compared(self, pairs: int, seconds: float, target: float | None, watch: Watch = unwatched) -> Paired:
        ours, theirs = partial(self.run, 0), partial(self.run, 1)
        return compare(ours, theirs, Effort(pairs, seconds), target, watch=watch, clock=lambda: self.now)


def test_a_clear_answer_takes_one_round() -> None:
    assert len(Clocked(taking(1.0), taking(2.0)).compared(5, 1000, 1.5).ours) == 5


def test_rounds_double_until_they_decide() -> None:
    wide = Clocked(taking(1.0), taking(1.4, *[2.0] * 20)).compared(2, 1000, 1.5)
    assert len(wide.ours) == 2 + 2 + 4 + 8
    assert wide.doubts(1.5) == ()
    assert wide.repeats == (1.4 / 2.0, *[1.0] * 11)


def test_a_round_is_shortened_to_the_time_that_is_left_or_does_not_begin() -> None:
    held = taking(1.0, 3.0)
    assert len(Clocked(taking(1.0), held).compared(6, 30, 2.0).ours) == 6 + 4
    assert len(Clocked(taking(1.0), taking(1.0, 3.0)).compared(6, 23, 2.0).ours) == 6


def test_without_a_target_there_is_one_round() -> None:
    assert len(Clocked(taking(1.0), taking(1.0, 3.0)).compared(2, 1000, None).ours) == 2


def loads(*shares: float) -> Watch:
    """A watch of rounds in which others took these shares of the cores."""
    read = [Usage(0, 0, 0)]
    for share in shares:
        last = read[-1]
        read += [last, replace(last, passed=last.passed + 1000, busy=last.busy + round(1000 * share))]
    return partial(next, iter(read[1:]))


def test_rounds_on_a_busy_machine_do_not_count_where_there_are_others() -> None:
    paired = Clocked(taking(1.0), taking(*[9.0] * 5, *[2.0] * 5)).compared(5, 1000, 1.5, loads(0.5, 0.02))
    assert (paired.theirs, paired.load) == ((2.0,) * 5, 0.02)
    assert paired.doubts(1.5) == ()


def test_a_machine_that_stays_busy_makes_a_figure_noisy() -> None:
    paired = Clocked(taking(1.0), taking(2.0)).compared(5, 40, 1.5, loads(0.5, 0.3, 0.3))
    assert len(paired.ours) == 10 + 3
    assert paired.doubts(1.5) == ("other processes took 50% of the cores",)


CORES = [f"cpu{core}" for core in allowed_cores()]


def proc(folder: Path, ticks: Mapping[str, str], processes: Mapping[int, tuple[int, str]]) -> Path:
    """A folder as /proc is, with the counts of each core, and of each process its parent and counts."""
    folder.mkdir(exist_ok=True)
    lines = ["cpu  1 1 1 1 1 1 1 1 1 1", *(f"{name} {counts}" for name, counts in ticks.items()), "intr 5"]
    (folder / "stat").write_text("\n".join(lines))
    for number, (parent, counts) in processes.items():
        (folder / str(number)).mkdir(exist_ok=True)
        (folder / str(number) / "stat").write_text(f"{number} (a b) c) S {parent} {'0 ' * 9}{counts} 20 0")
    return folder


def test_others_are_all_that_do_not_descend_from_this_process(tmp_path: Path) -> None:
    here = os.getpid()
    idle, foreign = "0 0 0 0 0 0 0 0 0 0", {"cpu9999": "900 0 0 0 0 0 0 0 0 0"}
    before = usage(proc(tmp_path, dict.fromkeys(CORES, idle) | foreign, {here: (1, "0 0 0 0"), 7: (1, "5 5 0 0")}))
    counted = "40 10 5 120 5 5 5 10 3 3"  # 75 of 200 ticks busy; the last two are parts of the first two
    processes = {
        here: (1, "10 5 20 0"),
        7: (1, "100 0 0 0"),
        8: (here, "1 1 1 1"),
        9: (8, "2 2 0 0"),
        10: (99, "3 0 0 0"),
    }
    after = usage(proc(tmp_path, dict.fromkeys(CORES, counted), processes))
    assert before == Usage(0, 0, 0)
    assert after == Usage(200 * len(CORES), 75 * len(CORES), 35 + 4 + 4)
    assert others_share(before, after) == pytest.approx((75 * len(CORES) - 43) / (200 * len(CORES)))


def test_a_load_is_unknown_where_nothing_counts_or_too_little_time_has_passed(tmp_path: Path) -> None:
    assert usage(tmp_path) is None
    assert others_share(None, Usage(1000, 1000, 0)) is None
    assert others_share(Usage(0, 0, 0), Usage(99, 99, 0)) is None
    assert others_share(Usage(0, 0, 0), Usage(100, 90, 95)) == 0


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("sse2 avx2", "AVX2"), ("avx2 avx_vnni", "VNNI"), ("avx512_vnni amx_int8 avx2", "AMX"), ("sse2", None)],
)
def test_the_best_instructions_for_integers_are_named(tmp_path: Path, flags: str, expected: str | None) -> None:
    assert instructions(tmp_path) is None
    (tmp_path / "cpuinfo").write_text(f"model name : A\nflags\t\t: fpu {flags}\n")
    assert instructions(tmp_path) == expected


def test_targets_of_integers_are_for_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = (predict.Side(name, lambda squares: squares.astype("float32"), None) for name in ("onnx_int8", "b"))
    monkeypatch.setattr(predict, "compare", lambda ours, theirs, effort, target: FIVE)
    monkeypatch.setattr(predict.Side, "facts", lambda self, batches: self.name)
    sides, targets = {"onnx_int8": ours, "b": theirs}, {"b": {"AMX": 8.0, "VNNI": 1.5}}
    lines = {}
    for here in ("AMX", "VNNI", "AVX2", None):
        monkeypatch.setattr(predict, "instructions", lambda here=here: here)
        (figure,) = predict._beside("x", sides, [], targets, Effort(2, 1))
        lines[here] = str(figure).partition("aa=[1,1.1] ")[2]
    assert lines == {
        "AMX": "target>=8 for AMX onnx_int8 b; MISSED",
        "VNNI": "target>=1.5 for VNNI onnx_int8 b; met",
        "AVX2": "onnx_int8 b",
        None: "onnx_int8 b",
    }


def test_without_a_name_the_benches_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == EXIT_DONE
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    names = ["clips", "gpu", "loader", "peers", "predict", "scale", "segments", "serve", "startup", "train", "tune"]
    assert listed == names


def measuring(monkeypatch: pytest.MonkeyPatch, figures: Callable[[Options], Iterator[Figure]]) -> None:
    """Let every bench give these figures."""
    monkeypatch.setattr(command, "import_module", lambda name: SimpleNamespace(figures=figures))


@pytest.mark.parametrize(
    ("targets", "code"),
    [((1.5, 1.6), EXIT_DONE), ((2.5, 1.5), EXIT_FAILED), ((1.9, 1.5), EXIT_STOPPED), ((1.9, 2.5), EXIT_FAILED)],
)
def test_a_missed_target_ends_with_1_and_a_noisy_one_with_75_after_all_lines(
    targets: tuple[float, float], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def figures(options: Options) -> Iterator[Figure]:
        assert options == Options(pairs=7, data=Path("here"), seconds=20)
        yield Figure("first", FIVE, targets[0])
        yield Figure("second", FIVE, targets[1])

    measuring(monkeypatch, figures)
    assert command.main(["loader", "--seconds", "20", "--pairs", "7", "--data", "here"]) == code
    printed = capsys.readouterr()
    machine, *lines = printed.out.splitlines()
    assert machine.startswith(f"on {processor()}, cores={physical_cores()}, int8 by ")
    assert [line.split()[0] for line in lines] == ["first", "second"]
    noisy = (
        "error: 1 of 2 figures are noisy\nnext:  python -m bench loader --pairs 7 --data here --seconds 40\n"
        if code == EXIT_STOPPED
        else ""
    )
    assert printed.err == noisy


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, EXIT_INTERRUPTED), (signal.SIGTERM, EXIT_STOPPED)])
def test_a_signal_ends_a_bench_with_one_line_and_its_command(
    number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def figures(options: Options) -> Iterator[Figure]:
        os.kill(os.getpid(), number)
        signal.pause()
        yield Figure("never", FIVE)

    measuring(monkeypatch, figures)
    assert command.main(["train", "--pairs", "7"]) == code
    how = "interrupted" if code == EXIT_INTERRUPTED else "stopped by a signal"
    assert capsys.readouterr().err == f"error: {how}\nnext:  python -m bench train --pairs 7\n"


def test_a_signal_that_a_library_took_for_an_error_of_its_own_is_still_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def figures(options: Options) -> Iterator[Figure]:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
        except KeyboardInterrupt:
            raise RuntimeError("a worker has died") from None
        yield Figure("never", FIVE)

    measuring(monkeypatch, figures)
    assert command.main(["train"]) == EXIT_INTERRUPTED
    assert capsys.readouterr().err == "error: interrupted\nnext:  python -m bench train\n"


def test_a_run_that_a_signal_stopped_names_the_bench(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def figures(options: Options) -> Iterator[Figure]:
        raise Stopped("interrupted", exit_code=EXIT_INTERRUPTED, next_step="python -m toolkit resume RUN")
        yield Figure("never", FIVE)

    measuring(monkeypatch, figures)
    assert command.main(["train"]) == EXIT_INTERRUPTED
    assert capsys.readouterr().err == "error: interrupted\nnext:  python -m bench train\n"


def test_an_error_of_a_bench_itself_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def figures(options: Options) -> Iterator[Figure]:
        raise LookupError("a bug")
        yield Figure("never", FIVE)

    measuring(monkeypatch, figures)
    with pytest.raises(LookupError, match="a bug"):
        command.main(["train"])


def test_output_that_nobody_reads_ends_a_bench_in_silence() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "bench"], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (EXIT_UNREAD, b"")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["speed"], "invalid choice: 'speed'"),
        (["train", "--pairs", "1"], "--pairs: must be a whole number, at least 2, got 1"),
        (["train", "--seconds", "0"], "--seconds: must be a number above 0, got 0"),
        (["train", "--seconds", "inf"], "--seconds: must be a number above 0, got inf"),
        (["train", "--pairs", "many"], "--pairs: must be a whole number, at least 2, got many"),
    ],
)
def test_a_wrong_command_line_ends_with_2(
    words: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        command.main(words)
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_the_loader_needs_real_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TOOLKIT_DATA", raising=False)
    assert command.main(["loader", "--data", str(tmp_path)]) == EXIT_DATA
    printed = capsys.readouterr().err
    assert "error: bench loader measures on real image files and was given none" in printed
    assert "next:  name the folder that holds har-subset: python -m bench loader --data DIR" in printed


def test_data_is_a_folder_of_sets_or_one_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar10 = tmp_path / "elsewhere"
    har = tmp_path / "sets" / "har-subset"
    (cifar10 / "test").mkdir(parents=True)
    har.mkdir(parents=True)
    (har / "Training_set.csv").touch()
    monkeypatch.setenv("TOOLKIT_DATA", str(har.parent))
    given = Options(None, cifar10)
    assert given.cifar10() == cifar10
    assert given.har() == har
    assert Options(None, har).har() == har
    assert Options(None, None).cifar10() is None


def test_heavy_modules_are_found_in_what_the_interpreter_imported() -> None:
    times = (
        "import time: self [us] | cumulative | imported package\n"
        "import time:       120 |        120 |     numpy.core\n"
        "import time:       120 |        120 |   torch\n"
        "import time:       120 |        120 | torchinfo\n"
    )
    assert startup.heavy_modules(times) == ["numpy", "torch"]


def test_a_command_that_fails_has_no_cpu_seconds() -> None:
    assert startup.cpu_seconds(("-c", "pass")) > 0
    with pytest.raises(subprocess.CalledProcessError):
        startup.cpu_seconds(("-c", "raise SystemExit(3)"))


def test_a_recipe_whose_package_is_not_installed_is_skipped_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking, failing = (startup.Command(name, ("check", name)) for name in ("lacking", "failing"))
    script = 'import sys; sys.exit("error: model needs timm, which is not installed\\nnext:  pip install timm")'
    lines = {lacking: ("-c", script), failing: ("-c", 'raise SystemExit("error: broken")')}
    monkeypatch.setattr(startup.Command, "line", property(lambda command: lines.get(command, ("-c", "pass"))))
    monkeypatch.setattr(startup, "commands", lambda: iter([lacking]))
    skipped = next(iter(startup.figures(Options(2, None))))
    assert str(skipped) == "startup/lacking skipped: model needs timm, which is not installed"
    monkeypatch.setattr(startup, "commands", lambda: iter([failing]))
    with pytest.raises(RunFailed, match="exit code 1") as failed:
        next(iter(startup.figures(Options(2, None))))
    assert failed.value.details == ("error: broken",)


def test_what_is_slow_or_heavy_at_startup_misses_its_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "cpu_seconds", lambda command, code=0: 3.0 if "toolkit" in command else 0.1)
    monkeypatch.setattr(startup, "_import_times", lambda command, code=0: "import time: 1 | 1 | torch.nn\n")
    monkeypatch.setattr(startup, "_seconds_of_help", lambda site: 0.3 if any(Path(site).iterdir()) else 0.2)
    *commands, hostile = (figure for figure in startup.figures(Options(2, None)) if isinstance(figure, Figure))
    assert [figure.name for figure in commands][:4] == [
        *("startup/help", "startup/plugins", "startup/unknown-key", "startup/wrong-argument")
    ]
    assert len(commands) == 4 + len(list(Path("recipes").glob("*.toml")))
    for figure in commands:
        assert figure.verdict == "missed"
        assert "times=30.0 target<=" in str(figure)
        assert "heavy=torch; MISSED, loads torch" in str(figure)
    assert hostile.verdict == "missed"
    assert hostile.paired.ratio == pytest.approx(0.2 / 0.3)


def test_a_first_epoch_begins_with_nothing() -> None:
    done: list[str] = []

    class Side:
        def __init__(self) -> None:
            done.append("made")

        def epoch(self) -> None:
            done.append("epoch")

    assert loader.first_epoch(Side) > 0
    assert done == ["made", "epoch"]


def test_files_are_linked_by_class(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.jpg", "b.jpg")]
    for file in files:
        file.touch()
    split = ImageFiles(("a", "b"), (1, 0), ("", ""), tuple(files))
    linked = tmp_path / "linked"
    linked.mkdir()
    loader.link_by_class(Data(DataSpec(("walk", "run"), 8), split, split, split), linked)
    assert {path.relative_to(linked).as_posix(): path.resolve() for path in linked.glob("*/*")} == {
        "run/a.jpg": files[0],
        "walk/b.jpg": files[1],
    }


@pytest.mark.parametrize(("count", "targets"), [(3, (0, 2, 4)), (6, (0, 1, 2, 3, 4, 5)), (9, (0, 1, 2, 3, 4, 5))])
def test_a_smaller_split_is_spread_over_the_whole(count: int, targets: tuple[int, ...]) -> None:
    names = tuple("abcdef")
    split = ArrayItems(names, tuple(range(6)), names, torch.zeros(6, 3, 8, 8, dtype=torch.uint8))
    assert train.spread(split, count).targets == targets


def test_a_smaller_split_of_frames_has_whole_videos() -> None:
    names = tuple("abcdef")
    videos = ArrayVideos(names, tuple(range(6)), names, torch.zeros(6, 4, 3, 8, 8, dtype=torch.uint8), fps=10.0)
    assert train.spread(FramesOf(videos, 2), 5).targets == (0, 0, 3, 3)


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """`cifar10_cnn` on its sample, made small; run where no data lies at the default place."""
    monkeypatch.chdir(tmp_path)
    smaller = ["data.sample_images=20", "data.valid_share=0.2", "model.widths=[4]", "train.batch=16", "train.epochs=3"]
    return plan(parse(train.RECIPES / "cifar10_cnn.toml", smaller), discover())


def test_a_limited_plan_hands_out_fewer_items(planned: Plan) -> None:
    limited = train.limited(planned, 48).data()
    assert (len(limited.train), len(limited.valid)) == (48, 6)
    assert limited.protocol == planned.data().protocol


def test_whole_epochs_are_those_of_a_run(planned: Plan, tmp_path: Path) -> None:
    with train.whole_epochs(assemble(train.limited(planned, 48)), tmp_path) as epoch:
        epoch()
        epoch()
    (run,) = (tmp_path / "cifar10_cnn").iterdir()
    records = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [3, 6]
    assert "accuracy" in records[0]["valid"]
    assert LastCheckpoint.load(run / "last.pt").state["epoch"] == 2
    assert "epoch 2/3" in (tmp_path / "screen.log").read_text()


def test_a_bare_epoch_takes_as_many_steps_over_as_many_items(planned: Plan) -> None:
    bare = train.BareEpoch(assemble(train.limited(planned, 48)))
    network = bare._state.network
    seen: list[tuple[bool, int]] = []
    network.register_forward_pre_hook(lambda module, given: seen.append((module.training, len(given[0]))))
    bare()
    assert seen == [(True, 16), (True, 16), (True, 16), (False, 6)]


@pytest.fixture
def _ten_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.storages.SEEDED", 10)


@pytest.mark.usefixtures("_ten_seeded")
@pytest.mark.parametrize("url", [None, "sqlite:///{folder}/study.db"])
def test_a_filled_storage_takes_one_more_trial(tmp_path: Path, url: str | None) -> None:
    with filled(tmp_path / "storage", url and url.format(folder=tmp_path), 30) as held:
        assert held.opened > 0
        assert held.trial() > 0
        assert held.report() > 0
        trials = held.study.get_trials()
    assert [trial.number for trial in trials] == list(range(32))
    assert {len(trial.params) for trial in trials} == {len(SPACE)}
    assert [len(trial.intermediate_values) for trial in trials[28:]] == [12, 12, 0, 12]


@pytest.mark.slow  # starts a database server
@pytest.mark.usefixtures("_ten_seeded")
def test_a_postgresql_server_comes_and_goes(tmp_path: Path) -> None:
    binaries = postgres.programs()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg")
    with postgres.server(binaries) as url, filled(tmp_path / "storage", url, 20) as held:
        held.trial()
        assert len(held.study.get_trials()) == 21


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    smaller = ("data.sample_images=12", "model.widths=[4]", "train.batch=16", "train.threads=1")
    monkeypatch.setattr(tune, "SMALL", (*smaller, "tune.space.train.batch.choices=[8,16]"))
    monkeypatch.setattr(tune, "EPOCHS", 3)
    monkeypatch.setattr(tune, "FULL_RUNS", 2)


@pytest.mark.long  # trains a dozen trials
@pytest.mark.usefixtures("briefly")
def test_time_between_trials_is_not_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "OVERHEAD_SECONDS", 0.0)
    figure = tune.overhead(Effort(2, 1))
    assert min(figure.paired.ours) > 0
    assert figure.late == ("takes more than 0 s",)


@pytest.mark.long  # trains a dozen trials
@pytest.mark.usefixtures("briefly")
def test_both_ways_to_search_spend_as_many_epochs() -> None:
    study = tune.Study("random", "none")
    assert 0 <= study() <= 1
    assert (study.epochs, study.trials) == ([6], [2])
    pruned = tune.Study("tpe", '{name="hyperband",reduction_factor=3}')
    assert 0 <= pruned() <= 1
    assert 4 <= pruned.epochs[0] <= 6


def test_warm_commands_are_listed_with_their_targets() -> None:
    assert {(command.at_most, command.code) for command in startup.commands()} == {(3, 0), (15, 0), (15, 2)}


def test_engines_that_are_not_installed_are_skipped_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "run_seconds", lambda overrides, ranks=1, launcher=(): 1.0 / ranks)
    monkeypatch.setattr(scale, "engine_seconds", lambda engine, overrides: 2.0)
    monkeypatch.setattr(scale, "find_spec", lambda name: None if name == "lightning" else object())
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    found = {line.name: line for line in scale.figures(Options(pairs=2, data=None, run=None))}
    ratios = {name: line.paired.ratio for name, line in found.items() if isinstance(line, Figure)}
    assert ratios == {
        "scale/one_rank_of_torchrun": 1.0,
        "scale/two_ranks_of_one_thread": 2.0,
        "scale/two_ranks_against_accelerate": 4.0,
        "scale/efficiency_of_4_gpus": 1.0,
    }
    skipped = found["scale/two_ranks_against_lightning"]
    assert isinstance(skipped, Skipped)
    assert str(skipped).endswith("skipped: lightning is not installed: pip install -e '.[bench]'")


def test_a_job_of_the_bench_that_fails_says_which_and_why() -> None:
    with pytest.raises(RunFailed, match=r"train\.epochz=1: exit code 2") as failed:
        scale.run_seconds(["train.epochz=1"])
    assert any("unknown key" in line for line in failed.value.details)


def test_answers_of_windows_become_events_in_two_naive_ways() -> None:
    rows = [(1.0, [0.9, 0.1]), (1.5, [0.6, 0.4]), (2.0, [0.3, 0.7])]
    answered = Answered(0.5, [(middle, np.array(row, np.float32)) for middle, row in rows], 3.0)
    single = segments.windows(answered, ("a", "b"))
    assert [(one.label, one.start, one.end) for one in single] == [
        ("a", 0.75, 1.25),
        ("a", 1.25, 1.75),
        ("b", 1.75, 2.25),
    ]
    first, second = segments.merged(single)
    assert (first.label, first.start, first.end, round(first.score, 3)) == ("a", 0.75, 1.75, 0.75)
    assert second == single[2]


def test_clips_of_one_source_are_on_one_side(tmp_path: Path) -> None:
    fight, ucf = tmp_path / "fight", tmp_path / "ucf101-fixture"
    fight.mkdir()
    rows = [f"fight/{number}.mp4,fight,{number // 3}" for number in range(60)]
    (fight / "groups.csv").write_text("\n".join(["path,label,group", *rows]), encoding="utf-8")
    for number in range(1, 6):
        (ucf / "Diving").mkdir(parents=True, exist_ok=True)
        (ucf / "Diving" / f"v_Diving_g01_c{number:02}.avi").touch()
    split = segments.divided(fight, ucf)
    sides = [
        {int(one.path.stem) // 3 for one in side if one.label == "fight"}
        for side in (split.train, split.valid, split.joined)
    ]
    assert all(sides)
    assert sum(map(len, sides)) == len(set.union(*sides)) == 20
    assert [sum(one.label == "Diving" for one in side) for side in (split.train, split.valid, split.joined)] == [
        2,
        1,
        2,
    ]


@pytest.fixture
def _few_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PEERS", ("lightning", "timm"))
    monkeypatch.setattr(peers, "IMAGES", 20)
    monkeypatch.setattr(peers, "VALIDATED", 10)
    monkeypatch.setattr(peers, "_has", lambda python, package: package == "timm")


@pytest.mark.usefixtures("_few_peers")
def test_whole_commands_are_compared_and_those_that_are_not_installed_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def seconds(words: Sequence[str]) -> float:
        asked.append(words[2])
        images = next(Path(word) for word in words if word.endswith("images")) if "toolkit" not in words else None
        if images is not None:
            assert [len(list(images.glob(f"{name}/*/*.jpg"))) for name in ("train", "valid")] == [20, 10]
        return 2.0 if words[2] == "toolkit" else 5.0

    monkeypatch.setattr(peers, "seconds", seconds)
    skipped, figure = peers.figures(Options(5, None))
    assert str(skipped) == "peers/lightning skipped: lightning is not installed: python -m bench peers --setup"
    assert isinstance(figure, Figure)
    assert (figure.name, figure.paired.ratio, figure.verdict) == ("peers/timm", 2.5, "met")
    assert figure.facts == ("ours=2.0s,30/s", "theirs=5.0s,12/s")
    assert asked[:4] == ["toolkit", "bench.peers.timm_side", "bench.peers.timm_side", "toolkit"]


def test_without_any_peer_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "PLACE", tmp_path)
    assert [line.name for line in peers.figures(Options(5, None))] == [f"peers/{name}" for name in peers.PEERS]


def test_the_recipe_of_the_peers_is_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with peers.images(40, 20) as data:
        words = peers.ours(data)
        planned = plan(parse(Path(words[4]), [words[6]]), discover())
        assert [len(part) for part in (planned.data().train, planned.data().valid)] == [40, 20]
    train = planned.resolved.train
    assert (train.epochs, train.batch_size, train.precision) == (peers.EPOCHS, peers.BATCH, "fp32")


def test_a_command_begins_with_nothing_kept_and_says_why_it_fails(tmp_path: Path) -> None:
    keeps = "import os, sys; os.mkdir(sys.argv[1] + '/kept'); os.mkdir(os.environ['TOOLKIT_CACHE'].rpartition('/')[0])"
    words = [sys.executable, "-c", keeps, "OUTPUT"]
    assert peers.seconds(words) > 0
    assert peers.seconds(words) > 0
    with pytest.raises(RunFailed, match="exit code 3") as failed:
        peers.seconds([sys.executable, "-c", "print('why', file=__import__('sys').stderr); raise SystemExit(3)"])
    assert (failed.value.details, failed.value.next_step) == (("why",), "python -m bench peers --setup")


def test_what_this_environment_has_is_linked_into_that_of_the_peers(tmp_path: Path) -> None:
    peers.link(tmp_path)
    code = f"import site, importlib.util as u; site.addsitedir({str(tmp_path)!r}); print(u.find_spec('torch').origin)"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == torch.__file__


def test_setup_is_for_the_peers_and_says_what_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["train", "--setup", "--pairs", "2"]) == EXIT_USAGE
    assert capsys.readouterr().err == "error: --setup: train needs none\nnext:  python -m bench train --pairs 2\n"

    def fails() -> None:
        raise subprocess.CalledProcessError(1, ["pip", "install"])

    monkeypatch.setattr(peers, "set_up", fails)
    assert command.main(["peers", "--setup"]) == EXIT_FAILED
    assert capsys.readouterr().err == "error: pip install: exit code 1\nnext:  python -m bench peers --setup\n"
    monkeypatch.setattr(peers, "set_up", lambda: None)
    assert command.main(["peers", "--setup"]) == EXIT_DONE


@pytest.mark.parametrize("peer", peers.PEERS)
def test_every_peer_has_its_script_and_its_line_of_requirements(peer: str) -> None:
    folder = Path(peers.__file__).parent
    assert (folder / f"{peer}_side.py").exists()
    assert any(line.startswith(f"{peer}>=") for line in (folder / "requirements.txt").read_text().splitlines())
