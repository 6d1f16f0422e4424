"""The Kinetics-400 weights: `*.pyth` of PyTorchVideo's model zoo, and torchvision's, whose names have a checksum."""

from __future__ import annotations

from toolkit.transfer.published import Published
from toolkit_video.designs import LICENCES, Design

ZOO = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics"
DOWNLOADS = "https://download.pytorch.org/models"


def kinetics400(design: Design) -> Published:
    """The weights of a model as it was published. The zoo gives no SHA-256: later files must equal the first file
    used."""
    if design.library == "torchvision":
        place, digits = DOWNLOADS, design.file_name.rpartition("-")[2].removesuffix(".pth")
    else:
        place, digits = ZOO, None
    licence = LICENCES[design.library]["kinetics400"]
    return Published(
        "kinetics400", "Kinetics-400 weights", f"{place}/{design.file_name}", sha256=digits, licence=licence
    )
