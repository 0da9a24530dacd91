"""The notebook runs from top to bottom on a real run, and the example protocols load."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from branchdiag.protocol import Protocol

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_notebook_runs_on_a_finished_run(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRANCHDIAG_RUN", str(finished_run))
    notebook = nbformat.read(EXAMPLES / "inspect_run.ipynb", as_version=4)
    executed = NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown = [
        output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs
    ]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 2


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("protocols/*.toml")), ids=lambda p: p.name)
def test_every_example_protocol_loads(path: Path) -> None:
    Protocol.load(path)


def test_the_papers_protocol_is_written_out_as_it_is() -> None:
    assert (EXAMPLES / "protocols" / "paper.toml").read_text() == Protocol.load("paper").to_toml()
