"""How long the cluster bootstrap takes, in closed form and by laying out copies with pandas.

    python tests/bench/bench_bootstrap.py

The study has the paper's size: 61 problems, 4.6 candidates each on average, 8 positives. A second
one has 10,000 problems, to show time and peak memory there. The direct way is timed on few
resamples and scaled, and its values are checked against the closed form on the same draws.
"""

from __future__ import annotations

import resource
import time

import numpy as np
import pandas as pd

from branchdiag.stats.auroc import auroc, centre_within, cluster_codes
from branchdiag.stats.bootstrap import _drawn_whole, draw_multiplicities, replicate
from branchdiag.stats.scores import SCORES, evaluate_scores
from branchdiag.stats.weighted import weighted_auroc, weighted_average_precision

DIRECT_RESAMPLES = 200


def study(n_problems: int, n_positive: int, seed: int = 0):
    """Raw scores (C,), booleans (C,) and problems (C,)."""
    generator = np.random.default_rng(seed)
    problem = np.repeat(np.arange(n_problems), np.clip(generator.poisson(4.6, n_problems), 1, None))
    positive = np.zeros(problem.size, bool)
    positive[generator.choice(problem.size, n_positive, replace=False)] = True
    return generator.normal(size=problem.size) + positive, positive, problem


def direct(scores, positive, problem, weights) -> list[float]:
    """One AUROC a resample: copies laid out, centred again, ranked again."""
    frame = pd.DataFrame({"score": scores, "positive": positive, "problem": problem})
    groups = [group for _, group in frame.groupby("problem")]
    areas = []
    for drawn in weights:
        copies = [g for g, count in zip(groups, drawn, strict=True) for _ in range(int(count))]
        resample = pd.concat(copies, keys=range(len(copies)), names=["copy"])
        means = resample.groupby(level="copy").score.transform("mean")
        area = auroc((resample.score - means).round(12), resample.positive)
        areas.append(float("nan") if area is None else area)
    return areas


def timed(function, repeats: int = 3) -> float:
    """Median wall time in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]


def main() -> None:
    """Print one line a measurement."""
    scores, positive, problem = study(61, 8)
    codes, n_problems = cluster_codes(problem)
    centred = centre_within(scores, problem)
    (weights,) = draw_multiplicities(n_problems, resamples=DIRECT_RESAMPLES, seed=0)
    start = time.perf_counter()
    slow = direct(scores, positive, problem, weights)
    direct_s = (time.perf_counter() - start) * 2000 / DIRECT_RESAMPLES
    np.testing.assert_allclose(
        weighted_auroc(centred, positive, codes)(weights), slow, rtol=0, atol=1e-12
    )
    print(f"61 problems, {scores.size} candidates, 8 positives (draws included)")
    print(f"  AUROC, direct, 2,000 resamples: {direct_s:.2f} s ({DIRECT_RESAMPLES} timed)")
    for resamples in (2000, 100_000):
        for name, form in (
            ("AUROC", weighted_auroc),
            ("average precision", weighted_average_precision),
        ):
            statistic = form(centred, positive, codes)

            def fast(s=statistic, n=resamples) -> None:
                _drawn_whole.cache_clear()  # its draws are part of what it costs
                replicate([s], 61, resamples=n, seed=0)

            fast_s = timed(fast)
            ratio = direct_s * resamples / 2000 / fast_s
            print(
                f"  {name}, {resamples:,} resamples: {fast_s:.4f} s (direct / this: {ratio:,.0f})"
            )
    for n_problems, n_positive in ((61, 8), (10_000, 1_400)):
        scores, positive, problem = study(n_problems, n_positive)
        label = np.where(positive, "real_uncertain", "diversity")
        generator = np.random.default_rng(1)
        columns = {name: scores + generator.normal(size=scores.size) for name in SCORES}
        start = time.perf_counter()
        evaluate_scores(
            columns, label, problem, resamples=2000, level=0.95, seed=0, max_dropped_share=0.1
        )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"all {len(SCORES)} scores, {n_problems:,} problems, {scores.size:,} candidates, 2,000 "
            f"resamples: {time.perf_counter() - start:.2f} s, peak {peak:.0f} MiB of the process"
        )


if __name__ == "__main__":
    main()
