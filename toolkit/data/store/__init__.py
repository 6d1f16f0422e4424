"""Pixels of a split, decoded once: images kept in memory or a cache file, videos as files of frames, or (where nothing
fits) decoded again each time. All are uint8 of the spec's stored size; what is kept changes no result, only what it
costs."""
