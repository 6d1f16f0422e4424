"""Bundles: what leaves the toolkit. Reads and runs them with onnxruntime and numpy alone; never imports torch."""

from toolkit.serving.bundle.manifest import (
    MANIFEST,
    ClipSampling,
    FrameSampling,
    Input,
    Manifest,
    VideoSampling,
    bundle_near,
    read_manifest,
)
from toolkit.serving.bundle.model import Answers, Bundle, Numbers

__all__ = [
    "MANIFEST",
    "Answers",
    "Bundle",
    "ClipSampling",
    "FrameSampling",
    "Input",
    "Manifest",
    "Numbers",
    "VideoSampling",
    "bundle_near",
    "read_manifest",
]
