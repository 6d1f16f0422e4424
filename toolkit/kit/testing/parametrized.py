"""The rules as tests: one for each case and rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from functools import cache
from typing import TYPE_CHECKING

from toolkit.kit.testing.cases import Case, Finding
from toolkit.kit.testing.examination import chosen_checks, finding
from toolkit.kit.testing.subject import name_of, offer_of, opened

if TYPE_CHECKING:
    from toolkit.host.registry import Offer
    from toolkit.kit.testing.rulebook import Check


def conformance(*cases: Case, only: Collection[str] | None = None, slow: bool = True) -> Callable[..., None]:
    """A pytest test of every rule for every case, to be given a name that begins with `test_`.

    only: names of the rules to ask; None: all of them. slow: whether to ask those that take seconds too.
    """
    import pytest

    chosen = [chosen_checks(case, only=only, slow=slow) for case in cases]
    asked = [(number, check) for number, checks in enumerate(chosen) for check in checks]
    names = _unlike([f"{name_of(cases[number])}-{check.rule.name}" for number, check in asked])

    @cache
    def offer(number: int) -> Offer | None:
        return offer_of(cases[number])

    @pytest.mark.parametrize(("number", "check"), asked, ids=names)
    def keeps_its_contract(number: int, check: Check) -> None:
        with opened(cases[number], offer(number)) as subject:
            found = finding(check, subject)
            message = failure(found, subject.title)
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
        f"  see docs/plugins.md#{found.rule.section}"
    )


def _unlike(names: list[str]) -> list[str]:
    """Numbered where one component is examined in several ways."""
    count = Counter(names)
    met: Counter[str] = Counter()
    numbered = []
    for name in names:
        met[name] += 1
        numbered.append(f"{name}-{met[name]}" if count[name] > 1 else name)
    return numbered
