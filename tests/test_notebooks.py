"""Runs the notebooks of docs/notebooks from top to bottom with the installed versions.

A cell with the tag `skip-execution`, which installs keras_bit, does not run.
"""

import importlib.util
import json

import pytest

from command_line import TINY
from conftest import ROOT, absent
from loopback_hub import LoopbackHub, run_against_hub

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
RUN = """
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read({notebook!r}, 4)
NotebookClient(notebook, timeout=600, resources={{"metadata": {{"path": "."}}}}).execute()
"""


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(notebook, tmp_path):
    for package in ("nbclient", "ipykernel", "ai_edge_litert"):
        if importlib.util.find_spec(package) is None:
            absent(f"{package} is not installed: pip install -e '.[docs,tflite]'")
    files = {file.name: file.read_bytes() for file in TINY.iterdir() if file.name != "README.md"}
    own = {"IPYTHONDIR": str(tmp_path / "ipython"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    with LoopbackHub({"google/bit-50": {"main": files}}) as hub:
        done = run_against_hub(RUN.format(notebook=str(notebook)), hub, tmp_path, **own)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_without_results(notebook):
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
