"""What is true of a planted chain, by dynamic programming in float64 on its tables alone.

Takes tables and counts, gives probabilities; shares no code with the package and reads no run. What
a run estimates has its exact counterpart here: the success of every arm under the sampling
settings, the chance of every label, the AUROC to which a score comes with ever more problems of
the same kinds, slopes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tests.planted_chain import END, PADDING, RIGHT, UNKNOWN, WRONG, Chain, Table

BOUNDARY = 1e-4
"""A nucleus that ends this near to top_p would hang on float32 rounding: refused."""


def filtered(table: Table, *, temperature: float = 1.0, top_p: float = 1.0) -> Table:
    """The table as sampling sees it: tempered, cut to each row's nucleus, renormalised.

    The nucleus is the smallest set of likeliest tokens whose mass reaches top_p (Holtzman et al.
    2020).
    """
    tempered = np.where(table > 0, table, 0.0) ** (1.0 / temperature)
    tempered /= tempered.sum(axis=1, keepdims=True)
    result = np.zeros_like(tempered)
    for row, chances in enumerate(tempered):
        mass = 0.0
        for token in sorted(range(chances.size), key=lambda i: (-chances[i], i)):
            if mass >= top_p or chances[token] == 0.0:
                break
            result[row, token] = chances[token]
            mass += chances[token]
            assert top_p == 1.0 or abs(mass - top_p) > BOUNDARY, "a nucleus at its boundary"
        result[row] /= mass
    return result


def success(chain: Chain, table: Table) -> Table:
    """[V] chance that a trace which has just written this token ends with the right box.

    A box that is there counts. Solves V = P V with V = 1 at the right box and 0 at the wrong one
    and at the end: the chain goes forward only, so the system has one solution.
    """
    ends = [chain.ids[word] for word in (RIGHT, WRONG, END)]
    inner = [token for token in range(len(chain.words)) if token not in ends]
    values = np.zeros(len(chain.words))
    values[ends[0]] = 1.0
    values[inner] = np.linalg.solve(
        np.eye(len(inner)) - table[np.ix_(inner, inner)], table[inner, ends[0]]
    )
    return values


def greedy_trace(chain: Chain, start: str) -> list[int]:
    """The token ids that follow a problem when the likeliest is taken each time, the end left
    out.
    """
    trace = [int(chain.student[chain.ids[start]].argmax())]
    while (following := int(chain.student[trace[-1]].argmax())) != chain.ids[END]:
        trace.append(following)
    return trace


@dataclass(frozen=True)
class Node:
    """A candidate of a spine: everything that is true of it.

    before: the token it follows. children: forced tokens. child_success, control_success: chances
    under the sampling settings. p, q: the student's and the teacher's rows.
    """

    start: str
    position: int
    r: float
    before: int
    spine_token: int
    children: tuple[int, ...]
    child_success: tuple[float, ...]
    control_success: float
    p: Table
    q: Table

    @property
    def d(self) -> float:
        """Mean child success less the control's."""
        return float(np.mean(self.child_success)) - self.control_success

    @property
    def advantage(self) -> float:
        """Sum over the children of (q - p) V, both renormalised on them."""
        children, values = list(self.children), np.array(self.child_success)
        q, p = self.q[children], self.p[children]
        return float((q / q.sum() - p / p.sum()) @ values)

    def scores(self) -> dict[str, float]:
        """The scores that are functions of position and the two rows, raw, in nats."""
        p, q = self.p, self.q
        both = np.sort(q)[::-1]
        top = both[:16][both[:16] > 0]
        return {
            "one_minus_r": 1.0 - self.r,
            "position": float(self.position),
            "h_trunc": entropy(top / top.sum()),
            "h_full": entropy(q),
            "h_student": entropy(p),
            "log_ratio": math.log(q[self.spine_token] / p[self.spine_token]),
            "kl": float(sum(b * math.log(b / a) for a, b in zip(p, q, strict=True) if b > 0)),
            "margin": float(both[0] - both[1]),
        }


SIGNS = {"position": -1, "log_ratio": -1, "margin": -1}
"""Towards real-uncertain, of the scores of `Node.scores`; the others are +1."""


def entropy(row: Table) -> float:
    """In nats."""
    return -sum(float(x) * math.log(x) for x in row if x > 0)


@dataclass(frozen=True)
class Truth:
    """A chain under the sampling settings of its continuations."""

    chain: Chain
    temperature: float = 1.0
    top_p: float = 0.95

    @cached_property
    def sampled(self) -> Table:
        """The student's table as its continuations are sampled."""
        return filtered(self.chain.student, temperature=self.temperature, top_p=self.top_p)

    @cached_property
    def value(self) -> Table:
        """[V] success after each token."""
        return success(self.chain, self.sampled)

    def node(self, start: str, position: int, n_children: int = 3) -> Node:
        """The candidate at a position of a problem's spine, with the teacher's likeliest words."""
        chain = self.chain
        trace = greedy_trace(chain, start)
        before = chain.ids[start] if position == 0 else trace[position - 1]
        row = chain.teacher[before].copy()
        row[[chain.ids[word] for word in (PADDING, END, UNKNOWN)]] = 0.0
        children = tuple(int(token) for token in np.argsort(-row, kind="stable")[:n_children])
        return Node(
            start=start,
            position=position,
            r=(position + 0.5) / len(trace),
            before=before,
            spine_token=trace[position],
            children=children,
            child_success=tuple(float(self.value[token]) for token in children),
            control_success=float(self.sampled[before] @ self.value),
            p=chain.student[before],
            q=chain.teacher[before],
        )


def binomial(n: int, p: float) -> list[float]:
    """P(k successes of n), k = 0 ... n."""
    return [math.comb(n, k) * p**k * (1.0 - p) ** (n - k) for k in range(n + 1)]


def label_chances(
    node: Node, *, samples: int = 6, viable_from: int = 5, failing_to: int = 2
) -> tuple[float, float, float]:
    """P(diversity), P(real-uncertain), P(gray) of a candidate whose children have `samples` each.

    Diversity: two children with viable_from successes or more. Real-uncertain: every child with
    failing_to or fewer.
    """
    fine = [sum(binomial(samples, v)[viable_from:]) for v in node.child_success]
    bad = [sum(binomial(samples, v)[: failing_to + 1]) for v in node.child_success]
    diversity = sum(
        math.prod(f if ok else 1.0 - f for f, ok in zip(fine, pattern, strict=True))
        for pattern in itertools.product((True, False), repeat=len(fine))
        if sum(pattern) >= 2
    )
    uncertain = math.prod(bad)
    return diversity, uncertain, 1.0 - diversity - uncertain


Problem = Sequence[Node]


def population_auroc(
    problems: Iterable[Problem], score: Callable[[Node], float], **labels: int
) -> float:
    """What the AUROC of a problem-centred score comes to with ever more copies of the problems.

    Every problem's candidates take every combination of labels, each with its chance. Residuals
    are less the mean over the candidates with one of the two labels, as the estimator has it; then
    the chance that a positive's is above a negative's, ties one half.
    """
    residuals: list[Table] = []
    positives: list[Table] = []
    masses: list[Table] = []
    for problem in problems:
        values = np.array([score(node) for node in problem])
        chances = np.array([label_chances(node, **labels) for node in problem])
        combinations = np.array(list(itertools.product(range(3), repeat=len(problem))))
        chance = np.prod([chances[i, combinations[:, i]] for i in range(len(problem))], axis=0)
        kept = combinations < 2
        n_kept = kept.sum(axis=1)
        means = np.where(kept, values, 0.0).sum(axis=1) / np.maximum(n_kept, 1)
        residuals.append((values - means[:, None])[kept])
        positives.append((combinations == 1)[kept])
        masses.append(np.broadcast_to(chance[:, None], kept.shape)[kept])
    # Residuals that differ by rounding are one.
    levels, place = np.unique(np.round(np.concatenate(residuals), 10), return_inverse=True)
    positive, mass = np.concatenate(positives), np.concatenate(masses)
    for_level = np.bincount(place[positive], mass[positive], levels.size)
    against = np.bincount(place[~positive], mass[~positive], levels.size)
    below = np.cumsum(against) - against
    won = float(for_level @ (below + against / 2.0))
    return won / float(for_level.sum() * against.sum())


def population_slope(problems: Iterable[Problem], outcome: Callable[[Node], float]) -> float:
    """The within-problem slope on r of an outcome's expectation: least squares, an intercept a
    problem.
    """
    sxx = sxy = 0.0
    for problem in problems:
        r = [node.r for node in problem]
        mean = sum(r) / len(r)
        sxx += sum((x - mean) ** 2 for x in r)
        sxy += sum((node.r - mean) * outcome(node) for node in problem)
    return sxy / sxx
