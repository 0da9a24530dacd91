"""Each objective against loops in float64: value and gradient, reductions, masks and settings."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from branchdiag.errors import UsageError
from branchdiag.training.objectives import OBJECTIVE_NAMES, make_objective
from branchdiag.training.objectives.base import MicroBatch, TokenStatistics
from branchdiag.training.token_masks import keep_fraction
from tests.unit.training.batches import logits_batch, through_package
from tests.unit.training.slow_objectives import ORACLES, Rows, gradient

REDUCTIONS = ("token", "sequence")
CASES = [
    ("opsd", {}, 0),
    ("opsd", {"clip": None}, 0),
    ("opsd", {"clip": 0.01, "temperature": 0.7}, 0),
    ("opsd", {"beta": 1.0}, 0),
    ("opsd", {"beta": 1.0, "clip": None}, 0),
    ("opsd", {"beta": 0.5, "clip": 0.02}, 0),
    ("opsd", {"beta": 0.3, "clip": None, "temperature": 1.0}, 0),
    ("pw-opsd", {}, 0),
    ("eopd", {}, 0),
    ("eopd", {"top_k": 3, "entropy_threshold": 1.2}, 0),
    ("reopold", {}, 0),
    ("reopold", {"mixture": 0.7}, 49),
    ("reopold", {}, 50),
    ("reopold", {"kept_share": 0.5, "switch_step": 3}, 3),
    ("iw-opd", {}, 0),
    ("iw-opd", {"gamma": 2.0, "temperature": 1.1}, 0),
]


def holes(rows, length, seed=3):
    """A mask with holes, an empty row and a row of a single token."""
    valid = torch.rand(rows, length, generator=torch.Generator().manual_seed(seed)) > 0.3
    valid[0] = False
    valid[1] = False
    valid[1, length // 2] = True
    return valid


def batch_for(name, seed=0, valid=None, rows=4, length=5):
    weights = None
    if name == "pw-opsd":
        draw = torch.Generator().manual_seed(seed + 1)
        weights = torch.rand(rows, length, generator=draw, dtype=torch.float64)
    valid = holes(rows, length) if valid is None else valid
    return logits_batch(rows, length, seed=seed, valid=valid, weights=weights)


def oracle(name, batch, reduction, step, options):
    """Value, and a function that gives the gradient."""
    rows = Rows(
        batch.student.tolist(),
        batch.teacher.tolist(),
        batch.tokens.tolist(),
        batch.valid.tolist(),
        batch.trained.tolist(),
        None if batch.weights is None else batch.weights.tolist(),
    )
    extra = {"step": step} if name == "reopold" else {}

    def loss(student):
        return ORACLES[name](rows, student, reduction, **extra, **options)

    return loss(rows.student), lambda: gradient(loss, rows.student)


def distance_to_kink(batch, objective):
    """Least distance of a vocabulary entry's summand to the clip."""
    if getattr(objective, "clip", None) is None:
        return 1.0
    temperature = objective.temperature
    log_p = (batch.student / temperature).log_softmax(-1)
    log_q = (batch.teacher / temperature).log_softmax(-1)
    p, q, beta = log_p.exp(), log_q.exp(), objective.beta
    m = (1 - beta) * p + beta * q
    if beta == 0:
        terms = q * (log_q - log_p)
    elif beta == 1:
        terms = p * (log_p - log_q)
    else:
        terms = beta * q * (log_q - m.log()) + (1 - beta) * p * (log_p - m.log())
    return float((terms - objective.clip).abs().min())


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("name", "options", "step"), CASES)
def test_value_and_gradient_equal_loops_in_float64(name, options, step, reduction):
    batch = batch_for(name)
    objective = make_objective(name, **options)
    assert distance_to_kink(batch, objective) > 1e-4
    loss, grad, _ = through_package(objective, batch, step=step, reduction=reduction)
    value, slow_gradient = oracle(name, batch, reduction, step, options)
    assert loss == pytest.approx(value, rel=1e-6, abs=1e-12)
    expected = slow_gradient()
    np.testing.assert_allclose(
        grad.numpy(), expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max()
    )
    assert np.abs(expected).max() > 1e-4  # there is something to agree on


@pytest.mark.parametrize(("name", "options", "step"), CASES)
def test_in_bfloat16_the_value_is_right_to_a_thousandth_and_the_gradient_to_its_rounding(
    name, options, step
):
    batch = batch_for(name, seed=8)
    batch.student, batch.teacher = batch.student.bfloat16(), batch.teacher.bfloat16()
    batch.student_head = batch.teacher_head = batch.student_head.to(torch.bfloat16)
    objective = make_objective(name, **options)
    loss, grad, _ = through_package(objective, batch, step=step, reduction="token", size=2)
    value, slow_gradient = oracle(name, batch, "token", step, options)
    assert loss == pytest.approx(value, rel=1e-3)
    # bfloat16 has 8 significant bits: rounding moves a number by up to 2**-8 of itself.
    expected = slow_gradient()
    np.testing.assert_allclose(
        grad.double().numpy(), expected, rtol=2**-8, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize("name", OBJECTIVE_NAMES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_mask_gives_the_loops_value_and_no_gradient_outside_it(name, data):
    rows, length = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    bits = data.draw(st.lists(st.booleans(), min_size=rows * length, max_size=rows * length))
    valid = torch.tensor(bits).reshape(rows, length)
    seed = data.draw(st.integers(0, 1000))
    step = data.draw(st.sampled_from([0, 60]))
    reduction = data.draw(st.sampled_from(REDUCTIONS))
    size = data.draw(st.integers(1, rows))
    batch = batch_for(name, seed, valid, rows, length)
    fraction = data.draw(st.sampled_from([None, 0.3, 0.5, 1.0]))
    side = data.draw(st.sampled_from(["prefix_fraction", "suffix_fraction"]))
    batch.trained = keep_fraction(valid, **{side: fraction})
    objective = make_objective(name)
    loss, grad, diagnostics = through_package(
        objective, batch, step=step, reduction=reduction, size=size
    )
    value, _ = oracle(name, batch, reduction, step, {})
    assert loss == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert (grad[~batch.trained] == 0).all()
    assert torch.isfinite(grad).all()
    assert diagnostics.tokens == int(batch.trained.sum())


@pytest.mark.parametrize("name", OBJECTIVE_NAMES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("step", [0, 60])
def test_a_batch_without_a_valid_token_is_zero_and_stays_in_the_graph(name, reduction, step):
    batch = batch_for(name, valid=torch.zeros(4, 5, dtype=torch.bool))
    loss, grad, diagnostics = through_package(
        make_objective(name), batch, step=step, reduction=reduction, size=2
    )
    assert loss == 0
    assert grad is not None
    assert (grad == 0).all()
    assert set(diagnostics.means().values()) == {None}
    assert set(diagnostics.missing()) == set(diagnostics.means())


def test_pw_opsd_with_weight_one_and_token_reduction_is_opsd():
    batch = batch_for("opsd")
    loss, grad, _ = through_package(make_objective("opsd"), batch)
    batch.weights = torch.ones(batch.valid.shape)
    weighted, weighted_grad, _ = through_package(
        make_objective("pw-opsd"), batch, reduction="token"
    )
    assert weighted == loss
    assert torch.equal(weighted_grad, grad)


def test_pw_opsd_weighs_rows_alike_by_default_and_opsd_tokens():
    assert make_objective("pw-opsd").default_reduction == "sequence"
    assert make_objective("opsd").default_reduction == "token"
    batch = batch_for("pw-opsd")
    by_default, _, _ = through_package(make_objective("pw-opsd"), batch)
    by_row, _, _ = through_package(make_objective("pw-opsd"), batch, reduction="sequence")
    by_token, _, _ = through_package(make_objective("pw-opsd"), batch, reduction="token")
    assert by_default == by_row
    assert by_default != pytest.approx(by_token, rel=1e-3)


def test_a_reversed_schedule_gives_another_gradient():
    batch = batch_for("pw-opsd", valid=torch.ones(4, 5, dtype=torch.bool))
    batch.weights = torch.linspace(0.2, 1, 5).expand(4, 5)
    _, rising, _ = through_package(make_objective("pw-opsd"), batch)
    batch.weights = batch.weights.flip(-1)
    _, falling, _ = through_package(make_objective("pw-opsd"), batch)
    assert rising[:, 0].norm() < falling[:, 0].norm()
    assert rising[:, -1].norm() > falling[:, -1].norm()


def test_the_clip_can_make_a_loss_negative_and_says_how_much_it_met():
    batch = batch_for("opsd", valid=torch.ones(4, 5, dtype=torch.bool))
    loss, _, clipped = through_package(make_objective("opsd", clip=1e-3), batch)
    free_loss, _, free = through_package(make_objective("opsd", clip=None), batch)
    assert loss < 0 < free_loss
    means = clipped.means()
    assert means["divergence"] == pytest.approx(free_loss)
    assert free.means()["divergence"] == pytest.approx(free_loss)
    log_q = (batch.teacher / 1.1).log_softmax(-1)
    over = log_q.exp() * (log_q - (batch.student / 1.1).log_softmax(-1)) > 1e-3
    assert means["clipped_entry_share"] == pytest.approx(float(over.double().mean()))
    assert means["clipped_token_share"] == pytest.approx(float(over.any(-1).double().mean()))
    assert free.means()["clipped_token_share"] is None
    assert "clips nothing" in free.missing()["clipped_token_share"]


def test_diagnostics_are_means_over_the_trained_tokens():
    batch = batch_for("iw-opd")
    _, _, found = through_package(make_objective("iw-opd"), batch, size=1)
    log_p, log_q = batch.student.log_softmax(-1), batch.teacher.log_softmax(-1)
    mask = batch.valid
    means = found.means()
    assert means["student_entropy"] == pytest.approx(
        float(-(log_p.exp() * log_p).sum(-1)[mask].mean())
    )
    assert means["teacher_entropy"] == pytest.approx(
        float(-(log_q.exp() * log_q).sum(-1)[mask].mean())
    )
    assert means["divergence"] == pytest.approx(
        float((log_q.exp() * (log_q - log_p)).sum(-1)[mask].mean())
    )
    assert means["counted_share"] == 1
    assert 1 < means["weight_mean"] < 1.5


def test_reopold_counts_a_fifth_of_the_global_batch_in_its_second_phase():
    batch = batch_for("reopold", valid=torch.ones(20, 5, dtype=torch.bool), rows=20)
    _, _, late = through_package(make_objective("reopold"), batch, step=50, size=3)
    assert late.counted_tokens == 20
    _, _, early = through_package(make_objective("reopold", mixture=0.6), batch, step=49, size=3)
    objective = make_objective("reopold", mixture=0.6)
    ratio = (batch.teacher / 1.1).log_softmax(-1) - (batch.student / 1.1).log_softmax(-1)
    rewards = ratio.gather(-1, batch.tokens[..., None])[..., 0]
    assert early.counted_tokens == int((rewards >= objective.floor).sum())
    assert 0 < early.counted_tokens < 100


def test_reopolds_floor_is_ln_lambda_over_one_minus_lambda():
    assert make_objective("reopold").floor == pytest.approx(-2.558, abs=5e-4)


def test_iw_opd_weighs_one_and_a_half_where_teacher_and_student_agree():
    batch = batch_for("iw-opd")
    batch.teacher = batch.student.clone()
    _, _, found = through_package(make_objective("iw-opd"), batch)
    assert found.means()["weight_mean"] == pytest.approx(1.5)


def test_iw_opd_ignores_what_a_hole_in_the_mask_holds():
    valid = torch.tensor([[True, False, True, True]])
    drift = torch.tensor([[1.0, 100.0, 3.0, 4.0]])
    zeros = torch.zeros_like(drift)
    rows = MicroBatch(valid, valid, statistics=TokenStatistics(zeros, drift, zeros))
    weights = make_objective("iw-opd", gamma=1.0).token_weights(rows)
    assert weights[valid].tolist() == pytest.approx([2.0, 2 - 1 / 8, 2 - 4 / 8])


@pytest.mark.parametrize("name", [name for name in OBJECTIVE_NAMES if name != "pw-opsd"])
def test_a_schedule_for_an_objective_that_takes_none_is_an_error(name):
    batch = batch_for(name)
    batch.weights = torch.ones(batch.valid.shape)
    with pytest.raises(UsageError, match=f"{name} takes no schedule"):
        through_package(make_objective(name), batch)


def test_pw_opsd_without_a_schedule_is_an_error():
    with pytest.raises(UsageError, match="needs a schedule"):
        through_package(make_objective("pw-opsd"), batch_for("opsd"))


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(bad):
    batch = batch_for("pw-opsd")
    batch.weights[batch.valid.nonzero()[0].tolist()] = bad
    with pytest.raises(ValueError, match="weight"):
        through_package(make_objective("pw-opsd"), batch)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("opsdd", {}, "opsd"),
        ("opsd", {"bta": 0.5}, "beta"),
        ("opsd", {"beta": 1.5}, "beta"),
        ("opsd", {"clip": 0.0}, "clip"),
        ("eopd", {"clip": 0.05}, "no setting"),
        ("eopd", {"top_k": 0}, "top_k"),
        ("reopold", {"mixture": 1.0}, "mixture"),
        ("reopold", {"kept_share": 0.0}, "kept_share"),
        ("iw-opd", {"temperature": 0.0}, "temperature"),
    ],
)
def test_a_setting_outside_the_method_is_an_error_that_names_it(name, options, said):
    with pytest.raises(UsageError, match=said):
        make_objective(name, **options)


def test_objectives_are_named_without_loading_torch():
    code = (
        "import sys; from branchdiag.training.objectives import OBJECTIVE_NAMES as names; "
        "print(*names, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*OBJECTIVE_NAMES, "False"]
    assert [make_objective(name).name for name in OBJECTIVE_NAMES] == list(OBJECTIVE_NAMES)


@settings(max_examples=60, deadline=None)
@given(
    bits=st.lists(st.booleans(), min_size=0, max_size=40),
    percent=st.integers(1, 100),
    last=st.booleans(),
)
@example(bits=[True] * 25, percent=28, last=False)  # 0.28 * 25 is more than 7 in floating point
def test_a_fraction_keeps_its_share_of_the_valid_tokens_rounded_up(bits, percent, last):
    valid = torch.tensor([bits], dtype=torch.bool).reshape(1, len(bits))
    side = "suffix_fraction" if last else "prefix_fraction"
    kept = keep_fraction(valid, **{side: percent / 100})
    places = [t for t, bit in enumerate(bits) if bit]
    number = max(1, -(-percent * len(places) // 100)) if places else 0
    expected = places[len(places) - number :] if last else places[:number]
    assert kept[0].nonzero()[:, 0].tolist() == expected


def test_fractions_that_make_no_sense_are_errors():
    valid = torch.ones(1, 4, dtype=torch.bool)
    with pytest.raises(UsageError, match="exclude"):
        keep_fraction(valid, prefix_fraction=0.3, suffix_fraction=0.3)
    for bad in (0.0, 1.1):
        with pytest.raises(UsageError, match="prefix_fraction"):
            keep_fraction(valid, prefix_fraction=bad)
