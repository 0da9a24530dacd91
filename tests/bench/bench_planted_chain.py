"""How often does an interval of the diagnosis hold what was planted?

    python tests/bench/bench_planted_chain.py [--studies 20] [--copies 6] [--worlds horizon ...]
        [--stages]

One run of the phases on a planted chain has the problems of many studies, whose rollouts are
independent: `--copies` problems of each start make one study. Every study is analysed by itself, as
Phase G does (with `--stages`: as the prefix and alignment stages do, where early tokens harm), and
each interval is held against the exact value (dynamic programming on the tables). Prints, for each
figure, the share of studies whose interval holds the truth with its Monte Carlo error, the mean of
the estimates beside the truth, and how often each finding came out.

The share that holds is expected to be above the level where problems are of a few fixed kinds, as
here: resampling problems also counts the spread between kinds, which the truth does not have.
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

from branchdiag.phases.g_report import analyse, analyse_run, resampling_of
from branchdiag.phases.n4_alignment import Group, alignment_rows, measured, to_arrays
from branchdiag.phases.p3_position_bias import prefix_shares
from branchdiag.stats.alignment_estimates import evaluate
from branchdiag.stats.position_bias import gain_change, prefix_curve
from tests.planted_chain import CONTEXTS
from tests.planted_oracle import greedy_trace
from tests.planted_runs import Figure, Planted, diagnose, exact_figures, nodes_of, start_of
from tests.planted_stage_oracle import (
    Prefixes,
    Sampled,
    Support,
    alignment_truth,
    contrasts,
    sampled,
    support_of,
)
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


def stages_of(n_studies: int, copies: int, directory: Path) -> list[dict[str, Any]]:
    """Prefixes and alignment of each study of early harm: figures beside the truth."""
    stages = ("P1", "P2", "N1", "N2", "N3")
    planted = diagnose(
        "early_harm",
        directory / "stages",
        copies=copies * n_studies,
        phases=(*"ABCDEF", *stages),
        more=("align.student_tokens=1",),
    )
    report = planted.request.protocol.report
    resampling = resampling_of(report)
    chain, run = planted.written.chain, planted.run
    spines = {row["problem_id"]: row for row in run.table("spines").rows()}
    grades = run.table("prefix_grades").rows()
    nodes = measured(planted.context).nodes
    fractions = planted.request.protocol.prefixes.fractions
    exact = {start: Prefixes(chain).accuracies(start, fractions) for start in chain.starts}
    mean = {
        writer: np.mean([values[writer] for values in exact.values()], axis=0)
        for writer in ("student", "teacher")
    }
    mean["gain"] = mean["teacher"] - mean["student"]
    known: dict[tuple[str, int], tuple[Support, Sampled]] = {}
    results = []
    for number in range(n_studies):
        figures = {}
        shares = prefix_shares(spines, _of_study(grades, number, copies), fractions)
        student, teacher = (shares.share_PF[writer] for writer in ("student", "teacher"))
        for name, values in {
            "student": student,
            "teacher": teacher,
            "gain": teacher - student,
        }.items():
            for place, point in enumerate(prefix_curve(fractions, values, **resampling)):
                figures[f"{name} at {point['fraction']:g}"] = Figure(
                    point["y"], point["lo"], point["hi"], float(mean[name][place])
                )
        change = gain_change(fractions, teacher - student, **resampling)
        for name, truth in contrasts(fractions, mean["gain"]).items():
            found = getattr(change, name)
            figures[f"gain, {name}"] = Figure(found.value, found.ci_low, found.ci_high, truth)
        own = _of_study(nodes, number, copies)
        truths = [_truth_of(row, planted, known) for row in own]
        contexts = list(CONTEXTS)
        found = evaluate(to_arrays(own, contexts), bins=report.bins, **resampling)
        rows = alignment_rows(Group("primary", "", own, found))
        for context in contexts:
            for name, truth in alignment_truth(truths, context).items():
                of = "" if name in ("signal_share", "split_half") else context
                row = next(
                    row
                    for row in rows
                    if (row["figure"], row["context"], row["against"], row["bin"])
                    == (name, of, "", -1)
                )
                figures[f"{name} {of}"] = Figure(row["value"], row["ci_low"], row["ci_high"], truth)
        results.append({"figures": figures})
    return results


def _of_study(rows: list[Any], number: int, copies: int) -> list[Any]:
    return [row for row in rows if int(row["problem_id"].rpartition("-")[2]) // copies == number]


def _truth_of(
    row: dict[str, Any], planted: Planted, known: dict[tuple[str, int], tuple[Support, Sampled]]
) -> tuple[Support, Sampled]:
    chain, start = planted.written.chain, start_of(row["problem_id"])
    key = (start, row["position"])
    if key not in known:
        before = greedy_trace(chain, start)[row["position"] - 1]
        support = support_of(chain, planted.truth.value, before, row["support_ids"], list(CONTEXTS))
        known[key] = (support, sampled(support, planted.samples))
    return known[key]


def report(world: str, results: list[dict[str, Any]]) -> None:
    """The table of one world."""
    print(f"\n## {world}: {len(results)} studies", flush=True)
    if "finding" in results[0]:
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
    parser.add_argument("--stages", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="planted-") as scratch:
        if arguments.stages:
            results = stages_of(arguments.studies, arguments.copies, Path(scratch))
            report("prefixes and alignment under early harm", results)
            return
        for world in arguments.worlds:
            report(world, studies_of(world, arguments.studies, arguments.copies, Path(scratch)))


if __name__ == "__main__":
    main()
