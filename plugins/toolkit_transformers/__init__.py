"""Video transformers and image encoders of Hugging Face's transformers."""

from __future__ import annotations

from toolkit import hookimpl
from toolkit.api.contracts import Model
from toolkit_transformers.published import PUBLISHED


@hookimpl
def toolkit_models() -> dict[str, Model]:
    licences = {name: one.licence for name, one in PUBLISHED.items()}
    return {
        "transformers": Model(
            "toolkit_transformers.models:transformer", takes="toolkit_transformers.sources:design", licences=licences
        )
    }
