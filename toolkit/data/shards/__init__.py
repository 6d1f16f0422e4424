"""Images and videos in shards (WebDataset tars, Parquet files) on a disk or behind a URL: found, indexed, fetched by
blocks."""
