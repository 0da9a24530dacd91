"""What a number of positives and negatives can show: the null spread of an AUROC.

Reads counts, writes numbers; knows no score. The variance is Hanley and McNeil's at an area of one
half (Radiology 143, 1982: Q1 = Q2 = 1/3), which is Mann and Whitney's without ties (1947). It takes
candidates for independent; those of one problem are not, so a bootstrap over problems may say more.
"""

from __future__ import annotations

import math
from statistics import NormalDist

POWER = 0.80


def null_sd(n_positive: int, n_negative: int) -> float:
    """Standard deviation of the AUROC of a score without information, independent candidates.

    sqrt((n0 + n1 + 1) / (12 n0 n1)): 0.104 at 8 and 271.

    Raises:
        ZeroDivisionError: a class is empty.
    """
    return math.sqrt((n_positive + n_negative + 1) / (12 * n_positive * n_negative))


def critical_auroc(sd: float, level: float = 0.95) -> float:
    """The AUROC from which a two-sided test at `level` tells it from 0.5 (at most 1)."""
    return min(1.0, 0.5 + NormalDist().inv_cdf(0.5 + level / 2) * sd)


def detectable_auroc(n_positive: int, n_negative: int, level: float = 0.95) -> float:
    """The AUROC that a two-sided test at `level` finds with 80% power (at most 1).

    Takes the null's standard deviation on both sides: 0.79 at 8 positives and 271 negatives.
    """
    normal = NormalDist()
    z = normal.inv_cdf(0.5 + level / 2) + normal.inv_cdf(POWER)
    return min(1.0, 0.5 + z * null_sd(n_positive, n_negative))
