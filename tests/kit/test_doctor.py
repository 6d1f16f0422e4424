"""The doctor: what it says of plugins, and that nothing they do ends it."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.hostile.zoo import DEADLY, ZOO, Animal, hook, offering, release
from tests.installed import install
from toolkit.api.errors import EXIT_DONE, EXIT_PLUGIN, EXIT_USAGE
from toolkit.cli.main import main
from toolkit.kit.doctor import PAGE, examine_installed, process
from toolkit.kit.doctor.examination import (
    FACTORIES,
    HOST,
    OF_RULES,
    Begun,
    Done,
    Imported,
    Remark,
    Request,
    examined,
    needs,
    read_lines,
    written,
)
from toolkit.kit.doctor.process import Ended, _manner, answers

GOOD = '''
from toolkit import hookimpl

def board(run, *, title: str = "Runs", side: int):
    """A board of runs.

    title: what stands above it
    side: in pixels
    """
    return Board()

class Board:
    def track(self, record): ...
    def close(self): ...

@hookimpl
def toolkit_trackers():
    return {"board": board}
'''
"""A tracker that needs an argument, and keeps the rules."""


CUCKOO = """
import os, pathlib, signal, threading
if b"toolkit.kit.doctor.host" in pathlib.Path(f"/proc/{os.getppid()}/cmdline").read_bytes():
    pathlib.Path(__file__).with_name("cuckoo").write_text(str(os.getpid()))
    os.kill(os.getppid(), signal.SIGKILL)
    threading.Event().wait()
"""
"""A plugin that ends the process of which its own is a fork, and no other that imports it."""

needs_forks = pytest.mark.skipif(not process.FORKS, reason="examinations are no forks here")


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which this process and those it starts take plugins."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("TOOLKIT_DISABLE", raising=False)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def good(site: Path) -> None:
    install(site, "acme-board", {"acme_board": GOOD}, {"main": "acme_board"})


def of(name: str, text: str) -> str:
    """What is said of one animal."""
    found = re.search(rf"^zoo-{name}\[main\] \S+: .*\n((?: .*\n)*)", text, flags=re.MULTILINE)
    assert found, f"nothing is said of {name}"
    return found[1]


def is_named(name: str, animals: Mapping[str, Animal], text: str) -> bool:
    return bool(re.search(animals[name].named, of(name, text), flags=re.MULTILINE))


def asked(plugin: tuple[str, str, str, str], kind: str, name: str, **args: object) -> dict[str, Remark]:
    """What is seen of each rule, asked in this process."""
    lines = examined(Request(plugin, ((kind, name),), args))
    return {line.rule: line for line in lines if isinstance(line, Remark)}


def test_where_only_ours_is_installed_that_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "doctor"]) == EXIT_DONE
    assert capsys.readouterr().out == "no third-party plugin is installed; to examine an included plugin, name it\n"


@pytest.mark.usefixtures("good")
def test_a_component_that_needs_arguments_is_examined_with_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "doctor"]) == EXIT_DONE
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"acme-board\[main\] 1\.0: imported in \d+ ms, 1 component", lines[0])
    assert lines[1:] == [
        "  tracker board: keeps 2 rules, 1 not asked",
        "    not examined: it needs --set side=...",
    ]
    assert main(["plugins", "doctor", "board", "--set", "side=3"]) == EXIT_DONE
    assert re.fullmatch(r"  tracker board: keeps \d+ rules, 1 not asked", capsys.readouterr().out.splitlines()[1])
    remarks = asked(("acme-board", "1.0", "main", "acme_board"), "tracker", "board", side="wide")
    assert 'must be an integer, got "wide"' in str(remarks["arguments"].what)


@pytest.mark.usefixtures("good")
@pytest.mark.parametrize(
    ("words", "error", "next_step"),
    [
        (["bord"], 'no component or plugin is called "bord"; did you mean "board"?', "python -m toolkit plugins list"),
        (
            ["acme-bord"],
            'no component or plugin is called "acme-bord"; did you mean "acme-board"?',
            "python -m toolkit",
        ),
        (["board", "--set", "side"], "--set side: must look like key=value", "--set width=8, say"),
        (["vision-toolkit[trackers]", "--set", "a=1"], "--set needs one component, got 3", "name it: python -m"),
    ],
)
def test_usage_errors(words: list[str], error: str, next_step: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "doctor", *words]) == EXIT_USAGE
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: {error}"
    assert lines[1].startswith(f"next:  {next_step}")


@pytest.mark.usefixtures("good")
def test_a_disabled_plugin_is_examined_only_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "disable", "acme-board"]) == EXIT_DONE
    capsys.readouterr()
    assert main(["plugins", "doctor"]) == EXIT_DONE
    assert capsys.readouterr().out.splitlines()[0] == "acme-board[main] 1.0: disabled, not examined"
    assert main(["plugins", "doctor", "acme-board"]) == EXIT_DONE
    assert "tracker board" in capsys.readouterr().out


def test_metadata_that_cannot_be_read_is_reported(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(site, "odd", {}, {"main": "odd"})
    (site / "odd-1.0.dist-info" / "entry_points.txt").write_bytes(b"[toolkit]\nx = \xff")
    assert main(["plugins", "doctor"]) == EXIT_PLUGIN
    assert capsys.readouterr().out.startswith("odd[entry_points.txt] 1.0: malformed entry_points.txt; install ")


def test_pickles_that_a_plugin_loads_are_told(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = GOOD + "\n\ndef weights(path):\n    import torch\n    return torch.load(path)\n"
    install(site, "acme-board", {"acme_board": source}, {"main": "acme_board"})
    assert main(["plugins", "doctor"]) == EXIT_PLUGIN
    assert re.search(r"loading: acme_board.py:\d+ calls torch.load without weights_only=True", capsys.readouterr().out)


@pytest.mark.parametrize("forks", [pytest.param(True, marks=needs_forks), False])
def test_plugins_that_end_the_process_end_only_theirs(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, forks: bool
) -> None:
    monkeypatch.setattr(process, "FORKS", forks)
    release(site, DEADLY)
    assert examine_installed(None, [], silence=5) == EXIT_PLUGIN
    text = capsys.readouterr().out
    assert [name for name in DEADLY if not is_named(name, DEADLY, text)] == []


@needs_forks
def test_one_that_ends_the_process_it_came_from_ends_only_its_own_examination(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release(site, {"cuckoo": Animal(CUCKOO, ""), "heir": Animal(hook("{}"), "")})
    assert main(["plugins", "doctor"]) == EXIT_PLUGIN
    text = capsys.readouterr().out
    assert "import: it ended the process by SIGKILL" in of("cuckoo", text)
    assert of("heir", text) == ""
    left = int((site / "cuckoo").read_text())
    assert not Path(f"/proc/{left}").exists() or " Z " in Path(f"/proc/{left}/stat").read_text()


@needs_forks
def test_what_a_plugin_does_as_its_process_ends_is_done(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    farewell = f"import atexit, pathlib\natexit.register(pathlib.Path({str(site / 'swan')!r}).touch)"
    release(site, {"swan": Animal(hook("{}", before=farewell), "")})
    assert main(["plugins", "doctor"]) == EXIT_DONE
    assert (site / "swan").exists()


@needs_forks
def test_an_examination_that_crashes_is_reported_with_its_error(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    release(site, {"idle": Animal(hook("{}"), "")})
    monkeypatch.setattr(Request, "text", lambda request: "no request")
    assert main(["plugins", "doctor"]) == EXIT_PLUGIN
    shown = of("idle", capsys.readouterr().out)
    assert "import: it ended the process with exit code 1: json.decoder.JSONDecodeError: " in shown


@needs_forks
def test_a_host_that_cannot_start_is_reported_with_its_error(tmp_path: Path) -> None:
    starter = process.Starter(["no_such_module"], {})
    with pytest.raises(Ended, match="exit code 1: ModuleNotFoundError: No module named 'no_such_module'"):
        list(answers(Request(("zoo", "1", "main", "zoo")), starter))
    starter.close()


def test_what_the_rules_of_a_kind_import_is_there() -> None:
    """The host passes over what it cannot import, so nothing else would report a missing name."""
    assert all(importlib.util.find_spec(module) for modules in OF_RULES.values() for module in modules)
    assert needs(Request(("zoo", "1", "main", "zoo"), (("model", "ape"), ("metric", "bat")))) == list(OF_RULES["model"])
    assert needs(Request(("zoo", "1", "main", "zoo"))) == []


@needs_forks
def test_the_host_imports_the_given_modules_before_it_forks(tmp_path: Path) -> None:
    """The fork then finds it imported; a module that is not there is passed over."""
    code = "import pathlib; pathlib.Path(__file__).with_suffix('.txt').open('a').write('!')"
    (tmp_path / "dear.py").write_text(code)
    starter = process.Starter((), {"PYTHONPATH": f"{tmp_path}"})
    (tmp_path / "errors.txt").touch()
    words = [Request(("zoo", "1", "main", "dear")).text(), str(tmp_path / "report.jsonl")]
    for _ in range(2):
        (tmp_path / "report.jsonl").touch()
        starter.start(words, tmp_path / "errors.txt", ["no_such_module", "dear"])
        while (code := starter.ended(60)) is None:
            pass
        assert code == 0
    starter.close()
    assert (tmp_path / "dear.txt").read_text() == "!"


def test_the_deadly_can_be_disabled(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release(site, DEADLY)
    for name in DEADLY:
        assert main(["plugins", "disable", f"zoo-{name}"]) == EXIT_DONE
    assert main(["plugins", "list"]) == EXIT_DONE
    assert capsys.readouterr().out.count(": by toolkit.toml") == len(DEADLY)


MENAGERIE = '''
from toolkit import hookimpl

def killer(run):
    """It kills."""
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)

def sloth(run):
    """It hangs."""
    import threading
    threading.Event().wait()

def dove(run):
    """It does nothing."""
    return Dove()

class Dove:
    def track(self, record): ...
    def close(self): ...

@hookimpl
def toolkit_trackers():
    return {"ape": killer, "bear": sloth, "dove": dove}
'''


@pytest.mark.slow
def test_a_component_that_kills_or_hangs_is_named_and_the_next_is_examined(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Slow, for it waits until one is silent for longer than torch takes to be imported."""
    install(site, "zoo-menagerie", {"zoo_menagerie": MENAGERIE}, {"main": "zoo_menagerie"})
    assert examine_installed("zoo-menagerie", [], silence=10) == EXIT_PLUGIN
    text = capsys.readouterr().out
    assert "records: it ended the process by SIGKILL" in text
    assert "records: it did not answer for 10 s and was ended" in text
    assert re.search(r"^  tracker dove: keeps \d+ rules, 1 not asked$", text, flags=re.MULTILINE)


@pytest.mark.slow
def test_every_animal_is_named_with_its_cause(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Slow, for the models among them are exported."""
    release(site)
    assert main(["plugins", "doctor"]) == EXIT_PLUGIN
    text = capsys.readouterr().out
    assert {name: of(name, text) for name in ZOO if not is_named(name, ZOO, text)} == {}


@pytest.fixture
def alone(site: Path, request: pytest.FixtureRequest) -> str:
    animals: Mapping[str, Animal] = {request.param: ZOO[request.param]}
    release(site, animals)
    return f"zoo-{request.param}"


@pytest.mark.parametrize("alone", ["sleeper", "printer", "mover", "mutating"], indirect=True)
def test_an_animal_is_named_with_its_cause(alone: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = alone.removeprefix("zoo-")
    code = main(["plugins", "doctor", alone])
    text = capsys.readouterr().out
    assert is_named(name, ZOO, text)
    assert code == (EXIT_PLUGIN if ZOO[name].fault else EXIT_DONE)
    assert re.search(rf"^      see {PAGE}#\S+$", text, flags=re.MULTILINE)


def test_a_name_that_others_have_is_reported_and_breaks_nothing(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release(site, {"wandb": Animal(hook('{"wandb": "zoo_absent:build"}', "trackers"), "")})
    assert main(["plugins", "doctor", "zoo-wandb"]) == EXIT_PLUGIN
    text = capsys.readouterr().out
    assert 'names: tracker "wandb" is also offered by vision-toolkit[trackers]' in text
    assert "breaks 1 of 1 rules" in text


def test_a_dataset_without_a_sample_needs_a_folder(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raises = 'from toolkit.api.errors import DataError\n    raise DataError("none")'
    source = f'def build(root):\n    """It has no sample."""\n    {raises}'
    release(site, {"cave": Animal(offering(source, "datasets"), "")})
    assert main(["plugins", "doctor", "cave"]) == EXIT_DONE
    assert "    not examined: none; give --set root=FOLDER" in capsys.readouterr().out
    remarks = asked(("zoo-cave", "6.6", "main", "zoo_cave"), "dataset", "cave", root=".")
    assert str(remarks["items"].what).startswith("raised DataError: none")


def test_the_sections_that_are_named_exist() -> None:
    page = (Path(__file__).parents[2] / PAGE).read_text(encoding="utf-8")
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", page, flags=re.MULTILINE)}
    assert {HOST, FACTORIES} <= headings


def test_lines_pass_between_processes_unchanged() -> None:
    lines = [
        Begun("model a", "logits"),
        Imported(0.5, "x\n", ["the environment"], None, []),
        Remark("model a", "logits", None, "model-logits", skipped="why"),
        Done(),
    ]
    text = "".join(map(written, lines))
    assert list(read_lines(text)) == lines
    assert list(read_lines(text + '["Beg')) == lines
    request = Request(("a", "1", "main", "a"), (("model", "b"),), {"width": 3})
    assert Request.read(request.text()) == request
    assert Request.read(Request(("a", "1", "main", "a")).text()).offers is None


@pytest.mark.parametrize(("code", "manner"), [(3, "with exit code 3"), (-9, "by SIGKILL"), (-99, "by signal 99")])
def test_how_a_process_ended_is_reported(code: int, manner: str) -> None:
    assert _manner(code) == f"it ended the process {manner}"
