"""The Kinetics-400 weights of PyTorchVideo's model zoo, whose files are named `*.pyth`."""

from __future__ import annotations

from toolkit.transfer.published import Published

ZOO = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics"


def kinetics400(file_name: str) -> Published:
    """The zoo's file of this name. The zoo gives no SHA-256: later files must equal the first file used."""
    return Published("kinetics400", "Kinetics-400 weights", f"{ZOO}/{file_name}")
