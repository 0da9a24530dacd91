"""Estimates hold finite numbers or a reason; percentile intervals know when they say nothing."""

from __future__ import annotations

import numpy as np
import pytest

from branchdiag.stats.estimate import Estimate, missing, percentile_estimate


def test_missing_numbers_need_a_reason() -> None:
    with pytest.raises(ValueError, match="reason"):
        Estimate(None, None, None)
    with pytest.raises(ValueError, match="reason"):
        Estimate(0.5, None, None)
    with pytest.raises(ValueError, match="both ends"):
        Estimate(0.5, 0.1, None, "why")
    with pytest.raises(ValueError, match="finite"):
        Estimate(float("nan"), None, None, "why")
    assert missing("why").reason == "why"
    assert not missing("why").has_interval


def test_above_and_below_ask_the_whole_interval() -> None:
    estimate = Estimate(0.6, 0.5, 0.7)
    assert estimate.is_above(0.4) and not estimate.is_above(0.5) and not estimate.is_above(0.6)
    assert estimate.is_below(0.8) and not estimate.is_below(0.7)
    assert not missing("why").is_above(-1.0) and not missing("why").is_below(1.0)


def test_negated_estimate_exchanges_the_ends() -> None:
    assert Estimate(0.6, 0.5, 0.8).negated() == Estimate(-0.6, -0.8, -0.5)
    assert missing("why").negated() == missing("why")


def test_percentiles_leave_out_dropped_resamples() -> None:
    replicates = np.append(np.linspace(0.0, 1.0, 101), [np.nan] * 5)
    estimate = percentile_estimate(0.5, replicates, level=0.9, max_dropped_share=0.1)
    assert estimate.ci_low == pytest.approx(0.05)
    assert estimate.ci_high == pytest.approx(0.95)


@pytest.mark.parametrize(("dropped", "given"), [(10, True), (11, False)])
def test_more_than_a_tenth_dropped_leaves_the_interval_missing(dropped: int, given: bool) -> None:
    replicates = np.linspace(0.0, 1.0, 100)
    replicates[:dropped] = np.nan
    estimate = percentile_estimate(0.5, replicates, level=0.95, max_dropped_share=0.1)
    assert estimate.value == 0.5
    assert estimate.has_interval is given
    if not given:
        assert estimate.reason is not None and "11 of 100 resamples drew" in estimate.reason


def test_an_interval_without_width_is_missing() -> None:
    replicates = np.append(np.full(999, 1.0), 0.5)
    estimate = percentile_estimate(1.0, replicates, level=0.95, max_dropped_share=0.1)
    assert not estimate.has_interval
    assert estimate.reason is not None and "no spread" in estimate.reason


def test_all_dropped_is_missing() -> None:
    estimate = percentile_estimate(1.0, np.full(10, np.nan), level=0.95, max_dropped_share=0.1)
    assert not estimate.has_interval
