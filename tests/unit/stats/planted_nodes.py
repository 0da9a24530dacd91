"""Nodes whose true success rates are known, for the tests of the alignment's estimates."""

import numpy as np

from branchdiag.stats.alignment_nodes import Nodes


def planted(
    seed: int,
    *,
    n_problems: int = 40,
    per_problem: int = 5,
    n_tokens: int = 3,
    rollouts: int = 6,
    gain: float = 0.0,
    contexts: tuple[str, ...] = ("answer", "none"),
    spread: float = 0.25,
) -> tuple[Nodes, np.ndarray, np.ndarray]:
    """Nodes, the true success rates (N, K), and the true advantage of `answer` (N,).

    gain: how far the teacher of `answer` tilts towards the tokens that succeed; `solution` is as
    far off the student in a direction of its own, `none` is the student.
    """
    rng = np.random.default_rng(seed)
    n_nodes = n_problems * per_problem
    problem = np.repeat(np.arange(n_problems), per_problem)
    level = rng.uniform(0.3, 0.7, n_problems)[problem, np.newaxis]
    truth = np.clip(level + rng.uniform(-spread, spread, (n_nodes, n_tokens)), 0.02, 0.98)
    p = rng.dirichlet(np.full(n_tokens, 3.0), n_nodes)
    teacher = {"none": p.copy()}
    tilted = p * np.exp(gain * (truth - truth.mean(1, keepdims=True)) + rng.normal(0, 0.3, p.shape))
    teacher["answer"] = tilted / tilted.sum(1, keepdims=True)
    other = p * np.exp(rng.normal(0, 0.5, p.shape))
    teacher["solution"] = other / other.sum(1, keepdims=True)
    samples = np.full(p.shape, rollouts)
    first_samples = (samples + 1) // 2
    first = rng.binomial(first_samples, truth)
    nodes = Nodes(
        student_NK=0.9 * p,
        teacher={name: 0.8 * teacher[name] for name in contexts},
        successes_NK=first + rng.binomial(samples - first_samples, truth),
        samples_NK=samples,
        first_successes_NK=first,
        first_samples_NK=first_samples,
        r=rng.uniform(0, 1, n_nodes),
        problem_id=np.array([f"p{index}" for index in problem]),
    )
    return nodes, truth, ((teacher["answer"] - p) * truth).sum(1)
