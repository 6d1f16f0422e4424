"""The command line. Parses with the standard library alone; every command imports what it needs when it runs."""

from __future__ import annotations

import argparse
import io
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from toolkit.api.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    RunFailed,
    Stopped,
    ToolkitError,
    UsageError,
    nearest,
)
from toolkit.system.signals import Signalled, Signals, exit_code

if TYPE_CHECKING:
    from rich.console import Console


DEVICES = ("auto", "cpu", "cuda", "tensorrt")
PRECISIONS = ("fp32", "fp16", "int8")


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of ending the process, knows the nearest command, takes no flag cut short."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(_plainer(message), next_step=f"{self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is DESIGN's: 0 done, 1 failed, 2 usage, 3 data, 4 plugin, 75/130 stopped."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if not sys.stdout:  # closed from the start: the next file that is opened would take its place, and what is printed
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - as long as the process lives
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error is: names of files may be no text
    debug = "--debug" in words or bool(os.environ.get("TOOLKIT_DEBUG"))
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # finding them reads malformed packages too
    try:
        options = _parser().parse_args(words, argparse.Namespace(words=words))
        command: Callable[[argparse.Namespace], int] = options.command
        code = command(options)
        sys.stdout.flush()
        return code
    except ToolkitError as error:
        return _fail(error, debug=debug)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        reason = error.strerror or str(error)
        told = f"{error.filename}: {reason}" if error.filename else reason
        return _fail(RunFailed(told, next_step="mend it, then give the same command again"), debug=debug)
    except Exception as error:
        told = f"unexpected {type(error).__name__}: {error}"
        return _fail(RunFailed(told, next_step="see where with --debug"), debug=debug)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m toolkit",
        description="Train, evaluate, report, export and serve vision models from recipes.",
        epilog="Exit codes: 0 done, 1 failed, 2 usage or recipe invalid, 3 data unusable, 4 plugin broken, "
        "5 an export differs from the trained model, 75 stopped by a signal and resumable, 130 interrupted.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and leave")
    parser.set_defaults(command=lambda options: _no_command(parser, options))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    _add_run(commands)
    _add_tune(commands)
    _add_evaluate(commands)
    _add_report(commands)
    _add_export(commands)
    _add_predict(commands)
    _add_check(commands)
    _add_plugins(commands)
    _add_schema(commands)
    return parser


def _add(commands: _Commands, name: str, text: str, command: Callable[[argparse.Namespace], int]) -> Parser:
    parser: Parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(command=command)
    return parser


def _add_set(parser: Parser) -> None:
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides", help="override a recipe key"
    )


def _add_run(commands: _Commands) -> None:
    parser = _add(commands, "run", "train, evaluate and report a recipe", _run)
    parser.add_argument("recipe", metavar="RECIPE", type=Path, nargs="?", help="a TOML file; not needed to resume")
    _add_set(parser)
    parser.add_argument("--resume", metavar="RUN", type=Path, help="go on with this run directory")
    parser.add_argument("--runs", metavar="DIR", type=Path, help="where run directories go (default: runs)")


def _add_tune(commands: _Commands) -> None:
    parser = _add(commands, "tune", "try the values that a recipe's [tune] table names, and keep the best", _tune)
    parser.add_argument("recipe", metavar="RECIPE", type=Path, help="a TOML file with a [tune] table")
    _add_set(parser)
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="where the study's folder goes")
    parser.add_argument("--storage", metavar="URL", help="a database that holds the study (default: a journal file)")
    queued = "values to try next: key=value,key=value; may be repeated"
    parser.add_argument("--enqueue", metavar="VALUES", action="append", default=[], help=queued)
    shared = "processes that work on the study here, one for each GPU where there are GPUs (default: 1)"
    parser.add_argument("--workers", metavar="N", type=_count, default=1, help=shared)
    repeated = "runs of the best trial and of the recipe's own values at the end, each with another seed (default: 1)"
    parser.add_argument("--seeds", metavar="K", type=_count, default=1, help=repeated)
    parser.add_argument("--export", action="store_true", help="export the best trial at the end")


def _add_evaluate(commands: _Commands) -> None:
    parser = _add(commands, "evaluate", "score the best checkpoint of a run, or an exported bundle, anew", _evaluate)
    parser.add_argument("run", metavar="RUN", type=Path, help="a run's directory, or a bundle's")
    _add_set(parser)
    _add_use(parser)


def _add_use(parser: Parser) -> None:
    """How a bundle is used."""
    places = f"for a bundle: {', '.join(DEVICES)} (default: auto, the best that loads)"
    parser.add_argument("--device", metavar="DEVICE", choices=DEVICES, help=places)
    chosen = f"for a bundle: {', '.join(PRECISIONS)} (default: its first)"
    parser.add_argument("--precision", metavar="PRECISION", choices=PRECISIONS, help=chosen)


def _add_export(commands: _Commands) -> None:
    parser = _add(commands, "export", "export a run's best checkpoint as an ONNX bundle, proved against it", _export)
    parser.add_argument("run", metavar="RUN", type=Path)
    _add_set(parser)
    parser.add_argument("--name", metavar="NAME", help="name of the bundle (default: the recipe's)")
    parser.add_argument("--exports", metavar="DIR", type=Path, default=Path("exports"), help="where bundles go")
    formats = {"bundle": "a bundle", "triton": "a bundle and a Triton model repository"}
    told = ", ".join(f"{name}: {text}" for name, text in formats.items())
    parser.add_argument("--format", metavar="FORMAT", choices=formats, default="bundle", help=told)


def _add_predict(commands: _Commands) -> None:
    parser = _add(commands, "predict", "classify images and videos with a bundle", _predict)
    parser.add_argument("bundle", metavar="BUNDLE", type=Path)
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="images, folders, globs, videos, - for a list on standard input, a camera's number, an rtsp or http URL",
    )
    parser.add_argument("--output", metavar="FILE", type=Path, help="write a .csv, .jsonl or .parquet file, no table")
    parser.add_argument("--top", metavar="K", type=_count, default=3, help="classes told for each input (default: 3)")
    parser.add_argument("--batch", metavar="N", type=_count, help="inputs asked at a time (default: suits the device)")
    parser.add_argument("--every", metavar="SECONDS", type=float, help="a timeline: answer a video every so often")
    parser.add_argument("--stream", action="store_true", help="answer a video as it is played, as a camera is")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw a video's timeline as a .png or .svg file")
    _add_use(parser)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'must be an integer, at least 1, got "{text}"')
    return int(text)


def _add_report(commands: _Commands) -> None:
    parser = _add(commands, "report", "write a run's report anew from its files", _report)
    parser.add_argument("run", metavar="RUN", type=Path)


def _add_check(commands: _Commands) -> None:
    parser = _add(commands, "check", "check a recipe without running it", _check)
    parser.add_argument("recipe", metavar="RECIPE", type=Path)
    _add_set(parser)


def _add_plugins(commands: _Commands) -> None:
    parser = _add(commands, "plugins", "list, show, examine, disable and make plugins", _list)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", parser_class=Parser)
    _add(actions, "list", "list all components, and plugins that are broken", _list)
    show = _add(actions, "show", "show a component's origin and arguments", _show)
    show.add_argument("name", metavar="NAME")
    _add_doctor(actions)
    disable = _add(actions, "disable", "leave a plugin out of this project, unread", _disable)
    disable.add_argument("name", metavar="NAME")
    enable = _add(actions, "enable", "take a disabled plugin back", _enable)
    enable.add_argument("name", metavar="NAME")
    _add_new(actions)


def _add_doctor(actions: _Commands) -> None:
    parser = _add(actions, "doctor", "examine plugins by the rules of the conformance kit", _doctor)
    told = "a plugin or a component (default: every plugin but those included)"
    parser.add_argument("name", metavar="NAME", nargs="?", help=told)
    key = "a key of the component's table; may be repeated"
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides", help=key)


def _add_new(actions: _Commands) -> None:
    parser = _add(actions, "new", "write a package with a component of each kind", _new)
    parser.add_argument("name", metavar="NAME", help="of the distribution, and of its folder")
    kinds = "kinds of components, separated by commas (default: all five)"
    parser.add_argument("--kinds", metavar="KINDS", help=kinds)
    licences = ("MIT", "Apache-2.0", "BSD-3-Clause", "none")
    told = f"{', '.join(licences)} (default: MIT)"
    parser.add_argument("--license", metavar="LICENSE", choices=licences, default="MIT", help=told)


def _add_schema(commands: _Commands) -> None:
    _add(commands, "schema", "print the JSON Schema of a recipe with all installed components", _schema)


def _no_command(parser: Parser, options: argparse.Namespace) -> int:
    if options.version:
        from toolkit import __version__

        print(f"toolkit {__version__}")
        return EXIT_DONE
    raise UsageError("a command is missing", next_step=f"{parser.prog} --help")


def _run(options: argparse.Namespace) -> int:
    if options.resume is None and options.recipe is None:
        raise UsageError("run: a recipe is missing", next_step="python -m toolkit run recipes/har_resnet50.toml")
    if options.resume is not None and options.runs is not None:
        raise UsageError("run: --runs has no meaning with --resume", next_step="leave one of them out")
    with _stopped("stopped by a signal before training began; nothing is lost", options):
        _start_or_resume(options)
    return EXIT_DONE


@contextmanager
def _stopped(message: str, options: argparse.Namespace) -> Iterator[None]:
    """A signal ends the block with this message and the same command as what to type next."""
    try:
        with Signals():
            yield
    except Signalled as signal:
        raise Stopped(
            message,
            exit_code=exit_code(signal.number),
            next_step=f"python -m toolkit {shlex.join(options.words)}",
        ) from signal


def _start_or_resume(options: argparse.Namespace) -> None:
    if options.resume is not None:
        from toolkit.runs.session import resume_run

        resume_run(options.resume, recipe=options.recipe, overrides=options.overrides, console=_console())
        return
    from toolkit.recipe.read import parse

    draft = parse(options.recipe, options.overrides)
    from toolkit.runs.session import start_run

    start_run(draft, runs=options.runs or Path("runs"), console=_console())


def _tune(options: argparse.Namespace) -> int:
    from toolkit.recipe.read import parse

    draft = parse(options.recipe, options.overrides)
    from toolkit.tune.session import StudyLocation, tune_recipe

    tune_recipe(
        draft,
        StudyLocation(options.runs, options.storage, again=f"python -m toolkit {shlex.join(options.words)}"),
        enqueued=options.enqueue,
        workers=options.workers,
        seeds=options.seeds,
        exports=Path("exports") if options.export else None,
        console=_console(),
    )
    return EXIT_DONE


def _evaluate(options: argparse.Namespace) -> int:
    console = _console()
    if (options.run / "bundle.json").is_file():
        from toolkit.export.rescore import evaluate_bundle

        use = {"device": options.device or "auto", "precision": options.precision}
        directory = evaluate_bundle(options.run, options.overrides, runs=Path("runs"), console=console, **use)
    else:
        _refuse_near_bundles(options.run)
        if options.device or options.precision:
            raise UsageError(
                f"{options.run}: not a bundle; --device and --precision are for bundles",
                next_step="for a run use --set train.device=... and --set train.precision=...",
            )
        from toolkit.runs.session import evaluate_run

        directory = evaluate_run(options.run, options.overrides, console=console)
    console.print(f"scores {directory.scores}", markup=False, soft_wrap=True)
    return EXIT_DONE


def _refuse_near_bundles(path: Path) -> None:
    """Raise UsageError where `path` is no run, and a bundle must have been meant."""
    from toolkit.serving.bundle import bundle_near

    near = None if (path / "recipe.toml").is_file() else bundle_near(path)
    if near:
        told = "not a bundle (it has no bundle.json), nor a run directory (it has no recipe.toml)"
        raise UsageError(f"{path}: {told}", next_step=near)


def _export(options: argparse.Namespace) -> int:
    from toolkit.export.write import export_run

    console = _console()
    with _stopped("stopped by a signal; nothing is left half-written", options):
        bundle = export_run(
            options.run,
            name=options.name,
            exports=options.exports,
            overrides=options.overrides,
            triton=options.format == "triton",
            console=console,
        )
    console.print(f"bundle {bundle}", markup=False, soft_wrap=True)
    return EXIT_DONE


def _predict(options: argparse.Namespace) -> int:
    from toolkit.serving.predict import predict_files

    return predict_files(
        options.bundle,
        options.inputs,
        device=options.device or "auto",
        precision=options.precision,
        output=options.output,
        top=options.top,
        batch=options.batch,
        every=options.every,
        stream=options.stream,
        plot=options.plot,
    )


def _report(options: argparse.Namespace) -> int:
    from toolkit.runs.report import write_report

    print(f"report {write_report(options.run)}")
    return EXIT_DONE


def _check(options: argparse.Namespace) -> int:
    from toolkit.build.plan import plan
    from toolkit.host.registry import discover
    from toolkit.recipe.read import parse

    draft, registry = parse(options.recipe, options.overrides), discover()
    plan(draft, registry)
    if draft.recipe is not None and draft.recipe.tune is not None:
        from toolkit.tune.study import plan_study

        plan_study(draft, registry)
    print(f"{options.recipe}: valid")
    return EXIT_DONE


def _list(options: argparse.Namespace) -> int:  # noqa: ARG001 - one signature for all commands
    from toolkit.host.listing import list_components
    from toolkit.host.registry import discover

    print("\n".join(list_components(discover())))
    return EXIT_DONE


def _show(options: argparse.Namespace) -> int:
    from toolkit.host.listing import show_component
    from toolkit.host.registry import discover

    print("\n".join(show_component(discover(), options.name)))
    return EXIT_DONE


def _doctor(options: argparse.Namespace) -> int:
    from toolkit.kit.doctor import examine_installed

    return examine_installed(options.name, options.overrides)


def _disable(options: argparse.Namespace) -> int:
    from toolkit.host.disabling import disable_plugin

    print(disable_plugin(options.name))
    return EXIT_DONE


def _enable(options: argparse.Namespace) -> int:
    from toolkit.host.disabling import enable_plugin

    print(enable_plugin(options.name))
    return EXIT_DONE


def _new(options: argparse.Namespace) -> int:
    from toolkit.host.scaffold import write_package

    print("\n".join(write_package(options.name, kinds=options.kinds, licence=options.license)))
    return EXIT_DONE


def _schema(options: argparse.Namespace) -> int:  # noqa: ARG001 - one signature for all commands
    import json

    from toolkit.build.schema import recipe_schema
    from toolkit.host.registry import discover

    print(json.dumps(recipe_schema(discover()), indent=2))
    return EXIT_DONE


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=False, highlight=False)


def _fail(error: ToolkitError, *, debug: bool) -> int:
    """Tell what is wrong and what to type next; the exit code. Called while `error` or its cause is being handled."""
    if debug:
        traceback.print_exc()
    for line in error.lines():
        print(f"error: {line}" if not line.startswith(" ") else line, file=sys.stderr)
    if error.next_step:
        print(f"next:  {error.next_step}", file=sys.stderr)
    return error.exit_code


def _plainer(message: str) -> str:
    """argparse's text, with the nearest command or choice instead of the whole list."""
    found = re.search(r"""(?:argument (-[^:]*): )?invalid choice: (['"])(.*)\2.*\(choose from (.*)\)""", message)
    if not found:
        return message
    name, known = found[3], [choice.strip(" '") for choice in found[4].split(",")]
    near = nearest(name, known)
    told = f'argument {found[1]}: there is no "{name}"' if found[1] else f'no command "{name}"'
    return told + (f'; did you mean "{near}"?' if near else f"; there are {', '.join(known)}")


if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction[Parser]
