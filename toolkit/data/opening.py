"""How a video is opened, be it a file, a URL, a stream or a camera: by which decoders, over which protocols."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, Protocol

import av
from av.stream import Disposition

from toolkit.api.errors import DataError

DECODERS = frozenset(
    {
        *("av1", "cinepak", "dnxhd", "dvvideo", "ffv1", "ffvhuff", "flv", "gif", "h263", "h264", "hevc", "huffyuv"),
        *("libaom-av1", "libdav1d", "libvpx", "libvpx-vp9", "mjpeg", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4"),
        *("msmpeg4v1", "msmpeg4v2", "prores", "rawvideo", "theora", "utvideo", "vc1", "vp6", "vp6a", "vp6f", "vp8"),
        *("vp9", "wmv1", "wmv2", "wmv3"),
    }
)
"""Decoders, as FFmpeg names them, of what cameras, editors and datasets write. FFmpeg has 300 for pictures; most are of
formats that only an attacker still makes, and are where its memory errors are found."""

FILE = ("file",)
WEB = ("crypto", "data", "http", "httpproxy", "https", "tcp", "tls")
"""`crypto` and `data` are parts of HLS. A playlist on the web names no file of this machine."""
RTSP = ("rtp", "rtsp", "rtsps", "srtp", "tcp", "tls", "udp")

LARGEST = 2**25
"""Pixels of a frame, as of 8192 x 4096. A damaged header may claim any size, and decoders hold up to 16 frames."""

_STILL = Disposition.attached_pic | Disposition.timed_thumbnails

_ANY_METADATA: dict[str, Any] = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}
"""Lets titles and comments that are not UTF-8 pass, as PyAV does by itself from 19 on."""


class Video(Protocol):
    """Where a video comes from."""

    def opened(self) -> AbstractContextManager[tuple[Any, Any]]:
        """A container of PyAV and its stream of moving pictures, from the start. All that PyAV raises inside becomes
        the error of `broken`."""

    def broken(self, message: str) -> DataError:
        """The error that names the video and says this of it."""

    def __hash__(self) -> int: ...


def open_video(
    place: str | BinaryIO, protocols: Sequence[str], options: Mapping[str, str] | None = None, **how: Any
) -> Any:
    """A container of PyAV that opens with `protocols` and `DECODERS` alone, those that FFmpeg tries while it looks at
    the streams included. What is in memory needs no protocol, and with none opens nothing else. Raises PyAV's errors,
    which are OSErrors."""
    allowed = {"codec_whitelist": ",".join(sorted(DECODERS)), "protocol_whitelist": ",".join(protocols)}
    return av.open(place, options={**allowed, **(options or {})}, **_ANY_METADATA, **how)


def moving_pictures(container: Any, video: Video) -> Any:
    """The stream of moving pictures that players show: the first that is flagged as the default, else the first; the
    cover of a song is not one. Raises the error of `video.broken` where such a stream is missing, its codec is not
    supported, or its frames are too large."""
    streams = [stream for stream in container.streams.video if not stream.disposition & _STILL]
    flagged = [stream for stream in streams if stream.disposition & Disposition.default]
    stream = next(iter(flagged or streams), None)
    if stream is None:
        raise video.broken("has no video stream")
    context = stream.codec_context
    if context is None:
        raise video.broken("cannot be decoded: its codec is unknown")
    if context.codec.name not in DECODERS:
        raise video.broken(f'the codec "{context.codec.name}" is not supported; convert the video to H.264 or FFV1')
    if context.width * context.height > LARGEST:
        raise video.broken(f"frames of {context.width} x {context.height} pixels are larger than {LARGEST:,} pixels")
    context.options = {"max_pixels": str(LARGEST)}
    return stream


def packets(container: Any, stream: Any) -> Iterator[Any]:
    """The packets of a stream, and at its end an empty one. Raises PyAV's errors; but where a web server did not say
    how long its body is, the end of the connection is the end, which FFmpeg takes for an error."""
    while True:
        try:
            yield from container.demux(stream)
        except IndexError:  # PyAV's, at a packet of a stream that begins late (sound after a break in a recording)
            continue
        except OSError as error:
            if error.errno != errno.EIO or container.size >= 0 or not container.name.startswith(("http:", "https:")):
                raise
        return
