from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from tests.tiny import RECIPE, write_recipe
from toolkit.api.contracts import EpochRecord
from toolkit.api.errors import RunFailed
from toolkit.recipe.read import load
from toolkit.runs.directory import RunDirectory
from toolkit.runs.files import write_records
from toolkit.runs.report import figures
from toolkit.tune.aim import Aim
from toolkit.tune.best import Finalist, Finalists, write_finalists
from toolkit.tune.report import write_study_report
from toolkit.tune.report.charts import Scale, sections
from toolkit.tune.report.contents import Contents, gather
from toolkit.tune.space import Dimension, Space, Values
from toolkit.tune.storage import repeat_of, trial_run

pytestmark = pytest.mark.draws

RATES: Mapping[str, BaseDistribution] = {"train.optimizer.lr": FloatDistribution(1e-3, 1.0, log=True)}
MODELS: Mapping[str, BaseDistribution] = {"model.name": CategoricalDistribution(["cnn", "resnet18"])}
EPOCHS = 4


class Study:
    """A study and the runs of its trials, as workers leave them."""

    def __init__(self, folder: Path, keys: Mapping[str, BaseDistribution] = RATES, metrics: int = 1) -> None:
        self.folder = folder / "runs" / "tiny"
        self.folder.mkdir(parents=True)
        recipe = load(write_recipe(folder, text=RECIPE.replace("epochs = 2", f"epochs = {EPOCHS}")))
        self.space = Space(recipe, tuple(Dimension(key, Values(low=0, high=1)) for key in keys))
        self.keys = keys
        names = ("accuracy", "loss")[:metrics]
        directions = ("maximize", "minimize")[:metrics]
        self.aim = Aim(names, directions)  # type: ignore[arg-type]
        self.study = optuna.create_study(study_name="tiny", directions=list(directions))

    def add(
        self,
        values: Mapping[str, Any],
        curve: Sequence[float],
        state: TrialState = TrialState.COMPLETE,
        *,
        sample: bool = False,
        **attrs: object,
    ) -> int:
        """A trial with its run; `curve` is the accuracy of each epoch, the loss falls as it grows."""
        number = len(self.study.trials)
        scores = [max(curve, default=0.0), 1 - max(curve, default=0.0)][: len(self.aim.metrics)]
        trial = create_trial(
            state=state,
            values=scores if state == TrialState.COMPLETE else None,
            params=dict(values),
            distributions={key: self.keys[key] for key in values},
            intermediate_values={epoch: value for epoch, value in enumerate(curve, 1) if len(scores) == 1},
            user_attrs=attrs,
        )
        self.study.add_trial(trial)
        self.leave(trial_run(self.folder, number).path, curve, sample=sample)
        return number

    def leave(self, run: Path, curve: Sequence[float], *, sample: bool = False) -> None:
        run.mkdir()
        (run / "recipe.toml").write_text("seed = 0\n")
        (run / "facts.json").write_text(json.dumps({"epochs": EPOCHS, "sample": sample}))
        records = [
            EpochRecord(epoch, epoch, 0.5, {"accuracy": value, "loss": 1 - value}, {}, 8.0, 1.0, 0.25, False)
            for epoch, value in enumerate(curve, 1)
        ]
        write_records(RunDirectory(run), records)

    def contents(self, seeds: int = 1) -> Contents:
        return gather(self.study, self.folder, self.aim, self.space, seeds)

    def page(self, seeds: int = 1) -> Page:
        path = write_study_report(self.study, self.folder, self.aim, self.space, seeds=seeds)
        assert path == self.folder / "study.html"
        return Page(path)


class Page(HTMLParser):
    """Text, pictures and headings of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.raw = path.read_text(encoding="utf-8")
        self.parts: list[str] = []
        self.pictures: list[Mapping[str, str | None]] = []
        self.headings: list[Mapping[str, str | None]] = []
        self._silent = ""
        self.feed(self.raw.replace("<wbr>", ""))
        self.text = " ".join(" ".join(self.parts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent = tag if tag in ("style", "script") else self._silent
        if tag == "img":
            self.pictures.append(dict(attrs))
        if tag == "th":
            self.headings.append(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        self._silent = "" if tag == self._silent else self._silent

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data)


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of few dots: what they show is looked at in other ways."""
    monkeypatch.setattr(figures, "save", partial(figures.save, dots=20))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def usual(study: Study) -> Study:
    study.add({"train.optimizer.lr": 0.05}, [0.2, 0.4, 0.5, 0.6], own=["train.optimizer.lr"])
    study.add({"train.optimizer.lr": 0.2}, [0.3, 0.5, 0.7, 0.9])
    study.add({"train.optimizer.lr": 0.4}, [0.3, 0.5, 0.7, 0.8])
    study.add({"train.optimizer.lr": 0.9}, [0.1], TrialState.PRUNED)
    study.add({"train.optimizer.lr": 1.0}, [], TrialState.FAIL, cause="RunFailed: the loss <is> not finite")
    return study


def test_the_page_reports_the_best_every_trial_and_what_it_took(study: Study) -> None:
    page = usual(study).page()
    for part in (
        "5 trials: 3 finished, 1 pruned, 1 failed",
        "90.0 % accuracy",
        "trial 1, on the validation split; the recipe's own values: 60.0 %",
        "train.optimizer.lr 0.2 0.05",
        "25 % of trials finished or pruned",
        "Epochs trained 13 65 % of 20 of full runs",
        "1 finished, best 90.0 % 4 of 4",
        "3 pruned 10.0 % 1 of 4",
        "RunFailed: the loss <is> not finite",
        "0 (own)",
    ):
        assert part in page.text


def test_the_page_holds_all_that_it_shows(study: Study) -> None:
    page = usual(study).page()
    assert len(page.pictures) == 6
    assert all(str(picture["src"]).startswith("data:image/") for picture in page.pictures)
    assert all(picture["alt"] for picture in page.pictures)
    assert all("scope" in heading for heading in page.headings)
    assert not re.search(r"(src|href)=\"(?!data:|#)", page.raw)
    assert "default-src 'none'" in page.raw
    assert (study.folder / "figures" / "history.png").is_file()
    assert (study.folder / "figures" / "dark" / "history.png").is_file()


def test_one_trial_has_a_page_that_says_why_there_are_no_importances(study: Study) -> None:
    study.add({"train.optimizer.lr": 0.05}, [0.2, 0.4])
    page = study.page()
    assert "Importances need 2 finished trials; the study has 1 finished trial." in page.text
    assert "40.0 % accuracy" in page.text
    assert len(page.pictures) == 5


def test_a_study_without_any_trial_has_a_page(study: Study) -> None:
    page = study.page()
    for part in ("0 trials: none", "No trial is finished.", "No trial has begun.", "No trial has a score yet."):
        assert part in page.text
    assert page.pictures == []


def test_a_study_whose_trials_all_failed_reports_their_causes(study: Study) -> None:
    for _ in range(2):
        study.add({"train.optimizer.lr": 0.05}, [], TrialState.FAIL, cause="no memory")
    page = study.page()
    assert "2 trials: 2 failed" in page.text
    assert page.text.count("no memory") == 2
    assert "Importances need 2 finished trials; the study has 0 finished trials." in page.text
    assert "No trial is finished." in page.text


def test_trials_of_one_score_have_no_importances(study: Study) -> None:
    for _ in range(3):
        study.add({"train.optimizer.lr": 0.05}, [0.5])
    contents = study.contents()
    assert contents.importances == []
    assert contents.why_no_importances == "Importances cannot be computed: all finished trials have the same score."


@pytest.mark.parametrize(("trials", "warned"), [(9, True), (10, False)])
def test_importances_of_few_trials_carry_a_warning(study: Study, trials: int, warned: bool) -> None:
    for number in range(trials):
        study.add({"train.optimizer.lr": 0.01 * (number + 1)}, [0.1 * number])
    (section,) = [one for one in sections(study.contents()) if one.anchor == "importances"]
    assert ("warning: fewer than 10 trials are too few" in section.charts[0].remark) == warned


def test_importances_that_optuna_refuses_are_reported_with_its_reason(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> dict[str, float]:
        raise RuntimeError("zero total variance")

    monkeypatch.setattr(optuna.importance, "get_param_importances", refuse)
    assert usual(study).contents().why_no_importances == "Importances cannot be computed: zero total variance"


def test_keys_of_a_component_are_shown_where_it_was_chosen(tmp_path: Path) -> None:
    study = Study(tmp_path, {**MODELS, "model.dropout": FloatDistribution(0, 0.5)})
    study.add({"model.name": "cnn"}, [0.5, 0.6])
    study.add({"model.name": "resnet18", "model.dropout": 0.25}, [0.5, 0.7])
    study.add({"model.name": "resnet18", "model.dropout": 0.5}, [0.5, 0.8])
    page = study.page()
    assert "0 finished 60.0 % 2 of 4 0.0 cnn —" in re.sub(r"18\.\d", "0.0", page.text)
    assert len(page.pictures) == 6


def test_a_space_of_choices_alone_has_all_figures(tmp_path: Path) -> None:
    study = Study(tmp_path, {**MODELS, "train.batch": CategoricalDistribution([8, 16])})
    study.add({"model.name": "cnn", "train.batch": 8}, [0.5])
    study.add({"model.name": "resnet18", "train.batch": 16}, [0.7])
    assert len(study.page().pictures) == 6


def test_several_metrics_have_figures_of_each_and_their_front(tmp_path: Path) -> None:
    study = Study(tmp_path, {"train.batch": IntDistribution(1, 64)}, metrics=2)
    study.add({"train.batch": 8}, [0.5])
    study.add({"train.batch": 16}, [0.7])
    page = study.page()
    assert "trial 1 of 1 on the front" in page.text
    assert "loss by accuracy" in page.text
    drawn = {path.stem for path in (study.folder / "figures").glob("*.png")}
    assert {"history_0", "history_1", "slices_0", "slices_1", "importances_0", "importances_1", "front_0_1"} <= drawn
    assert "best.toml" not in page.text


def test_several_metrics_without_a_finished_trial_have_no_front(tmp_path: Path) -> None:
    study = Study(tmp_path, metrics=2)
    study.add({"train.optimizer.lr": 0.05}, [], TrialState.FAIL, cause="x")
    (section,) = [one for one in sections(study.contents()) if one.anchor == "front"]
    assert [(chart.drawing, chart.missing) for chart in section.charts] == [(None, "No trial is finished.")]


def test_a_study_of_the_sample_says_so(study: Study) -> None:
    study.add({"train.optimizer.lr": 0.05}, [0.5], sample=True)
    assert "SAMPLE DATA" in study.page().text
    assert "SAMPLE DATA" not in usual(Study(study.folder / "other")).page().text


def test_time_is_shown_by_what_it_was_spent_on(study: Study) -> None:
    study.add({"train.optimizer.lr": 0.05}, [0.5, 0.6])
    study.add({"train.optimizer.lr": 0.1}, [0.5], TrialState.PRUNED)
    spent = study.contents().spent
    finished = spent["finished"]
    assert list(spent) == ["finished", "pruned"]
    assert (finished.training, finished.waiting, finished.validation) == (12, 4, 2)
    assert finished.total == 18 + finished.rest


def test_a_run_that_is_elsewhere_is_shown_by_what_it_reported(study: Study) -> None:
    trial = create_trial(state=TrialState.PRUNED, intermediate_values={2: 0.5, 1: 0.25})
    study.study.add_trial(trial)
    (one,) = study.contents().trials
    assert (list(one.curve), one.epochs, one.planned) == ([(1, 0.25), (2, 0.5)], 2, EPOCHS)


def test_a_damaged_run_is_reported_and_the_page_is_written(study: Study) -> None:
    number = study.add({"train.optimizer.lr": 0.05}, [0.5])
    trial_run(study.folder, number).records.write_text("{}\n")
    page = study.page()
    assert "records.jsonl: line 1: not an epoch record" in page.text
    assert "50.0 % accuracy" in page.text


def test_a_damaged_comparison_is_reported_and_the_page_is_written(study: Study) -> None:
    (study.folder / "best.json").write_text("{")
    assert "best.json: cannot be read" in study.page().text


def test_epochs_of_all_seeds_of_a_trial_count(study: Study) -> None:
    number = study.add({"train.optimizer.lr": 0.05}, [0.5, 0.6])
    study.leave(repeat_of(trial_run(study.folder, number), 1).path, [0.4, 0.5])
    assert (study.contents(seeds=2).epochs, study.contents(seeds=2).planned) == (4, 2 * EPOCHS)
    assert study.contents().epochs == 2


def test_a_trial_that_was_pruned_after_its_first_seed_shows_the_epochs_of_all(study: Study) -> None:
    study.add({"train.optimizer.lr": 0.05}, [0.5] * EPOCHS, TrialState.PRUNED)
    assert "pruned 50.0 % 4 of 12" in study.page(seeds=3).text


def test_own_values_that_were_tried_again_show_the_trial_that_got_furthest(study: Study) -> None:
    study.add({"train.optimizer.lr": 0.05}, [0.5], TrialState.FAIL, own=["train.optimizer.lr"])
    study.add({"train.optimizer.lr": 0.2}, [0.9])
    study.add({"train.optimizer.lr": 0.05}, [0.6], own=["train.optimizer.lr"])
    assert "trial 1, on the validation split; the recipe's own values: 60.0 %" in study.page().text


def test_the_comparison_over_seeds_is_shown(study: Study) -> None:
    candidates = [
        Finalist(1, False, {}, (0, 1), ("a", "b"), {"accuracy": (0.8, 0.9)}, {"trial-0001/seed-2": "no <memory>"}),
        Finalist(0, True, {}, (0,), ("c",), {"accuracy": (0.6,)}, {}),
    ]
    finalists = Finalists("test", False, tuple(candidates), ("five of nine",))
    usual(study)
    write_finalists(study.folder, finalists)
    page = study.page()
    assert "test trial 1, 2 seeds own values, 1 seed accuracy 85.0 ± 7.1 % 60.0 %" in page.text
    assert "trial-0001/seed-2 failed: no <memory>" in page.text
    assert "five of nine" in page.text


def test_a_trial_under_way_is_shown(study: Study) -> None:
    trial = study.study.ask()
    trial.suggest_float("train.optimizer.lr", 1e-3, 1.0, log=True)
    trial.report(0.5, 1)
    page = study.page()
    assert "1 trial: 1 running" in page.text
    assert "0 running 50.0 %" in page.text


def test_a_score_that_is_not_finite_is_absent_from_the_charts(study: Study) -> None:
    study.add({"train.optimizer.lr": 0.05}, [float("nan")], TrialState.PRUNED)
    study.add({"train.optimizer.lr": 0.1}, [0.5])
    assert "0 pruned — 1 of 4" in study.page().text


def test_a_thousand_trials_stay_a_page(study: Study) -> None:
    many = [
        create_trial(
            value=number / 1000, params={"train.optimizer.lr": 0.05 + number / 2000}, distributions=dict(RATES)
        )
        for number in range(1000)
    ]
    study.study.add_trials(many)
    assert len(study.page().raw) < 2_000_000


def test_a_folder_that_cannot_be_written_is_reported(study: Study) -> None:
    usual(study)
    (study.folder / "figures").write_text("in the way")
    with pytest.raises(RunFailed, match="cannot be written") as caught:
        study.page()
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("distribution", "shares"),
    [
        (FloatDistribution(0.01, 1.0, log=True), {0.01: 0.0, 0.1: 0.5, 1.0: 1.0}),
        (IntDistribution(2, 6), {2: 0.0, 3: 0.25, 6: 1.0}),
        (CategoricalDistribution(["a", 8, True]), {"a": 0.0, 8: 0.5, True: 1.0}),
        (CategoricalDistribution(["a"]), {"a": 0.5}),
    ],
)
def test_values_stand_where_they_belong_on_an_axis(
    study: Study, distribution: BaseDistribution, shares: Mapping[Any, float]
) -> None:
    study.keys = {"x": distribution}
    for value in shares:
        study.add({"x": value}, [0.5])
    scale = Scale.of("x", study.contents().trials)
    assert {value: pytest.approx(scale.share(value)) for value in shares} == shares
    labelled = {height for height, _ in scale.ends}
    assert labelled == ({*shares.values()} if isinstance(distribution, CategoricalDistribution) else {0.0, 1.0})
