"""`plugins doctor`: every component of a plugin examined in a process of its own, whatever it does there."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from typing import Any

from toolkit.api.errors import EXIT_DONE, EXIT_PLUGIN, UsageError, counted
from toolkit.host.project import left_out, owner
from toolkit.host.registry import Plugin, installed, owners
from toolkit.kit.doctor.process import SILENCE_SECONDS
from toolkit.kit.doctor.report import Remark
from toolkit.kit.doctor.visit import INCLUDED, Component, Doctor, Patient, chosen, received
from toolkit.recipe.overrides import from_inline

__all__ = ["examine_installed"]

PAGE = "docs/plugins.md"


def examine_installed(name: str | None, overrides: Sequence[str], *, silence: float = SILENCE_SECONDS) -> int:
    """Examine a plugin, a component, or (None) every plugin but those included, and print what is seen; the exit code
    says whether anything is broken.

    `overrides` are `key=value` of the one component's table. A process that is silent for so many seconds is ended.
    Raises UsageError for a name that nothing has and for overrides that fit no one component.
    """
    plugins, unreadable = installed()
    disabled = left_out().keys()
    named = [plugin for plugin in plugins if owner(name or "") in owners(plugin)]
    asleep = [plugin for plugin in plugins if plugin not in named and not disabled.isdisjoint(owners(plugin))]
    with closing(Doctor(",".join(sorted({plugin.name for plugin in plugins})), silence)) as doctor:
        patients = [
            # of those included, which are harmless, only one that is named is imported in a process of its own
            received(plugin) if plugin.distribution == INCLUDED and plugin not in named else doctor.receive(plugin)
            for plugin in plugins
            if plugin not in asleep
        ]
        visits = chosen(patients, name)
        args = _args(overrides, [offer for _, offers in visits for offer in offers])
        sound = True
        for patient, offers in visits:
            remarks = [*patient.remarks(patients)]
            _show(f"{patient.plugin}: {_import(patient)}", remarks)
            seen = list(_examined(doctor, patient.plugin, offers, args))
            sound = sound and not any(remark.fault for remark in (*remarks, *seen))
    if name is None:
        for broken in unreadable:
            print(broken)
        for plugin in asleep:
            print(f"{plugin}: disabled, not examined")
    if not visits:
        print("no plugin but those included is installed; examine one of these by its name")
    return EXIT_DONE if sound and not (unreadable and name is None) else EXIT_PLUGIN


def _args(overrides: Sequence[str], components: Sequence[Component]) -> dict[str, Any]:
    """The keys of the table of the one component that is examined."""
    if overrides and len(components) != 1:
        raise UsageError(
            f"--set is for one component; here are {len(components)}",
            next_step="name it: python -m toolkit plugins doctor DISTRIBUTION:COMPONENT --set KEY=VALUE",
        )
    args = {}
    for text in overrides:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key or not value:
            raise UsageError(f"--set {text}: must look like key=value", next_step="--set width=8, say")
        args[key] = from_inline(value)
    return args


def _import(patient: Patient) -> str:
    if patient.cause or patient.imported is None:
        return "broken"
    return f"imported in {patient.imported.seconds * 1000:.0f} ms, {counted(len(patient.offers), 'component')}"


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
    """A title, and below it what was seen that should not be, once for all rules that it breaks, and where these are
    told."""
    if title:
        print(title)
    seen: dict[str, list[Remark]] = {}
    for remark in remarks:
        if remark.what is not None:
            seen.setdefault(remark.what, []).append(remark)
        elif remark.rule == "rules":
            print(f"    {remark.skipped}")
    for what, broken in seen.items():
        print(f"    {', '.join(remark.rule for remark in broken)}: {what}")
        print(f"      see {PAGE}#{broken[0].section}")
    sys.stdout.flush()
