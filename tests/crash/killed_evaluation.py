"""Run the command line and kill this very process, with SIGKILL, at a part of an evaluation.

    python -m tests.crash.killed_evaluation TABLE MOMENT COUNT ARGUMENTS...

MOMENT is `before` or `after`: at the COUNT-th part of the table that has rows, before anything of
it is on disk or right after it was renamed into place. Used by test_evaluate.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from branchdiag.cli.main import call
from branchdiag.store.table import Table


def main() -> int:
    name, moment, count, *arguments = sys.argv[1:]
    append = Table.append
    seen = 0

    def killing_append(self: Table, rows: Any) -> Path | None:
        nonlocal seen
        counts = self.schema.name == name and len(rows) > 0
        seen += counts
        if counts and seen == int(count) and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        part = append(self, rows)
        if counts and seen == int(count) and moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return part

    Table.append = killing_append  # type: ignore[method-assign]
    return call(arguments)


if __name__ == "__main__":
    sys.exit(main())
