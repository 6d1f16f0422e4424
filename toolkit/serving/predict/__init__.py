"""Answers of a bundle to images, videos, cameras and streams: decoded in threads while the session runs, and
shown as they come. Never imports torch; Pillow, PyAV, pyarrow and rich only where they are needed."""

from toolkit.serving.predict.command import predict_files

__all__ = ["predict_files"]
