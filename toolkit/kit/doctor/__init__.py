"""`plugins doctor`: every component of a plugin examined in a process of its own, whatever it does there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

from toolkit.api.errors import EXIT_DONE, EXIT_PLUGIN, UsageError, counted, unknown_name
from toolkit.host.installed import installed
from toolkit.host.listing import shortened
from toolkit.host.loading import load
from toolkit.host.offers import INCLUDED, SLOW_SECONDS, Plugin, owners
from toolkit.host.project import disabled_names, owner
from toolkit.kit.doctor.examination import HOST, KNOWN_STATE, Imported, Line, Remark, Request, imported
from toolkit.kit.doctor.process import SILENCE_SECONDS, Ended, Starter, answers
from toolkit.kit.doctor.sources import unsafe_loads
from toolkit.recipe.overrides import from_inline
from toolkit.system.notices import show

PAGE = "docs/reference/rules.md"

Component: TypeAlias = tuple[str, str]
"""Kind and name."""


def examine_installed(name: str | None, overrides: Sequence[str], *, silence: float = SILENCE_SECONDS) -> int:
    """Examine a plugin, a component, or (None) every plugin but those included, and print what is seen; the exit code
    says whether anything is broken.

    `overrides` are `key=value` of the one component's table. A process that is silent for so many seconds is ended.
    Raises UsageError for an unknown name, and for overrides without a single component.
    """
    plugins, unreadable = installed()
    disabled = disabled_names().keys()
    named = [plugin for plugin in plugins if owner(name or "") in owners(plugin)]
    asleep = [plugin for plugin in plugins if plugin not in named and not disabled.isdisjoint(owners(plugin))]
    with closing(Doctor(",".join(sorted({plugin.name for plugin in plugins})), silence)) as doctor:
        patients = [
            # of those included, which are harmless, only one that is named is imported in a process of its own
            Patient(plugin, imported(load([plugin])))
            if plugin.distribution == INCLUDED and plugin not in named
            else doctor.receive(plugin)
            for plugin in plugins
            if plugin not in asleep
        ]
        visits = chosen(patients, name)
        args = _args(overrides, [offer for _, offers in visits for offer in offers])
        sound = True
        for patient, offers in visits:
            remarks = [*patient.remarks(patients)]
            took = f"{patient.imported.seconds * 1000:.0f} ms"
            usable = f"imported in {took}, {counted(len(patient.offers), 'component')}"
            _show(f"{patient.plugin}: {'broken' if patient.imported.cause else usable}", remarks)
            seen = list(_examined(doctor, patient.plugin, offers, args))
            sound = sound and not any(remark.fault for remark in (*remarks, *seen))
    if name is None:
        for broken in unreadable:
            show(str(broken))
        for plugin in asleep:
            show(f"{plugin}: disabled, not examined")
    if not visits:
        show("no third-party plugin is installed; to examine an included plugin, name it")
    return EXIT_DONE if sound and not (unreadable and name is None) else EXIT_PLUGIN


def _args(overrides: Sequence[str], components: Sequence[Component]) -> dict[str, Any]:
    """The keys of the table of the one component that is examined."""
    if overrides and len(components) != 1:
        raise UsageError(
            f"--set needs one component, got {len(components)}",
            next_step="name it: python -m toolkit plugins doctor DISTRIBUTION:COMPONENT --set KEY=VALUE",
        )
    args = {}
    for text in overrides:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key or not value:
            raise UsageError(f"--set {text}: must look like key=value", next_step="--set width=8, say")
        args[key] = from_inline(value)
    return args


def _examined(doctor: Doctor, plugin: Plugin, offers: Sequence[Component], args: dict[str, Any]) -> Iterator[Remark]:
    """The remarks on these components, each component's shown when it is done."""
    for component, group in groupby(doctor.examine(plugin, offers, args), key=lambda remark: remark.component):
        remarks = list(group)
        asked = [remark for remark in remarks if remark.skipped is None]
        faults = sum(remark.fault for remark in asked)
        verdict = f"breaks {faults} of {len(asked)} rules" if faults else f"keeps {len(asked)} rules"
        skipped = f", {len(remarks) - len(asked)} not asked" if len(asked) < len(remarks) else ""
        _show(f"  {component}: {verdict}{skipped}" if component else "", remarks)
        yield from remarks


def _show(title: str, remarks: Iterable[Remark]) -> None:
    """Print a title, and below it each finding once, with the rules that it breaks and the page about them."""
    if title:
        show(title)
    seen: dict[str, list[Remark]] = {}
    for remark in remarks:
        if remark.what is not None:
            seen.setdefault(remark.what, []).append(remark)
        elif remark.rule == "rules":
            show(f"    {remark.skipped}")
    for what, broken in seen.items():
        show(f"    {', '.join(remark.rule for remark in broken)}: {what}")
        show(f"      see {PAGE}#{broken[0].section}")


@dataclass(frozen=True)
class Patient:
    """A plugin after its import was tried."""

    plugin: Plugin
    imported: Imported

    @property
    def offers(self) -> list[Component]:
        return [(kind, name) for kind, name in self.imported.offers]

    def remarks(self, others: Sequence[Patient]) -> Iterator[Remark]:
        """Remarks on the whole plugin, given all `others` that are installed."""
        if self.imported.cause:
            yield _remark("import", self.imported.cause)
        if self.imported.printed:
            yield _remark("silence", f"prints while it is imported: {shortened(self.imported.printed)}")
        if self.imported.seconds > SLOW_SECONDS:
            yield _remark("speed", f"slow to import: {self.imported.seconds * 1000:.0f} ms", notice=True)
        yield from (_remark("loading", one) for one in unsafe_loads(self.plugin.value))
        if not self.offers:
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

    `all_plugins` names all installed plugins, in the form of `TOOLKIT_DISABLE`: a process loads the one
    that it is asked for. `silence` is that of `answers`.
    """

    def __init__(self, all_plugins: str, silence: float = SILENCE_SECONDS) -> None:
        self._silence = silence
        self._bare = Starter((), {"TOOLKIT_DISABLE": all_plugins})
        self._equipped = Starter(KNOWN_STATE, {"TOOLKIT_DISABLE": all_plugins})

    def close(self) -> None:
        self._bare.close()
        self._equipped.close()

    def receive(self, plugin: Plugin) -> Patient:
        """Import a plugin, and nothing else."""
        try:
            lines = list(self._answers(plugin, None, {}))
        except Ended as ended:
            return Patient(plugin, Imported(0.0, "", [], ended.cause, []))
        return Patient(plugin, next(line for line in lines if isinstance(line, Imported)))

    def examine(self, plugin: Plugin, offers: Sequence[Component], args: Mapping[str, Any]) -> Iterator[Remark]:
        """Remarks on these components. If one ends the process, a remark says so, and a new process goes on."""
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
