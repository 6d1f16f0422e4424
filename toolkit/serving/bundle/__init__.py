"""Bundles: what leaves the toolkit. Reads and runs them with onnxruntime and numpy alone; never imports torch."""

from toolkit.serving.bundle.manifest import (
    MANIFEST,
    ClipSampling,
    FrameSampling,
    Input,
    Manifest,
    Maps,
    Searched,
    VideoSampling,
    bundle_near,
    read_manifest,
)
from toolkit.serving.bundle.model import Answers, Bundle, Numbers
from toolkit.serving.bundle.trust import UNTOUCHED, Conformal, Rejection, Trust

__all__ = [
    "MANIFEST",
    "UNTOUCHED",
    "Answers",
    "Bundle",
    "ClipSampling",
    "Conformal",
    "FrameSampling",
    "Input",
    "Manifest",
    "Maps",
    "Numbers",
    "Rejection",
    "Searched",
    "Trust",
    "VideoSampling",
    "bundle_near",
    "read_manifest",
]
