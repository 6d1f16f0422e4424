"""The command data and its actions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.cli.parser import Parser, add

if TYPE_CHECKING:
    from argparse import Namespace


def fill(parser: Parser) -> None:
    parser.does(lambda _: parser.print_help(), ("data index s3://BUCKET/FOLDER",))
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    add(actions, "index", "note where each image of shards lies, once before the first run", _fill_index)


def _fill_index(parser: Parser) -> None:
    parser.does(_index, ("data index s3://BUCKET/FOLDER", "data index shards --column label --column patient"))
    parser.add_argument("place", metavar="PLACE", help="a folder, a URL or a pattern of .tar or .parquet files")
    columns = "a column to keep, such as labels or groups; may be repeated (default: cls of tars, label of Parquet)"
    parser.add_argument("--column", metavar="NAME", action="append", default=[], dest="columns", help=columns)
    parser.add_argument("--image", metavar="COLUMN", default="", help="the column of images of Parquet files")
    parser.add_argument("--output", metavar="FILE", type=Path, help="write the index here (default: the cache)")
    parser.add_argument("--force", action="store_true", help="read all shards again, even if there is an index")


def _index(options: Namespace) -> None:
    from toolkit.api.errors import counted
    from toolkit.data.shards.index import read_index
    from toolkit.data.shards.opened import make_index
    from toolkit.data.shards.places import Shard
    from toolkit.system.notices import note, show

    def progress(shard: Shard) -> None:
        note(f"indexed {shard.name}")

    path = make_index(
        options.place,
        options.columns or [""],
        image=options.image,
        output=options.output,
        force=options.force,
        progress=progress,
    )
    index = read_index(path)
    size = int(index.arrays["bytes"].sum(dtype="int64"))
    show(
        f"{counted(len(index), 'image')} in {counted(len(index.arrays['items']), 'block')} of "
        f"{counted(len(index.shards), 'shard')}, {size / 2**30:.3g} GiB"
    )
    for name, column in index.columns.items():
        show(f"{name}: {counted(len(column.values), 'value')}")
    show(*index.notes, f"index: {path}")
