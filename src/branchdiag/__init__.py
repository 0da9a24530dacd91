"""branchdiag: where can a privileged teacher's tokens be trusted?

`open_run(DIR)` gives a run's tables; everything else is the command line's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from branchdiag.api import Run

__version__ = "0.1.0"
__all__ = ["__version__", "open_run"]


def open_run(path: str | Path | None = None) -> Run:
    """Open a run to read it; without a path, the latest one in runs/. Imports no torch.

    Raises:
        UsageError: there is no run.
    """
    from branchdiag import api  # pyarrow is loaded only when a run is read

    return api.open_run(path)
