"""Answer many images with a bundle on a Ray cluster, in the file that `python -m toolkit predict --output` writes.

Without a cluster, Ray starts on this machine alone. All machines need the toolkit, the bundle and the images.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.api.errors import EXIT_DATA, EXIT_DONE, DataError, RunFailed, ToolkitError, UsageError, counted
from toolkit.cli.parser import count
from toolkit.data.pixels import UndecodableError, decode_pixels, read_pixels
from toolkit.serving.bundle import Bundle
from toolkit.serving.bundle.providers import BATCH
from toolkit.serving.predict.inputs import Source, find_sources
from toolkit.serving.predict.rows import check_output, layout_of, written
from toolkit.system.notices import note, show

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from ray.data import Dataset


class Worker:
    """A process of Ray that opens the bundle once and answers batch after batch."""

    def __init__(self, bundle: Path, device: str) -> None:
        self.bundle = Bundle.load(bundle, device=device)
        self.threads = ThreadPoolExecutor()

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, Any]:
        """The batch with a row of `Bundle.rows` for each image, or with a problem and zeros."""
        import numpy as np

        read = list(self.threads.map(self.square, batch.pop("image")))
        squares = {place: square for place, square in enumerate(read) if not isinstance(square, str)}
        answers = np.zeros((len(read), self.bundle.manifest.columns), np.float32)
        if squares:
            answers[list(squares)] = self.bundle.rows(list(squares.values()))
        return {**batch, "answer": answers, "problem": [one if isinstance(one, str) else "" for one in read]}

    def square(self, image: str | bytes | dict[str, Any] | None) -> NDArray[np.uint8] | str:
        """What the model sees of a file, or of its content; else the problem."""
        try:
            if isinstance(image, str):
                return self.bundle.square(read_pixels(Path(image)))
            content = image["bytes"] if isinstance(image, dict) else image
            return self.bundle.square(decode_pixels(content)) if content else "has no image"
        except UndecodableError as error:
            return f"cannot be decoded: {error}"
        except DataError as error:
            return error.message.removeprefix(f"{image!s}: ")


def files(images: str) -> Dataset:
    """Names and places of image files, in the order of `predict`. Workers may run in another folder."""
    import ray.data

    found = find_sources([images], ())
    for text in found.notes:
        note(text)
    places = [(source.name, str(Path(source.place).absolute())) for source in found.sources]
    return ray.data.from_items([{"name": name, "image": place} for name, place in places])


def rows(table: str, image: str, name: str | None) -> Dataset:
    """Encoded images of a Parquet dataset, and their names where a column has them."""
    import ray.data

    try:
        dataset = ray.data.read_parquet(table)
        there = dataset.schema().names
    except (OSError, ValueError) as error:
        message = f"{table}: cannot be read as Parquet: {error}"
        raise DataError(message, next_step="give a Parquet file, or a folder of them, as IMAGES") from error
    wanted = {image: "image", **({name: "name"} if name else {})}
    for column in wanted.keys() - there:
        raise UsageError(f'{table}: no column "{column}"', next_step=f"choose from {', '.join(there)}")
    named: Dataset = dataset.select_columns(list(wanted)).rename_columns(wanted)
    return named


def answered(dataset: Dataset, words: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows of the dataset as workers return them, in its order. Raises RunFailed if a worker fails."""
    import ray.data

    device = "cuda" if words.gpu else "cpu"
    done = dataset.map_batches(
        Worker,
        batch_size=BATCH[device],
        fn_constructor_args=(words.bundle.absolute(), device),
        compute=ray.data.ActorPoolStrategy(size=words.workers),
        num_cpus=None if words.gpu else 1,
        num_gpus=1 if words.gpu else None,
    )
    try:
        yield from done.iter_rows()
    except ray.exceptions.RayError as error:
        message = f"a worker failed: {str(error).strip().splitlines()[-1]}"
        raise RunFailed(
            message, next_step="see that all machines have the toolkit, the bundle and the images"
        ) from error


def start_ray(words: argparse.Namespace) -> None:
    """Join the cluster of RAY_ADDRESS, or of this machine; without one, start Ray here. Raises UsageError if it has too
    few cores or GPUs: workers would wait for them without end."""
    try:
        import ray.data
    except ImportError as error:
        raise UsageError("Ray is not installed", next_step='pip install "ray[data]"') from error
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.raise_original_map_exception = True
    context.enable_progress_bars = sys.stderr.isatty()
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        ray.init(logging_level=logging.ERROR)
    except Exception as error:  # Ray's own errors of starting and joining have no other class in common
        message = f"Ray cannot be started or joined: {str(error).strip().splitlines()[0]}"
        raise RunFailed(
            message, next_step="see what RAY_ADDRESS names, or end what else runs on this machine"
        ) from error
    kind = "GPU" if words.gpu else "core"
    there = int(ray.cluster_resources().get("GPU" if words.gpu else "CPU", 0))
    reading = 1 if words.content and not words.gpu else 0  # Ray reads Parquet files in processes of their own
    if there < words.workers + reading:
        needed = words.workers + reading
        message = f"--workers {words.workers}: needs {counted(needed, kind)}, the cluster has {there}"
        step = f"use --workers {there - reading}" if there > reading else "start Ray on a machine that has them"
        raise UsageError(message, next_step=step)


def predict(words: argparse.Namespace) -> int:
    check_output(words.output)
    bundle = Bundle.load(words.bundle, device="cpu")
    if bundle.manifest.clip is not None:
        message = f"{words.bundle}: a model of video clips, expected one of images"
        raise UsageError(message, next_step="divide clips with python -m toolkit predict --part")
    start_ray(words)
    dataset = rows(words.images, words.content, words.name) if words.content else files(words.images)
    layout = layout_of(bundle.manifest, min(words.top, len(bundle.manifest.classes)))
    counts = {"answered": 0, "skipped": 0}
    with written(words.output, layout) as output:
        for number, row in enumerate(answered(dataset, words)):
            name = str(row.get("name", number))
            try:
                if row["problem"]:
                    raise DataError(row["problem"])
                layout.check(row["answer"])
                output.add(Source(name, "image", name), *layout.read(bundle, row["answer"]))
                counts["answered"] += 1
            except DataError as error:
                show(f"{name}: {error.message}", file=sys.stderr)
                counts["skipped"] += 1
        if not counts["answered"]:
            message = f"none of the {counted(counts['skipped'], 'image')} could be answered"
            raise DataError(message, next_step="see the lines above")
    show(f"{words.output}: {counted(counts['answered'], 'row')}", file=sys.stderr)
    if counts["skipped"]:
        show(f"skipped {counted(counts['skipped'], 'image')}", file=sys.stderr)
    return EXIT_DATA if counts["skipped"] else EXIT_DONE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", metavar="BUNDLE", type=Path)
    parser.add_argument("images", metavar="IMAGES", help="a folder, a file or a pattern; with --content, Parquet files")
    parser.add_argument("--content", metavar="COLUMN", help="the column of a Parquet dataset that has encoded images")
    parser.add_argument("--name", metavar="COLUMN", help="the column of their names (default: numbers of rows, from 0)")
    parser.add_argument("--output", metavar="FILE", type=Path, required=True, help="a .csv, .jsonl or .parquet file")
    parser.add_argument("--top", metavar="K", type=count, default=3, help="classes to show per image (default: 3)")
    parser.add_argument("--workers", metavar="N", type=count, default=2, help="processes that answer (default: 2)")
    parser.add_argument("--gpu", action="store_true", help="give each worker a GPU instead of a core")
    try:
        return predict(parser.parse_args())
    except ToolkitError as error:
        show(f"error: {error.message}", f"next:  {error.next_step}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
