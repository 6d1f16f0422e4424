"""The command plugins and its actions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.cli.parser import Parser, add, add_set
from toolkit.system.notices import show

if TYPE_CHECKING:
    from argparse import Namespace

    from toolkit.cli.parser import Commands

LICENCES = ("MIT", "Apache-2.0", "BSD-3-Clause", "none")


def add_plugins(commands: Commands) -> None:
    text = "list, show, examine, disable and make plugins"
    parser = add(commands, "plugins", text, _list, ("plugins list", "plugins show resnet50"))
    actions = parser.add_subparsers(title="actions", metavar="ACTION", parser_class=Parser)
    parser.actions = actions.choices
    add(actions, "list", "list all components, and broken plugins", _list, ("plugins list", "plugins list --debug"))
    shown = ("plugins show resnet50", 'plugins show "vision-toolkit[vision]"')
    show = add(actions, "show", "show a component's origin and arguments", _show, shown)
    show.add_argument("name", metavar="NAME")
    examined = ("plugins doctor", "plugins doctor resnet18 --set layers=3")
    doctor = add(actions, "doctor", "examine plugins by the rules of the conformance kit", _doctor, examined)
    everything = "a plugin or a component (default: all third-party plugins)"
    doctor.add_argument("name", metavar="NAME", nargs="?", help=everything)
    add_set(doctor, "a key of the component's table; may be repeated")
    off = ('plugins disable "vision-toolkit[trackers]"', "plugins disable acme-vision")
    disable = add(actions, "disable", "skip a plugin in this project, without importing it", _disable, off)
    disable.add_argument("name", metavar="NAME")
    on = ('plugins enable "vision-toolkit[trackers]"', "plugins enable acme-vision")
    enable = add(actions, "enable", "use a disabled plugin again", _enable, on)
    enable.add_argument("name", metavar="NAME")
    made = ("plugins new acme-vision", "plugins new acme-models --kinds model,metric --license Apache-2.0")
    new = add(actions, "new", "write a package with a component of each kind", _new, made)
    new.add_argument("name", metavar="NAME", help="of the distribution, and of its folder")
    new.add_argument("--kinds", metavar="KINDS", help="kinds of components, separated by commas (default: all five)")
    licences = f"{', '.join(LICENCES)} (default: MIT)"
    new.add_argument("--license", metavar="LICENSE", choices=LICENCES, default="MIT", help=licences)


def _list(_: Namespace) -> None:
    from toolkit.host.listing import list_components
    from toolkit.host.registry import discover

    show(*list_components(discover()))


def _show(options: Namespace) -> None:
    from toolkit.host.listing import show_component
    from toolkit.host.registry import discover

    show(*show_component(discover(), options.name))


def _doctor(options: Namespace) -> int:
    from toolkit.kit.doctor import examine_installed

    return examine_installed(options.name, options.overrides)


def _disable(options: Namespace) -> None:
    from toolkit.host.disabling import disable_plugin

    show(disable_plugin(options.name))


def _enable(options: Namespace) -> None:
    from toolkit.host.disabling import enable_plugin

    show(enable_plugin(options.name))


def _new(options: Namespace) -> None:
    from toolkit.host.scaffold import write_package

    show(*write_package(options.name, kinds=options.kinds, licence=options.license))
