"""Does the schedule fit say what was planted? Coverage of its band, and rates of wrong directions.

    python tests/bench/bench_schedule_fit.py [--replicates 400] [--resamples 500] [--workers 1]

Each replicate is a study of the paper's size (61 problems, 4.6 candidates, 3 children and 6 samples
each, problem effects of sd 1 on the logit) around a planted curve. Problem effects bend the average
over problems away from the planted sigmoid: the band is held against that true average, divided by
its own height, at r = .1 ... .9. The flat and horizon truths count how often a direction or a
schedule is found that is not there. Prints a Markdown table with Monte Carlo errors, and the time
of one complete fit. Truths can be named (`--truths rising flat`); `--relative` adds the coverage of
the ratio to the control.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from scipy.stats import beta

sys.path.insert(0, str(Path(__file__).parents[2]))

from branchdiag.stats.schedule_band import GRID, FitSettings
from branchdiag.stats.schedule_fit import fit_estimand, fit_schedule
from tests.unit.schedule.planted_schedules import horizon, level, marginal, plant, shape

AT = np.round(np.arange(0.1, 0.95, 0.1), 1)
INTERIOR = {
    "rising (.40, .30, .10)": (0.40, 0.30, 0.10, False),
    "rising (.25, .30, .10), Moderate": (0.25, 0.30, 0.10, False),
    "rising (.50, .50, .05)": (0.50, 0.50, 0.05, False),
    "falling (.40, .60, .15)": (0.40, 0.60, 0.15, True),
}
TOP = 0.9
NOTHING = {
    "flat (.6 forced, .7 free)": (level(0.6), level(0.7)),
    "horizon only (20 steps, 5% each)": (horizon(), horizon()),
}


def truth_of(name: str) -> np.ndarray:
    """The true weight at `AT`: the average over problems divided by its height."""
    w_min, tau, s, falling = INTERIOR[name]
    child = marginal(shape(w_min, tau, s, top=TOP, falling=falling), AT)
    # The control stands at the top: dividing by it and dividing by the height are the same here.
    return child / marginal(level(TOP), AT)


def covered(name: str, estimand: str, resamples: int, seed: int):
    """Status, direction, coverage at `AT` and width of the band there, of one replicate."""
    w_min, tau, s, falling = INTERIOR[name]
    data = plant(shape(w_min, tau, s, top=TOP, falling=falling), level(TOP), seed=seed)
    settings = FitSettings(resamples=resamples, permutations=1000, slope_resamples=50, seed=seed)
    fit = fit_estimand(data, estimand, settings)
    at = np.isin(GRID, AT)
    if fit.band is None or fit.band.low is None:
        return fit.status, fit.direction, None, None
    low, high = fit.band.low[at], fit.band.high[at]
    true = truth_of(name)
    return fit.status, fit.direction, (low <= true) & (true <= high), high - low


def concluded(name: str, seed: int):
    """Status and direction of one replicate with nothing to find; no band is needed for them."""
    child, control = NOTHING[name]
    settings = FitSettings(resamples=1, permutations=1000, slope_resamples=50, seed=seed)
    fitted = fit_schedule(plant(child, control, seed=seed), settings=settings)
    relative = fitted.fits["relative"]
    return fitted.status, fitted.direction, relative.direction


def upper_limit(hits: int, n: int) -> float:
    """One-sided 95% Clopper-Pearson limit of a rate."""
    return 1.0 if hits == n else float(beta.ppf(0.95, hits + 1, n - hits))


def coverage_rows(names, estimand: str, options, over) -> None:
    """One table row a truth: coverage by position, mean width, statuses."""
    print(f"\n{estimand}: share of replicates whose band holds the true weight")
    print("| truth | " + " | ".join(f"r={r:g}" for r in AT) + " | width | statuses |")
    print("|---|" + "---|" * (AT.size + 2))
    for name in names:
        work = partial(covered, name, estimand, options.resamples)
        results = list(over(work, range(options.replicates)))
        held = np.array([row for *_, row, _ in results if row is not None])
        width = np.array([row for *_, row in results if row is not None])
        counts = Counter(f"{status} {direction}" for status, direction, *_ in results)
        said = ", ".join(f"{key} {count}" for key, count in counts.most_common())
        cells = " | ".join(f"{100 * share:.1f}" for share in held.mean(axis=0))
        print(f"| {name} | {cells} | {width.mean():.2f} | {said} |", flush=True)
    error = 100 * np.sqrt(0.95 * 0.05 / options.replicates)
    print(f"\n{options.replicates} replicates, {options.resamples} resamples; Monte Carlo error of")
    print(f"a share near 95%: {error:.1f} points (one standard error).")


def nothing_rows(options, over) -> None:
    """How often something is found where nothing is."""
    print("\nnothing to find: shares of replicates, with upper 95% limits")
    print("| truth | direction of the result | schedule other than 1 | relative | statuses |")
    print("|---|---|---|---|---|")
    for name in NOTHING:
        results = list(over(partial(concluded, name), range(options.replicates)))
        n = len(results)
        tallies = [
            sum(direction != "none" for _, direction, _ in results),
            sum(status in ("ok", "separation") for status, *_ in results),
            sum(relative != "none" for *_, relative in results),
        ]
        cells = " | ".join(
            f"{100 * hits / n:.1f}% (<= {100 * upper_limit(hits, n):.1f}%)" for hits in tallies
        )
        said = ", ".join(f"{k} {v}" for k, v in Counter(s for s, *_ in results).most_common())
        print(f"| {name} | {cells} | {said} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--truths", nargs="*", default=["rising", "falling", "nothing"])
    parser.add_argument("--relative", action="store_true")
    options = parser.parse_args()
    start = time.process_time()
    w_min, tau, s, _ = next(iter(INTERIOR.values()))
    fit_schedule(plant(shape(w_min, tau, s, top=TOP), level(TOP), seed=0))
    print(f"one complete fit (viability and relative): {time.process_time() - start:.1f} s of CPU")
    names = [name for name in INTERIOR if any(name.startswith(t) for t in options.truths)]
    with ProcessPoolExecutor(options.workers) as pool:
        over = map if options.workers == 1 else partial(pool.map, chunksize=4)
        if names:
            coverage_rows(names, "viability", options, over)
        if names and options.relative:
            coverage_rows(names, "relative", options, over)
        if "nothing" in options.truths:
            nothing_rows(options, over)


if __name__ == "__main__":
    main()
