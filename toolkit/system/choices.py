"""The precisions and devices that a recipe or a command line may name. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

Precision: TypeAlias = Literal["bf16", "fp16", "fp32"]
"""Of the arithmetic of training."""

BundlePrecision: TypeAlias = Literal["fp32", "fp16", "int8"]
"""Of a model in a bundle."""
BUNDLE_PRECISIONS: tuple[BundlePrecision, ...] = get_args(BundlePrecision)

TrustScore: TypeAlias = Literal["confidence", "energy", "similarity"]
"""By what a model declines to answer."""

BundleDevice: TypeAlias = Literal["cpu", "cuda", "tensorrt", "coreml"]
"""What a bundle runs on."""
BUNDLE_DEVICES: tuple[BundleDevice, ...] = get_args(BundleDevice)

BundleRuntime: TypeAlias = Literal["onnxruntime", "openvino", "tensorrt", "coreml"]
"""What computes a bundle."""
BUNDLE_RUNTIMES: tuple[BundleRuntime, ...] = get_args(BundleRuntime)
