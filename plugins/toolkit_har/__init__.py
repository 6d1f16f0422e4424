"""Labelled images and videos: human action recognition with its sample of stick figures, and folders of anything."""

from __future__ import annotations

from toolkit import hookimpl


@hookimpl
def toolkit_datasets() -> dict[str, str]:
    return {
        "har": "toolkit_har.dataset:har",
        "image_folder": "toolkit_har.image_folder:image_folder",
        "video_folder": "toolkit_har.video_folder:video_folder",
    }
