"""Every score of a position against an oracle of NumPy and SciPy, and the edges of the input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import entr, log_softmax, rel_entr

from branchdiag.errors import UsageError
from branchdiag.scoring import distributions
from branchdiag.scoring.distributions import ID_COLUMNS, SCALAR_COLUMNS, position_scores


def oracle(teacher, student, tokens, valid, temperature, top_k):
    """One position at a time, in float64, from the definitions."""
    width = min(teacher.shape[1], student.shape[1])
    rows = []
    for teacher_logits, student_logits, token in zip(teacher, student, tokens, strict=True):
        log_t = log_softmax(teacher_logits[:width].astype(np.float64) / temperature)
        log_s = log_softmax(student_logits[:width].astype(np.float64) / temperature)
        t, s = np.exp(log_t), np.exp(log_s)
        ranked = sorted(np.flatnonzero(valid[:width]), key=lambda i: (-teacher_logits[i], i))
        top = ranked[:top_k]
        rest = max(0.0, 1 - t[top].sum())
        renormalised = t[top] / t[top].sum()
        rows.append(
            {
                "h_full": entr(t).sum(),
                "h_student": entr(s).sum(),
                "h_trunc": entr(renormalised).sum(),
                "h_trunc_partial": entr(t[top]).sum(),
                "h_trunc_tail": entr(np.append(t[top], rest)).sum(),
                "covered_mass": t[top].sum(),
                "teacher_logprob": log_t[token],
                "student_logprob": log_s[token],
                "kl": rel_entr(t, s).sum(),
                "reverse_kl": rel_entr(s, t).sum(),
                "jsd": jensenshannon(t, s) ** 2,
                "p1": t[top[0]],
                "p2": t[top[1]] if len(top) > 1 else 0.0,
                "teacher_top_id": int(np.argmax(teacher_logits[:width])),
                "student_top_id": int(np.argmax(student_logits[:width])),
                "top_ids": top,
                "top_teacher": t[top],
                "top_student": s[top],
            }
        )
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def score(teacher, student, tokens, valid, *, temperature=1.0, top_k=16):
    return position_scores(
        torch.as_tensor(teacher),
        torch.as_tensor(student),
        tokens,
        valid,
        temperature=temperature,
        top_k=top_k,
    )


def random_case(seed, *, n_positions=6, widths=(90, 90), scale=3.0):
    rng = np.random.default_rng(seed)
    teacher = (scale * rng.standard_normal((n_positions, widths[0]))).astype(np.float32)
    student = (scale * rng.standard_normal((n_positions, widths[1]))).astype(np.float32)
    tokens = rng.integers(0, min(widths), n_positions)
    return teacher, student, tokens, rng.random(max(widths)) < 0.7


def assert_same(found, expected, tolerance=1e-12):
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].shape == values.shape, name
        np.testing.assert_allclose(
            found[name], values, rtol=tolerance, atol=tolerance, err_msg=name
        )


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    scale=st.sampled_from([0.1, 1.0, 5.0, 20.0]),
    temperature=st.sampled_from([0.5, 1.0, 1.1, 3.0]),
    top_k=st.sampled_from([2, 3, 16, 500]),
    widths=st.sampled_from([(90, 90), (90, 70), (70, 90)]),
)
def test_every_score_agrees_with_the_oracle(seed, scale, temperature, top_k, widths):
    case = random_case(seed, scale=scale, widths=widths)
    found = score(*case, temperature=temperature, top_k=top_k)
    # jensenshannon takes a square root, which magnifies rounding near 0.
    expected = oracle(*case, temperature, top_k)
    np.testing.assert_allclose(found.pop("jsd"), expected.pop("jsd"), rtol=1e-9, atol=1e-9)
    assert_same(found, expected, tolerance=1e-11)


def test_columns_and_types_are_those_of_the_table():
    from branchdiag.store.schemas import POSITIONS

    found = score(*random_case(0))
    assert set(found) == {*SCALAR_COLUMNS, *ID_COLUMNS, "top_ids", "top_teacher", "top_student"}
    declared = {column.name for column in POSITIONS.columns}
    assert declared - set(found) == {"problem_id", "position", "token_id", "plausible"}
    assert all(found[name].dtype == np.float64 for name in SCALAR_COLUMNS)
    assert all(found[name].dtype == np.int32 for name in (*ID_COLUMNS, "top_ids"))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), scale=st.sampled_from([0.3, 4.0, 30.0]))
def test_bounds_that_hold_for_any_logits(seed, scale):
    teacher, student, tokens, valid = random_case(seed, scale=scale)
    found = score(teacher, student, tokens, valid, top_k=8)
    swapped = score(student, teacher, tokens, valid, top_k=8)
    assert (found["h_full"] <= math.log(90) + 1e-12).all()
    assert (found["h_trunc"] <= math.log(8) + 1e-12).all()
    assert (found["h_trunc_partial"] <= found["h_trunc_tail"]).all()
    assert (found["h_trunc_tail"] <= found["h_full"] + 1e-12).all(), "bucketing loses entropy"
    assert (found["kl"] >= 0).all()
    assert ((found["jsd"] >= 0) & (found["jsd"] <= math.log(2))).all()
    np.testing.assert_allclose(found["jsd"], swapped["jsd"], atol=1e-14)
    np.testing.assert_array_equal(found["kl"], swapped["reverse_kl"])
    np.testing.assert_array_equal(found["h_student"], swapped["h_full"])
    assert (np.diff(found["top_teacher"], axis=1) <= 0).all()
    assert valid[found["top_ids"]].all()


def test_equal_distributions_diverge_by_nothing():
    teacher, _, tokens, valid = random_case(3)
    found = score(teacher, teacher.copy(), tokens, valid)
    assert found["kl"].tolist() == found["reverse_kl"].tolist() == [0.0] * 6
    assert found["jsd"].max() < 1e-15


def test_uniform_logits_give_the_logarithm_of_the_count():
    logits = np.zeros((1, 64), dtype=np.float32)
    found = score(logits, logits, [5], np.ones(64, dtype=bool), top_k=16)
    assert found["h_full"][0] == pytest.approx(math.log(64), abs=1e-14)
    assert found["h_trunc"][0] == pytest.approx(math.log(16), abs=1e-14)
    assert found["h_trunc_partial"][0] == pytest.approx(math.log(64) / 4, abs=1e-14)
    assert found["covered_mass"][0] == pytest.approx(0.25, abs=1e-15)
    assert found["teacher_top_id"][0] == 0


def test_mass_of_tokens_that_are_not_valid_stays_in_the_softmax_but_out_of_the_ranks():
    logits = np.log(np.array([[0.6, 0.2, 0.1, 0.1]], dtype=np.float32))
    valid = np.array([False, True, True])  # shorter than the logits: the rest is not valid
    found = score(logits, logits, [0], valid)
    assert found["top_ids"].tolist() == [[1, 2]]
    assert found["p1"][0] == pytest.approx(0.2, rel=1e-6)
    assert found["p2"][0] == pytest.approx(0.1, rel=1e-6)
    assert found["teacher_top_id"][0] == 0
    assert found["covered_mass"][0] == pytest.approx(0.3, rel=1e-6)


def test_fewer_valid_tokens_than_top_k():
    teacher, student, tokens, _ = random_case(4)
    valid = np.zeros(90, dtype=bool)
    valid[7] = True
    found = score(teacher, student, tokens, valid)
    assert found["top_ids"].tolist() == [[7]] * 6
    assert found["p2"].tolist() == [0.0] * 6
    assert found["h_trunc"].tolist() == [0.0] * 6
    valid[[8, 60]] = True
    assert_same(score(teacher, student, tokens, valid), oracle(*random_case(4)[:3], valid, 1.0, 16))


def test_ties_go_to_the_lower_id():
    logits = np.zeros((1, 40), dtype=np.float32)
    logits[0, [31, 4, 17]] = 5.0
    logits[0, 22] = 6.0
    found = score(logits, logits, [0], np.ones(40, dtype=bool), top_k=4)
    assert found["top_ids"].tolist() == [[22, 4, 17, 31]]


def test_bfloat16_logits_are_scored_as_the_numbers_they_are():
    teacher, student, tokens, valid = random_case(5)
    rounded = [torch.as_tensor(x).to(torch.bfloat16) for x in (teacher, student)]
    found = position_scores(*rounded, tokens, valid, temperature=1.0, top_k=16)
    expected = oracle(*(x.float().numpy() for x in rounded), tokens, valid, 1.0, 16)
    # Of ties at the last kept place any may be kept.
    for name in ("h_full", "kl", "h_trunc", "covered_mass", "p1", "p2", "top_teacher"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gap", [50.0, 1e3, 1e30])
def test_a_peaked_distribution_gives_finite_numbers(gap):
    teacher = np.zeros((2, 50), dtype=np.float32)
    teacher[:, 3] = gap
    student = np.zeros((2, 50), dtype=np.float32)
    student[0, 3] = gap
    student[1, 9] = gap  # opposite peak: a divergence as large as the gap
    found = score(teacher, student, [3, 3], np.ones(50, dtype=bool))
    assert all(np.isfinite(values).all() for values in found.values())
    assert found["kl"][0] == 0
    assert found["kl"][1] == pytest.approx(gap, rel=1e-6)
    assert found["jsd"][1] == pytest.approx(math.log(2), abs=1e-12)
    assert found["h_full"][0] == pytest.approx(49 * math.exp(-gap) * gap, rel=0.05, abs=1e-300)


def test_a_token_excluded_on_one_side_alone_gives_infinity_and_never_nan():
    teacher = np.zeros((1, 6), dtype=np.float32)
    student = np.zeros((1, 6), dtype=np.float32)
    student[0, 2] = -np.inf
    found = score(teacher, student, [2], np.ones(6, dtype=bool), top_k=6)
    assert found["kl"][0] == np.inf
    assert found["reverse_kl"][0] == pytest.approx(math.log(6 / 5))
    assert found["student_logprob"][0] == -np.inf
    assert found["jsd"][0] == pytest.approx(
        jensenshannon([1 / 6] * 6, [0.2] * 2 + [0] + [0.2] * 3) ** 2
    )
    assert not any(np.isnan(values).any() for values in found.values())


def test_tokens_excluded_on_both_sides_count_for_nothing():
    teacher, student, _, valid = random_case(6)
    teacher[:, 50:] = -np.inf
    student[:, 50:] = -np.inf
    tokens = [0] * 6
    cut = score(teacher[:, :50], student[:, :50], tokens, valid)
    assert_same(score(teacher, student, tokens, valid), cut)


def test_no_mass_on_any_valid_token():
    logits = np.zeros((1, 10), dtype=np.float32)
    logits[0, 5:] = -np.inf
    valid = np.arange(10) >= 5
    found = score(logits, logits, [0], valid)
    for name in ("h_trunc", "h_trunc_partial", "covered_mass", "p1", "p2"):
        assert found[name][0] == 0, name


def test_blocks_of_rows_change_nothing(monkeypatch):
    case = random_case(7, n_positions=9)
    whole = score(*case)
    for elements in (1, 200, 10**9):
        monkeypatch.setitem(distributions.BLOCK_ELEMENTS, "cpu", elements)
        for name, values in score(*case).items():
            np.testing.assert_array_equal(values, whole[name], err_msg=name)


def test_a_wide_vocabulary_is_summed_exactly():
    teacher, student, tokens, valid = random_case(8, n_positions=2, widths=(152_000, 152_000))
    assert_same(
        score(teacher, student, tokens, valid), oracle(teacher, student, tokens, valid, 1.0, 16)
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("side", ["teacher", "student"])
def test_logits_that_are_no_numbers_are_an_error_that_names_the_side(bad, side):
    teacher, student, tokens, valid = random_case(9)
    (teacher if side == "teacher" else student)[2, 5] = bad
    with pytest.raises(UsageError, match=f"the {side}'s logits"):
        score(teacher, student, tokens, valid)


def test_what_does_not_fit_is_refused():
    teacher, student, tokens, valid = random_case(10, widths=(90, 70))
    with pytest.raises(UsageError, match="no valid token"):
        score(teacher, student, tokens, np.zeros(90, dtype=bool))
    with pytest.raises(ValueError, match="length"):
        score(teacher, student, tokens[:-1], valid)
    with pytest.raises(ValueError, match="common vocabulary of 70"):
        score(teacher, student, [75] * 6, valid)
