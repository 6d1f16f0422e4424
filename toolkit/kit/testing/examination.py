"""Asking every rule of a kind, one after the other, whatever the component does meanwhile."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from types import TracebackType

from toolkit.api.errors import Problem, UsageError, nearest
from toolkit.host.registry import HOOKS, described
from toolkit.kit.testing.cases import Case, Finding, Rule
from toolkit.kit.testing.rulebook import Check, DoesNotApply, Rulebook
from toolkit.kit.testing.subject import Subject, offer_of, opened

TOLD = 3
"""How much of what breaks one rule is told."""


def rules(kind: str) -> tuple[Rule, ...]:
    """The rules of a kind of component, in the order in which they are asked."""
    return tuple(check.rule for check in checks(kind))


def examine(case: Case, *, only: Collection[str] | None = None, slow: bool = True) -> Iterator[Finding]:
    """One finding for each rule of the component's kind, whatever it does: raising, leaving, drawing from global state.

    only: names of the rules to ask; None: all of them. slow: whether to ask those that take seconds too.

    Raises UsageError where the case itself is wrong: an unknown name of a component, an argument or a rule.
    """
    chosen = chosen_checks(case, only=only, slow=slow)
    with opened(case, offer_of(case)) as subject:
        for check in chosen:
            yield finding(check, subject)


def checks(kind: str) -> tuple[Check, ...]:
    """The rules of a kind with how to ask them; imports what that takes."""
    if kind not in HOOKS.values():
        raise UsageError(
            f'there are no rules for the kind "{kind}"', next_step=f"use one of {', '.join(HOOKS.values())}"
        )
    book: Rulebook = import_module(f"toolkit.kit.testing.{kind}s").RULES
    return tuple(book.checks)


def chosen_checks(case: Case, *, only: Collection[str] | None = None, slow: bool = True) -> tuple[Check, ...]:
    """The checks of `only` these rules, or all of them; without the slow ones unless `slow`."""
    found = checks(case.kind)
    known = [check.rule.name for check in found]
    for name in (*(only or ()), *case.excused):
        if name not in known:
            problem = Problem("", f'{case.kind}s have no rule "{name}"', nearest(name, known))
            raise UsageError(str(problem), next_step=f"use some of {', '.join(known)}")
    return tuple(
        check for check in found if (only is None or check.rule.name in only) and (slow or not check.rule.slow)
    )


def finding(check: Check, subject: Subject) -> Finding:
    """What becomes of one rule. UsageError about the case's own arguments is the caller's, and raised."""
    case, rule = subject.case, check.rule
    if rule.name in case.excused:
        return Finding(case, rule, skipped=case.excused[rule.name])
    seen: list[str] = []
    with undisturbed():
        try:
            for text in islice(check.look(subject), TOLD):
                seen.append(text)  # noqa: PERF402 - what was seen before an exception is told too
        except DoesNotApply as reason:
            return Finding(case, rule, skipped=str(reason))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            seen.append(raised(error, subject))
    return Finding(case, rule, what="; ".join(seen) or None)


def raised(error: BaseException, subject: Subject) -> str:
    """An exception in one line, with the place in the component's own package where it arose."""
    package = str(getattr(subject.__dict__.get("factory"), "__module__", "")).partition(".")[0]
    place = _innermost(error.__traceback__, package)
    return f"raised {described(error)}{f' ({place})' if place else ''}"


def _innermost(step: TracebackType | None, package: str) -> str:
    found = ""
    while step is not None:
        module = str(step.tb_frame.f_globals.get("__name__", ""))
        if package and module.partition(".")[0] == package and not module.startswith("toolkit."):
            found = f"{module}, line {step.tb_lineno}"
        step = step.tb_next
    return found


@contextmanager
def undisturbed() -> Iterator[None]:
    """Give the global random states back as they were."""
    from toolkit.kit.testing.global_states import GlobalStates

    states = GlobalStates.now()
    try:
        yield
    finally:
        states.restore()
