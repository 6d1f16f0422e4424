"""The cache of what signatures say: it saves time, and whatever becomes of it changes no answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.installed import install
from toolkit.api.contracts import InputDesign, Model, Task
from toolkit.build.plan import Chosen
from toolkit.host import installed, stamps
from toolkit.host.cache import FORMAT, Cache
from toolkit.host.listing import list_components, show_component
from toolkit.host.registry import Registry, discover

PLUGIN = """
from toolkit import hookimpl
from toolkit.api.contracts import InputDesign, Model, Task

def given(spec, *, depth: int = 2):
    '''Made by the hook itself.'''

@hookimpl
def toolkit_models():
    design = InputDesign(4, 5, size=112, stored=128)
    return {"tiny": "acme_parts:tiny", "clips": Model("acme_parts:tiny", takes=design), "given": given}

@hookimpl
def toolkit_tasks():
    return {"ranks": Task("acme_parts:ranks", metrics=("mean_rank",), metric="rank", direction="minimize")}
"""
PARTS = """
import builtins
from typing import Annotated
from pydantic import AfterValidator, Field

builtins.acme_imports = getattr(builtins, "acme_imports", 0) + 1

def even(value):
    if value % 2:
        raise ValueError("must be even")
    return value

def tiny(spec, *, width: Annotated[int, Field(ge=1)] = 8, pairs: Annotated[int, AfterValidator(even)] = 2):
    '''A small network.

    width: channels of the first layer
    '''
    return width

def ranks(spec, *, targets=None, scale: float = 1): ...
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a plugin, the only place where distributions are found, and a cache of its own. Each command is as
    if in a process that begins now."""
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TOOLKIT_DISABLE", raising=False)
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.setattr(installed, "search_path", lambda: [str(place)])
    monkeypatch.setattr(stamps, "_began", lambda: time.time() + 60)
    monkeypatch.syspath_prepend(str(place))
    install(place, "acme", {"acme": PLUGIN, "acme_parts": PARTS}, {"main": "acme"})
    yield place
    forget()


def forget() -> None:
    """Let the next command import the plugin, as a process of its own would."""
    for name in [name for name in sys.modules if name.startswith("acme")]:
        del sys.modules[name]
    sys.path_importer_cache.clear()


def command() -> tuple[list[str], int]:
    """What a command shows of all that is installed, and how often it imports the module of the factories."""
    import builtins

    forget()
    builtins.acme_imports = 0  # type: ignore[attr-defined]
    registry = discover()
    shown = list_components(registry)
    for offer in registry.offered:
        shown += show_component(registry, f"acme:{offer.name}")
        shown += [repr(registry.signature(offer)), repr(declared(registry, offer.name))]
    return shown, builtins.acme_imports  # type: ignore[attr-defined]


def declared(registry: Registry, name: str) -> Any:
    (offer,) = (offer for offer in registry.offered if offer.name == name)
    match offer.declared:
        case Model(takes=takes):
            return takes
        case Task() as task:
            return task.metrics, task.metric, task.direction
        case other:
            return other


def the_file(site: Path) -> Path:
    (file,) = (site.parent / "cache" / "plugins").glob("*.json")
    return file


def test_the_second_command_imports_nothing_and_shows_the_same(site: Path) -> None:
    first, imports = command()
    assert imports == 1
    assert command() == (first, 0)
    assert "acme" not in sys.modules
    assert repr(InputDesign(4, 5, size=112, stored=128)) in first
    assert any("channels of the first layer" in line for line in first)


def test_a_kept_component_is_imported_when_it_is_built(site: Path) -> None:
    command()
    forget()
    registry = discover()
    models = {offer.name: offer for offer in registry.offers("model")}
    assert "acme" not in sys.modules
    assert models["tiny"].load()(None, width=3) == 3
    assert models["given"].load() is sys.modules["acme"].given
    assert models["clips"].declared == Model("acme_parts:tiny", takes=InputDesign(4, 5, size=112, stored=128))


def test_a_kept_component_that_cannot_be_imported_any_more_is_a_fault_of_its_plugin(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command()
    forget()
    offer = discover().offers("model")[0]
    monkeypatch.setitem(sys.modules, "acme", None)
    with pytest.raises(Exception, match=r"the plugin no longer offers it: ModuleNotFoundError"):
        offer.load()


def text_of(contents: Any) -> bytes:
    text = json.dumps(contents).encode()
    return b"%08x\n%s" % (zlib.crc32(text), text)


def contents_of(file: Path) -> Any:
    return json.loads(file.read_bytes().partition(b"\n")[2])


def rewritten(change: Callable[[Any], Any]) -> Callable[[Path], object]:
    """Damage that keeps the checksum right: the contents are wrong."""
    return lambda file: file.write_bytes(text_of(change(contents_of(file))))


def folder_in_place(file: Path) -> None:
    file.unlink()
    file.mkdir()


def endless_link(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:1000]),
    "one byte": lambda file: file.write_bytes(file.read_bytes().replace(b"channels", b"chanmels")),
    "other text": lambda file: file.write_bytes(b"hello"),
    "no checksum": lambda file: file.write_bytes(file.read_bytes().partition(b"\n")[2]),
    "not JSON": lambda file: file.write_bytes(b"%08x\n%s" % (zlib.crc32(b"{"), b"{")),
    "nested": lambda file: file.write_bytes(b"%08x\n%s" % (zlib.crc32(b"[" * 99999), b"[" * 99999)),
    "a number": rewritten(lambda contents: 3),
    "a list": rewritten(lambda contents: [contents]),
    "another format": rewritten(lambda contents: {**contents, "environment": [FORMAT + 1]}),
    "no plugins": rewritten(lambda contents: {**contents, "plugins": 3}),
    "other plugins": rewritten(lambda contents: {**contents, "plugins": [["acme"]]}),
    "no trees": rewritten(lambda contents: {**contents, "trees": []}),
    "nothing read": rewritten(lambda contents: {**contents, "read": dict.fromkeys(contents["read"])}),
    "wrong offers": rewritten(lambda contents: wrong(contents, "offers", [["model"]])),
    "wrong names": rewritten(lambda contents: wrong(contents, "names", {"model tiny": 99})),
    "no signatures": rewritten(lambda contents: wrong(contents, "signatures", [[1, 2]])),
    "no list": rewritten(lambda contents: wrong(contents, "signatures", 3)),
    "a folder": folder_in_place,
    "an endless link": endless_link,
}


def wrong(contents: Any, key: str, value: Any) -> Any:
    return {**contents, "read": {plugin: {**known, key: value} for plugin, known in contents["read"].items()}}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_changes_no_answer(site: Path, damage: str) -> None:
    truth, _ = command()
    DAMAGE[damage](the_file(site))
    assert command()[0] == truth
    assert command()[0] == truth


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1), length=st.integers(0, 9), inserted=st.binary(max_size=9))
def test_whatever_bytes_of_the_file_change_no_answer_changes(
    site: Path, place: float, length: int, inserted: bytes
) -> None:
    truth, _ = command()
    written = the_file(site).read_bytes()
    start = int(place * len(written))
    the_file(site).write_bytes(written[:start] + inserted + written[start + length :])
    assert command()[0] == truth


@pytest.mark.parametrize("place", ["/proc/nowhere", "file", "\x00", "~no_such_user_here/cache"])
def test_a_cache_that_cannot_be_written_changes_no_answer(
    site: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    truth, _ = command()
    (site.parent / "file").touch()
    if "\x00" in place:
        monkeypatch.setattr("toolkit.host.cache.cache_place", lambda: place)
    else:
        monkeypatch.setenv("TOOLKIT_CACHE", place)
    assert command() == (truth, 1)
    assert command() == (truth, 1)


def test_a_full_disk_changes_no_answer(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("toolkit.host.cache.write_atomically", full)
    truth, imports = command()
    assert (command(), imports) == ((truth, 1), 1)


def edited(file: Path, before: str, after: str) -> None:
    """Another content of the same size in the same file, with its old time of change.

    Python's own compiled file is removed: it is compared by size and time alone, and would hide the edit.
    """
    shutil.rmtree(file.parent / "__pycache__", ignore_errors=True)
    assert len(before) == len(after)
    status = file.stat()
    text = file.read_text()
    assert before in text
    with file.open("r+") as opened:
        opened.write(text.replace(before, after))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)


@pytest.mark.parametrize(
    ("file", "before", "after", "seen"),
    [
        ("acme_parts.py", "channels of the first layer", "channels of the second one.", "channels of the second one."),
        (
            "acme_parts.py",
            "width: Annotated[int, Field(ge=1)] = 8",
            "width: Annotated[int, Field(ge=2)] = 9",
            "at least 2",
        ),
        ("acme.py", '"tiny": "acme_parts:tiny"', '"tidy": "acme_parts:tiny"', "tidy"),
        ("acme.py", "InputDesign(4, 5", "InputDesign(6, 5", "frames=6"),
        ("acme.py", "depth: int = 2", "depth: int = 3", "3"),
    ],
)
def test_an_edited_plugin_is_noticed(site: Path, file: str, before: str, after: str, seen: str) -> None:
    old = "\n".join(command()[0])
    time.sleep(0.02)  # as an edit between two commands comes later than the first command's start
    edited(site / file, before, after)
    new = "\n".join(command()[0])
    assert new != old
    assert seen in new


def test_a_file_that_is_only_touched_costs_nothing(site: Path) -> None:
    truth, _ = command()
    (site / "acme_parts.py").touch()
    assert command() == (truth, 0)


def test_what_changed_while_a_command_ran_is_not_kept(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "_began", lambda: time.time() - 60)
    truth, imports = command()
    assert (command(), imports) == ((truth, 1), 1)


def test_an_upgraded_plugin_is_noticed(site: Path) -> None:
    command()
    (site / "acme-1.0.dist-info").rename(site / "acme-2.0.dist-info")
    metadata = site / "acme-2.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.0", "2.0"))
    assert any("acme[main] 2.0" in line for line in command()[0])


def test_an_upgrade_of_another_distribution_is_noticed(site: Path) -> None:
    install(site, "wrapped", {}, {}, version="1.0")
    truth, _ = command()
    assert command() == (truth, 0)
    (site / "wrapped-1.0.dist-info").rename(site / "wrapped-1.1.dist-info")
    assert command() == (truth, 1)


def test_plugins_that_come_and_go_are_noticed(site: Path) -> None:
    command()
    install(site, "more", {"acme_more": PLUGIN.replace('"tiny"', '"large"')}, {"main": "acme_more"})
    assert any("large" in line for line in list_components(discover()))
    for file in (site / "more-1.0.dist-info").iterdir():
        file.unlink()
    (site / "more-1.0.dist-info").rmdir()
    assert not any("large" in line for line in list_components(discover()))


def test_entry_points_that_are_rewritten_are_noticed(site: Path) -> None:
    command()
    entries = site / "acme-1.0.dist-info" / "entry_points.txt"
    entries.write_text(entries.read_text().replace("main =", "core ="))
    assert any("acme[core]" in line for line in list_components(discover()))


def test_another_module_in_front_of_the_plugin_is_noticed(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command()
    front = tmp_path / "front"
    front.mkdir()
    (front / "acme.py").write_text(PLUGIN.replace('"tiny"', '"other"'))
    monkeypatch.syspath_prepend(str(front))
    forget()
    assert any("other" in line for line in list_components(discover()))


def test_a_module_in_front_of_what_a_plugin_wraps_is_noticed(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, _ = command()
    front = tmp_path / "front"
    front.mkdir()
    (front / "pydantic.py").touch()
    monkeypatch.setattr(sys, "path", [*sys.path, str(front)])
    assert command() == (truth, 1)


def test_a_plugin_that_is_no_longer_on_the_path_is_noticed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command()
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(site)])
    forget()
    assert [broken.cause for broken in discover().broken] == ["ModuleNotFoundError: No module named 'acme'"]


def test_a_broken_plugin_is_tried_each_time(site: Path) -> None:
    install(site, "broken", {"acme_broken": "import acme_absent"}, {"main": "acme_broken"})
    assert [broken.plugin.distribution for broken in discover().broken] == ["broken"]
    forget()
    assert [broken.plugin.distribution for broken in discover().broken] == ["broken"]
    (site / "acme_absent.py").write_text("")
    forget()
    assert [broken.cause for broken in discover().broken] == [
        "LookupError: has no hook: nothing in it is marked with toolkit.hookimpl"
    ]


def test_a_disabled_plugin_stays_disabled(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command()
    monkeypatch.setenv("TOOLKIT_DISABLE", "acme")
    assert discover().offered == ()
    monkeypatch.delenv("TOOLKIT_DISABLE")
    assert len(discover().offered) == 4


def test_what_a_plugin_did_when_it_was_imported_is_still_shown(site: Path) -> None:
    loud = "import os\nprint('hello')\nos.environ['ACME'] = '1'\n" + PLUGIN.replace('"tiny"', '"loud"')
    install(site, "loud", {"acme_loud": loud}, {"main": "acme_loud"})
    first = show_component(discover(), "loud[main]")
    forget()
    registry = discover()
    assert "acme_loud" not in sys.modules
    assert show_component(registry, "loud[main]") == first
    assert "  prints while it is imported: hello" in first
    assert "  changes the process while it is imported: the environment" in first


def test_a_plugin_is_isolated_when_its_component_is_built(site: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loud = "import os\nprint('hello')\nos.environ['ACME'] = '1'\n" + PLUGIN.replace('"tiny"', '"loud"')
    install(site, "loud", {"acme_loud": loud}, {"main": "acme_loud"})
    discover()
    forget()
    discover().named("model", "loud")[0].load()
    assert "ACME" not in os.environ
    assert capfd.readouterr().out == ""


def test_a_check_that_has_no_name_is_read_each_time(site: Path) -> None:
    unnamed = PARTS.replace("AfterValidator(even)", "AfterValidator(lambda value: even(value))")
    (site / "acme_parts.py").write_text(unnamed)
    assert [command()[1] for _ in range(2)] == [1, 1]


def test_an_unusable_signature_is_the_same_fault_each_time(site: Path) -> None:
    (site / "acme_parts.py").write_text(PARTS.replace("scale: float = 1", "scale: Nothing = 1"))
    shown = [show_component(discover(), "ranks") for _ in range(2)]
    assert shown[0] == shown[1]
    assert "NameError" in "\n".join(shown[0])


def test_without_a_cache_all_is_read(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Python finds distributions in other ways than in folders, nothing is known of what is installed."""
    truth, _ = command()

    class Finder:
        @staticmethod
        def find_spec(*_: object) -> None: ...

        @staticmethod
        def find_distributions(*_: object) -> list[Any]:
            return []

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert command() == (truth, 1)


def test_only_the_newest_notes_are_kept(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.host.cache.NOTES", 2)
    cache = Cache.open()
    for key in "abc":
        cache.add_note(key, [key])
    cache.save()
    assert [Cache.open().note(key) for key in "abc"] == [None, ["b"], ["c"]]


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "toolkit", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)


def test_processes_that_write_at_once_leave_a_whole_file(site: Path) -> None:
    time.sleep(0.1)
    words = [sys.executable, "-m", "toolkit", "plugins", "show", "acme:tiny"]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    together = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(3)]
    shown = {process.communicate()[0] for process in together}
    assert len(shown) == 1
    assert "channels of the first layer" in shown.pop()
    check, _, text = the_file(site).read_bytes().partition(b"\n")
    assert int(check, 16) == zlib.crc32(text)
    assert list(the_file(site).parent.iterdir()) == [the_file(site)]


def test_a_plugin_in_the_working_folder_is_kept_and_its_edits_are_noticed(site: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    counting = "import sys\nsys.stderr.write('imported\\n')\n"
    install(
        project, "mine", {"mine": PLUGIN.replace("acme_parts", "my_parts"), "my_parts": counting + PARTS}, {"m": "mine"}
    )
    time.sleep(0.1)
    shown = [run("plugins", "show", "mine:tiny", folder=project) for _ in range(2)]
    assert [one.stderr for one in shown] == ["imported\n", ""]
    assert shown[0].stdout == shown[1].stdout
    edited(project / "my_parts.py", "channels of the first layer", "channels of the second one.")
    time.sleep(0.1)
    assert "channels of the second one." in run("plugins", "show", "mine:tiny", folder=project).stdout


ASKED = """
from toolkit import hookimpl
from toolkit.api.contracts import InputDesign, Model
import builtins

def made(spec, *, side: int = 8): ...

def design(*, side: int):
    builtins.acme_asked += 1
    return InputDesign(None, None, side, side)

@hookimpl
def toolkit_models():
    return {"tiny": Model("acme:made", takes="acme:design", settled=True)}
"""


def asked(side: int) -> tuple[int | None, int]:
    """The side that the next command knows the model to take, and how often it asks the plugin."""
    import builtins

    forget()
    builtins.acme_asked = 0  # type: ignore[attr-defined]
    registry = discover()
    (offer,) = registry.offers("model")
    signature = registry.signature(offer)
    args = {"side": side}
    chosen = Chosen("model", "model", "tiny", signature, args, args, offer, "here", registry)
    return chosen.takes and chosen.takes.size, builtins.acme_asked  # type: ignore[attr-defined]


def test_what_a_settled_model_takes_is_asked_once_for_the_same_arguments(site: Path) -> None:
    (site / "acme.py").write_text(ASKED)
    assert [asked(8), asked(8), asked(9), asked(8)] == [(8, 1), (8, 0), (9, 1), (8, 0)]
    time.sleep(0.02)  # as an edit between two commands comes later than the first command's start
    edited(site / "acme.py", "None, None, side, side", "None, None, 9,  2*side")
    assert [asked(8), asked(8)] == [(9, 1), (9, 0)]


def test_what_another_model_takes_is_asked_each_time(site: Path) -> None:
    (site / "acme.py").write_text(ASKED.replace("settled=True", "settled=False"))
    assert [asked(8), asked(8)] == [(8, 1), (8, 1)]
