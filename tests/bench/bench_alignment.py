"""How often the two-level interval of the teacher's advantage holds the planted value.

    python -m tests.bench.bench_alignment [STUDIES]

Studies are drawn as in the unit tests (`planted_nodes`): problems with a level of their own, five
nodes each, three tokens, a teacher that tilts towards success. The truth of a study is the mean
advantage over many problems of the same kind. Beside it stand intervals from problems alone.
"""

from __future__ import annotations

import sys

import numpy as np

from branchdiag.stats.alignment_estimates import evaluate
from branchdiag.stats.alignment_nodes import node_values
from branchdiag.stats.bootstrap import cluster_mean_interval
from branchdiag.stats.estimate import Resampling
from tests.unit.stats.planted_nodes import planted

GAIN = 1.0
ADVANTAGE = ("advantage", "answer", "")


def main() -> None:
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    resampling: Resampling = {"resamples": 400, "level": 0.95, "seed": 0, "max_dropped_share": 0.1}
    truth = float(planted(0, n_problems=20_000, gain=GAIN)[2].mean())
    print(f"planted advantage {truth:.4f}, {studies} studies a row, nominal 95%")
    print("problems rollouts   two levels          problems alone")
    for n_problems in (10, 25, 60):
        for rollouts in (6, 24):
            held, width = np.zeros(2), np.zeros(2)
            for study in range(studies):
                nodes, _, _ = planted(
                    1000 + study, n_problems=n_problems, rollouts=rollouts, gain=GAIN
                )
                values = node_values(nodes, nodes.success())[ADVANTAGE]
                both = (
                    evaluate(nodes, bins=2, **resampling).series[ADVANTAGE].whole.estimate,
                    cluster_mean_interval(values, nodes.problem_id, **resampling),
                )
                for place, estimate in enumerate(both):
                    assert estimate.ci_low is not None and estimate.ci_high is not None
                    held[place] += estimate.ci_low <= truth <= estimate.ci_high
                    width[place] += estimate.ci_high - estimate.ci_low
            shown = "".join(
                f"   {100 * h / studies:5.1f}% width {w / studies:.4f}"
                for h, w in zip(held, width, strict=True)
            )
            print(f"{n_problems:8} {rollouts:8}{shown}")


if __name__ == "__main__":
    main()
