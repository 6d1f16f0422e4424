"""Labelled actions as images or videos: human action recognition, folders of videos, and a sample of stick figures."""

from __future__ import annotations

from toolkit import hookimpl


@hookimpl
def toolkit_datasets() -> dict[str, str]:
    return {"har": "toolkit_har.dataset:har", "video_folder": "toolkit_har.video_folder:video_folder"}
