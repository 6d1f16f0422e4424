from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installed import install
from toolkit.api.contracts import InputDesign, Model
from toolkit.api.errors import EXIT_PLUGIN, PluginError, Problem
from toolkit.host import installed
from toolkit.host.offers import Broken, Disabled, Offer, Plugin
from toolkit.host.registry import Registry, discover


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the only place where distributions are found."""
    monkeypatch.setattr(installed, "search_path", lambda: [str(tmp_path), str(tmp_path / "stale")])
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("TOOLKIT_DISABLE", raising=False)
    return tmp_path


def hook(body: str, name: str = "toolkit_models") -> str:
    return f"from toolkit import hookimpl\n\n@hookimpl\ndef {name}():\n    {body}\n"


def test_a_plugin_is_found_and_its_component_imported_only_when_loaded(site: Path):
    models = {"acme": hook('return {"tiny": "acme_models:build"}'), "acme_models": "def build(spec): return 3"}
    install(site, "Acme_Models", models, {"main": "acme"}, version="2.1")
    registry = discover()
    plugin = Plugin("acme-models", "2.1", "main", "acme")
    assert registry.plugins == (plugin,)
    assert [(one.kind, one.name, one.plugin, one.factory) for one in registry.offered] == [
        ("model", "tiny", plugin, "acme_models:build")
    ]
    assert registry.broken == registry.disabled == ()
    assert plugin.name == "acme-models[main]"
    assert plugin.file == str(site / "acme.py")
    assert "acme_models" not in sys.modules
    offer = registry.find("model", "tiny", "model.name")
    assert isinstance(offer, Offer)
    assert offer.load()(None) == 3


def test_a_factory_may_be_given_itself(site: Path):
    install(site, "acme", {"acme": hook('return {"tiny": dict}')}, {"main": "acme"})
    assert discover().offers("model")[0].load() is dict


DECLARING = """
from toolkit import hookimpl
from toolkit.api.contracts import InputDesign, Model

@hookimpl
def toolkit_models():
    return {"tiny": Model("acme_parts:nobody_wrote_this", takes=InputDesign(4, 5, size=112, stored=128))}
"""


def test_what_is_declared_with_a_factory_is_read_without_importing_it(site: Path):
    install(site, "acme", {"acme": DECLARING}, {"main": "acme"})
    (offer,) = discover().offers("model")
    assert offer.factory == "acme_parts:nobody_wrote_this"
    assert isinstance(offer.declared, Model)
    assert offer.declared.takes == InputDesign(4, 5, size=112, stored=128)
    assert "acme_parts" not in sys.modules


BROKEN = {
    "raises": ("raise RuntimeError('no\\n  GPU')", "RuntimeError: no GPU"),
    "exits": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "syntax": ("def", "SyntaxError: invalid syntax"),
    "misspelt": (
        hook("return {}", "toolkit_modles"),
        'LookupError: unknown hook toolkit_modles; did you mean "toolkit_models"?',
    ),
    "takes": (
        "from toolkit import hookimpl\n@hookimpl\ndef toolkit_models(registry): return {}",
        "PluginValidationError: ",
    ),
    "hookless": ("x = 1", "LookupError: has no hook"),
    "asked": (hook("raise KeyError('x')"), "KeyError: 'x'"),
    "nothing": (hook("pass"), "TypeError: toolkit_models returned NoneType, not names mapped to factories"),
    "listed": (hook("return ['tiny']"), "TypeError: toolkit_models returned list, not names"),
    "numbered": (hook("return {3: dict}"), "TypeError: toolkit_models: invalid component name 3: "),
    "coloned": (hook("return {'a:b': dict}"), "TypeError: toolkit_models: invalid component name 'a:b': "),
    "basic": ("class Stop(BaseException): ...\nraise Stop('no')", "Stop: no"),
    "generator": ("raise GeneratorExit", "GeneratorExit"),
    "mute": ("class Mute(Exception):\n    def __str__(self): raise ValueError\nraise Mute", "Mute"),
    "unplaced": (
        DECLARING.replace("acme_parts:nobody", "nobody"),
        'TypeError: toolkit_models: "tiny" is neither callable nor',
    ),
    "pathless": (hook("return {'tiny': 'acme.build'}"), 'TypeError: toolkit_models: "tiny" is neither callable nor'),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_listed_with_its_cause_and_stops_nothing(site: Path, kind: str):
    source, cause = BROKEN[kind]
    install(site, "broken", {f"broken_{kind}": source}, {kind: f"broken_{kind}"}, version="0.3")
    install(site, "good", {"good": hook('return {"tiny": dict}')}, {"main": "good"})
    registry = discover()
    assert [offer.name for offer in registry.offered] == ["tiny"]
    (broken,) = registry.broken
    assert broken.plugin == Plugin("broken", "0.3", kind, f"broken_{kind}")
    assert broken.cause.startswith(cause)
    assert "\n" not in str(broken)


def test_a_missing_module_is_a_cause(site: Path):
    install(site, "gone", {}, {"main": "gone_module"})
    assert [broken.cause for broken in discover().broken] == ["ModuleNotFoundError: No module named 'gone_module'"]


def test_unreadable_metadata_is_a_cause(site: Path):
    install(site, "odd", {}, {"main": "odd"})
    (site / "odd-1.0.dist-info" / "entry_points.txt").write_bytes(b"[toolkit]\nx = \xff")
    cause = discover().broken[0].cause
    assert cause.startswith("malformed entry_points.txt; install the package again (UnicodeDecodeError: ")


def test_metadata_in_another_encoding_is_a_cause_and_stops_nothing(site: Path):
    install(site, "acme", {"acme": hook('return {"tiny": dict}')}, {"main": "acme"})
    install(site, "odd-one", {"odd": hook('return {"other": dict}')}, {"main": "odd"}, version="2.1")
    (site / "odd_one-2.1.dist-info" / "METADATA").write_bytes(b"Name: odd-one\nVersion: 2.1\nAuthor: J\xfcrgen\n")
    registry = discover()
    assert [offer.name for offer in registry.offered] == ["tiny"]
    (broken,) = registry.broken
    assert broken.plugin == Plugin("odd-one", "2.1", "METADATA", "")
    assert broken.cause.startswith("malformed METADATA; install the package again (UnicodeDecodeError: ")


@pytest.mark.parametrize("text", ["[toolkit]\nx = y\nno entry point\n", "[toolkit]\n= y\n"])
def test_entry_points_that_are_none_stop_nothing(site: Path, text: str):
    install(site, "acme", {"acme": hook('return {"tiny": dict}')}, {"main": "acme"})
    install(site, "odd", {}, {"main": "odd"})
    (site / "odd-1.0.dist-info" / "entry_points.txt").write_text(text)
    registry = discover()
    assert [offer.name for offer in registry.offered] == ["tiny"]
    assert [broken.plugin.distribution for broken in registry.broken] == ["odd"]


@pytest.fixture
def entry_points_restored() -> Iterator[None]:
    before = vars(importlib.metadata.Distribution)["entry_points"]
    yield
    setattr(importlib.metadata.Distribution, "entry_points", before)  # noqa: B010


@pytest.mark.usefixtures("entry_points_restored")
def test_malformed_entry_points_of_any_group_are_named_and_seen_by_nothing_else(site: Path):
    install(site, "acme", {"acme": hook('return {"tiny": dict}')}, {"main": "acme"})
    install(site, "odd", {}, {"main": "odd"})
    (site / "odd-1.0.dist-info" / "entry_points.txt").write_text("[narwhals.plugins]\nno entry point\n")
    for _ in range(2):  # what reads past the malformed hides it from nobody who looks for it
        assert [str(broken.plugin) for broken in discover().broken] == ["odd[entry_points.txt] 1.0"]
    assert [entry.value for entry in importlib.metadata.entry_points(group="toolkit") if entry.name == "main"] == [
        "acme"
    ]


@pytest.mark.parametrize("value", ["", "acme vision", "acme:"])
def test_an_entry_point_that_names_no_module(site: Path, value: str):
    install(site, "odd", {}, {"main": value})
    (broken,) = discover().broken
    # the backport, where a library has imported it, refuses the whole file
    assert broken.cause.startswith((f'LookupError: invalid entry point "{value}": ', "malformed entry_points.txt; "))


def test_a_distribution_without_name_or_version(site: Path):
    install(site, "bare", {"bare": hook("return {}")}, {"main": "bare"})
    (site / "bare-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\n")
    assert [str(plugin) for plugin in discover().plugins] == ["unknown[main] unknown"]


def test_a_package_listed_twice_counts_once_and_the_last_found_is_kept(site: Path):
    (site / "stale").mkdir()
    install(site, "acme", {"acme": hook('return {"tiny": dict}')}, {"main": "acme"}, version="2.0")
    install(site / "stale", "acme", {}, {"main": "acme"}, version="1.0")
    registry = discover()
    assert [plugin.version for plugin in registry.plugins] == ["1.0"]
    assert len(registry.offered) == 1


def test_disabled_plugins_are_not_even_imported(site: Path, monkeypatch: pytest.MonkeyPatch):
    install(
        site,
        "acme",
        {"acme_a": hook('return {"a": dict}'), "acme_b": "raise RuntimeError"},
        {"a": "acme_a", "b": "acme_b"},
    )
    monkeypatch.setenv("TOOLKIT_DISABLE", " acme[b] ,")
    assert [plugin.entry for plugin in discover().plugins] == ["a"]
    assert "acme_b" not in sys.modules
    assert discover({"acme": "a test"}).offered == ()


def test_what_is_disabled_is_kept_with_what_disables_it(site: Path):
    install(site, "acme", {"acme": hook("return {}")}, {"main": "acme"})
    (disabled,) = discover({"acme": "toolkit.toml"}).disabled
    assert str(disabled) == "acme[main] 1.0: by toolkit.toml"
    assert discover({}).disabled == ()


def test_a_plugin_that_prints_and_changes_the_process_does_neither(site: Path, capsys: pytest.CaptureFixture[str]):
    source = "import os\nprint('Welcome')\nos.environ['ZOO'] = 'open'\n" + hook("return {}")
    install(site, "acme", {"acme": source}, {"main": "acme"})
    (loaded,) = discover().loaded
    assert capsys.readouterr().out == ""
    assert "ZOO" not in os.environ
    assert (loaded.seen.printed, loaded.seen.changed) == ("Welcome\n", ("the environment",))
    assert loaded.seen.seconds > 0
    assert not loaded.slow


def test_what_a_component_prints_when_it_is_imported_goes_to_standard_error(
    site: Path, capsys: pytest.CaptureFixture[str]
):
    (site / "loud.py").write_text("print('Hello')\ndef build(spec): ...\n")
    assert Offer("model", "loud", Plugin("acme", "1", "main", "acme"), "loud:build").load()
    assert capsys.readouterr() == ("", "Hello\n")


@pytest.mark.parametrize("declared", ["1.0"])
def test_a_plugin_may_declare_the_contract_it_was_written_for(site: Path, declared: str):
    install(site, "acme", {"acme": f"toolkit_contract = '{declared}'\n" + hook("return {}")}, {"main": "acme"})
    assert discover().broken == ()


def test_a_later_minor_version_of_the_contract_keeps_its_promises(site: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("toolkit.api.hookspecs.CONTRACT", (1, 4))
    install(site, "acme", {"acme": "toolkit_contract = '1.3'\n" + hook("return {}")}, {"main": "acme"})
    assert discover().broken == ()


CONTRACTS = {
    "'1.1'": "ContractError: needs contract 1.1, this toolkit has 1.0: upgrade vision-toolkit",
    "'2.0'": "ContractError: needs contract 2.0, this toolkit has 1.0: upgrade vision-toolkit",
    "'0.9'": "ContractError: needs contract 0.9, this toolkit has 1.0: upgrade the plugin",
    "'1'": """ContractError: toolkit_contract must be text such as "1.0", not '1'""",
    "1.0": 'ContractError: toolkit_contract must be text such as "1.0", not 1.0',
}


@pytest.mark.parametrize("declared", CONTRACTS)
def test_a_plugin_of_another_contract_is_broken(site: Path, declared: str):
    install(site, "acme", {"acme": f"toolkit_contract = {declared}\n" + hook("return {}")}, {"main": "acme"})
    assert [broken.cause for broken in discover().broken] == [CONTRACTS[declared]]


def test_an_interrupt_is_not_a_plugins_fault(site: Path):
    install(site, "acme", {"acme": "raise KeyboardInterrupt"}, {"main": "acme"})
    with pytest.raises(KeyboardInterrupt):
        discover()
    (site / "slow_import.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Offer("model", "m", Plugin("acme", "1", "main", "acme"), "slow_import:build").load()


def test_a_disabled_plugin_may_offer_an_unknown_name():
    plugins = [Plugin(name, "1", "main", name) for name in ("acme", "other")]
    registry = Registry(disabled=tuple(Disabled(plugin, "toolkit.toml") for plugin in plugins))
    message = 'unknown model "acme:tiny"; disabled: acme[main] 1 (by toolkit.toml)'
    found = registry.find("model", "acme:tiny", "k")
    assert isinstance(found, Problem)
    assert (str(found), found.command) == (f"k: {message}", "python -m toolkit plugins list")


def test_the_order_of_installation_decides_nothing(site: Path):
    install(site, "zeta", {"zeta": hook('return {"b": dict, "a": dict}')}, {"main": "zeta"})
    install(site, "alpha", {"alpha": hook('return {"c": dict}', "toolkit_datasets")}, {"main": "alpha"})
    registry = discover()
    assert [plugin.distribution for plugin in registry.plugins] == ["alpha", "zeta"]
    assert [(offer.kind, offer.name) for offer in registry.offered] == [
        ("dataset", "c"),
        ("model", "a"),
        ("model", "b"),
    ]


@pytest.fixture
def clashing() -> Registry:
    first, second = Plugin("first", "1", "main", "first"), Plugin("second", "2", "main", "second")
    return Registry((first, second), (Offer("model", "tiny", first, dict), Offer("model", "tiny", second, list)), ())


def test_a_name_offered_twice_fails_only_when_asked_for(clashing: Registry):
    with pytest.raises(PluginError) as caught:
        clashing.find("model", "tiny", "model.name")
    assert caught.value.exit_code == EXIT_PLUGIN
    assert caught.value.message == 'model.name: model "tiny" is offered by first[main] 1 and second[main] 2'
    assert caught.value.next_step == 'choose one: model.name = "first:tiny" or "second:tiny"'


@pytest.mark.parametrize(
    ("name", "factory"), [("first:tiny", dict), ("second:tiny", list), ("second[main]:tiny", list)]
)
def test_a_qualified_name_picks_one(clashing: Registry, name: str, factory: type):
    offer = clashing.find("model", name, "model.name")
    assert isinstance(offer, Offer)
    assert offer.factory is factory


@pytest.mark.parametrize("owner", ["My_Vision", "my.vision", "my-vision[main]", "MY-VISION[main]"])
def test_a_distribution_is_named_as_package_indexes_compare_names(owner: str):
    plugin = Plugin("my-vision", "1", "main", "my_vision")
    registry = Registry((plugin,), (Offer("model", "tiny", plugin, dict),))
    assert registry.find("model", f"{owner}:tiny", "model.name") == registry.offered[0]


def test_one_distribution_may_clash_with_itself():
    plugins = [Plugin("acme", "1", entry, entry) for entry in ("a", "b")]
    registry = Registry(tuple(plugins), tuple(Offer("model", "tiny", plugin, dict) for plugin in plugins))
    with pytest.raises(PluginError) as caught:
        registry.find("model", "acme:tiny", "model.name")
    assert caught.value.next_step == 'choose one: model.name = "acme[a]:tiny" or "acme[b]:tiny"'


def test_an_unknown_name_suggests_the_nearest(clashing: Registry):
    assert clashing.find("model", "tny", "model.name") == Problem(
        "model.name", 'unknown model "tny"', "tiny", fault="unknown name", given="tny"
    )
    assert clashing.find("model", "third:tiny", "k") == Problem(
        "k", 'unknown model "third:tiny"', "tiny", fault="unknown name", given="third:tiny"
    )
    found = clashing.find("dataset", "tiny", "k")
    assert isinstance(found, Problem)
    assert str(found) == 'k: unknown dataset "tiny"'


def test_an_unknown_name_may_belong_to_a_broken_plugin():
    registry = Registry(broken=(Broken(Plugin("acme", "1", "main", "acme"), "RuntimeError: no"),))
    with pytest.raises(PluginError) as caught:
        registry.find("model", "tiny", "model.name")
    assert caught.value.exit_code == EXIT_PLUGIN
    assert caught.value.lines() == [
        'model.name: unknown model "tiny"',
        "  it may belong to a plugin that is broken: acme[main] 1: RuntimeError: no",
    ]
    assert isinstance(registry.find("model", "other:tiny", "model.name"), Problem)


@pytest.mark.parametrize(
    ("factory", "cause"),
    [
        ("no_such_module:build", "cannot import no_such_module:build: ModuleNotFoundError: No module named"),
        ("json:bulid", "cannot import json:bulid: AttributeError: module 'json' has no attribute"),
        ("json:__name__", "json:__name__ is not callable"),
    ],
)
def test_a_component_that_cannot_be_imported(factory: str, cause: str):
    offer = Offer("model", "tiny", Plugin("acme", "1", "main", "acme"), factory)
    with pytest.raises(PluginError) as caught:
        offer.load()
    assert caught.value.message.startswith(f'model "tiny" of plugin acme[main] 1: {cause}')


HEAVY = ("torch", "numpy", "optuna", "sklearn", "matplotlib", "onnxruntime", "pydantic")


def test_discovery_imports_nothing_heavy():
    code = (
        "import sys; from toolkit.host.registry import discover; from toolkit.host.listing import list_components;"
        f"list_components(discover()); print([name for name in {HEAVY} if name in sys.modules])"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.stdout.strip() == "[]"
