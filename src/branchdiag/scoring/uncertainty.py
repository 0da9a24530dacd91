"""What dropout samples say of a distribution: mutual information and Dirichlet concentration.

Reads probability arrays (C candidates, V vocabulary, M dropout samples); writes arrays. Knows no
model and no torch. Implements the uncertainty scores of arXiv 2605.21606 (Phase D, appendix B), in
two passes over all M float64 vectors: sums streamed in float32 give 0 variance at sharp positions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

KAPPA_CAP = 1e12
"""kappa where the samples do not differ (their variance is zero)."""


def uncertainty(
    plain_CV: NDArray[np.float64], samples_MCV: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Entropies, mutual information and Dirichlet concentration of C candidates, each float64 [C].

    h_full: entropy of the plain distribution, nats. h_mc: of the mean over samples. mi: h_mc minus
    the samples' mean entropy, at least 0. trace: sum over the vocabulary of the samples' variance,
    ddof 1. kappa: (1 - |mean|^2) / trace - 1, the concentration of the Dirichlet with that mean and
    that summed variance (Minka's moment match; arXiv 2605.21606 prints no formula); negative where
    the trace exceeds 1 - |mean|^2, which the paper reports and only ddof 1 allows; at most 1e12,
    and 1e12 where the samples are equal.

    Raises:
        ValueError: fewer than two samples.
    """
    samples = np.asarray(samples_MCV, dtype=np.float64)
    if samples.shape[0] < 2:
        raise ValueError("a variance needs two samples")
    mean_CV = samples.mean(axis=0)
    h_mc = _entropy(mean_CV)
    trace = np.square(samples - mean_CV).sum(axis=(0, 2)) / (samples.shape[0] - 1)
    # 1 - |mean|^2 without its cancellation at sharp positions.
    spread = (mean_CV * (1 - mean_CV)).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        kappa = np.where(trace > 0, spread / trace - 1, KAPPA_CAP)
    return {
        "h_full": _entropy(np.asarray(plain_CV, dtype=np.float64)),
        "h_mc": h_mc,
        "mi": np.maximum(h_mc - _entropy(samples).mean(axis=0), 0.0),
        "kappa": np.minimum(kappa, KAPPA_CAP),
        "trace": trace,
    }


def _entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shannon entropy along the last axis, nats."""
    logarithms = np.log(np.where(probabilities > 0, probabilities, 1.0))
    entropies: NDArray[np.float64] = -(probabilities * logarithms).sum(axis=-1)
    return np.maximum(entropies, 0.0)
