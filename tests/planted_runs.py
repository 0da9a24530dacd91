"""Runs on planted chains, and their figures beside the exact ones.

Runs the real phases on what `planted_chain` wrote and pairs every estimate with the truth of
`planted_oracle`. Which positions and tokens are candidates is taken from the run; what is true of
them is not.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import chi2

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
THRESHOLDS = {6: (5, 2), 3: (3, 1)}
"""Samples of a child -> successes that make it viable (ceil(.75 N)), and at most to fail (< .40 N).
"""


@dataclass(frozen=True)
class Planted:
    """A run on a world, with what is true of it. samples: of each arm."""

    written: Written
    truth: Truth
    request: RunRequest
    context: Context
    samples: int

    @property
    def run(self) -> RunDirectory:
        """The run directory."""
        return self.context.run


def diagnose(
    world: str,
    directory: Path,
    *,
    copies: int,
    phases: Sequence[str] = PHASES,
    seed: int = 0,
    more: Sequence[str] = (),
) -> Planted:
    """Write a world's models, problems and protocol into a directory, and run phases on them.

    more: settings on top of the protocol and the world's.
    """
    settings = SETTINGS[world]
    written = write_chain(directory, chain_of(world), copies=copies)
    overrides = [f"continuation.{name}={value}" for name, value in settings.items()]
    samples = int(settings.get("rollouts", 6))
    overrides.append(f"label.min_finished={min(4, samples)}")
    overrides += more
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
    execute(request)
    run = RunDirectory.open(request.out)
    context = make_context(run, request, resolve_inputs(request, run), create_reporter("none"))
    return Planted(written, truth, request, context, samples)


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


def assert_few_miss(figures: Mapping[str, Figure], share: float) -> None:
    """At most a share of the intervals misses the truth, and none by another of its half widths.

    One interval in twenty may miss by chance, and figures of one run go together; an interval of
    twice the width seldom misses at all.
    """
    known = {name: figure for name, figure in figures.items() if figure.low is not None}
    missed = {name: figure for name, figure in known.items() if not figure.held}
    assert known and len(missed) <= share * len(known), missed
    for name, figure in missed.items():
        assert figure.low is not None and figure.high is not None
        width = figure.high - figure.low
        assert abs(figure.truth - (figure.high + figure.low) / 2.0) < width, (name, figure)


def assert_binomial(counts: Mapping[Hashable, Sequence[float]]) -> None:
    """Pearson's test of [successes, samples, chance of each]; certain ones must be certain."""
    got, of, chance = np.array(list(counts.values())).T
    random = (chance > 1e-9) & (chance < 1.0 - 1e-9)
    assert (got == of * chance.round())[~random].all()
    excess = (got - of * chance)[random]
    variance = (of * chance * (1.0 - chance))[random]
    statistic = float((excess**2 / variance).sum())
    assert 1e-3 < chi2.sf(statistic, random.sum()) < 1.0 - 1e-3
    assert abs(excess.sum()) < 3.3 * np.sqrt(variance.sum())


def exact_figures(
    analysis: Analysis, nodes: Mapping[str, Node], *, samples: int
) -> dict[str, Figure]:
    """Slopes and AUROCs of an analysis beside the truth, by name; aliases say nothing twice."""
    kinds = problems_of(nodes)
    outcomes: dict[str, Callable[[Node], float]] = {
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
    return auroc_under(kinds, lambda node: SIGNS.get(name, 1) * node.scores()[name], samples)


def auroc_under(
    kinds: Sequence[Sequence[Node]], score: Callable[[Node], float], samples: int
) -> float:
    """The exact AUROC of any number that nodes have, larger for real-uncertain."""
    viable_from, failing_to = THRESHOLDS[samples]
    return population_auroc(
        kinds, score, samples=samples, viable_from=viable_from, failing_to=failing_to
    )


def exact_leaderboard(
    analysis: Analysis, signals: Any, nodes: Mapping[str, Node], *, samples: int
) -> dict[str, Figure]:
    """The AUROC of every signal of the leaderboard beside the truth; aliases say nothing twice.

    A signal's values are the run's (each has a slow formula of its own in the unit tests), rounded
    to what float32 logits carry; which candidates fail, and how often, is the chain's.

    Args:
        signals: the table, as a frame.
    """
    kinds = problems_of(nodes)
    table = signals.set_index("candidate_id")
    name_of = {(node.start, node.position): name for name, node in nodes.items()}
    figures = {}
    for row in analysis.groups[0].rows:
        if row["kind"] != "signal" or row["alias_of"] is not None or row["auroc"] is None:
            continue
        values = row["sign"] * table[row["name"]].astype(float)
        grain = 1e-5 * float(values.abs().max())
        by_node = {
            key: float(np.round(values[name] / grain)) if grain else 0.0
            for key, name in name_of.items()
        }
        if not np.isfinite(list(by_node.values())).all():
            continue
        truth = auroc_under(kinds, lambda node, of=by_node: of[node.start, node.position], samples)
        figures[row["name"]] = Figure(row["auroc"], row["ci_low"], row["ci_high"], truth)
    return figures


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
