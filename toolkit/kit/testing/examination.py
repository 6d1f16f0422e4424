"""Asking every rule of a kind, one after the other or each as a pytest test, whatever the component does meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from functools import cache, lru_cache
from importlib import import_module
from itertools import islice

from toolkit.api.errors import Problem, UsageError, nearest
from toolkit.host.offers import described
from toolkit.host.registry import discover
from toolkit.kit.testing.case import Case, Subject, offer_of, subject_of
from toolkit.kit.testing.rulebook import DoesNotApply, Finding, Rule
from toolkit.recipe.kinds import KINDS

TOLD = 3
"""How much of what breaks one rule is shown."""


def rules(kind: str) -> tuple[Rule, ...]:
    """The rules of a kind of component, in the order in which they are asked; imports what that takes."""
    if kind not in KINDS:
        raise UsageError(f'there are no rules for the kind "{kind}"', next_step=f"use one of {', '.join(KINDS)}")
    return tuple(import_module(f"toolkit.kit.testing.{kind}s").RULES.rules)


def examine(case: Case, *, only: Collection[str] | None = None, slow: bool = True) -> Iterator[Finding]:
    """One finding for each rule of the component's kind, whatever it does: raising, leaving, drawing from global state.

    only: names of the rules to ask; None: all of them. slow: whether to ask those that take seconds too.

    Raises UsageError where the case itself is wrong: an unknown name of a component, an argument or a rule.
    """
    chosen = _chosen(case, only, slow=slow)
    subject = subject_of(case, offer_of(case))
    for rule in chosen:
        yield _finding(rule, subject)


def conformance(*cases: Case, only: Collection[str] | None = None, slow: bool = True) -> Callable[..., None]:
    """A pytest test of every rule for every case, to be given a name that begins with `test_`.

    only: names of the rules to ask; None: all of them. slow: whether to ask those that take seconds too.
    """
    import pytest

    asked = [(number, rule) for number, case in enumerate(cases) for rule in _chosen(case, only, slow=slow)]
    names = [f"{cases[number].name}-{rule.name}" for number, rule in asked]
    count = Counter(names)  # names are numbered where one component is examined in several ways
    ids = [f"{one}-{names[: place + 1].count(one)}" if count[one] > 1 else one for place, one in enumerate(names)]

    registry = cache(discover)

    @lru_cache(maxsize=1)  # the rules of a case are asked one after the other
    def subject(number: int) -> Subject:
        return subject_of(cases[number], offer_of(cases[number], registry()))

    @pytest.mark.parametrize(("number", "rule"), asked, ids=ids)
    def keeps_its_contract(number: int, rule: Rule) -> None:
        found = _finding(rule, subject(number))
        message = failure(found, subject(number).title)
        if found.skipped is not None:
            pytest.skip(found.skipped)
        if message is not None:
            pytest.fail(message, pytrace=False)

    return keeps_its_contract


def failure(found: Finding, title: str) -> str | None:
    """What a test that fails says: the component, its contract, what was seen, where to read on."""
    if found.what is None:
        return None
    return (
        f"{title}: {found.rule.name}\n"
        f"  contract: {found.rule.contract}\n"
        f"  seen:     {found.what}\n"
        f"  see docs/reference/rules.md#{found.rule.section}"
    )


def _chosen(case: Case, only: Collection[str] | None, *, slow: bool) -> list[Rule]:
    """`only` these rules of the case's kind, or all of them; without the slow ones unless `slow`."""
    every = rules(case.kind)
    known = [rule.name for rule in every]
    for name in (*(only or ()), *case.excused):
        if name not in known:
            problem = Problem("", f'{case.kind}s have no rule "{name}"', nearest(name, known))
            raise UsageError(str(problem), next_step=f"use some of {', '.join(known)}")
    return [rule for rule in every if (only is None or rule.name in only) and (slow or not rule.slow)]


def _finding(rule: Rule, subject: Subject) -> Finding:
    """What becomes of one rule; the global random states stay as they are."""
    from toolkit.kit.testing.side_effects import GlobalStates

    if rule.name in subject.case.excused:
        return Finding(subject.case, rule, skipped=subject.case.excused[rule.name])
    seen: list[str] = []
    states = GlobalStates.now()
    try:
        for text in islice(rule.look(subject), TOLD):
            seen.append(text)  # noqa: PERF402 - what was seen before an exception is shown too
    except DoesNotApply as reason:
        return Finding(subject.case, rule, skipped=str(reason))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        seen.append(_raised(error, subject))
    finally:
        states.restore()
    return Finding(subject.case, rule, what="; ".join(seen) or None)


def _raised(error: BaseException, subject: Subject) -> str:
    """An exception in one line, with the innermost place in the component's own package that it passed."""
    package = str(getattr(subject.__dict__.get("factory"), "__module__", "")).partition(".")[0]
    place, step = "", error.__traceback__
    while step is not None:
        module = str(step.tb_frame.f_globals.get("__name__", ""))
        if package and module.partition(".")[0] == package and not module.startswith("toolkit."):
            place = f" ({module}, line {step.tb_lineno})"
        step = step.tb_next
    return f"raised {described(error)}{place}"
