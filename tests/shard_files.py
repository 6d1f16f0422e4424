"""Small shards: tars as WebDataset has them, and Parquet files as `datasets` of Hugging Face writes them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.video_files import write_video


def picture(number: int, side: int = 8, form: str = "png") -> bytes:
    """An encoded image of noise, dark if `number` is even; another one for each number."""
    noise = np.random.default_rng(number).integers(0, 120, (side, side, 3), dtype=np.uint8)
    written = io.BytesIO()
    Image.fromarray(noise + np.uint8(120 * (number % 2))).save(written, form)
    return written.getvalue()


def write_tar(path: Path, samples: Iterable[Mapping[str, bytes]], first: int = 0) -> Path:
    """Each sample maps suffixes to contents; its name is its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for number, sample in enumerate(samples, first):
            for suffix, data in sample.items():
                member = tarfile.TarInfo(f"{number:05}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def sample(number: int, **more: Any) -> dict[str, bytes]:
    """An image with its class, and other things in a JSON."""
    extra = {"json": json.dumps(more).encode()} if more else {}
    return {"png": picture(number), "cls": str(number % 2).encode(), **extra}


def video(folder: Path, number: int, suffix: str = "mp4") -> bytes:
    """An encoded video of four frames, which show the numbers from 4 * `number` on."""
    path = write_video(folder / f".video-{number}.{suffix}", 4, first=4 * number)
    data = path.read_bytes()
    path.unlink()
    return data


def write_video_tars(folder: Path, count: int, each: int, suffix: str = "mp4") -> Path:
    """`count` tars of `each` videos, of two classes in turn and of a scene for every three."""
    folder.mkdir(parents=True)
    for shard in range(count):
        numbers = range(shard * each, (shard + 1) * each)
        samples = [
            {suffix: video(folder, number, suffix), "cls": b"%d" % (number % 2), "scene": b"s%d" % (number // 3)}
            for number in numbers
        ]
        write_tar(folder / f"part-{shard:03}.tar", samples, shard * each)
    return folder


def write_tars(folder: Path, count: int, each: int, name: str = "part") -> Path:
    """`count` tars of `each` samples, with blocks of as many: the samples of one are more than a block's bytes."""
    for shard in range(count):
        samples = (sample(number) for number in range(shard * each, (shard + 1) * each))
        write_tar(folder / f"{name}-{shard:03}.tar", samples, shard * each)
    return folder


def write_parquet(
    path: Path,
    images: Sequence[bytes | None],
    labels: Sequence[object],
    *,
    names: Sequence[str] | None = None,
    rows: int = 7,
    **columns: Sequence[object],
) -> Path:
    """A file of row groups of `rows` rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if names:
        features["label"] = {"names": list(names), "_type": "ClassLabel"}
    held = [{"bytes": image, "path": None} for image in images]
    table = pa.table({"image": held, "label": list(labels), **{name: list(one) for name, one in columns.items()}})
    path.parent.mkdir(parents=True, exist_ok=True)
    described = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(described), path, row_group_size=rows)
    return path
