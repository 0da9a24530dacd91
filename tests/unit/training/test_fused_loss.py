"""The fused loss against the plain one: value, gradient, chunks, accumulation, memory, errors."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from branchdiag.errors import UsageError
from branchdiag.training.accumulation import MicroBatch, batch_totals, plan
from branchdiag.training.fused_loss import fused_loss, token_statistics
from branchdiag.training.objectives import OBJECTIVE_NAMES, make_objective
from branchdiag.training.output_head import OutputHead
from tests.unit.training.batches import projected_batch, through_package
from tests.unit.training.plain_loss import log_probs, plain_loss

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 1e-3}
CASES = [(name, {}) for name in OBJECTIVE_NAMES] + [
    ("opsd", {"beta": 0.4}),
    ("opsd", {"beta": 1.0, "clip": None}),
]


def batch_for(name, **options):
    batch = projected_batch(**options)
    if name == "pw-opsd":
        draw = torch.Generator().manual_seed(5)
        batch.weights = torch.rand(batch.valid.shape, generator=draw)
    return batch


def planned(objective, batch, step=0, reduction=None):
    statistics = None
    if objective.statistics_of != "nothing":
        statistics = token_statistics(objective, batch.valid, *batch.sides())
    rows = MicroBatch(batch.valid, batch.trained, batch.weights, statistics)
    [totals] = batch_totals(objective, [rows], step=step)
    return plan(objective, rows, totals, reduction=reduction)


def trainable(batch, *, head=True):
    """The batch with leaves that collect gradients: hidden states, and the student's own head."""
    batch.student = batch.student.detach().clone().requires_grad_()
    old = batch.student_head
    bias = None if old.bias_V is None else old.bias_V.clone().requires_grad_(head)
    weight = old.weight_Vd.clone().requires_grad_(head)
    batch.student_head = OutputHead(weight, bias, old.softcap)
    return batch


def leaves(batch):
    named = {"hidden": batch.student, "weight": batch.student_head.weight_Vd}
    if batch.student_head.bias_V is not None:
        named["bias"] = batch.student_head.bias_V
    return named


def gradients(batch):
    return {name: leaf.grad for name, leaf in leaves(batch).items()}


def relative(found, expected):
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def present(diagnostics):
    """The means that can be taken."""
    return {name: mean for name, mean in diagnostics.means().items() if mean is not None}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("step", [0, 60])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_fused_equals_plain_in_value_and_all_gradients(name, options, step, dtype):
    objective = make_objective(name, **options)
    sizes = {"rows": 4, "length": 12, "vocabulary": 700, "hidden": 32, "bias": True}
    fused = trainable(batch_for(name, dtype=dtype, **sizes))
    chosen = planned(objective, fused, step)
    result = fused_loss(objective, chosen, *fused.sides(), chunk_tokens=10)
    result.loss.backward()
    plain = trainable(batch_for(name, dtype=dtype, **sizes))
    expected = plain_loss(objective, chosen.coefficients_BT, plain.trained, *plain.sides())
    expected.backward()
    tolerance = TOLERANCE[dtype]
    assert float(result.loss.detach()) == pytest.approx(float(expected.detach()), rel=tolerance)
    found = gradients(fused)
    for which, grad in gradients(plain).items():
        assert found[which].dtype == grad.dtype
        assert relative(found[which], grad) < tolerance, which


def test_statistics_are_the_plain_log_probabilities_and_entropies():
    batch = projected_batch(dtype=torch.float64)
    objective = make_objective("reopold")
    found = token_statistics(objective, batch.valid, *batch.sides(), chunk_tokens=4)
    for side, hidden in (("student", batch.student), ("teacher", batch.teacher)):
        log_p = log_probs(hidden, batch.student_head, objective.temperature)
        of_token = log_p.gather(-1, batch.tokens[..., None])[..., 0].where(batch.valid, 0)
        torch.testing.assert_close(getattr(found, f"{side}_log_probs_BT"), of_token)
        if side == "student":
            entropies = -(log_p.exp() * log_p).sum(-1).where(batch.valid, 0)
            torch.testing.assert_close(found.student_entropies_BT, entropies)


@pytest.mark.parametrize("name", OBJECTIVE_NAMES)
@pytest.mark.parametrize("chunk_tokens", [1, 2, 7, 1000])
def test_the_chunk_size_changes_nothing(name, chunk_tokens):
    objective = make_objective(name)
    batch = batch_for(name, dtype=torch.float64)
    whole, whole_grad, whole_sums = through_package(objective, batch, step=60)
    loss, grad, sums = through_package(objective, batch, step=60, chunk_tokens=chunk_tokens)
    assert loss == pytest.approx(whole, rel=1e-12)
    torch.testing.assert_close(grad, whole_grad, rtol=1e-10, atol=1e-14)
    assert present(sums) == pytest.approx(present(whole_sums), rel=1e-12)


@pytest.mark.parametrize("name", OBJECTIVE_NAMES)
@pytest.mark.parametrize("reduction", ["token", "sequence"])
@pytest.mark.parametrize("step", [0, 60])
def test_one_batch_of_eight_equals_eight_of_one(name, reduction, step):
    objective = make_objective(name)
    batch = batch_for(name, rows=8, length=9)
    batch.valid[3] = False
    batch.valid[4, 1:] = False
    options = {"step": step, "reduction": reduction}
    loss, grad, sums = through_package(objective, batch, size=8, **options)
    for size in (1, 3):
        parts_loss, parts_grad, parts = through_package(objective, batch, size=size, **options)
        assert parts_loss == pytest.approx(loss, rel=1e-5)
        torch.testing.assert_close(parts_grad, grad, rtol=1e-5, atol=1e-7)
        assert present(parts) == pytest.approx(present(sums), rel=1e-5)


@pytest.mark.parametrize("name", ["opsd", "reopold"])
def test_release_accumulation_is_the_mean_of_the_micro_batches_own_losses(name):
    objective = make_objective(name)
    batch = batch_for(name, rows=6, length=9, dtype=torch.float64)
    batch.valid[0, 2:] = False
    batch.trained = batch.valid
    released, grad, _ = through_package(objective, batch, step=60, size=2, accumulation="release")
    own = [through_package(objective, part, step=60)[:2] for part in batch.micro_batches(2)]
    assert released == pytest.approx(sum(loss for loss, _ in own) / 3)
    torch.testing.assert_close(grad, torch.cat([part for _, part in own]) / 3)
    exact, _, _ = through_package(objective, batch, step=60, size=2)
    assert released != pytest.approx(exact, rel=1e-3)


class LargestTensor(TorchDispatchMode):
    """Notes the most elements that any operation's result, or scratch it allocated, had."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.numel())
        return result


@pytest.mark.parametrize("name", OBJECTIVE_NAMES)
def test_no_tensor_of_tokens_times_vocabulary_is_ever_made(name):
    vocabulary, hidden = 600, 8
    objective = make_objective(name)
    batch = trainable(batch_for(name, rows=4, length=40, vocabulary=vocabulary, hidden=hidden))
    with LargestTensor() as seen:
        chosen = planned_in_chunks(objective, batch)
        fused_loss(objective, chosen, *batch.sides(), chunk_tokens=16).loss.backward()
    assert seen.elements <= 16 * vocabulary < int(batch.valid.sum()) * vocabulary / 5
    assert batch.student_head.weight_Vd.grad is not None
    with LargestTensor() as control:  # the watch sees what it is there to see
        chosen = planned(objective, batch)
        plain_loss(objective, chosen.coefficients_BT, batch.trained, *batch.sides()).backward()
    assert control.elements == int(batch.valid.sum()) * vocabulary


def planned_in_chunks(objective, batch):
    statistics = None
    if objective.statistics_of != "nothing":
        statistics = token_statistics(objective, batch.valid, *batch.sides(), chunk_tokens=16)
    rows = MicroBatch(batch.valid, batch.trained, batch.weights, statistics)
    [totals] = batch_totals(objective, [rows], step=0)
    return plan(objective, rows, totals)


def peak_bytes(function):
    """Most bytes that torch held at once while `function` ran, by its own record."""
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
        function()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def test_memory_does_not_grow_with_the_number_of_tokens():
    objective = make_objective("opsd")
    peaks = []
    for length in (64, 256):
        batch = trainable(
            projected_batch(rows=2, length=length, vocabulary=20_000, hidden=4), head=False
        )
        chosen = planned(objective, batch)

        def step(batch=batch, chosen=chosen):
            fused_loss(objective, chosen, *batch.sides(), chunk_tokens=8).loss.backward()

        peaks.append(peak_bytes(step))
    logits = 2 * 64 * 20_000 * 4
    assert peaks[0] < logits
    assert peaks[1] < 1.1 * peaks[0]


def test_a_wider_teacher_with_other_hidden_states_is_cut_to_the_common_vocabulary():
    objective = make_objective("opsd")
    results = []
    for loss_of in ("fused", "plain"):
        batch = trainable(projected_batch(dtype=torch.float64, vocabulary=40, bias=True))
        draw = torch.Generator().manual_seed(9)
        weight = torch.randn(64, 5, generator=draw, dtype=torch.float64)
        batch.teacher_head = OutputHead(weight, torch.randn(64, generator=draw).double())
        batch.teacher = torch.randn(*batch.tokens.shape, 5, generator=draw, dtype=torch.float64)
        chosen = planned(objective, batch)
        if loss_of == "fused":
            loss = fused_loss(objective, chosen, *batch.sides()).loss
        else:
            loss = plain_loss(objective, chosen.coefficients_BT, batch.trained, *batch.sides())
        loss.backward()
        results.append((float(loss.detach()), gradients(batch)))
    assert results[0][0] == pytest.approx(results[1][0])
    for which, grad in results[1][1].items():
        assert relative(results[0][1][which], grad) < 1e-10


def test_a_narrower_teacher_leaves_the_rest_of_the_students_head_alone():
    batch = trainable(projected_batch(vocabulary=50, bias=True))
    batch.teacher_head = batch.teacher_head.cut(30)
    batch.tokens %= 30
    objective = make_objective("opsd")
    fused_loss(objective, planned(objective, batch), *batch.sides()).loss.backward()
    assert (batch.student_head.weight_Vd.grad[30:] == 0).all()
    assert (batch.student_head.bias_V.grad[30:] == 0).all()
    assert (batch.student_head.weight_Vd.grad[:30] != 0).any(1).all()


def test_soft_capping_is_part_of_the_gradient():
    objective = make_objective("eopd")
    results = []
    for loss_of in ("fused", "plain"):
        batch = projected_batch(dtype=torch.float64)
        batch.student_head = batch.teacher_head = OutputHead(
            batch.student_head.weight_Vd, None, softcap=2.0
        )
        batch = trainable(batch)
        chosen = planned(objective, batch)
        if loss_of == "fused":
            loss = fused_loss(objective, chosen, *batch.sides(), chunk_tokens=3).loss
        else:
            loss = plain_loss(objective, chosen.coefficients_BT, batch.trained, *batch.sides())
        loss.backward()
        results.append((float(loss.detach()), gradients(batch)))
    assert results[0][0] == pytest.approx(results[1][0])
    for which, grad in results[1][1].items():
        assert relative(results[0][1][which], grad) < 1e-10


def test_backward_scales_the_gradient_once():
    objective = make_objective("opsd")
    once, thrice = trainable(projected_batch()), trainable(projected_batch())
    fused_loss(objective, planned(objective, once), *once.sides()).loss.backward()
    loss = fused_loss(objective, planned(objective, thrice), *thrice.sides()).loss
    (3 * loss).backward(retain_graph=True)
    for which, grad in gradients(once).items():
        torch.testing.assert_close(gradients(thrice)[which], 3 * grad)
    with pytest.raises(RuntimeError, match="once"):
        loss.backward()


def test_a_frozen_head_gets_no_gradient_and_no_grad_gives_the_same_loss():
    objective = make_objective("opsd")
    batch = trainable(projected_batch(), head=False)
    result = fused_loss(objective, planned(objective, batch), *batch.sides())
    result.loss.backward()
    assert batch.student_head.weight_Vd.grad is None
    with torch.no_grad():
        measured = fused_loss(objective, planned(objective, batch), *batch.sides())
    assert not measured.loss.requires_grad
    assert measured.loss == result.loss
    assert measured.diagnostics == result.diagnostics


def test_a_head_trained_alone_gets_its_gradient():
    objective = make_objective("opsd")
    both, head_only = trainable(projected_batch()), trainable(projected_batch())
    head_only.student = head_only.student.detach()
    for batch in (both, head_only):
        fused_loss(objective, planned(objective, batch), *batch.sides()).loss.backward()
    torch.testing.assert_close(
        head_only.student_head.weight_Vd.grad, both.student_head.weight_Vd.grad
    )


def test_an_all_masked_batch_gives_zero_gradients_to_hidden_states_and_head():
    objective = make_objective("opsd")
    batch = trainable(projected_batch(bias=True))
    batch.valid = batch.trained = torch.zeros_like(batch.valid)
    loss = fused_loss(objective, planned(objective, batch), *batch.sides()).loss
    assert loss == 0
    loss.backward()
    assert all(bool((grad == 0).all()) for grad in gradients(batch).values())


def test_autocast_around_it_changes_nothing():
    objective = make_objective("opsd")
    results = []
    for enabled in (False, True):
        batch = trainable(projected_batch(hidden=32, vocabulary=300))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = fused_loss(objective, planned(objective, batch), *batch.sides()).loss
        loss.backward()
        results.append(gradients(batch))
    for which, grad in results[0].items():
        assert torch.equal(grad, results[1][which])


def test_bfloat16_projections_of_float32_weights_train_the_float32_weights():
    objective = make_objective("opsd", clip=None)
    batch = trainable(projected_batch(hidden=32, vocabulary=300))
    full = trainable(projected_batch(hidden=32, vocabulary=300))
    narrow = batch.student_head.to(torch.bfloat16)
    teacher = batch.teacher_head.to(torch.bfloat16)
    chosen = planned(objective, batch)
    fused_loss(
        objective, chosen, batch.student, batch.teacher, narrow, teacher, batch.tokens
    ).loss.backward()
    fused_loss(objective, chosen, *full.sides()).loss.backward()
    for which, grad in gradients(full).items():
        found = gradients(batch)[which]
        assert found.dtype == torch.float32
        assert 0 < relative(found, grad) < 0.05, which


def test_logits_that_are_no_numbers_are_an_error_not_a_step():
    batch = projected_batch()
    batch.student[batch.valid.nonzero()[0].tolist()] = float("nan")
    objective = make_objective("opsd")
    with pytest.raises(UsageError, match="not a finite number"):
        fused_loss(objective, planned(objective, batch), *batch.sides())


def test_hidden_states_outside_the_mask_are_never_read():
    objective = make_objective("pw-opsd")
    batch = trainable(batch_for("pw-opsd"))
    chosen = planned(objective, batch)
    expected = fused_loss(objective, chosen, *batch.sides())
    with torch.no_grad():
        batch.student[~batch.valid] = float("nan")
        batch.teacher[~batch.valid] = float("inf")
    batch.tokens[~batch.valid] = -100
    found = fused_loss(objective, chosen, *batch.sides())
    assert found.loss == expected.loss
    found.loss.backward()
    assert (batch.student.grad[~batch.valid] == 0).all()


def test_what_does_not_fit_is_refused():
    objective = make_objective("opsd")
    batch = projected_batch()
    chosen = planned(objective, batch)
    student, teacher, student_head, teacher_head, tokens = batch.sides()
    with pytest.raises(ValueError, match="teacher's hidden states"):
        fused_loss(objective, chosen, student, teacher[:, 1:], student_head, teacher_head, tokens)
    with pytest.raises(ValueError, match="common vocabulary of 50"):
        fused_loss(objective, chosen, student, teacher, student_head, teacher_head, tokens + 50)
    with pytest.raises(ValueError, match="at least one token"):
        fused_loss(objective, chosen, *batch.sides(), chunk_tokens=0)
    half = student_head.to(torch.float16)
    with pytest.raises(UsageError, match="float16"):
        fused_loss(objective, chosen, student, teacher, half, half, tokens)


def test_masks_that_contradict_each_other_are_refused():
    valid = torch.tensor([[True, False]])
    with pytest.raises(ValueError, match="not a valid one"):
        MicroBatch(valid, torch.ones_like(valid))
    with pytest.raises(ValueError, match="boolean"):
        MicroBatch(valid.long(), valid.long())
    with pytest.raises(ValueError, match="shape"):
        MicroBatch(valid, valid, torch.ones(1, 3))


@pytest.mark.parametrize("name", ["reopold", "iw-opd"])
def test_an_objective_without_the_statistics_it_needs_says_so(name):
    valid = torch.ones(1, 2, dtype=torch.bool)
    objective, rows = make_objective(name), MicroBatch(valid, valid)
    with pytest.raises(ValueError, match="statistics"):
        plan(objective, rows, batch_totals(objective, [rows], step=60)[0])
