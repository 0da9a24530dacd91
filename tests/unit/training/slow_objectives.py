"""Slow oracles of the objectives: loops over tokens and vocabulary in Python floats (float64).

Nothing is shared with the package. A loss is a function of the student's logits and of a frozen
copy of them, from which everything that the method detaches is made; its gradient is taken by
finite differences in the first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Rows:
    """A global batch: nested lists [row][token], logits [row][token][vocabulary]."""

    student: list
    teacher: list
    tokens: list
    valid: list
    trained: list
    weights: list | None = None
    settings: dict = field(default_factory=dict)

    def counted(self, keep):
        return [
            [t for t in range(len(row)) if row[t] and keep(i, t)]
            for i, row in enumerate(self.trained)
        ]


def softmax(logits, temperature):
    top = max(logits)
    parts = [math.exp((x - top) / temperature) for x in logits]
    total = sum(parts)
    return [part / total for part in parts]


def entropy(p):
    return -sum(x * math.log(x) for x in p)


def reduced(losses, weights, counted, reduction):
    """losses, weights: functions of (row, token)."""
    if reduction == "token":
        n = sum(len(row) for row in counted)
        total = sum(weights(i, t) * losses(i, t) for i, row in enumerate(counted) for t in row)
        return total / n if n else 0.0
    means = [
        sum(weights(i, t) * losses(i, t) for t in row) / len(row)
        for i, row in enumerate(counted)
        if row
    ]
    return sum(means) / len(means) if means else 0.0


def opsd(rows, student, reduction, beta=0.0, clip=0.05, temperature=1.1):
    def loss(i, t):
        p = softmax(student[i][t], temperature)
        q = softmax(rows.teacher[i][t], temperature)
        total = 0.0
        for pj, qj in zip(p, q, strict=True):
            if beta == 0:
                term = qj * math.log(qj / pj)
            elif beta == 1:
                term = pj * math.log(pj / qj)
            else:
                mj = (1 - beta) * pj + beta * qj
                term = beta * qj * math.log(qj / mj) + (1 - beta) * pj * math.log(pj / mj)
            total += term if clip is None else min(term, clip)
        return total

    def weight(i, t):
        return 1.0 if rows.weights is None else rows.weights[i][t]

    return reduced(loss, weight, rows.counted(lambda i, t: True), reduction)


def advantage(rows, i, t, temperature):
    """ln q(y) - ln p(y) of the frozen student."""
    y = rows.tokens[i][t]
    q = softmax(rows.teacher[i][t], temperature)
    p = softmax(rows.student[i][t], temperature)
    return math.log(q[y]) - math.log(p[y])


def ratio(rows, student, i, t, temperature):
    """p(y) over the frozen p(y)."""
    y = rows.tokens[i][t]
    now, frozen = student[i][t], rows.student[i][t]
    return softmax(now, temperature)[y] / softmax(frozen, temperature)[y]


def ppo(r, a, epsilon=0.2):
    return max(-r * a, -min(max(r, 1 - epsilon), 1 + epsilon) * a)


def eopd(rows, student, reduction, entropy_threshold=0.8, top_k=16, temperature=1.1):
    def loss(i, t):
        a = advantage(rows, i, t, temperature)
        total = ppo(ratio(rows, student, i, t, temperature), a)
        q = softmax(rows.teacher[i][t], temperature)
        if entropy(q) > entropy_threshold:
            p = softmax(student[i][t], temperature)
            top = sorted(range(len(q)), key=lambda j: -q[j])[:top_k]
            covered = sum(q[j] for j in top)
            for j in top:
                total += q[j] / covered * (math.log(q[j] / covered) - math.log(p[j]))
        return total

    return reduced(loss, lambda i, t: 1.0, rows.counted(lambda i, t: True), reduction)


def reopold(
    rows, student, reduction, step, mixture=0.1, kept_share=0.2, switch_step=50, temperature=1.1
):
    floor = math.log(mixture) / (1 - mixture)
    entropies = {
        (i, t): entropy(softmax(rows.student[i][t], temperature))
        for i, row in enumerate(rows.trained)
        for t in range(len(row))
        if row[t]
    }
    gate = np.quantile(list(entropies.values()), 1 - kept_share) if entropies else None

    def keep(i, t):
        if step < switch_step:
            return advantage(rows, i, t, temperature) >= floor
        return entropies[i, t] >= gate - 1e-12

    def loss(i, t):
        reward = max(advantage(rows, i, t, temperature), floor)
        return -reward * math.log(softmax(student[i][t], temperature)[rows.tokens[i][t]])

    return reduced(loss, lambda i, t: 1.0, rows.counted(keep), reduction)


def iw_opd(rows, student, reduction, gamma=0.5, temperature=1.0):
    def weight(i, t):
        drifts = [
            abs(advantage(rows, i, k, temperature)) if rows.valid[i][k] else 0.0
            for k in range(len(rows.valid[i]))
        ]
        return 1 + gamma * (1 - sum(drifts[:t]) / (sum(drifts) + 1e-8))

    def loss(i, t):
        a = advantage(rows, i, t, temperature)
        return ppo(ratio(rows, student, i, t, temperature), a)

    return reduced(loss, weight, rows.counted(lambda i, t: True), reduction)


ORACLES = {"opsd": opsd, "pw-opsd": opsd, "eopd": eopd, "reopold": reopold, "iw-opd": iw_opd}


def gradient(loss, logits, width=1e-5):
    """d loss / d logits [row][token][vocabulary], central differences of fourth order."""
    logits = [[list(token) for token in row] for row in logits]
    result = np.zeros((len(logits), len(logits[0]), len(logits[0][0])))
    for (i, t, j), _ in np.ndenumerate(result):
        here = logits[i][t][j]
        values = []
        for offset in (-2, -1, 1, 2):
            logits[i][t][j] = here + offset * width
            values.append(loss(logits))
        logits[i][t][j] = here
        result[i, t, j] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * width)
    return result
