"""Every notebook runs from the first cell to the last in its small setting; what it claims, it asserts itself."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def read(path: Path):
    return nbformat.read(path, as_version=4)


def environment() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"JAXDIFFEQ_SMALL": "1", "PYTHONPATH": os.pathsep.join(paths)}


def name_of(path: Path) -> str:
    return path.stem


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 11


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "default"
)  # of the kernel's machinery in this process; the notebook has a process of its own
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_notebook(path):
    notebook = read(path)
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    client.execute(env=environment())  # raises at the first cell that does
    warnings = [
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.get("name") == "stderr" and "Warning" in output.text
    ]
    assert not warnings, warnings


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_notebook_is_stripped_and_begins_with_what_it_shows(path):
    notebook = read(path)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert [cell.id for cell in notebook.cells] == [str(i) for i in range(len(notebook.cells))]
    assert notebook.cells[0].cell_type == "markdown" and "show" in notebook.cells[0].source
    assert sum("JAXDIFFEQ_SMALL" in cell.source for cell in code) == 1
    assert any("assert " in cell.source for cell in code)
