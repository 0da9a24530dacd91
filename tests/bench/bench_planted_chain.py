"""How often does an interval of the diagnosis hold what was planted?

    python tests/bench/bench_planted_chain.py [--studies 20] [--copies 6] [--worlds horizon ...]

One run of the phases A to F on a planted chain has the problems of many studies, whose rollouts are
independent: `--copies` problems of each start make one study. Every study is analysed by itself, as
Phase G does, and each interval is held against the exact value (dynamic programming on the tables).
Prints, for each figure, the share of studies whose interval holds the truth with its Monte Carlo
error, the mean of the estimates beside the truth, and how often each finding came out. About four
seconds a study.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from branchdiag.phases.g_report import analyse, analyse_run
from tests.planted_runs import diagnose, exact_figures, nodes_of
from tests.planted_worlds import WORLDS


def studies_of(world: str, n_studies: int, copies: int, directory: Path) -> list[dict[str, Any]]:
    """The analysis of each study: its figures beside the truth, its finding, its p."""
    planted = diagnose(world, directory / world, copies=copies * n_studies)
    frames, analysis = analyse_run(planted.context)
    candidates, values = frames["candidates"], analysis.score_values
    settings = planted.request.protocol.report
    results = []
    for number in range(n_studies):
        studied = [
            values_of["problem_id"].str.rpartition("-")[2].astype(int) // copies == number
            for values_of in (values, candidates)
        ]
        own = values[studied[0]].reset_index(drop=True)
        chosen = candidates[studied[1]].reset_index(drop=True)
        found = analyse(own, chosen, settings)
        results.append(
            {
                "figures": exact_figures(
                    found, nodes_of(planted.truth, chosen), samples=planted.samples
                ),
                "finding": found.finding.status,
                "p": found.slopes.null.p,
            }
        )
    return results


def report(world: str, results: list[dict[str, Any]]) -> None:
    """The table of one world."""
    print(f"\n## {world}: {len(results)} studies", flush=True)
    print("findings:", dict(Counter(result["finding"] for result in results)))
    print("permutation p of the slope of d at most .05:", end=" ")
    print(f"{np.mean([result['p'] <= 0.05 for result in results]):.2f}")
    print("\n| figure | truth | mean estimate | held | error | without interval |")
    print("|---|---|---|---|---|---|")
    for name in dict.fromkeys(name for result in results for name in result["figures"]):
        entries = [result["figures"][name] for result in results if name in result["figures"]]
        known = [entry for entry in entries if entry.low is not None]
        if not known:
            continue
        held = float(np.mean([entry.held for entry in known]))
        error = (held * (1.0 - held) / len(known)) ** 0.5
        print(
            f"| {name} | {known[0].truth:.3f} | {np.mean([e.estimate for e in known]):.3f} "
            f"| {held:.2f} | {error:.2f} | {len(entries) - len(known)} |"
        )


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--copies", type=int, default=6)
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=WORLDS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="planted-") as scratch:
        for world in arguments.worlds:
            report(world, studies_of(world, arguments.studies, arguments.copies, Path(scratch)))


if __name__ == "__main__":
    main()
