"""The tables of the side diagnostics, which commands of their own write.

Knows nothing of files.
"""

from __future__ import annotations

from branchdiag.store.align_schemas import ALIGN_TABLES
from branchdiag.store.columns import TableSchema
from branchdiag.store.prefix_schemas import PREFIX_TABLES

STAGE_TABLES: tuple[TableSchema, ...] = (*PREFIX_TABLES, *ALIGN_TABLES)
