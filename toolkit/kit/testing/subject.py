"""A case made ready: its factory found, its arguments checked, a folder of its own to work in."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from toolkit.api.contracts import Declared
from toolkit.api.errors import Problem, UsageError
from toolkit.host.registry import Offer, discover
from toolkit.kit.testing.cases import Case

if TYPE_CHECKING:
    from toolkit.recipe.signature import Factory


@dataclass
class Subject:
    """The component of a case while it is examined."""

    case: Case
    offer: Offer | None
    """Where an installed component comes from; None for a factory that no plugin offers."""
    folder: Path
    """Temporary, of this examination alone."""
    known: dict[str, Any] = field(default_factory=dict)
    """What the rules of a kind found out that is dear to find out again."""

    @cached_property
    def factory(self) -> Factory:
        """The factory; PluginError where it cannot be imported."""
        if not isinstance(self.case.given, str):
            return self.case.given
        if self.offer is None:
            raise AssertionError("a component that is named is offered")
        return self.offer.load()

    @property
    def declared(self) -> Declared | None:
        """What is said of the component beside its factory."""
        given = self.case.factory
        return given if isinstance(given, Declared) else self.offer.declared if self.offer else None

    @cached_property
    def args(self) -> dict[str, Any]:
        """The case's arguments as the core would pass them; UsageError where they are not the factory's."""
        return self.checked(self.case.args)

    @cached_property
    def root(self) -> Path | None:
        """The folder of a dataset's data."""
        if not callable(self.case.root):
            return self.case.root
        place = self.folder / "data"
        place.mkdir()
        return self.case.root(place)

    def checked(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Any other arguments, as the core would pass them."""
        from toolkit.recipe.signature import GIVEN_BY_CORE, check

        found, problems = check(self.factory, args, "args", skip=GIVEN_BY_CORE.get(self.case.kind, ()))
        if problems:
            raise UsageError(
                f"{self.title}: {'; '.join(map(str, problems))}", next_step="give these arguments in the Case's args"
            )
        return found

    def refuse_wrong_arguments(self) -> None:
        """Raise UsageError where the case's arguments are not the factory's. What is wrong with the factory itself is a
        rule's to find."""
        try:
            _ = self.args
        except UsageError:
            raise
        except Exception:
            return

    def build(self, *first: Any, **others: Any) -> Any:
        """What the factory makes of the case's arguments, and of `others` that replace some of them."""
        return self.factory(*first, **{**self.args, **others})

    def takes(self, argument: str) -> bool:
        """Whether the factory has an argument of this name."""
        return argument in inspect.signature(self.factory).parameters

    def scratch(self, name: str) -> Path:
        """A new empty folder."""
        place = self.folder / f"{name}-{len(list(self.folder.iterdir()))}"
        place.mkdir()
        return place

    @property
    def title(self) -> str:
        """The component with its plugin."""
        if self.offer is not None:
            return f'{self.case.kind} "{self.offer.name}" of plugin {self.offer.plugin}'
        return f'{self.case.kind} "{name_of(self.case)}"'


@contextmanager
def opened(case: Case, offer: Offer | None) -> Iterator[Subject]:
    """The case, and where `offer_of` says that it comes from, ready to be examined. Raises UsageError where its
    arguments are wrong."""
    with TemporaryDirectory(prefix="toolkit-testing-", ignore_cleanup_errors=True) as folder:
        subject = Subject(case, offer, Path(folder).resolve())
        subject.refuse_wrong_arguments()
        yield subject


def offer_of(case: Case) -> Offer | None:
    """The installed component of a case; None for a factory that no plugin offers. Raises UsageError for a name that
    none offers, and PluginError where several do, or a broken one may."""
    if isinstance(case.given, str):
        found = discover().find(case.kind, case.given, "factory")
        if isinstance(found, Problem):
            raise UsageError(f"Case: {found}", next_step="see what is installed: python -m toolkit plugins list")
        return found
    return next((offer for offer in discover().offers(case.kind) if _is(offer, case.given)), None)


def _is(offer: Offer, factory: Factory) -> bool:
    if not isinstance(offer.factory, str):
        return offer.factory is factory
    return offer.factory == f"{getattr(factory, '__module__', '')}:{getattr(factory, '__qualname__', '')}"


def name_of(case: Case) -> str:
    """What a case's component is called in a test's name."""
    factory = case.given
    return factory if isinstance(factory, str) else getattr(factory, "__name__", type(factory).__name__)
