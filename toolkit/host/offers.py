"""What is known of a plugin and of the components that it offers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from toolkit.api.errors import PluginError
from toolkit.host.seen import Seen

if TYPE_CHECKING:
    from toolkit.api.contracts import Declared

INCLUDED = "vision-toolkit"
"""The toolkit's own distribution: the conformance kit's rules hold its plugins, so no command looks for faults in them
unless it is asked to."""
SLOW_SECONDS = 0.1
"""An import that takes longer is shown: it delays the first command after each change of the plugin."""


class Plugin(NamedTuple):
    """What is known of a plugin before it is loaded; `distribution` is normalised as package indexes do."""

    distribution: str
    version: str
    entry: str
    value: str

    @property
    def name(self) -> str:
        return f"{self.distribution}[{self.entry}]"

    @property
    def module(self) -> str:
        return self.value.partition(":")[0].strip()

    @property
    def file(self) -> str | None:
        """The file from which this process has loaded the plugin; None if it has not."""
        return getattr(sys.modules.get(self.module), "__file__", None)

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def owners(plugin: Plugin) -> tuple[str, str]:
    """What may come before the colon of `distribution:component`."""
    return plugin.distribution, plugin.name


class Broken(NamedTuple):
    """A plugin that cannot be used, and why."""

    plugin: Plugin
    cause: str

    def __str__(self) -> str:
        return f"{self.plugin}: {self.cause}"


class Disabled(NamedTuple):
    """A plugin that is installed and disabled, and therefore not imported."""

    plugin: Plugin
    by: str
    """The file or the variable that disables it."""

    def __str__(self) -> str:
        return f"{self.plugin}: by {self.by}"


class Loaded(NamedTuple):
    """What was seen when a plugin was imported and its hooks were called, by this command or by an earlier one."""

    plugin: Plugin
    seen: Seen
    file: str | None = None
    """The file from which it was loaded."""

    @property
    def slow(self) -> bool:
        return self.seen.seconds > SLOW_SECONDS

    @property
    def took(self) -> str:
        return f"{self.seen.seconds * 1000:.0f} ms"


class Offer:
    """One component: its factory, or where to import it from."""

    def __init__(
        self,
        kind: str,
        name: str,
        plugin: Plugin,
        factory: Callable[..., Any] | str,
        declared: Declared | None = None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.plugin = plugin
        self._factory = factory
        self._declared = declared

    @property
    def factory(self) -> Callable[..., Any] | str:
        return self._factory

    @property
    def declared(self) -> Declared | None:
        """What the hook returned, where it declares more than a factory."""
        return self._declared

    def load(self) -> Callable[..., Any]:
        """The factory itself, imported now if need be; PluginError if that fails."""
        return self._at(self.factory) if isinstance(self.factory, str) else self.factory

    def designer(self, place: str) -> Callable[..., Any]:
        """The function at `place` that returns what a model takes; PluginError if it cannot be imported."""
        return self._at(place)

    def _at(self, place: str) -> Callable[..., Any]:
        try:
            found = _imported(*place.split(":"))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self.failed(f"cannot import {place}", error) from error
        if callable(found):
            function: Callable[..., Any] = found
            return function
        raise self.failed(f"{place} is not callable")

    @property
    def place(self) -> str | None:
        """Where the factory is imported from, if it has such a name."""
        return self.factory if isinstance(self.factory, str) else None

    @property
    def imported(self) -> bool:
        """Whether the factory can be had without importing anything."""
        return not isinstance(self.factory, str) or self.factory.partition(":")[0] in sys.modules

    def failed(self, what: str, error: BaseException | None = None) -> PluginError:
        """What went wrong inside this component, with the plugin to blame."""
        cause = f": {described(error)}" if error else ""
        return PluginError(
            f'{self.kind} "{self.name}" of plugin {self.plugin}: {what}{cause}',
            next_step=f'python -m toolkit plugins show "{self.plugin.distribution}:{self.name}"',
        )


class Answers(NamedTuple):
    """What plugins answered when they were asked, or why they did not."""

    offered: tuple[Offer, ...] = ()
    broken: tuple[Broken, ...] = ()
    loaded: tuple[Loaded, ...] = ()


def described(error: BaseException) -> str:
    """An exception as one line: its type and its text, if it has one that can be read."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _imported(module: str, attribute: str) -> Any:
    """The object at `module:attribute`; what the import prints goes to standard error."""
    if module in sys.modules:
        found: Any = sys.modules[module]
    else:
        import importlib

        from toolkit.host.isolation import quiet

        with quiet() as printed:
            found = importlib.import_module(module)
        sys.stderr.write("".join(printed))
    for step in attribute.split("."):
        found = getattr(found, step)
    return found
