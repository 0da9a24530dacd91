"""The finding: a status from a closed list, and the sentence that states it.

Reads estimates and counts and nothing else, so the sentence can say no more than the intervals do.
Knows no data. The question is that of arXiv 2605.21606 (are early teacher tokens the unreliable
ones?) with the control that it lacks: an early candidate has further to go, forced or not.

Two questions are answered first, each early, late or none.

Absolute: where do forced tokens fail more? By two figures, either of which counts when its interval
leaves out no difference:
    - the within-problem slope of failure (1 - mean child viability) on r. It uses every candidate
      and its viability as a number;
    - the paper's AUROC of 1 - r for real-uncertain against diversity, only with at least 5
      real-uncertain candidates in at least 5 problems. It throws away gray candidates and the size
      of viability: with 60 simulated problems and 8 steps to go it saw the pattern in 27% of
      studies, the slope in all of 200; with 12 steps in 95%.
Figures that point in opposite ways contradict each other.

Relative: where does forcing do more harm than nothing forced? By the within-problem slope of d on
r. It counts when its interval leaves out 0 and its permutation p is at most 1 - level. The interval
alone is too narrow with few problems (a nominal 95% holds the truth in 90% of runs at 10 problems,
in 94% at 60); the permutation is exact at any number but tests a sharper null, so both are asked.

Then, in this order:

    too_few               fewer than 10 problems carry the slope of failure, or neither absolute
                          figure can be used
    not_told_apart        the absolute figures contradict each other
    not_told_apart        the relative slope has no interval (there is no control, say)
    not_told_apart        relative early with absolute late, or the reverse: the figures advise
                          opposite things. Shares end at 0 and 1, so forcing can lose little where
                          the control seldom succeeds and gain little where it nearly always does,
                          and a slope of d against the absolute pattern may be no more than that
    early_worse           relative early (absolute early or none)
    late_worse            relative late (absolute late or none)
    no_more_than_horizon  relative none with 0 in its interval, absolute early or late, and the
                          control's own failure has a slope the same way, its interval leaving out
                          0: the pattern is there with nothing forced. "No more" means none that
                          this run can see; the sentence gives the interval of what may be left
    not_told_apart        everything else: no pattern, or one that neither the control nor forcing
                          can be shown to make, or a relative slope whose interval leaves out 0 and
                          whose permutation does not: that is no ground to say that nothing is left
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from branchdiag.stats import sentences
from branchdiag.stats.estimate import Estimate
from branchdiag.stats.horizon import AgainstControl
from branchdiag.stats.sentences import Direction, Evidence

Status = Literal["early_worse", "late_worse", "no_more_than_horizon", "not_told_apart", "too_few"]

MIN_PROBLEMS = 10
MIN_POSITIVES = 5
MIN_PROBLEMS_POSITIVE = 5


@dataclass(frozen=True)
class Finding:
    """What a run shows about early and late teacher tokens, in one sentence."""

    status: Status
    sentence: str


def finding(
    *,
    auroc: Estimate,
    slopes: AgainstControl,
    n_positive: int,
    n_problems_positive: int,
    level: float,
) -> Finding:
    """The status and its sentence, by the rule in this module's docstring.

    Args:
        auroc: of `one_minus_r`, real-uncertain against diversity, unfolded.
        slopes: from `horizon.against_control`.
        n_positive, n_problems_positive: real-uncertain candidates, and the problems they are in.
        level: of all intervals.
    """
    evidence = Evidence(auroc, slopes, n_positive, n_problems_positive, level)
    if slopes.failure.n_problems < MIN_PROBLEMS:
        return Finding("too_few", sentences.too_few(evidence, MIN_PROBLEMS))
    auroc_counts = (
        auroc.has_interval
        and n_positive >= MIN_POSITIVES
        and n_problems_positive >= MIN_PROBLEMS_POSITIVE
    )
    if not slopes.failure.estimate.has_interval and not auroc_counts:
        return Finding("too_few", sentences.nothing_to_tell(evidence))
    # Each figure is turned so that it is negative when early candidates are the worse ones.
    ways: set[Direction] = {_early_if_negative(slopes.failure.estimate)}
    if auroc_counts:
        ways.add(_early_if_negative(auroc.negated(), -0.5))
    ways.discard("none")
    if len(ways) > 1:
        return Finding("not_told_apart", sentences.contradiction(evidence))
    absolute: Direction = next(iter(ways), "none")
    if not slopes.difference.estimate.has_interval:
        return Finding("not_told_apart", sentences.no_control(evidence, absolute))
    seen = _early_if_negative(slopes.difference.estimate.negated())
    is_chance = slopes.null.p is not None and slopes.null.p > 1.0 - level + 1e-12
    relative: Direction = "none" if is_chance else seen
    if "none" not in (absolute, relative) and absolute != relative:
        return Finding("not_told_apart", sentences.opposed(evidence, absolute))
    if relative == "early":
        return Finding("early_worse", sentences.worse(evidence, relative))
    if relative == "late":
        return Finding("late_worse", sentences.worse(evidence, relative))
    explained = _early_if_negative(slopes.control.estimate) == absolute
    if absolute != "none" and explained and seen == "none":
        return Finding("no_more_than_horizon", sentences.no_more_than_horizon(evidence, absolute))
    return Finding("not_told_apart", sentences.open_question(evidence, absolute))


def _early_if_negative(estimate: Estimate, none: float = 0.0) -> Direction:
    if estimate.is_below(none):
        return "early"
    return "late" if estimate.is_above(none) else "none"
