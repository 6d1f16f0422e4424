"""Human action recognition: Kaggle's images, anyone's images or videos, and a sample of stick figures."""

from __future__ import annotations

from toolkit import hookimpl


@hookimpl
def toolkit_datasets() -> dict[str, str]:
    return {"har": "toolkit_har.dataset:har"}
