"""Which plugins the doctor examines, and what is seen of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from toolkit.api.errors import UsageError, unknown_name
from toolkit.host.listing import shortened
from toolkit.host.project import owner
from toolkit.host.registry import SLOW_SECONDS, Plugin, load, owners
from toolkit.kit.doctor.examination import KNOWN_STATE
from toolkit.kit.doctor.process import SILENCE_SECONDS, Ended, Starter, answers
from toolkit.kit.doctor.report import HOST, Imported, Line, Remark, Request, imported

INCLUDED = "vision-toolkit"
"""The distribution whose plugins are examined only when asked for by name."""

Component: TypeAlias = tuple[str, str]
"""Kind and name."""


@dataclass(frozen=True)
class Patient:
    """A plugin after its import was tried in a process of its own."""

    plugin: Plugin
    imported: Imported | None
    """None where the process ended meanwhile."""
    ended: str = ""
    """What ended it."""

    @property
    def offers(self) -> list[Component]:
        return [(kind, name) for kind, name in self.imported.offers] if self.imported else []

    @property
    def cause(self) -> str | None:
        """Why nothing of it can be used; None: it can."""
        return self.imported.cause if self.imported else self.ended

    def remarks(self, others: Sequence[Patient]) -> Iterator[Remark]:
        """On the plugin as a whole, beside all `others` that are installed."""
        if self.cause:
            yield _remark("import", self.cause)
        if self.imported and self.imported.printed:
            yield _remark("silence", f"prints while it is imported: {shortened(self.imported.printed)}")
        if self.imported and self.imported.seconds > SLOW_SECONDS:
            yield _remark("speed", f"slow to import: {self.imported.seconds * 1000:.0f} ms", notice=True)
        if self.imported and not self.offers:
            yield from changes(self.imported)
        for kind, name in self.offers:
            owners = [str(other.plugin) for other in others if other is not self and (kind, name) in other.offers]
            if owners:
                yield _remark("names", f'{kind} "{name}" is also offered by {", ".join(owners)}', notice=True)


def changes(imported: Imported) -> Iterator[Remark]:
    """What a plugin that is imported changes in the process. Where its components are examined, what they need is
    imported before it, so that it is not blamed for that."""
    return (_remark("process", f"changes while it is imported: {one}") for one in imported.changed)


def _remark(rule: str, what: str, *, notice: bool = False) -> Remark:
    return Remark("", rule, what, HOST, notice=notice)


class Doctor:
    """Starts the processes in which plugins are examined; none is left after `close`.

    `left_out` names all installed plugins, in the form of `TOOLKIT_DISABLE`: a process loads the one that it is asked
    for. `silence` is that of `answers`.
    """

    def __init__(self, left_out: str, silence: float = SILENCE_SECONDS) -> None:
        self._silence = silence
        self._bare = Starter((), {"TOOLKIT_DISABLE": left_out})
        self._equipped = Starter(KNOWN_STATE, {"TOOLKIT_DISABLE": left_out})

    def close(self) -> None:
        self._bare.close()
        self._equipped.close()

    def receive(self, plugin: Plugin) -> Patient:
        """Import a plugin, and nothing else."""
        try:
            lines = list(self._answers(plugin, None, {}))
        except Ended as ended:
            return Patient(plugin, None, ended.cause)
        return Patient(plugin, next(line for line in lines if isinstance(line, Imported)))

    def examine(self, plugin: Plugin, offers: Sequence[Component], args: Mapping[str, Any]) -> Iterator[Remark]:
        """What is seen of these components. One that ends the process is told so; those after it go on in a new one."""
        remaining, first = list(offers), True
        while remaining:
            try:
                for line in self._answers(plugin, remaining, args):
                    if isinstance(line, Remark):
                        yield line
                    elif isinstance(line, Imported) and first:
                        yield from changes(line)
                remaining = []
            except Ended as ended:
                yield Remark(ended.during.component, ended.during.rule, ended.cause, HOST)
                names = [" ".join(offer) for offer in remaining]
                at = names.index(ended.during.component) if ended.during.component in names else len(names)
                remaining = remaining[at + 1 :]
            first = False

    def _answers(self, plugin: Plugin, offers: Sequence[Component] | None, args: Mapping[str, Any]) -> Iterator[Line]:
        fields = plugin.distribution, plugin.version, plugin.entry, plugin.value
        request = Request(fields, None if offers is None else tuple(offers), dict(args))
        return answers(request, self._bare if offers is None else self._equipped, silence=self._silence)


def received(plugin: Plugin) -> Patient:
    """A plugin that is known to be harmless, imported in this process."""
    return Patient(plugin, imported(load([plugin])))


def chosen(patients: Sequence[Patient], name: str | None) -> list[tuple[Patient, list[Component]]]:
    """The plugins to examine and of each the components: those of a plugin, one component, or (None) all but those
    included. Raises UsageError for a name that nothing has."""
    if name is None:
        return [(one, one.offers) for one in patients if one.plugin.distribution != INCLUDED]
    plugins = [(one, one.offers) for one in patients if owner(name) in owners(one.plugin)]
    found = plugins or [(one, _called(one, name)) for one in patients if _called(one, name)]
    if not found:
        known = {word for one in patients for word in (*owners(one.plugin), *(of[1] for of in one.offers))}
        message = unknown_name(f'no component or plugin is called "{name}"', name.rpartition(":")[2], sorted(known))
        raise UsageError(message, next_step="python -m toolkit plugins list")
    return found


def _called(patient: Patient, name: str) -> list[Component]:
    of, _, component = name.rpartition(":")
    asked = not of or owner(of) in owners(patient.plugin)
    return [offer for offer in patient.offers if asked and offer[1] == component]
