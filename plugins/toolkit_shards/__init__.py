"""Images and videos in WebDataset tars and Parquet files, on a disk or behind a URL."""

from __future__ import annotations

from toolkit import hookimpl


@hookimpl
def toolkit_datasets() -> dict[str, str]:
    return {"shards": "toolkit_shards.dataset:shards"}
