"""The command export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.errors import UsageError
from toolkit.cli.parser import add_set, console, stopped
from toolkit.cli.places import RUN
from toolkit.system.notices import show

if TYPE_CHECKING:
    from argparse import Namespace

    from toolkit.cli.parser import Parser

FORMATS = {
    "bundle": "a bundle",
    "triton": "a bundle and a Triton model repository",
    "openvino": "a bundle and a model of OpenVINO",
    "litert": "a bundle and a model of LiteRT, for phones",
    "web": "a bundle and a page that answers in the browser",
}
REFUSED = {
    "coreml": (
        "converted models compute on Apple's systems alone, so no gate can ask them elsewhere",
        "export a bundle, and on a Mac use: python -m toolkit predict BUNDLE INPUT --runtime coreml",
    ),
    "tensorrt": (
        "an engine fits one GPU and one version of TensorRT",
        "export a bundle, from which ONNX Runtime builds it: python -m toolkit predict BUNDLE INPUT --device tensorrt",
    ),
}
"""Formats that are asked for and not written: why, and what to do instead."""
ALIASES = {"engine": "tensorrt", "mlmodel": "coreml", "mlpackage": "coreml", "tflite": "litert"}
"""What formats are called elsewhere."""


class _Choices(tuple[str, ...]):
    """The formats that are listed; other names of them are read too, and those of `REFUSED`, to give their reason."""

    __slots__ = ()

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in REFUSED or name in ALIASES


def fill(parser: Parser) -> None:
    parser.does(_export, (f"export {RUN}", f"export {RUN} --name tiny_cnn --format triton"))
    parser.add_argument("run", metavar="RUN", type=Path)
    add_set(parser)
    parser.add_argument("--name", metavar="NAME", help="name of the bundle (default: the recipe's)")
    parser.add_argument("--exports", metavar="DIR", type=Path, default=Path("exports"), help="where bundles go")
    parser.add_argument("--sign", metavar="KEY", type=Path, help="sign the bundle with this private key (EC, PEM)")
    listed = ", ".join(f"{name}: {text}" for name, text in FORMATS.items())
    parser.add_argument("--format", metavar="FORMAT", choices=_Choices(FORMATS), default="bundle", help=listed)


def _export(options: Namespace) -> None:
    form = ALIASES.get(options.format, options.format)
    if form in REFUSED:
        reason, instead = REFUSED[form]
        raise UsageError(f"--format {options.format}: not written: {reason}", next_step=instead)
    from toolkit.export.write import export_run
    from toolkit.runs.directory import RunDirectory
    from toolkit.runs.examples import predict_command

    output = console()
    with stopped("no half-written bundle is left", options):
        bundle = export_run(
            options.run,
            name=options.name,
            exports=options.exports,
            overrides=options.overrides,
            form=form,
            key=options.sign,
            console=output,
        )
    show(f"bundle {bundle}", console=output)
    show(f"next:  {predict_command(bundle, RunDirectory(options.run))}", console=output)
