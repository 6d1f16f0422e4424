"""The notebook of the examples, executed by a kernel of Jupyter."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook.ipynb"


@pytest.mark.slow  # starts a kernel, trains twice and exports
def test_the_notebook_shows_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(NOTEBOOK.parents[1]), os.environ.get("PYTHONPATH", "")]))
    text = NOTEBOOK.read_text(encoding="utf-8")
    small = text.replace('\\"data.sample_images\\": 200', '\\"data.sample_images\\": 12').replace(
        '\\"train.epochs\\": 4', '\\"train.epochs\\": 1'
    )
    assert small.count(": 12") == 2
    notebook = nbformat.reads(small, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    trained, drawn, wrong, compared, answered = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]

    assert "epoch 1/1  loss" in printed(trained)
    assert "<td>accuracy" in shown(trained, "text/html")
    assert drawn[-1].data["image/png"]
    assert "('test/" in shown(wrong, "text/plain") or shown(wrong, "text/plain") == "[]"
    assert "compare.html" in printed(compared)
    assert shown(answered, "text/plain").count("('") == 3
    assert not any(output.get("name") == "stderr" for output in [*trained, *answered])


def printed(outputs: list[Any]) -> str:
    return "".join(output.text for output in outputs if output.output_type == "stream")


def shown(outputs: list, kind: str) -> str:
    return str(outputs[-1].data[kind])


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert [cell["outputs"] for cell in cells if cell["cell_type"] == "code"] == [[]] * 5
