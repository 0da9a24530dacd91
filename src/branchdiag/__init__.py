"""branchdiag: where can a privileged teacher's tokens be trusted?

`open_run(DIR)` gives a run's tables, `Schedule` the weights of tokens for any trainer; everything
else is the command line's. Neither torch nor NumPy is loaded before it is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from branchdiag.api import Run
    from branchdiag.schedule import Schedule

__version__ = "0.1.0"
__all__ = ["Schedule", "__version__", "open_run"]


def __getattr__(name: str) -> Any:
    """`Schedule`, loaded when it is first asked for."""
    if name != "Schedule":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from branchdiag.schedule import Schedule

    return Schedule


def open_run(path: str | Path | None = None) -> Run:
    """Open a run to read it; without a path, the latest one in runs/. Imports no torch.

    Raises:
        UsageError: there is no run.
    """
    from branchdiag import api  # pyarrow is loaded only when a run is read

    return api.open_run(path)
