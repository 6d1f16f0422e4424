"""Bundles: what leaves the toolkit. Reads and runs them with onnxruntime and numpy alone; never imports torch."""

from toolkit.bundle.manifest import MANIFEST, PRECISIONS, Input, Manifest, Sampling, read_manifest
from toolkit.bundle.model import Answers, Bundle

__all__ = ["MANIFEST", "PRECISIONS", "Answers", "Bundle", "Input", "Manifest", "Sampling", "read_manifest"]
