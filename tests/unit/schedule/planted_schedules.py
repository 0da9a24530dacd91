"""Studies with a planted truth, for the tests of the fit and for its bench.

A problem has its own effect on the logit of success, the same for children and control. Sizes are
those of the paper's study (arXiv 2605.21606): 61 problems with 4.6 candidates, 3 children and 6
samples each, unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from branchdiag.schedule import Schedule
from branchdiag.stats.arms import Arms
from branchdiag.stats.schedule_data import LabelledCandidates

Chance = Callable[[np.ndarray], np.ndarray]
ROLLOUTS, CHILDREN = 6, 3


def shape(w_min: float, tau: float, s: float, *, top: float = 0.9, falling: bool = False) -> Chance:
    """top x the weight of a schedule."""
    schedule = Schedule(w_min, tau, s, "decreasing" if falling else "increasing")
    return lambda r: top * schedule.curve(r)


def level(chance: float) -> Chance:
    """The same at every position."""
    return lambda r: np.full_like(r, chance)


def horizon(steps: float = 20.0, error: float = 0.05) -> Chance:
    """One chance in 1 / error of ending all hope at each step that is left."""
    return lambda r: (1.0 - error) ** (steps * (1.0 - r))


def plant(
    child: Chance,
    control: Chance,
    *,
    seed: int,
    n_problems: int = 61,
    problem_sd: float = 1.0,
    rollouts: int = ROLLOUTS,
) -> LabelledCandidates:
    """Candidates with binomial outcomes around planted curves."""
    generator = np.random.default_rng(seed)
    sizes = np.clip(generator.poisson(5.5, n_problems), 1, 5)  # 4.6 on average
    problem = np.repeat(np.arange(n_problems), sizes)
    r = generator.random(problem.size)
    effect = problem_sd * generator.normal(size=n_problems)[problem]
    chances = np.column_stack(
        [with_effect(control(r), effect)] + [with_effect(child(r), effect)] * CHILDREN
    )
    return candidates(r, problem, generator.binomial(rollouts, chances), rollouts)


def candidates(r, problem, successes, rollouts: int = ROLLOUTS) -> LabelledCandidates:
    """From successes (C, A), the control first, labelled as in the paper."""
    arms = Arms(
        np.asarray(successes, np.int64),
        np.full(np.shape(successes), rollouts),
        np.full(np.shape(successes), np.nan),
    )
    share = arms.viability[:, 1:]
    failing, viable = (share < 0.4).all(axis=1), (share >= 0.75).sum(axis=1) >= 2
    label = np.where(failing, "real_uncertain", np.where(viable, "diversity", "gray"))
    teacher = np.tile([0.6, 0.3, 0.1], (len(r), 1))[:, : share.shape[1]]
    return LabelledCandidates(
        np.asarray(r, float), np.asarray(problem), arms, label.astype(object), teacher
    )


def with_effect(chance: np.ndarray, effect: np.ndarray) -> np.ndarray:
    """A chance moved by an effect on its logit; 0 and 1 stay."""
    odds = np.exp(effect)
    return chance * odds / (1.0 - chance + chance * odds)


def marginal(chance: Chance, r: np.ndarray, problem_sd: float = 1.0) -> np.ndarray:
    """The planted curve averaged over problems, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    values = with_effect(chance(r)[:, np.newaxis], problem_sd * nodes[np.newaxis])
    return values @ weights / weights.sum()
