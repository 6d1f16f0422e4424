"""The command plugins and its actions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.cli.parser import Parser, add, add_set
from toolkit.system.notices import show

if TYPE_CHECKING:
    from argparse import Namespace

LICENCES = ("MIT", "Apache-2.0", "BSD-3-Clause", "none")


def fill(parser: Parser) -> None:
    parser.does(_list, ("plugins list", "plugins show resnet50"))
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    add(actions, "list", "list all components, and broken plugins", _fill_list)
    add(actions, "show", "show a component's origin and arguments", _fill_show)
    add(actions, "doctor", "examine plugins by the rules of the conformance kit", _fill_doctor)
    add(actions, "disable", "skip a plugin in this project, without importing it", _fill_disable)
    add(actions, "enable", "use a disabled plugin again", _fill_enable)
    add(actions, "new", "write a package with a component of each kind", _fill_new)


def _fill_list(parser: Parser) -> None:
    parser.does(_list, ("plugins list", "plugins list --debug"))


def _fill_show(parser: Parser) -> None:
    parser.does(_show, ("plugins show resnet50", 'plugins show "vision-toolkit[vision]"'))
    parser.add_argument("name", metavar="NAME")


def _fill_doctor(parser: Parser) -> None:
    parser.does(_doctor, ("plugins doctor", "plugins doctor resnet18 --set layers=3"))
    everything = "a plugin or a component (default: all third-party plugins)"
    parser.add_argument("name", metavar="NAME", nargs="?", help=everything)
    add_set(parser, "a key of the component's table; may be repeated")


def _fill_disable(parser: Parser) -> None:
    parser.does(_disable, ('plugins disable "vision-toolkit[trackers]"', "plugins disable acme-vision"))
    parser.add_argument("name", metavar="NAME")


def _fill_enable(parser: Parser) -> None:
    parser.does(_enable, ('plugins enable "vision-toolkit[trackers]"', "plugins enable acme-vision"))
    parser.add_argument("name", metavar="NAME")


def _fill_new(parser: Parser) -> None:
    made = ("plugins new acme-vision", "plugins new acme-models --kinds model,metric --license Apache-2.0")
    parser.does(_new, made)
    parser.add_argument("name", metavar="NAME", help="of the distribution, and of its folder")
    parser.add_argument("--kinds", metavar="KINDS", help="kinds of components, separated by commas (default: all)")
    licences = f"{', '.join(LICENCES)} (default: MIT)"
    parser.add_argument("--license", metavar="LICENSE", choices=LICENCES, default="MIT", help=licences)


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
