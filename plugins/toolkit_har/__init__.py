"""Human action recognition: images or videos of labelled actions, and a sample of animated stick figures."""

from __future__ import annotations

from toolkit import hookimpl


@hookimpl
def toolkit_datasets() -> dict[str, str]:
    return {"har": "toolkit_har.dataset:har"}
