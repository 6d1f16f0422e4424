"""What the docs say of the conformance kit: its rules, its example, what a broken rule looks like."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

from tests.inner_pytest import inner_pytest
from tests.test_docs import ACME, DOCS, TESTING, code, install_from, rows, titled
from toolkit.kit.testing import Case, Rule, rules
from toolkit.recipe.kinds import KINDS


def listed() -> list[tuple[str, str, str]]:
    """Anchor, name and text of every rule on the page."""
    text = (DOCS / "reference" / "rules.md").read_text(encoding="utf-8")
    found = re.findall(r'^- <a id="([\w-]+)"></a>`(\w+)`(.*(?:\n  .*)*)', text, flags=re.MULTILINE)
    return [(anchor, name, " ".join(rest.split())) for anchor, name, rest in found]


def test_every_rule_is_listed_where_its_failures_point() -> None:
    known = [rule for kind in KINDS for rule in rules(kind)]
    expected = [(rule.section, rule.name, f"{'(slow)' if rule.slow else ''}: {rule.contract}") for rule in known]
    assert listed() == expected


def test_every_field_of_a_case_is_listed() -> None:
    text = TESTING.read_text(encoding="utf-8")
    listed_fields = [code(field)[0] for field, _ in rows(text)]
    assert listed_fields == [field.name for field in dataclasses.fields(Case)]


SLOW = {"onnx", "processes"}


@pytest.mark.parametrize("group", ["test_datasets", "test_models", "test_others"])
def test_the_example_passes_as_shown(group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the slow rules, in this process; `test_a_broken_rule_reads_as_shown` runs pytest."""
    kept = [ask for name, ask in shown_tests(tmp_path, monkeypatch, group) if name not in SLOW]
    assert kept
    for ask in kept:
        ask()


@pytest.mark.slow  # exports a graph, starts an interpreter
@pytest.mark.parametrize("group", ["test_datasets", "test_models"])
def test_the_example_passes_the_slow_rules(group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the first component of each kind."""
    ask = next(ask for name, ask in shown_tests(tmp_path, monkeypatch, group) if name in SLOW)
    ask()


def shown_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str) -> list[tuple[str, Callable[[], None]]]:
    """What `conformance` asks in the example: names of rules and tests, which fail as those that pytest runs."""
    install_from(tmp_path, *ACME)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    test = getattr(import_module("test_acme"), group)
    (mark,) = test.pytestmark
    return [(rule.name, partial(applied, test, number, rule)) for number, rule in mark.args[1]]


def applied(test: Callable[..., None], number: int, rule: Rule) -> None:
    """Ask one rule; one that does not apply holds."""
    with suppress(pytest.skip.Exception):
        test(number, rule)


def test_a_broken_rule_reads_as_shown(tmp_path: Path) -> None:
    install_from(tmp_path, *ACME)
    broken = tmp_path / "acme_mean_rank.py"
    broken.write_text(broken.read_text(encoding="utf-8").replace("mean()", "sum()"), encoding="utf-8")
    assert titled(TESTING, "a broken rule") in inner_pytest(tmp_path, "-k", "mean_rank-empty", "test_acme.py").stdout
