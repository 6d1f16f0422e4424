"""Parts of a video as files of their own, copied without decoding: quick, and without loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from toolkit.api.errors import DataError, RunFailed
from toolkit.api.files import replaced
from toolkit.data.opening import FILE, open_video


def cut(video: Path, start: float, end: float, target: Path) -> None:
    """Copy what `video` shows from `start` to `end`, in seconds from its first frame, to `target`: pictures and sound,
    from the keyframe at or before `start` on. Raises DataError naming the video, RunFailed naming the target."""
    try:
        source = open_video(str(video), FILE)
    except (FFmpegError, OSError) as error:
        raise DataError(f"cannot be cut: {error.strerror or error}", path=video) from error
    with source, replaced(target) as temporary:
        try:
            with av.open(str(temporary), "w", format=_format(source)) as file:
                _copy(source, file, start, end)
        except (FFmpegError, OSError, ValueError) as error:
            raise RunFailed(
                f"{target}: cannot be written: {getattr(error, 'strerror', None) or error}",
                next_step="remove --cut, or convert the video to MP4 first",
            ) from error


def _format(source: Any) -> str:
    """The name of the source's container, where FFmpeg lists several of them the first that it writes."""
    names = source.format.name.split(",")
    return "mp4" if "mp4" in names else next((name for name in names if _written(name)), "matroska")


def _written(name: str) -> bool:
    return name in av.formats_available and av.ContainerFormat(name, "w").is_output


def _copy(source: Any, file: Any, start: float, end: float) -> None:
    pictures = source.streams.video[0]
    copied = {one.index: file.add_stream_from_template(one) for one in (pictures, *source.streams.audio[:1])}
    begin = float((pictures.start_time or 0) * pictures.time_base)
    source.seek(int((begin + start) / pictures.time_base), stream=pictures, backward=True)
    first: float | None = None
    for packet in source.demux(*(source.streams[index] for index in copied)):
        if packet.dts is None:
            continue
        seconds = float(packet.dts * packet.time_base)
        if packet.stream.index == pictures.index:
            if seconds >= begin + end:
                break
            first = seconds if first is None else first
        if first is None:
            continue
        shift = int(first / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts -= shift
        packet.stream = copied[packet.stream.index]
        file.mux(packet)
