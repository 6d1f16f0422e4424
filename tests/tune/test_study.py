from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.tiny import RECIPE, write_recipe
from tests.tune.studies import SPACE, begun, planned, recipe
from toolkit.api.errors import EXIT_DONE, EXIT_USAGE, RecipeError, UsageError
from toolkit.cli.main import main
from toolkit.host.registry import discover
from toolkit.recipe.read import parse
from toolkit.recipe.tables import Use
from toolkit.tune.storage import open_storage
from toolkit.tune.study import open_study, plan_study


def test_a_table_is_found_right(tmp_path: Path) -> None:
    path = write_recipe(
        tmp_path, text=f"{RECIPE}[tune]\ntrials = 3\n[tune.space]\ntrain.batch = {{choices = [4, 8]}}\n"
    )
    found = plan_study(parse(path), discover())
    assert found.tune.trials == 3
    assert [one.key for one in found.space.dimensions] == ["train.batch"]
    assert found.aim.metrics == ("loss",)
    assert found.search


def test_a_recipe_without_a_table_has_nothing_to_try(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    with pytest.raises(RecipeError) as caught:
        plan_study(parse(path), discover())
    assert [problem.key for problem in caught.value.problems] == ["tune"]
    step = str(caught.value.next_step)
    assert step.startswith(f"add [tune] to {path}, or try rates: --set ")
    overrides = shlex.split(step.partition("rates: ")[2])[1::2]
    (rate,) = plan_study(parse(path, overrides), discover()).space.dimensions
    assert rate.key == "train.optimizer.lr"


FIXED = "[tune]\ntrials = 3\n[tune.fixed]\ndata.valid_share = 0.4\n{}\n[tune.space]\ntrain.batch = {{choices = [4]}}\n"


def test_what_is_fixed_all_trials_have_and_the_recipe_has_not(tmp_path: Path) -> None:
    draft = parse(write_recipe(tmp_path, text=RECIPE + FIXED.format("")))
    fixed = plan_study(draft, discover()).recipe
    assert draft.recipe
    assert (draft.recipe.data.args["valid_share"], fixed.data.args["valid_share"]) == (0.2, 0.4)
    assert fixed.tune == draft.recipe.tune


def test_what_is_fixed_wrongly_is_reported_at_its_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_recipe(tmp_path, text=RECIPE + FIXED.format("train.epoks = 2\ndata.valid_shar = 0.1"))
    assert main(["check", str(path)]) == EXIT_USAGE
    printed = capsys.readouterr().err
    assert 'tune.fixed.train.epoks: unknown key; did you mean "epochs"?' in printed


def test_what_is_fixed_cannot_be_tried_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_recipe(tmp_path, text=RECIPE + FIXED.format("train.batch = 4"))
    assert main(["check", str(path)]) == EXIT_USAGE
    printed = capsys.readouterr().err
    assert f"{path}: tune.fixed.train.batch: is also in tune.space: remove it from one of the two" in printed


def test_check_reports_all_that_is_wrong_with_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tune = '[tune]\ntrials = 3\nsampler = "tpee"\n[tune.space]\ntrain.epoks = {low = 1, high = 2}\n'
    path = write_recipe(tmp_path, text=RECIPE + tune)
    assert main(["check", str(path)]) == EXIT_USAGE
    printed = capsys.readouterr().err
    assert "tune.space.train.epoks: " in printed
    assert "tune.sampler.name: " in printed
    assert f"next:  correct [tune] in {path}" in printed


def test_check_says_valid_of_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_recipe(
        tmp_path, text=f"{RECIPE}[tune]\ntrials = 3\n[tune.space]\ntrain.batch = {{choices = [4, 8]}}\n"
    )
    assert main(["check", str(path), "--recipe-only"]) == EXIT_DONE
    assert capsys.readouterr().out.startswith(f"{path}: valid\n")


def test_a_study_lives_in_a_journal_file(tmp_path: Path) -> None:
    study = begun(tmp_path / "tiny")
    study.tell(study.ask(), 0.5)
    assert (tmp_path / "tiny" / "journal.log").is_file()
    again = begun(tmp_path / "tiny")
    assert [trial.value for trial in again.trials] == [0.5]


CHANGED = {
    "metric": ('metric = "accuracy"\ndirection = "maximize"', SPACE, "metrics loss, now accuracy"),
    "direction": ('metric = "accuracy"\ndirection = "minimize"', SPACE, "directions maximize, now minimize"),
    "range": (
        "",
        SPACE.replace("0.1", "0.2"),
        'tune.space.train.optimizer.lr {"low": 0.01, "high": 0.1, ',
    ),
    "seeds": ("seeds_per_trial = 3", SPACE, "seeds_per_trial 1, now 3"),
    "key": ("", SPACE + "train.epochs = {low = 1, high = 2}", "tune.space.train.epochs absent, now"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_a_changed_study_is_refused_with_what_changed(tmp_path: Path, what: str) -> None:
    begun(tmp_path)
    tune, space, printed = CHANGED[what]
    with pytest.raises(UsageError, match="study tiny already exists with different settings") as caught:
        begun(tmp_path, tune, space)
    assert printed in caught.value.message
    assert caught.value.exit_code == EXIT_USAGE
    assert caught.value.next_step


def test_sampler_pruner_and_trials_may_change(tmp_path: Path) -> None:
    begun(tmp_path)
    assert begun(tmp_path, 'sampler = "random"\npruner = "none"\nmax_failures = 2').study_name == "tiny"


def test_a_study_of_another_recipe_is_refused(tmp_path: Path) -> None:
    begun(tmp_path)
    other = recipe().model_copy(update={"seed": 5, "model": Use(name="cnn", widths=[4])})
    with pytest.raises(
        UsageError,
        match=r"settings: model\.dropout 0\.1, now absent; model\.widths \[8, 8\], now \[4\]; seed 0, now 5$",
    ):
        open_study(planned(other), open_storage(tmp_path, None))


def test_objectives_are_called_as_their_metrics(tmp_path: Path) -> None:
    path = write_recipe(
        tmp_path, text=f"{RECIPE}[tune]\ntrials = 3\n[tune.space]\ntrain.batch = {{choices = [4, 8]}}\n"
    )
    found, storage = plan_study(parse(path), discover()), open_storage(tmp_path, None)
    assert open_study(found, storage).metric_names == ["loss"]
    logged = (tmp_path / "journal.log").read_text()
    assert open_study(found, storage).metric_names == ["loss"]
    assert logged.count("metric_names") == (tmp_path / "journal.log").read_text().count("metric_names") == 1
