"""A video in a shard, decoded from its bytes: FFmpeg may open nothing else, whatever a playlist among them names."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from av.error import FFmpegError

from toolkit.api.errors import DataError
from toolkit.data.display import shown_size
from toolkit.data.kinds import LOOKED_AT, format_of
from toolkit.data.opening import moving_pictures, open_video


@dataclass(frozen=True)
class EncodedVideo:
    """A video that `content` brings. Two of one name and key are the same."""

    name: str
    key: str
    content: Callable[[], bytes] = field(repr=False, compare=False)

    @contextmanager
    def opened(self) -> Iterator[tuple[Any, Any]]:
        data = self.content()
        form = format_of(data[:LOOKED_AT])
        if form is not None and form.kind == "image" and form.name != "GIF":
            raise self.broken(f"cannot be decoded: it is an image ({form.name}), not a video")
        try:
            with open_video(io.BytesIO(data), protocols=()) as container:
                yield container, moving_pictures(container, self)
        except (FFmpegError, OSError) as error:
            raise self.broken(f"cannot be decoded: {error.strerror or error}") from error

    def broken(self, message: str) -> DataError:
        return DataError(
            f"{self.name}: {message}",
            next_step="repair the shard, or skip such videos with: --set input.on_corrupt=skip",
        )


def short_side(video: bytes) -> int | None:
    """The short side of a video as it is shown, in pixels; None where it cannot be opened."""
    try:
        with EncodedVideo("", "", lambda: video).opened() as (_, stream):
            context = stream.codec_context
            return min(shown_size(context.width, context.height, stream.sample_aspect_ratio))
    except DataError:
        return None
