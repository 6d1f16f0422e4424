"""Labelled images and videos of any kind: in class folders, or named in lists."""

from __future__ import annotations

from toolkit import hookimpl


@hookimpl
def toolkit_datasets() -> dict[str, str]:
    return {
        "image_folder": "toolkit_folders.image_folder:image_folder",
        "video_folder": "toolkit_folders.video_folder:video_folder",
    }
