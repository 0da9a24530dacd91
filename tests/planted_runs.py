"""Runs on planted chains, and their figures beside the exact ones.

Runs the real phases on what `planted_chain` wrote and pairs every estimate with the truth of
`planted_oracle`. Which positions and tokens are candidates is taken from the run; what is true of
them is not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from branchdiag.phases.base import Context
from branchdiag.phases.g_report import Analysis
from branchdiag.pipeline.inputs import RunRequest, resolve_inputs
from branchdiag.pipeline.progress import create_reporter
from branchdiag.pipeline.runner import execute, make_context
from branchdiag.protocol import Protocol
from branchdiag.store.run import RunDirectory
from tests.planted_chain import Written, write_chain
from tests.planted_oracle import SIGNS, Node, Truth, population_auroc, population_slope
from tests.planted_worlds import SETTINGS, chain_of

PHASES = tuple("ABCDEFS")


@dataclass(frozen=True)
class Planted:
    """A run on a world, with what is true of it. samples: of each arm."""

    written: Written
    truth: Truth
    request: RunRequest
    context: Context | None
    samples: int

    @property
    def run(self) -> RunDirectory:
        """The run directory."""
        assert self.context is not None
        return self.context.run


def diagnose(
    world: str, directory: Path, *, copies: int, phases: Sequence[str] = PHASES, seed: int = 0
) -> Planted:
    """Write a world's models, problems and protocol into a directory, and run phases on them."""
    settings = SETTINGS[world]
    written = write_chain(directory, chain_of(world), copies=copies)
    overrides = [f"continuation.{name}={value}" for name, value in settings.items()]
    samples = int(settings.get("rollouts", 6))
    overrides.append(f"label.min_finished={min(4, samples)}")
    options = written.options
    request = RunRequest(
        model=options["model"],
        teacher=options.get("teacher"),
        problems=(options["problems"],),
        limit=None,
        protocol=Protocol.load(options["protocol"], overrides),
        seed=seed,
        out=directory / "run",
        phases=tuple(phases),
        progress="none",
    )
    truth = Truth(
        written.chain,
        temperature=settings.get("temperature", 1.0),
        top_p=settings.get("top_p", 0.95),
    )
    return run_more(Planted(written, truth, request, context=None, samples=samples), phases)


def run_more(planted: Planted, phases: Sequence[str]) -> Planted:
    """Run further phases in the same run."""
    request = dataclasses.replace(planted.request, phases=tuple(phases))
    execute(request)
    run = RunDirectory.open(request.out)
    context = make_context(run, request, resolve_inputs(request, run), create_reporter("none"))
    return dataclasses.replace(planted, request=request, context=context)


def start_of(problem_id: str) -> str:
    """The word a problem consists of: problem ids read SOURCE/WORD-COPY."""
    return problem_id.rpartition("/")[2].rpartition("-")[0]


def nodes_of(truth: Truth, candidates: Any) -> dict[str, Node]:
    """candidate_id -> what is true there, for the rows of `candidates`."""
    return {
        row["candidate_id"]: truth.node(start_of(row["problem_id"]), row["position"])
        for row in candidates.to_dict("records")
    }


def problems_of(nodes: Mapping[str, Node]) -> list[list[Node]]:
    """The candidates of each kind of problem; copies of a problem have the same."""
    kinds: dict[str, dict[int, Node]] = {}
    for node in nodes.values():
        kinds.setdefault(node.start, {})[node.position] = node
    return [[nodes[p] for p in sorted(nodes)] for _, nodes in sorted(kinds.items())]


@dataclass(frozen=True)
class Figure:
    """An estimate, its interval and what it estimates."""

    estimate: float | None
    low: float | None
    high: float | None
    truth: float

    @property
    def held(self) -> bool:
        """Whether the interval holds the truth; widened by rounding."""
        assert self.low is not None and self.high is not None
        return self.low - 1e-9 <= self.truth <= self.high + 1e-9


def exact_figures(
    analysis: Analysis, nodes: Mapping[str, Node], *, samples: int
) -> dict[str, Figure]:
    """Slopes and AUROCs of an analysis beside the truth, by name; aliases say nothing twice."""
    kinds = problems_of(nodes)
    outcomes = {
        "failure": lambda node: 1.0 - float(np.mean(node.child_success)),
        "control": lambda node: 1.0 - node.control_success,
        "difference": lambda node: node.d,
    }
    figures = {}
    for name, outcome in outcomes.items():
        slope = getattr(analysis.slopes, name).estimate
        truth = population_slope(kinds, outcome)
        figures[f"slope of {name}"] = Figure(slope.value, slope.ci_low, slope.ci_high, truth)
    rows = {row["name"]: row for row in analysis.scores if row["figure"] == "absolute"}
    for name in next(iter(nodes.values())).scores():
        row = rows[name]
        if row["alias_of"] is not None:
            continue
        truth = auroc_of(kinds, name, samples)
        figures[f"AUROC of {name}"] = Figure(row["auroc"], row["ci_low"], row["ci_high"], truth)
    return figures


def auroc_of(kinds: Sequence[Sequence[Node]], name: str, samples: int) -> float:
    """The exact AUROC of a score, its declared sign applied."""
    thresholds = {6: (5, 2), 3: (3, 1)}[samples]  # ceil(.75 N), and the last below .40 N
    return population_auroc(
        kinds,
        lambda node: SIGNS.get(name, 1) * node.scores()[name],
        samples=samples,
        viable_from=thresholds[0],
        failing_to=thresholds[1],
    )


CURVES: Mapping[str, Callable[[Node], float]] = {
    "failure_by_r": lambda node: 1.0 - float(np.mean(node.child_success)),
    "control_by_r": lambda node: 1.0 - node.control_success,
    "d_by_r": lambda node: node.d,
    "teacher_advantage_by_r": lambda node: node.advantage,
}


def binned_truth(analysis: Analysis, nodes: Mapping[str, Node]) -> dict[str, Figure]:
    """Every point of the curves over position beside the mean of the truth over its candidates.

    Bins keep candidates of one r together, so the counts of the points in order say which
    candidates each has.
    """
    in_order = sorted(nodes.values(), key=lambda node: node.r)
    figures = {}
    for series, outcome in CURVES.items():
        rows = [row for row in analysis.curves if row["series"] == series]
        first = 0
        for row in sorted(rows, key=lambda row: row["bin"]):
            members = in_order[first : first + row["n"]]
            first += row["n"]
            truth = float(np.mean([outcome(node) for node in members]))
            figures[f"{series} {row['bin']}"] = Figure(row["y"], row["lo"], row["hi"], truth)
        assert first == len(in_order)
    return figures
