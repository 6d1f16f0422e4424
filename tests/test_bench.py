"""The benches' arithmetic, on timings that are made up: nothing here depends on the machine's speed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bench import __main__ as command
from bench import loader, postgres, scale, segments, startup, train, tune
from bench.data import Options
from bench.pairs import Figure, Interval, Paired, Skipped, bootstrap, interleave
from bench.storages import SPACE, filled
from toolkit.api.contracts import Data, DataSpec
from toolkit.api.errors import EXIT_DATA, EXIT_DONE, EXIT_FAILED, RunFailed
from toolkit.build.assemble import assemble
from toolkit.build.plan import Plan, plan
from toolkit.data.images import ArrayItems, ImageFiles
from toolkit.data.videos import ArrayVideos, FramesOf
from toolkit.host.registry import discover
from toolkit.recipe.read import parse
from toolkit.serving.predict.choosing import Answered
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


@pytest.mark.parametrize(
    ("figure", "line", "met"),
    [
        (Figure("x/y", TWICE_AS_FAST), "x/y ratio=2 ci=[2,2] n=3 aa=[1,1.1]", True),
        (Figure("x", TWICE_AS_FAST, 1.5), "x ratio=2 ci=[2,2] n=3 aa=[1,1.1] target>=1.5", True),
        (Figure("x", TWICE_AS_FAST, 2.5), "x ratio=2 ci=[2,2] n=3 aa=[1,1.1] target>=2.5; MISSED", False),
        (Figure("x", TWICE_AS_FAST, facts=("a=1", "b=2")), "x ratio=2 ci=[2,2] n=3 aa=[1,1.1] a=1 b=2", True),
        (
            Figure("x", TWICE_AS_FAST, 1.5, faults=("loads torch",)),
            "x ratio=2 ci=[2,2] n=3 aa=[1,1.1] target>=1.5; MISSED, loads torch",
            False,
        ),
        (
            Figure("x", replace(TWICE_AS_FAST, theirs=(1.0, 2.2, 2.7)), 1.9),
            "x ratio=2 ci=[1,3] n=3 aa=[1,1.1] target>=1.9; the interval holds the target: take more --pairs",
            True,
        ),
    ],
)
def test_a_figure_is_one_line_and_says_what_was_missed(figure: Figure, line: str, met: bool) -> None:
    assert str(figure) == line
    assert figure.met is met


def test_without_a_name_the_benches_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == EXIT_DONE
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == ["clips", "gpu", "loader", "predict", "scale", "serve", "startup", "train", "tune"]


@pytest.mark.parametrize(("target", "code"), [(1.5, EXIT_DONE), (2.5, EXIT_FAILED)])
def test_a_missed_target_ends_with_1_after_all_lines(
    target: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def figures(options: Options) -> Iterator[Figure]:
        assert options == Options(pairs=7, data=Path("here"))
        yield Figure("first", TWICE_AS_FAST, target)
        yield Figure("second", TWICE_AS_FAST)

    monkeypatch.setattr(command, "import_module", lambda name: SimpleNamespace(figures=figures))
    assert command.main(["loader", "--pairs", "7", "--data", "here"]) == code
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["first", "second"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["speed"], "invalid choice: 'speed'"),
        (["train", "--pairs", "1"], "--pairs: must be a whole number, at least 2, got 1"),
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


def test_what_is_slow_or_heavy_at_startup_misses_its_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "cpu_seconds", lambda command, code=0: 3.0 if "toolkit" in command else 0.1)
    monkeypatch.setattr(startup, "_import_times", lambda command, code=0: "import time: 1 | 1 | torch.nn\n")
    monkeypatch.setattr(startup, "_seconds_of_help", lambda site: 0.3 if any(Path(site).iterdir()) else 0.2)
    *commands, hostile = startup.figures(Options(2, None))
    assert [figure.name for figure in commands][:4] == [
        *("startup/help", "startup/plugins", "startup/unknown-key", "startup/wrong-argument")
    ]
    assert len(commands) == 4 + len(list(Path("recipes").glob("*.toml")))
    for figure in commands:
        assert not figure.met
        assert "times=30.0 target<=" in str(figure)
        assert "heavy=torch; MISSED, loads torch" in str(figure)
    assert not hostile.met
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
    figure = tune.overhead(2)
    assert min(figure.paired.ours) > 0
    assert figure.faults == ("takes more than 0 s",)


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
    monkeypatch.setattr(scale, "peer_seconds", lambda peer, overrides: 2.0)
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
