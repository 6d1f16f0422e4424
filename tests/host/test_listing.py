from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import pytest
from pydantic import Field

from toolkit.api.contracts import Model, Task
from toolkit.api.errors import EXIT_USAGE, UsageError
from toolkit.host.listing import WIDTH, list_components, show_component
from toolkit.host.offers import INCLUDED, Broken, Disabled, Loaded, Offer, Plugin
from toolkit.host.registry import Registry
from toolkit.host.seen import Seen

ACME, LATE = Plugin("acme", "1.0", "main", "json"), Plugin("late", "2.0", "x", "no_such_module")
OFF = Plugin("off", "3.0", "main", "off")


def net(spec: Any, *, width: Annotated[int, Field(ge=1)] = 8, classes: int) -> None:
    """A small net.

    width: channels
    """


def bare(spec: Any) -> None: ...


def registry(*names: str) -> Registry:
    offers = [Offer("model", "net", ACME, net), Offer("metric", "bare", ACME, bare)]
    offers += [Offer("model", name, LATE, net) for name in names]
    return Registry((ACME, LATE), tuple(sorted(offers, key=lambda offer: (offer.kind, offer.name))), ())


def test_components_stand_under_their_kind_and_plugin():
    assert list_components(registry()) == [
        "models",
        "  acme[main] 1.0",
        "    net",
        "",
        "metrics",
        "  acme[main] 1.0",
        "    bare",
    ]


def test_many_names_are_wrapped():
    lines = list_components(registry(*(f"number-{index}" for index in range(60))))
    assert max(map(len, lines)) <= WIDTH
    assert sum(line.count("number-") for line in lines) == 60


def test_a_model_is_shown_with_the_licences_of_its_weights():
    offer = Offer("model", "net", ACME, net, Model(net, licences={"large": "mit", "other": "cc-by-nc-4.0"}))
    lines = show_component(Registry((ACME,), (offer,)), "net")
    start = lines.index("  licences of its weights:")
    assert lines[start : start + 4] == ["  licences of its weights:", "    large: mit", "    other: cc-by-nc-4.0", ""]
    assert "  licences of its weights:" not in show_component(registry(), "net")


def test_names_offered_twice_and_broken_plugins_are_listed():
    broken = Broken(LATE, "RuntimeError: no")
    lines = list_components(Registry(registry("net").plugins, registry("net").offered, (broken,)))
    assert lines[-5:] == [
        "offered more than once",
        '  model "net": acme[main] 1.0 and late[x] 2.0',
        "",
        "broken plugins",
        "  late[x] 2.0: RuntimeError: no",
    ]


def test_no_plugins():
    assert list_components(Registry()) == ["no plugin is installed"]


def test_a_component_shows_origin_docs_and_arguments():
    lines = show_component(registry(), "net")
    assert lines[0] == "model net, from plugin acme[main] 1.0"
    assert lines[1] == "  entry point main = json"
    assert lines[2].startswith("  file ")
    assert lines[3] == f"  factory net in {__file__}"
    assert lines[4:] == [
        "",
        "  A small net.",
        "",
        "  argument  type                 default",
        "  width     integer, at least 1  8",
        "            channels",
        "  classes   integer              required",
    ]


def test_what_an_argument_means_is_wrapped_below_it():
    def wordy(spec: Any, *, width: int = 1) -> None:
        pass

    wordy.__doc__ = f"width: {'word ' * 60}"
    lines = show_component(Registry((ACME,), (Offer("model", "net", ACME, wordy),)), "net")
    assert lines[5] == "  no description"
    assert sum(line.count("word") for line in lines[8:]) == 60
    assert max(map(len, lines[8:])) <= WIDTH + 2


def test_lines_fit_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch):
    def wordy(spec: Any, *, width: int = 1) -> None:
        pass

    wordy.__doc__ = f"{'Word ' * 60}.\n\n{'More ' * 40}.\n\nwidth: {'word ' * 60}"
    monkeypatch.setenv("COLUMNS", "60")
    lines = show_component(Registry((ACME,), (Offer("model", "net", ACME, wordy),)), "net")[4:]
    assert 50 < max(map(len, lines)) <= 60
    assert lines.count("") == 3


def test_a_component_without_docs_or_arguments():
    assert show_component(registry(), "bare")[-3:] == ["  no description", "", "  takes no arguments"]


def test_a_task_shows_what_recipes_get_by_default():
    task = Task(bare, metrics=("f1", "recall"), metric="f1_macro")
    lines = show_component(Registry((ACME,), (Offer("task", "sets", ACME, bare, task),)), "sets")
    assert lines[-4:] == [
        "    metrics f1, recall",
        "    best epoch: highest f1_macro",
        "",
        "  takes no arguments",
    ]
    assert lines[-5] == "  unless a recipe says otherwise:"


def test_a_name_of_several_shows_all_and_a_qualified_one_picks():
    assert len([line for line in show_component(registry("net"), "net") if line.startswith("model net")]) == 2
    assert show_component(registry("net"), "late:net")[0] == "model net, from plugin late[x] 2.0"


@pytest.mark.parametrize("name", ["late", "late[x]"])
def test_a_plugin_shows_what_it_offers_or_why_it_does_not(name: str):
    assert show_component(registry("x"), name) == [
        "plugin late[x] 2.0",
        "  entry point x = no_such_module",
        "  model x",
    ]
    broken = Registry((LATE,), (), (Broken(LATE, "RuntimeError: no"),))
    assert show_component(broken, name)[-1] == "  broken: RuntimeError: no"


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UsageError) as caught:
        show_component(registry(), "nett")
    assert caught.value.exit_code == EXIT_USAGE
    assert caught.value.message == 'no component or plugin is called "nett"; did you mean "net"?'
    assert caught.value.next_step == "python -m toolkit plugins show net"


def test_what_cannot_be_imported_or_read_is_shown_as_broken():
    def odd(spec: Any, *, width: Nowhere = 3) -> None: ...  # type: ignore[name-defined] # noqa: F821

    lost = show_component(Registry((ACME,), (Offer("model", "net", ACME, "no_such_module:net"),)), "net")
    assert lost[0] == "model net, from plugin acme[main] 1.0"
    assert lost[-1].startswith('  broken: model "net" of plugin acme[main] 1.0: cannot import no_such_module:net: ')
    unreadable = show_component(Registry((ACME,), (Offer("model", "net", ACME, odd),)), "net")
    assert 'net" of plugin acme[main] 1.0: has an unusable signature: TypeError: argument width' in unreadable[-1]


def test_disabled_and_slow_plugins_are_listed():
    seen = (Loaded(ACME, Seen(seconds=0.02)), Loaded(LATE, Seen(seconds=2.0)))
    found = Registry((ACME, LATE), disabled=(Disabled(OFF, "toolkit.toml"),), loaded=seen)
    assert list_components(found) == [
        "slow to import",
        "  late[x] 2.0: 2000 ms",
        "",
        "disabled plugins",
        "  off[main] 3.0: by toolkit.toml",
    ]
    assert show_component(found, "Off")[-1] == "  disabled by toolkit.toml"


def test_a_plugin_shows_what_it_did_while_it_was_imported():
    seen = Seen(seconds=2.0, printed="Hello\n" * 40, changed=("the environment", "thread worker"))
    lines = show_component(Registry((LATE,), loaded=(Loaded(LATE, seen),)), "late[x]")
    assert lines[2] == "  slow to import: 2000 ms"
    assert lines[3].startswith("  prints while it is imported: Hello Hello")
    assert lines[3].endswith("...")
    assert lines[4:] == [
        "  changes the process while it is imported: the environment",
        "  changes the process while it is imported: thread worker",
    ]


class Pool(StrEnum):
    MAX = "max"
    AVG = "avg"


@dataclass(frozen=True)
class Stem:
    """width: channels"""

    width: int = 8
    act: Callable[[float], float] = abs


def pooled(
    spec: Any,
    *,
    pool: Pool = Pool.MAX,
    stem: Stem = Stem(),
    pair: tuple[int, float] = (1, 0.5),
    layer: type | None = None,
) -> None:
    """A tiny network.

    pool: how pixels become one
    stem: the first layer
    layer: the class of layers
    """


def test_keys_of_a_class_and_what_a_recipe_cannot_give_are_shown():
    lines = show_component(Registry((ACME,), (Offer("model", "pooled", ACME, pooled),)), "pooled")
    assert [line.split("  ")[1:] for line in map(_squeezed, lines[7:])] == [
        ["argument", "type", "default"],
        ["pool", '"max" or "avg"', '"max"'],
        ["how pixels become one"],
        ["stem", "table of width", "unset"],
        ["the first layer"],
        ["stem.width", "integer", "8"],
        ["channels"],
        ["stem.act", "Callable[[float], float], which a recipe cannot give", "its own"],
        ["pair", "array of integer and number", "[1, 0.5]"],
        ["layer", "type | None, which a recipe cannot give", "its own"],
        ["the class of layers"],
    ]


def _squeezed(row: str) -> str:
    """A row whose columns have two blanks between them."""
    return re.sub("  +", "  ", row)


def test_arguments_that_a_recipe_cannot_give_are_listed():
    offers = (Offer("model", "lost", ACME, "no_such_module:net"), Offer("model", "pooled", ACME, pooled))
    assert list_components(Registry((ACME,), offers))[-5:] == [
        "components that cannot be used",
        '  model "lost" of plugin acme[main] 1.0: cannot import no_such_module:net: '
        "ModuleNotFoundError: No module named 'no_such_module'",
        "",
        "warning: arguments that a recipe cannot give",
        '  model "pooled" of acme[main] 1.0: stem.act (Callable[[float], float]), layer (type | None)',
    ]


def test_components_of_the_toolkit_are_not_imported_to_be_listed():
    ours = Plugin(INCLUDED, "1.0", "main", "json")
    offers = (Offer("model", "lost", ours, "no_such_module:net"),)
    assert list_components(Registry((ours,), offers)) == ["models", f"  {INCLUDED}[main] 1.0", "    lost"]
