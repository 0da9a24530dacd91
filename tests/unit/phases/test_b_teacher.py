"""Phase B's pure part: plausibility and the rows of a spine."""

from __future__ import annotations

import math

import numpy as np

from branchdiag.phases.b_teacher import plausible, rows_of_spine
from branchdiag.store.rows import to_arrow
from branchdiag.store.schemas import POSITIONS

SCALARS = [c.name for c in POSITIONS.columns[3:] if c.name not in ("plausible", "top_ids")]


def scores(n: int) -> dict[str, np.ndarray]:
    made = {
        name: np.linspace(0.1, 0.9, n)
        for name in SCALARS
        if not name.startswith("top_") and not name.endswith("_id")
    }
    made["teacher_top_id"] = made["student_top_id"] = np.arange(n, dtype=np.int32)
    made["top_ids"] = np.arange(4 * n, dtype=np.int32).reshape(n, 4)
    made["top_teacher"] = made["top_student"] = np.full((n, 4), 0.2)
    return made


def test_both_thresholds_must_hold() -> None:
    p1 = np.array([0.9, 0.5, 0.125, 0.15, 0.15])
    p2 = np.array([0.0901, 0.04, 0.02, 0.02, 0.0199])
    found = plausible(p1, p2, min_p2=0.02, min_ratio=0.10)
    assert found.tolist() == [True, False, True, True, False]


def test_rows_fit_the_table_and_keep_top_tokens_only_where_plausible() -> None:
    made = scores(3)
    made["p1"], made["p2"] = np.array([0.9, 0.5, 0.6]), np.array([0.01, 0.3, 0.3])
    made["kl"] = np.array([0.0, math.inf, 0.5])
    rows = rows_of_spine("p", [7, 8, 9], made, min_p2=0.02, min_ratio=0.1)
    table = to_arrow(rows, POSITIONS)
    assert table.column("position").to_pylist() == [0, 1, 2]
    assert table.column("token_id").to_pylist() == [7, 8, 9]
    assert table.column("top_ids").to_pylist() == [None, [4, 5, 6, 7], [8, 9, 10, 11]]
    assert table.column("kl").to_pylist() == [0.0, None, 0.5]  # excluded outright: missing
