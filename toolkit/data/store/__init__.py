"""Pixels of a split, decoded once: images kept in memory or a cache file, videos as files of frames, or (where nothing
fits) decoded anew each time. All are uint8 of the spec's stored size; what is kept changes no result, only what it
costs."""

from toolkit.data.store.clips import ClipStore, VideoCache
from toolkit.data.store.corrupt import Corrupt, LeftOut, left_out_note
from toolkit.data.store.draws import Draws
from toolkit.data.store.images import ImageStore
from toolkit.data.store.resampling import centre_crop, to_square
from toolkit.data.store.storage import (
    Mapped,
    Memory,
    Storage,
    bytes_needed,
    cache_key,
    make_room,
    open_storage,
    stored_shape,
)
from toolkit.data.store.store import Store

__all__ = [
    "ClipStore",
    "Corrupt",
    "Draws",
    "ImageStore",
    "LeftOut",
    "Mapped",
    "Memory",
    "Storage",
    "Store",
    "VideoCache",
    "bytes_needed",
    "cache_key",
    "centre_crop",
    "left_out_note",
    "make_room",
    "open_storage",
    "stored_shape",
    "to_square",
]
