"""Does the schedule fit say what was planted? Coverage of its band, and rates of wrong directions.

    python tests/bench/bench_schedule_fit.py [--replicates 400] [--resamples 500] [--workers 1]
        [--truths rising falling flat horizon] [--relative] [--keep FILE.jsonl] [--minutes M]

Each replicate is a study of the paper's size (61 problems, 4.6 candidates, 3 children and 6 samples
each, problem effects of sd 1 on the logit) around a planted curve. Problem effects bend the average
over problems away from the planted sigmoid: the band is held against that true average, divided by
its own height, at r = .1 ... .9. The flat and horizon truths count how often a direction or a
schedule is found that is not there. Prints Markdown tables with Monte Carlo errors.

Truths are named by the beginnings of their names; `--relative` adds the coverage of the ratio to
the control. Truths take turns, so that a run that ends early (`--minutes`) has as many replicates
of each. `--keep` writes every replicate to a file as it is made: the same command goes on from it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
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


Job = tuple[str, str, int, int]
"""Estimand (or `nothing`), truth, resamples, seed: what a replicate is kept under."""


def upper_limit(hits: int, n: int) -> float:
    """One-sided 95% Clopper-Pearson limit of a rate."""
    return 1.0 if hits == n else float(beta.ppf(0.95, hits + 1, n - hits))


def do(job: Job) -> dict:
    """One replicate as a line of the file."""
    estimand, name, resamples, seed = job
    if estimand == "nothing":
        status, direction, relative = concluded(name, seed)
        return {"job": job, "status": status, "direction": direction, "relative": relative}
    status, direction, held, width = covered(name, estimand, resamples, seed)
    lists = [None if row is None else row.tolist() for row in (held, width)]
    return {
        "job": job, "status": status, "direction": direction, "held": lists[0], "width": lists[1]
    }  # fmt: skip


def jobs_of(options) -> list[Job]:
    """Every replicate that is asked for; the truths take turns."""
    named = [n for n in (*INTERIOR, *NOTHING) if any(n.startswith(t) for t in options.truths)]
    kinds = []
    for name in named:
        if name in NOTHING:
            kinds.append(("nothing", name, 1))
            continue
        kinds.append(("viability", name, options.resamples))
        if options.relative:
            kinds.append(("relative", name, options.resamples))
    return [(*kind, seed) for seed in range(options.replicates) for kind in kinds]


def results_of(jobs: list[Job], options) -> list[dict]:
    """The replicates that are kept, and those that this run adds to them."""
    done = {}
    if options.keep and options.keep.exists():
        for line in options.keep.read_text("utf-8").splitlines():
            record = json.loads(line)
            done[tuple(record["job"])] = record
    ends = time.monotonic() + 60.0 * options.minutes
    owed = (job for job in jobs if job not in done and time.monotonic() < ends)
    for record in in_turn(owed, options.workers):
        done[tuple(record["job"])] = record
        if options.keep:
            with options.keep.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
    return [done[job] for job in jobs if job in done]


def in_turn(jobs: Iterator[Job], workers: int) -> Iterator[dict]:
    """Each job done, here or by several processes; no job is begun before it is its turn."""
    if workers == 1:
        yield from map(do, jobs)
        return
    with ProcessPoolExecutor(workers) as pool:
        while batch := list(islice(jobs, 4 * workers)):
            yield from pool.map(do, batch)


def coverage_table(results: list[dict], estimand: str) -> None:
    """One table row a truth: coverage by position, mean width, statuses."""
    mine = [r for r in results if r["job"][0] == estimand]
    if not mine:
        return
    print(f"\n{estimand}: percentage of replicates whose band holds the true weight\n")
    print("| truth | n | " + " | ".join(f"r={r:g}" for r in AT) + " | mean | width | status |")
    print("|---|" + "---|" * (AT.size + 4))
    for name in INTERIOR:
        rows = [r for r in mine if r["job"][1] == name]
        if not rows:
            continue
        held = np.array([r["held"] for r in rows if r["held"] is not None])
        width = np.array([r["width"] for r in rows if r["width"] is not None])
        counts = Counter(f"{r['status']} {r['direction']}" for r in rows)
        said = ", ".join(f"{key} {count}" for key, count in counts.most_common())
        shares = [*held.mean(axis=0), held.mean()]
        cells = " | ".join(f"{100 * share:.1f}" for share in shares)
        print(f"| {name} | {len(held)} | {cells} | {width.mean():.2f} | {said} |")
    fewest = min(Counter(r["job"][1] for r in mine).values())
    error = 100 * np.sqrt(0.95 * 0.05 / fewest)
    print(f"\n{mine[0]['job'][2]} resamples a band. Monte Carlo error (one standard error) of a")
    print(f"share near 95% in {fewest} replicates: {error:.1f} points.")


def nothing_table(results: list[dict]) -> None:
    """How often something is found where nothing is."""
    mine = [r for r in results if r["job"][0] == "nothing"]
    if not mine:
        return
    print("\nnothing to find: percentage of replicates (and its upper 95% limit)\n")
    print("| truth | n | some direction | a schedule other than 1 | relative has one | status |")
    print("|---|---|---|---|---|---|")
    for name in NOTHING:
        rows = [r for r in mine if r["job"][1] == name]
        if not rows:
            continue
        n = len(rows)
        tallies = [
            sum(r["direction"] != "none" for r in rows),
            sum(r["status"] in ("ok", "separation") for r in rows),
            sum(r["relative"] != "none" for r in rows),
        ]
        cells = " | ".join(
            f"{100 * hits / n:.1f} (<= {100 * upper_limit(hits, n):.1f})" for hits in tallies
        )
        said = ", ".join(f"{k} {v}" for k, v in Counter(r["status"] for r in rows).most_common())
        print(f"| {name} | {n} | {cells} | {said} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--truths", nargs="*", default=["rising", "falling", "flat", "horizon"])
    parser.add_argument("--relative", action="store_true")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    options = parser.parse_args()
    results = results_of(jobs_of(options), options)
    for estimand in ("viability", "relative"):
        coverage_table(results, estimand)
    nothing_table(results)


if __name__ == "__main__":
    main()
