"""The plugin: names of components, mapped to the places where their factories are imported from when they are used."""

from __future__ import annotations

from toolkit import hookimpl

toolkit_contract = "1.0"


@hookimpl
def toolkit_datasets() -> dict[str, str]:
    return {"parquet": "toolkit_parquet.dataset:parquet"}


@hookimpl
def toolkit_metrics() -> dict[str, str]:
    return {
        "auroc": "toolkit_parquet.metrics:auroc",
        "cohen_kappa": "toolkit_parquet.metrics:cohen_kappa",
        "matthews_corrcoef": "toolkit_parquet.metrics:matthews_corrcoef",
    }
