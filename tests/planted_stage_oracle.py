"""What is true of a planted chain's prefixes and gradients, in float64 on its tables alone.

The counterparts of the two side diagnostics, beside `planted_oracle`: accuracies of prefixes under
either writer, contrasts of their difference, discrepancy along a spine (arXiv 2606.22600), ideal
and distillation gradients on a support with what few rollouts leave of them (arXiv 2605.10889).
Shares no code with the package and reads no run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from tests.planted_chain import Chain, Table
from tests.planted_oracle import binomial, filtered, greedy_trace, success

LOSSES = ("forward_kl", "reverse_kl", "jsd", "clipped_forward_kl")


@dataclass(frozen=True)
class Prefixes:
    """A chain's prefixes under one way of sampling. The teacher is told the answer."""

    chain: Chain
    temperature: float = 1.0
    top_p: float = 1.0

    def accuracies(self, start: str, fractions: Sequence[float]) -> dict[str, list[float]]:
        """writer -> chance of the right box from each fraction of the problem's spine."""
        trace = greedy_trace(self.chain, start)
        before = [self.chain.ids[start], *trace]
        result = {}
        for writer, table in (("student", self.chain.student), ("teacher", self.chain.teacher)):
            sampled = filtered(table, temperature=self.temperature, top_p=self.top_p)
            reached = sampled @ success(self.chain, sampled)
            result[writer] = [
                float(reached[before[int(Decimal(str(f)) * len(trace))]]) for f in fractions
            ]
        return result


def contrasts(fractions: Sequence[float], gain: Sequence[float]) -> dict[str, float]:
    """mean; least-squares slope on the fraction; b of the least-squares fit (1 - f) (a + b f)."""
    f, y = np.array(fractions), np.array(gain)
    shrinking = np.stack([1.0 - f, (1.0 - f) * f], axis=1)
    return {
        "mean": float(y.mean()),
        "slope": float(np.polyfit(f, y, 1)[0]),
        "per_remaining": float(np.linalg.lstsq(shrinking, y, rcond=None)[0][1]),
    }


def discrepancies(chain: Chain, start: str) -> list[float]:
    """|ln(q / p)| of each token of a problem's spine, the teacher told the answer."""
    trace = greedy_trace(chain, start)
    before = [chain.ids[start], *trace[:-1]]
    return [
        abs(math.log(chain.teacher[b, token] / chain.student[b, token]))
        for b, token in zip(before, trace, strict=True)
    ]


def weights(steps: Sequence[float], gamma: float = 0.5) -> list[float]:
    """1 + gamma (1 - F) at each token, F the share of all discrepancy that lies before it."""
    whole = sum(steps)
    return [1.0 + gamma * (1.0 - sum(steps[:t]) / whole) for t in range(len(steps))]


@dataclass(frozen=True)
class Support:
    """A node's support with what is true of it: p and q renormalised on it, success of each."""

    tokens: tuple[int, ...]
    p: Table
    q: Mapping[str, Table]
    values: Table
    student_excluded: float
    teacher_excluded: Mapping[str, float]

    def advantage(self, context: str) -> float:
        """sum (q - p) V."""
        return float((self.q[context] - self.p) @ self.values)

    def ideal(self) -> Table:
        """p_j (V_j - sum p V)."""
        return _ascent(self.p, self.values)

    def ideal_variance(self, samples: int) -> Table:
        """Variance of each entry of the ideal gradient when V is a share of so many samples."""
        slopes = np.diag(self.p) - np.outer(self.p, self.p)
        return slopes**2 @ (self.values * (1.0 - self.values) / samples)


def support_of(
    chain: Chain,
    values: Table,
    before: int,
    tokens: Sequence[int],
    contexts: Sequence[str],
) -> Support:
    """The support of these tokens after `before`; values: [V] success after each token."""
    ids = list(tokens)
    p = chain.student[before][ids]
    q = {context: chain.teacher_under(context)[before][ids] for context in contexts}
    return Support(
        tokens=tuple(ids),
        p=p / p.sum(),
        q={context: row / row.sum() for context, row in q.items()},
        values=values[ids],
        student_excluded=1.0 - float(p.sum()),
        teacher_excluded={context: 1.0 - float(row.sum()) for context, row in q.items()},
    )


def descent(p: Table, q: Table, *, beta: float = 0.5, clip: float = 0.05) -> dict[str, Table]:
    """Gradient of descent of each loss on the student's logits: p_j (f_j - sum p f).

    forward KL: f = q / p. reverse KL: ln(q / p). JSD: -(1 - beta) ln(p / m). Clipped forward KL: as
    the forward one's, without the terms q ln(q / p) that are at the bound.
    """
    mixed = (1.0 - beta) * p + beta * q
    return {
        "forward_kl": _ascent(p, q / p),
        "reverse_kl": _ascent(p, np.log(q / p)),
        "jsd": _ascent(p, -(1.0 - beta) * np.log(p / mixed)),
        "clipped_forward_kl": _ascent(p, np.where(q * np.log(q / p) < clip, q / p, 0.0)),
    }


def _ascent(p: Table, f: Table) -> Table:
    centred: Table = p * (f - float(p @ f))
    return centred


@dataclass(frozen=True)
class Sampled:
    """What rollouts make of a node, exactly: expectations over every combination of counts.

    defined: chance that the success rates differ. cosine: (loss, context) -> expectation of the
    cosine where it is defined, times that chance. square: of the squared length of the ideal
    gradient. half_square: of the same from half the samples.
    """

    defined: float
    cosine: dict[tuple[str, str], float]
    square: float
    half_square: float


def sampled(support: Support, samples: int) -> Sampled:
    """Enumerate the counts of every arm, each with its binomial chance."""
    defined, square = 0.0, 0.0
    ideals, chances = _enumerated(support, samples)
    lengths = np.sqrt((ideals**2).sum(axis=1))
    square = float(chances @ lengths**2)
    differs = lengths > 1e-12
    defined = float(chances[differs].sum())
    cosine = {}
    for context, q in support.q.items():
        for loss, gradient in descent(support.p, q).items():
            cosines = ideals[differs] @ gradient / (lengths[differs] * math.hypot(*gradient))
            cosine[loss, context] = float(chances[differs] @ cosines)
    halves, half_chances = _enumerated(support, samples // 2)
    return Sampled(defined, cosine, square, float(half_chances @ (halves**2).sum(axis=1)))


def _enumerated(support: Support, samples: int) -> tuple[Table, Table]:
    """Ideal gradients [combinations, K] of every combination of counts, and their chances."""
    counts = list(itertools.product(range(samples + 1), repeat=len(support.tokens)))
    each = [binomial(samples, float(value)) for value in support.values]
    chances = [math.prod(each[k][c] for k, c in enumerate(row)) for row in counts]
    ideals = [_ascent(support.p, np.array(row) / samples) for row in counts]
    return np.array(ideals), np.array(chances)


def alignment_truth(nodes: Sequence[tuple[Support, Sampled]], context: str) -> dict[str, float]:
    """Every figure of a set of nodes under a context, by its name in the tables.

    cosine_*: mean over the nodes where it is defined, at this number of samples. pooled_*: of all
    nodes' gradients as one long one, at this number. corrected_*: with the true success rates.
    """
    truth = {"advantage": float(np.mean([node.advantage(context) for node, _ in nodes]))}
    true_square = sum(float((node.ideal() ** 2).sum()) for node, _ in nodes)
    square = sum(made.square for _, made in nodes)
    for loss in LOSSES:
        gradients = [descent(node.p, node.q[context])[loss] for node, _ in nodes]
        dot = sum(
            float(node.ideal() @ gradient)
            for (node, _), gradient in zip(nodes, gradients, strict=True)
        )
        length = sum(float((gradient**2).sum()) for gradient in gradients)
        defined = sum(made.defined for _, made in nodes)
        truth[f"cosine_{loss}"] = sum(made.cosine[loss, context] for _, made in nodes) / defined
        truth[f"pooled_{loss}"] = dot / math.sqrt(square * length)
        truth[f"corrected_{loss}"] = dot / math.sqrt(true_square * length)
    truth["signal_share"] = true_square / square
    truth["split_half"] = true_square / sum(made.half_square for _, made in nodes)
    return truth
