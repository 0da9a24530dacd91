"""Planted truths on the chain of `planted_chain`: what is known of them is in their docstrings.

Depths are few enough that a run takes seconds. Probabilities vary with depth by fixed draws, so
that no score is an alias of position. Reads nothing, writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.planted_chain import FLAVOURS, Chain, Policy, Table, build_chain

DEPTHS = 24
HARMED = np.array([0.0, 1.0, 1.0, 1.0, 0.0])
"""Flavours b, c, d: those the teacher proposes and the student seldom takes."""
STUDENT = (0.90, 0.015, 0.012, 0.013, 0.06)
TEACHER = (0.08, 0.42, 0.27, 0.19, 0.04)

WORLDS = ("horizon", "early_harm", "late_harm", "flat")
"""The worlds of the main diagnosis; `steady_loss` is one of prefixes alone."""
SETTINGS: dict[str, dict[str, float]] = {
    "horizon": {},
    "steady_loss": {},
    "early_harm": {},
    # Other sampling than the paper's, which moves every nucleus.
    "late_harm": {"temperature": 0.8, "top_p": 0.97},
    # A coin seldom falls one way six times: with six rollouts nearly every label would be gray.
    "flat": {"rollouts": 3},
}
"""Settings of the continuations of each world, where they are not the paper's."""


def chain_of(world: str) -> Chain:
    """The chain of a world, by name."""
    chains = {
        "horizon": horizon,
        "steady_loss": steady_loss,
        "early_harm": early_harm,
        "late_harm": late_harm,
        "flat": flat,
    }
    return chains[world]()


LEANING = {"solution": (0.5, -0.5, -0.5, -0.5, 2.5), "none": (3.0, 0.0, 0.0, 0.0, 0.0)}
"""A teacher shown the solution turns to e, told nothing to a: neither does harm."""


def horizon() -> Chain:
    """No teacher in it: it is the student, and whichever flavour is forced, the chance to derail
    at the next work is 8.3%, as it is with nothing forced. What differs is the way still to go.
    """
    choice = varied((0.36, 0.27, 0.19, 0.12, 0.06), spread=0.25, seed=1)
    error = np.full((DEPTHS, len(FLAVOURS)), 0.083)
    student = Policy(choice, error, recovery=0.0, right=0.99)
    return build_chain(student, student, first_depths=range(8), hard=(3, 9))


def steady_loss() -> Chain:
    """The horizon with a teacher that errs more often than the student, everywhere alike: its loss
    ends with the trace, and says nothing of early or late tokens.
    """
    choice = varied((0.36, 0.27, 0.19, 0.12, 0.06), spread=0.25, seed=1)
    student, teacher = (
        Policy(choice, np.full((DEPTHS, len(FLAVOURS)), error), recovery=0.0, right=1.0)
        for error in (0.012, 0.02)
    )
    return build_chain(student, teacher, first_depths=range(8))


def early_harm() -> Chain:
    """What the teacher proposes derails, the earlier the likelier; what the student takes by itself
    seldom does.
    """
    return _harm(np.linspace(0.9, 0.2, DEPTHS), first_depths=range(6))


def late_harm() -> Chain:
    """As `early_harm`, the other way round: the later the likelier."""
    return _harm(np.linspace(0.2, 0.9, DEPTHS), first_depths=range(6))


def flat() -> Chain:
    """Nothing derails, the last box is a coin: every continuation succeeds in 52%, from
    anywhere.
    """
    error = np.zeros((DEPTHS, len(FLAVOURS)))
    student = Policy(varied(STUDENT, spread=0.1, seed=4), error, right=0.52, right_derailed=0.0)
    teacher = Policy(varied(TEACHER, spread=0.3, seed=5), error, right=0.52, right_derailed=0.0)
    return build_chain(student, teacher, first_depths=range(8))


def _harm(chance_D: Table, first_depths: Sequence[int]) -> Chain:
    draws = np.random.default_rng(2).uniform(-0.3, 0.3, (DEPTHS, len(FLAVOURS)))
    error = np.where(HARMED > 0, np.clip(chance_D[:, None] + draws, 0.02, 0.93), 0.005)
    student = Policy(varied(STUDENT, spread=0.1, seed=4), error, recovery=0.02, right=0.9)
    # The teacher errs less and finds back more often: it finishes better what it is given.
    teacher = Policy(
        varied(TEACHER, spread=0.3, seed=5), error / 2, recovery=0.2, hard_error=0.3, right=0.98
    )
    return build_chain(student, teacher, first_depths=first_depths, hard=(2, 8), leaning=LEANING)


def varied(shares: Sequence[float], *, spread: float, seed: int) -> Table:
    """The shares at each depth, each multiplied by exp(spread x normal), renormalised: [D, F]."""
    draws = np.random.default_rng(seed).normal(0.0, spread, (DEPTHS, len(shares)))
    chances = np.array(shares) * np.exp(draws)
    normalised: Table = chances / chances.sum(axis=1, keepdims=True)
    return normalised
