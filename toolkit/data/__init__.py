"""Images and videos on their way to a batch: files, decoding, splits, storage and the loader."""
