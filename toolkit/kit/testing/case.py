"""What is examined: a case, and the case made ready, with its factory, checked arguments and a folder of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, wraps
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, Literal, TypeAlias, TypeVar, cast
from weakref import finalize

from toolkit.api.contracts import DataSpec, Declared
from toolkit.api.errors import Problem, UsageError
from toolkit.host.offers import Offer
from toolkit.host.registry import Registry, discover
from toolkit.recipe.kinds import KINDS

T = TypeVar("T")
Kind: TypeAlias = Literal["dataset", "model", "augmentation", "metric", "task", "tracker", "optimizer", "schedule"]


@dataclass(frozen=True)
class Case:
    """One component, as a recipe would use it."""

    kind: Kind
    factory: Callable[..., Any] | str | Declared
    """The factory itself, alone or in a `Model`; or the name of an installed component: `patches`,
    `acme-vision:patches`."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """Its keys in the recipe."""
    root: Path | Callable[[Path], Path] | None = None
    """Of a dataset: the folder of its data, a function that fills an empty folder and returns the root in it
    (`toolkit.kit.testing.image_folders`, say), or None for the built-in sample."""
    spec: DataSpec | None = None
    """What a model, an augmentation, a metric or a task is built for; None: something small. A model is then tried
    with 64 pixels first, and with 224 (or what it was designed for) where it does not take those; a task with targets
    of the form that it takes."""
    identity: Mapping[str, Any] | None = None
    """Of an augmentation: arguments at which it changes nothing; None: `p` or `strength` of 0, where it has one."""
    excused: Mapping[str, str] = field(default_factory=dict)
    """Names of rules that the component cannot keep, each with the reason, which is shown instead of a verdict."""

    @property
    def given(self) -> Callable[..., Any] | str:
        """`factory` without the data that may come with it."""
        return self.factory.factory if isinstance(self.factory, Declared) else self.factory

    @property
    def name(self) -> str:
        """What the component is called in a test's name."""
        factory = self.given
        return factory if isinstance(factory, str) else getattr(factory, "__name__", type(factory).__name__)


@dataclass(eq=False)
class Subject:
    """The component of a case while it is examined."""

    case: Case
    offer: Offer | None
    """Where an installed component comes from; None for a factory that no plugin offers."""
    folder: Path
    """Temporary, of this examination alone."""
    made: dict[Callable[[Subject], Any], Any] = field(default_factory=dict)
    """What rules share, by the function that made it: see `once`."""

    @cached_property
    def factory(self) -> Callable[..., Any]:
        """The factory; PluginError where it cannot be imported."""
        if not isinstance(self.case.given, str):
            return self.case.given
        if self.offer is None:
            raise AssertionError("a component that is named is offered")
        return self.offer.load()

    @property
    def declared(self) -> Declared | None:
        """What the hook declares of the component, besides its factory."""
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
        from toolkit.recipe.checking import check
        from toolkit.recipe.reading import read_signature

        found, problems = check(read_signature(self.factory, KINDS[self.case.kind].given), args, "args")
        if problems:
            raise UsageError(
                f"{self.title}: {'; '.join(map(str, problems))}", next_step="give these arguments in the Case's args"
            )
        return found

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
        return f'{self.case.kind} "{self.case.name}"'


def once(make: Callable[[Subject], T]) -> Callable[[Subject], T]:
    """`make`, called once for a subject: its rules share what it returns, and none of them may change that."""

    @wraps(make)
    def made(subject: Subject) -> T:
        if make not in subject.made:
            subject.made[make] = make(subject)
        return cast("T", subject.made[make])

    return made


def subject_of(case: Case, offer: Offer | None) -> Subject:
    """The case, and where `offer_of` says that it comes from, ready to be examined; its folder is removed with it.
    Raises UsageError where its arguments are wrong."""
    folder = Path(mkdtemp(prefix="toolkit-testing-")).resolve()
    subject = Subject(case, offer, folder)
    finalize(subject, rmtree, folder, ignore_errors=True)
    try:
        _ = subject.args
    except UsageError:
        raise
    except Exception:  # noqa: S110 - a fault of the factory itself: a rule finds it
        pass
    return subject


def offer_of(case: Case, registry: Registry | None = None) -> Offer | None:
    """The installed component of a case, in `registry` or in what is installed now; None for a factory that no plugin
    offers. Raises UsageError for a name that none offers, and PluginError where several do, or a broken one may."""
    known = registry or discover()
    if isinstance(case.given, str):
        found = known.find(case.kind, case.given, "factory")
        if isinstance(found, Problem):
            raise UsageError(f"Case: {found}", next_step="see what is installed: python -m toolkit plugins list")
        return found
    place = f"{getattr(case.given, '__module__', '')}:{getattr(case.given, '__qualname__', '')}"
    for one in known.offers(case.kind):
        if one.place == place or (one.place is None and one.factory is case.given):
            return one
    return None
