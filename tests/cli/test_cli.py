"""The command line: what it takes, how it fails, what it loads, and which plugins cannot break it."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from tests import tiny
from tests.installed import install
from toolkit import __version__
from toolkit.api.errors import PluginError
from toolkit.cli.commands import parser
from toolkit.cli.main import main
from toolkit.cli.parser import PROGRAM
from toolkit.system.signals import how_ended

EVERYWHERE = {"--help", "--debug"}
FLAGS = {
    "": {"--help", "--version"},
    "demo": EVERYWHERE | {"--open"},
    "init": EVERYWHERE | {"--output", "--force"},
    "run": EVERYWHERE
    | {"--set", "--resume", "--extend", "--runs", "--open", "--find-lr", "--ranks", "--seeds", "--folds", "--grid"}
    | {"--fractions"},
    "tune": EVERYWHERE
    | {
        "--set",
        "--runs",
        "--storage",
        "--serve-storage",
        "--enqueue",
        "--workers",
        "--ranks",
        "--seeds",
        "--export",
    },
    "soup": EVERYWHERE | {"--runs", "--open"},
    "ladder": EVERYWHERE | {"--set", "--until", "--resume", "--runs", "--open"},
    "evaluate": EVERYWHERE | {"--set", "--device", "--precision", "--runtime"},
    "report": EVERYWHERE | {"--open", "--explain"},
    "explain": EVERYWHERE | {"--class", "--save", "--set"},
    "export": EVERYWHERE | {"--set", "--name", "--exports", "--format", "--sign"},
    "verify": EVERYWHERE | {"--key"},
    "predict": EVERYWHERE
    | {
        "--output",
        "--save",
        "--top",
        "--batch",
        "--part",
        "--every",
        "--stream",
        "--reconnect",
        "--plot",
        "--segments",
        "--cut",
        "--truth",
        "--choose",
        "--require-signature",
        "--set",
        "--device",
        "--precision",
        "--runtime",
    },
    "serve": EVERYWHERE
    | {
        "--host",
        "--port",
        "--grpc-port",
        "--token",
        "--allow-host",
        "--allow-urls",
        "--source",
        "--reconnect",
        "--batch",
        "--sessions",
        "--delay-ms",
        "--max-waiting",
        "--max-mb",
        "--max-megapixels",
        "--max-seconds",
        "--log",
        "--require-signature",
        "--device",
        "--precision",
        "--runtime",
    },
    "check": EVERYWHERE | {"--set", "--recipe-only", "--probe"},
    "promote": EVERYWHERE | {"--against", "--metric", "--alias", "--name", "--set"},
    "compare": EVERYWHERE | {"--against-last", "--anyway", "--output", "--page", "--fail-if-worse", "--runs", "--open"},
    "data": EVERYWHERE,
    "data index": EVERYWHERE | {"--column", "--force", "--content", "--output"},
    "data check": EVERYWHERE | {"--set", "--model", "--weights", "--output", "--open"},
    "data show": EVERYWHERE | {"--set", "--items", "--output", "--open"},
    "recipes": EVERYWHERE,
    "plugins": EVERYWHERE,
    "plugins list": EVERYWHERE,
    "plugins show": EVERYWHERE,
    "plugins doctor": EVERYWHERE | {"--set"},
    "plugins disable": EVERYWHERE,
    "plugins enable": EVERYWHERE,
    "plugins new": EVERYWHERE | {"--kinds", "--license"},
    "schema": EVERYWHERE | {"--bundle"},
}
"""All commands and all flags. A new flag is a decision: most wishes are a recipe's key and `--set` away."""


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("TOOLKIT_DEBUG", raising=False)
    monkeypatch.delenv("TOOLKIT_DISABLE", raising=False)


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as left:
        main([*command.split(), "--help"])
    assert left.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", FLAGS)
def test_the_flags_of_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(command, capsys)
    assert text.startswith(f"usage: {' '.join(['python -m toolkit', *command.split()])} ")
    assert set(re.findall(r"--[a-z-]+", text.partition("\nexamples:")[0])) == FLAGS[command]


@pytest.mark.parametrize("command", FLAGS)
def test_each_help_has_two_examples_that_parse(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(command, capsys).partition("\nexamples:\n")[2].partition("\n\n")[0]
    examples = [shlex.split(line) for line in text.splitlines()]
    assert len(examples) >= 2
    for words in examples:
        assert shlex.join(words[:3]) == PROGRAM
        assert " ".join(words[3:]).startswith(command)
        parser().parse_args(words[3 : words.index(">") if ">" in words else None])


def test_the_examples_of_recipes_are_valid(capsys: pytest.CaptureFixture[str]) -> None:
    lines = {line for command in FLAGS for line in help_of(command, capsys).splitlines()}
    recipes = [shlex.split(line) for line in lines if re.match(rf"  {PROGRAM} (run|tune|check) ", line)]
    assert len(recipes) > 5
    for words in recipes:
        options = parser().parse_args(words[3:])
        overrides = [word for pair in options.overrides for word in ("--set", pair)]
        assert main(["check", "--recipe-only", str(options.recipe), *overrides]) == 0


def test_no_command_shows_the_help_with_every_command_in_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr().out
    assert shown == help_of("", capsys)
    assert "\nmore:" not in shown


@pytest.mark.parametrize("command", ["", "run", "plugins new"])
def test_help_is_a_command_too(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["help", *command.split()])
    assert left.value.code == 0
    assert capsys.readouterr().out == help_of(command, capsys)


def test_help_says_where_the_keys_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(help_of("run", capsys).split())
    assert "`python -m toolkit schema` lists all keys, `python -m toolkit plugins show NAME`" in text


def test_the_list_of_commands_is_closed(capsys: pytest.CaptureFixture[str]) -> None:
    assert {
        f"{parent} {name}".strip() for parent in ("", "data", "plugins") for name in listed(help_of(parent, capsys))
    } == (set(FLAGS) - {""})


def listed(text: str) -> list[str]:
    """The commands that a help text explains."""
    return re.findall(r"^    ([a-z]+)\s+\S", text, re.MULTILINE)


def test_help_shows_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    codes = help_of("", capsys).partition("Exit codes: ")[2]
    assert re.findall(r"\d+", codes) == ["0", "1", "2", "3", "4", "5", "6", "75", "130", "141"]


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("words", "error", "next_step"),
    [
        (["rnu", "a.toml"], 'no such command "rnu"; did you mean "run"?', "python -m toolkit run a.toml"),
        (["it's"], 'no such command "it\'s" (choose from demo, init, recipes, run, tune,', "python -m toolkit --help"),
        (["plugins", "shwo"], 'no such command "shwo"; did you mean "show"?', "python -m toolkit plugins --help"),
        (["run"], "run: a recipe is missing", "python -m toolkit run har_resnet50"),
        (
            ["run", "--resume", "a", "--runs", "b"],
            "run: --runs has no meaning with --resume",
            "python -m toolkit run --resume a",
        ),
        (
            ["run", "a.toml", "--epochs", "3"],
            'unrecognized arguments: --epochs 3; "--epochs" is the recipe key train.epochs',
            "python -m toolkit run a.toml --set train.epochs=3",
        ),
        (
            ["run", "a.toml", "--res", "b"],
            'unrecognized arguments: --res b; the flag here is "--resume"',
            "python -m toolkit run a.toml --resume b",
        ),
        (["run", "a.toml", "--frobnicate", "b"], "unrecognized arguments: --frob", "python -m toolkit run --help"),
        (
            ["check"],
            "the following arguments are required: RECIPE",
            "python -m toolkit check har_resnet50",
        ),
        (
            ["predict", "b", "i", "--device", "gpu"],
            'argument --device: invalid choice "gpu"; "gpu" is "cuda" here',
            "python -m toolkit predict b i --device cuda",
        ),
        (
            ["predict", "b", "i", "--top", "0"],
            'argument --top: expected an integer of at least 1, got "0"',
            "python -m toolkit predict --help",
        ),
        (
            ["predict", "b", "i", "--batch", "x"],
            'argument --batch: expected an integer of at least 1, got "x"',
            "python -m toolkit predict --help",
        ),
        (
            ["evaluate", "nowhere", "--device", "auto"],
            "nowhere: not a bundle",
            "for a run use --set train.device=... and --set train.precision=...",
        ),
        (["run", "--set"], "argument --set: expected one argument", "python -m toolkit run --help"),
        (["plugins", "show", "cnnn"], 'no component or plugin is called "cnnn"', "python -m toolkit plugins show cnn"),
        (["plugins", "show", "zzz"], 'no component or plugin is called "zzz"', "python -m toolkit plugins list"),
        (
            ["report", "nowhere"],
            "nowhere: no such directory",
            "train a model first: python -m toolkit demo",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage_errors(words: list[str], error: str, next_step: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    lines = shown(capsys)
    assert lines[0].startswith(f"error: {error}")
    assert lines[1:] == [f"next:  {next_step}"]


def test_a_recipe_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    near, far = tiny.write_recipe(tmp_path, name="har_slow"), tmp_path / "har_slwo.toml"
    assert main(["check", str(far)]) == 2
    assert shown(capsys) == [
        f'error: {far}: no such file; did you mean "{near}"?',
        f"next:  python -m toolkit check {near}",
    ]


@pytest.mark.parametrize("word", ["--version", "version", "-V"])
def test_the_version(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 0
    assert capsys.readouterr().out == f"toolkit {__version__}\n"


def test_schema_is_json_with_the_components(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    text = capsys.readouterr().out
    assert json.loads(text)["$schema"].startswith("https://json-schema.org/")
    assert all(f'"{name}"' in text for name in ("har", "cnn", "random_crop", "accuracy", "tensorboard"))


def test_a_component_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "show", "cnn"]) == 0
    assert capsys.readouterr().out.startswith("model cnn, from plugin vision-toolkit[vision] ")


def test_the_console_script_is_the_same_command() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="toolkit")
    assert script.load() is main


def test_the_end_of_a_command_looks_for_no_garbage() -> None:
    """Among torch's objects that takes seconds, in which a launcher waits for its ranks."""
    ending = "import atexit, gc, toolkit.__main__; atexit._run_exitfuncs(); print(gc.get_freeze_count())"
    done = subprocess.run([sys.executable, "-c", ending], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 1000


def test_debug_adds_the_traceback_and_keeps_the_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["check", "nowhere.toml"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert main(["check", "nowhere.toml", "--debug"]) == 2
    lines = shown(capsys)
    assert lines[0] == "Traceback (most recent call last):"
    assert "error: nowhere.toml: no such file" in lines
    monkeypatch.setenv("TOOLKIT_DEBUG", "1")
    assert main(["check", "nowhere.toml"]) == 2
    assert "Traceback" in capsys.readouterr().err


def raising(error: BaseException) -> Callable[[], NoReturn]:
    def discover() -> NoReturn:
        raise error

    return discover


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.host.registry.discover", raising(KeyboardInterrupt()))
    assert main(["plugins", "list"]) == 130
    assert shown(capsys) == ["error: interrupted", "next:  python -m toolkit plugins list"]


@pytest.mark.parametrize(
    "words", [["plugins", "list"], ["plugins", "show", "cnn"], ["check", "cifar10_cnn"], ["schema"]], ids=" ".join
)
def test_sigterm_ends_every_command_with_the_same_command(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def meet_the_signal() -> NoReturn:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("the signal was lost")

    monkeypatch.setattr("toolkit.host.registry.discover", meet_the_signal)
    assert main(words) == 75
    assert shown(capsys)[-2:] == ["error: stopped by a signal", f"next:  python -m toolkit {' '.join(words)}"]


def test_a_library_that_takes_a_signal_for_an_error_is_not_blamed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def import_half() -> NoReturn:
        with suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)
        raise PluginError("module 'half' has no attribute 'imported'")

    monkeypatch.setattr("toolkit.host.registry.discover", import_half)
    assert main(["plugins", "list"]) == 75
    assert shown(capsys)[0] == "error: stopped by a signal"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you ...")])
def test_memory_that_runs_out_is_not_unexpected(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.host.registry.discover", raising(error))
    assert main(["plugins", "list"]) == 1
    assert shown(capsys)[0] == "error: too little memory on this machine"


def test_what_the_system_refuses_is_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "a/b.txt")
    monkeypatch.setattr("toolkit.host.registry.discover", raising(refusal))
    assert main(["plugins"]) == 1
    assert shown(capsys)[0] == "error: a/b.txt: Permission denied"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_before_training_ends_with_the_same_command(
    number: int, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(number)
    monkeypatch.setattr("toolkit.runs.session.start_run", lambda *arguments, **more: os.kill(os.getpid(), number))
    monkeypatch.setattr("toolkit.recipe.read.parse", lambda *arguments, **more: None)
    monkeypatch.setattr("toolkit.build.plan.plan", lambda *arguments: None)
    assert main(["run", "my recipe.toml", "--set", "seed=1"]) == code
    assert shown(capsys)[1] == "next:  python -m toolkit run 'my recipe.toml' --set seed=1"
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_leaves_no_unfinished_bundle(
    number: int, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = SimpleNamespace(assembly=None, digest="")
    monkeypatch.setattr("toolkit.export.write.open_answering", lambda *_: trained)
    monkeypatch.setattr("toolkit.export.write._trained_on", lambda _: {})
    monkeypatch.setattr("toolkit.export.write.Scored.of_run", lambda _: SimpleNamespace(screen_notes=list))
    monkeypatch.setattr("toolkit.export.write._reference", lambda *_: SimpleNamespace(trust=None))
    monkeypatch.setattr("toolkit.export.write.write_models", lambda *_, **__: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    words = ["export", "runs/a/b", "--name", "my bundle", "--exports", str(tmp_path)]
    assert main(words) == code
    assert shown(capsys) == [
        f"error: {how_ended(code)}; no half-written bundle is left",
        f"next:  python -m toolkit export runs/a/b --name 'my bundle' --exports {tmp_path}",
    ]
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) is before


def toolkit(*words: str, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"PYTHONPATH": str(site)} if site else {})
    return subprocess.run(
        [sys.executable, "-m", "toolkit", *words], capture_output=True, text=True, check=False, env=environment
    )


def test_no_malformed_package_ends_a_command_on_a_recipe(tmp_path: Path) -> None:
    """Pydantic, and torch when it is imported, read the entry points of all packages, whatever their group."""
    metadata = tmp_path / "odd-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    groups = ("pydantic", "torch.backends", "toolkit")
    (metadata / "entry_points.txt").write_text("".join(f"[{group}]\nno entry point\n" for group in groups))
    done = toolkit("check", str(tiny.write_recipe(tmp_path)), site=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [["plugins", "list"], ["--version"]])
def test_a_closed_pipe_is_not_an_error(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "toolkit", *words]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def without_streams(closed: str, *words: str, folder: Path) -> tuple[int, str]:
    """The exit code of a command that a shell starts without these streams, and what it prints on standard error."""
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "toolkit", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_started_without_standard_streams_does_its_work(closed: str, tmp_path: Path) -> None:
    """It prints on both."""
    code, errors = without_streams(closed, "init", "cifar10", folder=tmp_path)
    assert code == 0
    assert bool(errors) == (closed == ">&-")
    assert (tmp_path / "cifar10.toml").is_file()


def test_libraries_may_write_to_a_standard_error_that_is_not_there(tmp_path: Path) -> None:
    """Included plugins import such libraries."""
    assert without_streams("<&- >&- 2>&-", "plugins", "doctor", "log_loss", folder=tmp_path) == (0, "")


def test_output_that_cannot_be_written_is_named() -> None:
    words = [sys.executable, "-m", "toolkit", "recipes"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard output: No space left on device\nnext:  ")


def test_a_message_without_a_reader_is_lost_and_the_exit_code_stays() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "toolkit", "rnu"], stderr=writer, check=False)
    os.close(writer)
    assert done.returncode == 2


def test_control_characters_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tiny.write_recipe(tmp_path, text=tiny.RECIPE + '\n["a\\u001b[31m"]\nb = 1\n')
    assert main(["check", str(recipe)]) == 2
    assert main(["check", "x\x1b[2J\n.toml"]) == 2
    assert main(["run\x1b[2J"]) == 2
    assert main(["run", "a.toml", "--set", "model.name=\x1b[31m\x9b", "--epochs", "5"]) == 2
    text = capsys.readouterr().err
    assert all(char.isprintable() or char == "\n" for char in text)
    assert "a\\x1b[31m: unknown key" in text
    assert "error: x\\x1b[2J\\n.toml: no such file" in text
    assert "next:  python -m toolkit run a.toml --set $'model.name=\\x1b[31m\\x9b' --set train.epochs=5" in text


def test_a_recipe_that_a_command_made_is_no_file_to_check(capsys: pytest.CaptureFixture[str]) -> None:
    cifar = ["--set", "model.name=resnet18", "--set", "model.stem=cifar"]
    assert main(["ladder", "har_resnet50", *cifar]) == 2
    *_, fault, step = shown(capsys)
    assert fault.startswith('error: recipe har_resnet50: model.stem: must be "imagenet" with ImageNet weights')
    assert step == "next:  fix this, then run the same command again"


def test_the_fault_is_placed_at_the_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tiny.write_recipe(tmp_path)), "--recipe-only"]) == 0  # its components are known now
    capsys.readouterr()
    recipe = tiny.write_recipe(tmp_path, text=tiny.RECIPE.replace("epochs = 2", "epochs = 0"))
    assert main(["check", str(recipe), "--set", "train.batch=none", "--set", "model={name = 'cnn', dropout = 3}"]) == 2
    assert shown(capsys) == [
        f"error: {recipe}: train.epochs: must be at least 1, got 0",
        'error: --set train.batch=none: must be an integer or "auto", got "none"',
        """error: --set 'model={name = '"'"'cnn'"'"', dropout = 3}': model.dropout: must be less than 1, got 3""",
        "next:  fix this, then run the same command again",
    ]
    assert main(["check", str(recipe), "--set", "train.epochs=five"]) == 2
    assert shown(capsys) == [
        'error: --set train.epochs=five: must be an integer, got "five"',
        "next:  fix --set train.epochs=five, then run the same command again",
    ]


# Three bad plugins

MISSPELT = """
    from toolkit import hookimpl

    @hookimpl
    def toolkit_modles():
        return {"lost": dict}
"""
TAKEN = """
    from toolkit import hookimpl

    @hookimpl
    def toolkit_models():
        return {"resnet18": dict}
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three bad plugins that every process and this one find."""
    folder = tmp_path / "site"
    folder.mkdir()
    install(folder, "bad-raiser", {"bad_raiser": "raise RuntimeError('no licence')"}, {"main": "bad_raiser"}, "0.1")
    install(folder, "bad-speller", {"bad_speller": MISSPELT}, {"main": "bad_speller"}, "0.2")
    install(folder, "bad-taker", {"bad_taker": TAKEN}, {"main": "bad_taker"}, "0.3")
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_bad_plugins_are_listed_with_distribution_version_and_cause(site: Path) -> None:
    done = toolkit("plugins", "list", site=site)
    assert done.returncode == 0
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert "bad-raiser[main] 0.1: RuntimeError: no licence" in lines
    hint = 'unknown hook toolkit_modles; did you mean "toolkit_models"?'
    assert f"bad-speller[main] 0.2: LookupError: {hint}" in lines
    assert f'model "resnet18": bad-taker[main] 0.3 and vision-toolkit[vision] {__version__}' in lines
    assert "vision-toolkit[augment]" in done.stdout


@pytest.mark.usefixtures("site")
def test_an_unrelated_recipe_runs_with_bad_plugins_installed(tmp_path: Path) -> None:
    recipe = tiny.write_recipe(tmp_path, tiny.write_images(tmp_path / "images"))
    assert tiny.run(recipe, tmp_path / "runs") == 0
    assert (tiny.only_run(tmp_path / "runs") / "report.html").is_file()


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    ("name", "error", "next_step"),
    [
        (
            "bad-raiser:net",
            "\n  it may belong to a plugin that is broken: bad-raiser[main] 0.1: RuntimeError: no licence\n",
            "repair or uninstall it, then: python -m toolkit plugins list",
        ),
        ("bad-speller:lost", "bad-speller[main] 0.2: LookupError: unknown hook toolkit_modles", "repair or uninstall"),
        ("lost", "bad-speller[main] 0.2: LookupError: unknown hook toolkit_modles", "repair or uninstall it"),
        (
            "resnet18",
            f'model "resnet18" is offered by bad-taker[main] 0.3 and vision-toolkit[vision] {__version__}',
            'choose one: model.name = "bad-taker:resnet18" or "vision-toolkit:resnet18"',
        ),
    ],
)
def test_a_recipe_that_needs_a_bad_plugin_exits_4(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, error: str, next_step: str
) -> None:
    recipe = tiny.write_recipe(tmp_path, text=tiny.RECIPE.replace('"cnn"\nwidths = [8, 8]\ndropout = 0.1', f'"{name}"'))
    assert tiny.run(recipe, tmp_path / "runs") == 4
    text = capsys.readouterr().err
    assert text.startswith(f"error: {recipe}: ")
    assert error in text
    assert f"next:  {next_step}" in text
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("site")
def test_a_qualified_name_picks_the_good_one(tmp_path: Path) -> None:
    text = tiny.RECIPE.replace('"cnn"\nwidths = [8, 8]\ndropout = 0.1', '"vision-toolkit:resnet18"')
    assert main(["check", str(tiny.write_recipe(tmp_path, text=text)), "--recipe-only"]) == 0


def test_what_nobody_foresaw_is_reported_without_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks() -> NoReturn:
        raise ZeroDivisionError("in a plugin's forward")

    monkeypatch.setattr("toolkit.host.registry.discover", breaks)
    assert main(["plugins", "list"]) == 1
    printed = capsys.readouterr().err
    assert "error: unexpected ZeroDivisionError: in a plugin's forward" in printed
    assert "--debug" in printed
    assert "Traceback" not in printed


def test_a_recipe_that_is_not_there_is_reported_before_torch_is_loaded() -> None:
    code = "import sys; from toolkit.cli.main import main; print(main(['run', 'nowhere.toml']), 'torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["2", "False"]
