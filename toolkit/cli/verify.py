"""The command verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.cli.places import BUNDLE
from toolkit.system.notices import show

if TYPE_CHECKING:
    from argparse import Namespace

    from toolkit.cli.parser import Parser


def fill(parser: Parser) -> None:
    parser.does(_verify, (f"verify {BUNDLE} --key key.pub", "verify exports/tiny_cnn --key key.pub"))
    parser.add_argument("bundle", metavar="BUNDLE", type=Path)
    parser.add_argument("--key", metavar="KEY", type=Path, required=True, help="the public key of its sender (EC, PEM)")


def _verify(options: Namespace) -> None:
    from toolkit.api.errors import counted
    from toolkit.serving.bundle import read_manifest
    from toolkit.serving.bundle.signature import check_signature

    manifest = read_manifest(options.bundle)
    check_signature(options.bundle, options.key)
    files = counted(len(manifest.files) + 1, "file")
    show(f"{options.bundle}: {files} as the owner of {options.key} signed them, exported {manifest.created}")
