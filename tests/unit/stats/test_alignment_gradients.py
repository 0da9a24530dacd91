"""The gradients against autograd of the losses themselves, cosines against a direct formula."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from branchdiag.stats.alignment import (
    CLIP,
    JSD_BETA,
    LOSSES,
    advantage,
    clipped_forward_kl,
    cosine,
    has_length,
    ideal_gradient,
    renormalised,
    signal_square,
)

logits = st.lists(st.floats(-6, 6), min_size=2, max_size=6)


def drawn(seed: int, n_tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Student's logits (with a gradient), the teacher's shares and success rates, float64."""
    rng = np.random.default_rng(seed)
    student = torch.tensor(rng.normal(0, 2, n_tokens), dtype=torch.float64, requires_grad=True)
    teacher = torch.softmax(torch.tensor(rng.normal(0, 2, n_tokens)), -1)
    return student, teacher, torch.tensor(rng.uniform(0, 1, n_tokens))


def loss_of(name: str, p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """The losses as their papers write them, over one support."""
    if name == "forward_kl":
        return (q * (q / p).log()).sum()
    if name == "reverse_kl":
        return (p * (p / q).log()).sum()
    if name == "clipped_forward_kl":
        return (q * (q / p).log()).clamp(max=CLIP).sum()
    mixture = JSD_BETA * q + (1 - JSD_BETA) * p
    teacher, student = (q * (q / mixture).log()).sum(), (p * (p / mixture).log()).sum()
    return JSD_BETA * teacher + (1 - JSD_BETA) * student


@pytest.mark.parametrize("name", LOSSES)
@given(seed=st.integers(0, 10_000), n_tokens=st.integers(2, 7))
@settings(max_examples=60, deadline=None)
def test_a_descent_gradient_is_what_autograd_makes_of_the_loss(
    name: str, seed: int, n_tokens: int
) -> None:
    student, q, _ = drawn(seed, n_tokens)
    p = torch.softmax(student, -1)
    entries = q * (q / p.detach()).log()
    assume(float((entries - CLIP).abs().min()) > 1e-9)  # the clip's kink
    (expected,) = torch.autograd.grad(-loss_of(name, p, q), student)
    found = LOSSES[name](p.detach().numpy(), q.numpy())
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-9, atol=1e-12)
    assert abs(found.sum()) < 1e-12  # logits have one direction that changes nothing


@given(seed=st.integers(0, 10_000), n_tokens=st.integers(2, 7))
@settings(max_examples=60, deadline=None)
def test_the_ideal_gradient_is_what_autograd_makes_of_expected_success(
    seed: int, n_tokens: int
) -> None:
    student, _, success = drawn(seed, n_tokens)
    p = torch.softmax(student, -1)
    (expected,) = torch.autograd.grad((p * success).sum(), student)
    found = ideal_gradient(p.detach().numpy(), success.numpy())
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-10, atol=1e-14)


def slow_cosine(first: list[float], second: list[float]) -> float | None:
    dot = math.fsum(a * b for a, b in zip(first, second, strict=True))
    lengths = [math.sqrt(math.fsum(a * a for a in values)) for values in (first, second)]
    return None if min(lengths) <= 1e-12 else dot / (lengths[0] * lengths[1])


@given(seed=st.integers(0, 10_000), n_tokens=st.integers(2, 7))
@settings(max_examples=60, deadline=None)
def test_cosine_and_advantage_against_loops(seed: int, n_tokens: int) -> None:
    student, q, success = drawn(seed, n_tokens)
    p = torch.softmax(student, -1).detach().numpy()
    ideal = ideal_gradient(p, success.numpy())
    for gradient in LOSSES.values():
        step = gradient(p, q.numpy())
        expected = slow_cosine(list(ideal), list(step))
        found = float(cosine(ideal, step))
        assert math.isnan(found) if expected is None else found == pytest.approx(expected)
        assert math.isnan(found) or -1.0 <= found <= 1.0
    gain = math.fsum((b - a) * v for a, b, v in zip(p, q.tolist(), success.tolist(), strict=True))
    assert float(advantage(p, q.numpy(), success.numpy())) == pytest.approx(gain, abs=1e-14)


def test_without_an_entry_at_its_bound_the_clipped_forward_kl_is_the_forward_kl() -> None:
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.52, 0.29, 0.19])
    np.testing.assert_allclose(clipped_forward_kl(p, q), q - p, atol=1e-15)
    far = np.array([0.98, 0.01, 0.01])
    assert not np.allclose(clipped_forward_kl(p, far), far - p)


def test_shares_are_of_the_support_and_absent_tokens_have_none() -> None:
    shares = renormalised([[0.2, 0.6, np.nan], [np.nan, 0.3, 0.1], [0.0, 0.0, np.nan]])
    np.testing.assert_allclose(shares[:2], [[0.25, 0.75, 0], [0, 0.75, 0.25]])
    assert np.isnan(shares[2]).all()


def test_where_success_is_constant_or_the_sides_agree_there_is_no_cosine() -> None:
    p, q = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.3, 0.5])
    same = ideal_gradient(p, np.full(3, 5 / 6))
    assert not has_length(same) and np.isnan(cosine(same, q - p))
    tells = ideal_gradient(p, np.array([1.0, 0.5, 0.0]))
    for gradient in LOSSES.values():
        assert np.isnan(cosine(tells, gradient(p, p)))
    assert advantage(p, p, np.array([1.0, 0.5, 0.0])) == 0


def test_a_token_that_the_teacher_excludes_leaves_the_reverse_kl_alone_undefined() -> None:
    p, q = np.array([0.6, 0.3, 0.1]), np.array([0.7, 0.3, 0.0])
    tells = ideal_gradient(p, np.array([1.0, 0.5, 0.0]))
    defined = {name: bool(np.isfinite(cosine(tells, g(p, q)))) for name, g in LOSSES.items()}
    assert defined == {
        "forward_kl": True,
        "reverse_kl": False,
        "jsd": True,
        "clipped_forward_kl": True,
    }


@given(logits, st.randoms(use_true_random=False))
def test_two_tokens_leave_one_direction(values: list[float], random: object) -> None:
    p = renormalised(np.exp(values[:2]))
    q = renormalised(np.exp(values[::-1][:2]))
    assume(abs(p[0] - q[0]) > 1e-6)
    sign = float(cosine(ideal_gradient(p, np.array([1.0, 0.0])), q - p))
    assert abs(sign) == pytest.approx(1.0)


def test_the_signal_square_is_unbiased_over_every_outcome_of_the_rollouts() -> None:
    p, success, samples = np.array([0.5, 0.3, 0.2]), [0.9, 0.4, 0.6], [2, 3, 4]
    truth = float((ideal_gradient(p, np.array(success)) ** 2).sum())
    mean = plain = 0.0
    for counts in itertools.product(*(range(n + 1) for n in samples)):
        chance = math.prod(
            binom.pmf(s, n, v) for s, n, v in zip(counts, samples, success, strict=True)
        )
        seen = np.array(counts) / np.array(samples)
        mean += chance * float(signal_square(p, seen, samples))
        plain += chance * float((ideal_gradient(p, seen) ** 2).sum())
    assert mean == pytest.approx(truth, abs=1e-14)
    assert plain > truth + 0.01
