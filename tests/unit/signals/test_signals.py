"""Every registered signal against a slow formula in plain floats, one position at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from branchdiag.signals import SIGNALS, SpineLogprobs, View, signal
from branchdiag.store.schemas import TABLES


class Slow:
    """One position: both distributions as lists of floats, the token, the spine's log-ratios, and
    the teacher's distribution one position on.
    """

    def __init__(
        self,
        q: Sequence[float],
        p: Sequence[float],
        token: int,
        t: int,
        ratios: Sequence[float],
        following: Sequence[float],
    ) -> None:
        self.following = following
        self.q, self.p, self.token, self.t, self.ratios = list(q), list(p), token, t, list(ratios)
        self.ids = range(len(self.q))
        self.proposal = max(self.ids, key=lambda j: (self.p[j], -j))
        self.log_ratio = math.log(self.q[token]) - math.log(self.p[token])

    def kl(self, a: Sequence[float], b: Sequence[float]) -> float:
        return math.fsum(x * (math.log(x) - math.log(y)) for x, y in zip(a, b, strict=True) if x)

    def mix(self, weight: float) -> list[float]:
        return [weight * a + (1 - weight) * b for a, b in zip(self.q, self.p, strict=True)]

    def entropy(self, a: Sequence[float]) -> float:
        return -math.fsum(x * math.log(x) for x in a if x)

    def ordered(self, a: Sequence[float]) -> list[float]:
        return sorted(a, reverse=True)

    def head_share(self) -> float:
        mass, head, all_gaps = 0.0, 0.0, 0.0
        for place, j in enumerate(sorted(self.ids, key=lambda j: (-self.q[j], j))):
            mass += self.q[j]
            gap = abs(self.q[j] - self.p[j])
            all_gaps += gap
            head += gap if place == 0 or mass <= 0.5 else 0.0
        return head / all_gaps


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


ORACLES: dict[str, Callable[[Slow], float]] = {
    "forward_kl": lambda s: s.kl(s.q, s.p),
    "reverse_kl": lambda s: s.kl(s.p, s.q),
    "gkd_jsd": lambda s: (s.kl(s.q, s.mix(0.5)) + s.kl(s.p, s.mix(0.5))) / 2,
    "distillm_skew_kl": lambda s: s.kl(s.q, s.mix(0.1)),
    "distillm_skew_reverse_kl": lambda s: s.kl(s.p, s.mix(0.9)),
    "opsd_clipped_kl": lambda s: math.fsum(
        min(0.05, a * math.log(a / b)) for a, b in zip(s.q, s.p, strict=True)
    ),
    "adakd_hellinger": lambda s: math.sqrt(
        max(0.0, 1 - math.fsum(math.sqrt(a * b) for a, b in zip(s.q, s.p, strict=True)))
    ),
    "total_variation": lambda s: math.fsum(max(0.0, s.q[j] - s.p[j]) for j in s.ids),
    "akl_head_share": Slow.head_share,
    "todi_mean_weight": lambda s: mean([s.q[j] / (s.q[j] + s.p[j]) for j in s.ids]),
    "tip_soft_or": lambda s: (
        1 - (1 - s.entropy(s.p) / math.log(len(s.p))) * (1 - (1 - math.exp(-s.kl(s.p, s.q))))
    ),
    "eopd_entropy": lambda s: s.entropy(s.q),
    "eopd_gate": lambda s: float(s.entropy(s.q) > 0.8),
    "reopold_student_entropy": lambda s: s.entropy(s.p),
    "reopold_log_ratio": lambda s: s.log_ratio,
    "reopold_reward": lambda s: max(s.log_ratio, math.log(0.1) / 0.9),
    "todi_token_weight": lambda s: s.q[s.token] / (s.q[s.token] + s.p[s.token]),
    "iw_opd_step": lambda s: abs(s.log_ratio),
    "selectkd_accepted": lambda s: float(s.proposal in sorted(s.ids, key=lambda j: -s.q[j])[:5]),
    "selectkd_rank": lambda s: 1.0 + sum(s.q[j] > s.q[s.proposal] for j in s.ids),
    "selectkd_speculative": lambda s: min(1.0, s.q[s.proposal] / s.p[s.proposal]),
    "speculative_acceptance": lambda s: 1 - math.fsum(max(0.0, s.p[j] - s.q[j]) for j in s.ids),
    "same_first_token": lambda s: float(s.proposal == max(s.ids, key=lambda j: (s.q[j], -j))),
    "teacher_top1": lambda s: max(s.q),
    "teacher_margin": lambda s: s.ordered(s.q)[0] - s.ordered(s.q)[1],
    "teacher_ratio": lambda s: s.ordered(s.q)[1] / s.ordered(s.q)[0],
    "teacher_varentropy": lambda s: (
        math.fsum(a * math.log(a) ** 2 for a in s.q) - s.entropy(s.q) ** 2
    ),
    "student_top1": lambda s: max(s.p),
    "student_margin": lambda s: s.ordered(s.p)[0] - s.ordered(s.p)[1],
    "entropy_gap": lambda s: s.entropy(s.q) - s.entropy(s.p),
    "teacher_token_probability": lambda s: s.q[s.token],
    "student_token_probability": lambda s: s.p[s.token],
    "iw_opd_accumulated": lambda s: math.fsum(abs(s.ratios[k]) for k in range(s.t)),
    "iw_opd_share": lambda s: (
        math.fsum(abs(s.ratios[k]) for k in range(s.t)) / (math.fsum(map(abs, s.ratios)) + 1e-8)
    ),
    "iw_opd_weight": lambda s: (
        1.5 - 0.5 * math.fsum(map(abs, s.ratios[: s.t])) / (math.fsum(map(abs, s.ratios)) + 1e-8)
    ),
    "minillm_return": lambda s: math.fsum(s.ratios[s.t :]),
    "minillm_mean_return": lambda s: mean(s.ratios[s.t :]),
    "sfd_next_confidence": lambda s: max(s.following, default=math.nan),
}


def log_probs(generator: np.random.Generator, rows: int, width: int, sharp: float) -> torch.Tensor:
    logits = torch.as_tensor(generator.normal(scale=sharp, size=(rows, width)))
    return torch.log_softmax(logits, -1)


def view_of(
    seed: int, rows: int = 4, width: int = 9, sharp: float = 2.0
) -> tuple[View, list[Slow]]:
    """A view of some positions of a random spine, and the same a position at a time."""
    generator = np.random.default_rng(seed)
    length = rows + int(generator.integers(0, 6))
    log_q, log_p = (log_probs(generator, length, width, sharp) for _ in range(2))
    tokens = torch.as_tensor(generator.integers(0, width, length))
    own_q, own_p = (side.gather(1, tokens[:, None])[:, 0] for side in (log_q, log_p))
    at = torch.as_tensor(np.sort(generator.choice(length, rows, replace=False)))
    view = View(log_q[at], log_p[at], tokens[at], at, SpineLogprobs(own_q, own_p, log_q.amax(-1)))
    ratios = (own_q - own_p).tolist()
    after = [*log_q[1:].exp().tolist(), []]
    slow = [
        Slow(log_q[t].exp().tolist(), log_p[t].exp().tolist(), int(tokens[t]), t, ratios, after[t])
        for t in at.tolist()
    ]
    return view, slow


def test_every_signal_has_an_oracle_and_every_oracle_a_signal() -> None:
    assert ORACLES.keys() == SIGNALS.keys()


@pytest.mark.parametrize("name", ORACLES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), width=st.integers(3, 40), sharp=st.sampled_from([0.3, 2.0, 6.0]))
def test_a_signal_is_its_slow_formula(name: str, seed: int, width: int, sharp: float) -> None:
    view, slow = view_of(seed, width=width, sharp=sharp)
    measured = SIGNALS[name].measure(view)
    assert measured.dtype == torch.float64 and measured.shape == (len(slow),)
    expected = [ORACLES[name](position) for position in slow]
    tolerance = 1e-7 if name == "adakd_hellinger" else 1e-9  # its oracle subtracts from 1
    assert measured.tolist() == pytest.approx(expected, rel=tolerance, abs=tolerance, nan_ok=True)


def test_equal_sides_agree_entirely() -> None:
    generator = np.random.default_rng(0)
    same = log_probs(generator, 3, 12, 2.0)
    tokens = torch.zeros(3, dtype=torch.int64)
    whole = SpineLogprobs(same[:, 0], same[:, 0], same.amax(-1))
    view = View(same, same, tokens, torch.arange(3), whole)
    value = {name: s.measure(view) for name, s in SIGNALS.items()}
    for name in ("forward_kl", "reverse_kl", "gkd_jsd", "distillm_skew_kl", "adakd_hellinger"):
        assert value[name].abs().max() < 1e-12, name
    assert value["akl_head_share"].isnan().all()  # no gap has no share
    assert (value["selectkd_rank"] == 1).all() and (value["same_first_token"] == 1).all()
    assert value["iw_opd_weight"].tolist() == [1.5, 1.5, 1.5]
    assert value["speculative_acceptance"].tolist() == pytest.approx([1, 1, 1])


def test_a_token_that_one_side_excludes_gives_no_nonsense() -> None:
    infinity = float("inf")
    log_q = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64).log()
    log_p = torch.tensor([[0.5, 0.0, 0.5]], dtype=torch.float64).log()
    token = torch.tensor([0])
    whole = SpineLogprobs(log_q[:, 0], log_p[:, 0], log_q.amax(-1))
    view = View(log_q, log_p, token, token, whole)
    value = {name: float(s.measure(view)[0]) for name, s in SIGNALS.items()}
    assert value["forward_kl"] == value["reverse_kl"] == infinity
    assert value["gkd_jsd"] == pytest.approx(math.log(2) / 2)
    assert value["distillm_skew_kl"] == pytest.approx(0.5 * math.log(10))
    assert value["opsd_clipped_kl"] == pytest.approx(0.05)
    assert value["total_variation"] == pytest.approx(0.5)
    assert value["tip_soft_or"] == pytest.approx(1.0)
    assert [n for n, v in value.items() if math.isnan(v)] == ["sfd_next_confidence"]


def test_linear_aliases_add_up() -> None:
    view, _ = view_of(3, rows=20)
    acceptance = SIGNALS["speculative_acceptance"].measure(view)
    distance = SIGNALS["total_variation"].measure(view)
    assert (acceptance + distance).tolist() == pytest.approx([1.0] * 20)
    weight, share = (SIGNALS[n].measure(view) for n in ("iw_opd_weight", "iw_opd_share"))
    assert (weight + share / 2).tolist() == pytest.approx([1.5] * 20)


def test_the_table_has_a_column_a_signal_with_paper_and_sign() -> None:
    columns = {column.name: column for column in TABLES["signals"].columns}
    for name, declared in SIGNALS.items():
        assert columns[name].nullable
        assert declared.paper in columns[name].description
        assert columns[name].description.endswith(f"sign {'+' if declared.sign > 0 else '-'}.")


def test_a_name_is_registered_once_and_says_what_it_means() -> None:
    with pytest.raises(ValueError, match="forward_kl: registered before"):

        @signal(sign=1, paper="none")
        def forward_kl(at: View) -> torch.Tensor:
            """Again."""
            return at.token_T

    with pytest.raises(ValueError, match="without a meaning"):

        @signal(sign=1, paper="none")
        def nameless(at: View) -> torch.Tensor:
            return at.token_T

    assert "nameless" not in SIGNALS


def test_a_signal_that_forgot_to_ask_for_the_spine_is_told() -> None:
    view, _ = view_of(1)
    alone = View(view.log_q_TV, view.log_p_TV, view.token_T, view.position_T)
    with pytest.raises(ValueError, match="whole_spine=True"):
        SIGNALS["iw_opd_accumulated"].measure(alone)
