"""The loss of a batch of rollouts: right positions, right tokens, whatever it is padded with."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from branchdiag import models
from branchdiag.protocol import EngineSettings
from branchdiag.schedule import Schedule
from branchdiag.training.data import Prompts
from branchdiag.training.objectives import OBJECTIVE_NAMES, make_objective
from branchdiag.training.output_head import output_head
from branchdiag.training.rollouts import Rollout
from branchdiag.training.settings import ObjectiveSettings
from branchdiag.training.step import BatchLoss, Rows, Side, batch_loss, make_rows, states_of
from tests.tiny_models import tiny_model

MODERATE = Schedule.preset("moderate")
REVERSED = Schedule(0.25, 0.3, 0.1, "decreasing")


@pytest.fixture(scope="module")
def model() -> Any:
    loaded = models.load_model(models.resolve(str(tiny_model())), EngineSettings(device="cpu"))
    return loaded.double()


def rollout(
    student: int, teacher: int, completion: int, seed: int, stop_id: int | None = 3
) -> Rollout:
    """Random tokens of these lengths."""
    draw = torch.Generator().manual_seed(seed)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(5, 250, (n,), generator=draw).tolist())

    return Rollout(Prompts(f"p{seed}", ids(student), ids(teacher)), ids(completion), stop_id)


BATCH = [
    rollout(5, 9, 7, 0),
    rollout(11, 4, 3, 1),
    rollout(2, 17, 12, 2, None),
    rollout(6, 6, 0, 3),
]


def loss_and_gradient(
    model: Any,
    batch: list[Rows],
    objective: str = "pw-opsd",
    schedule: Schedule | None = MODERATE,
    settings: ObjectiveSettings | None = None,
) -> tuple[BatchLoss, torch.Tensor]:
    """The gradient is that of one weight matrix in the middle of the model."""
    weight = model.model.layers[1].mlp.down_proj.weight
    weight.requires_grad_(True)
    weight.grad = None

    def teacher(rows: Rows) -> torch.Tensor:
        with torch.no_grad():
            return states_of(model, rows.teacher)

    try:
        made = batch_loss(
            make_objective(objective),
            batch,
            lambda rows: states_of(model, rows.student),
            teacher,
            output_head(model),
            settings=settings or ObjectiveSettings(name=objective),
            schedule=schedule,
            step=0,
        )
        return made, weight.grad.clone()
    finally:
        weight.requires_grad_(False)


def micro_batches(size: int, settings: ObjectiveSettings | None = None) -> list[Rows]:
    settings = settings or ObjectiveSettings()
    return [
        make_rows(BATCH[start : start + size], settings, start)
        for start in range(0, len(BATCH), size)
    ]


def loss_of_rows(student_model: Any, teacher_model: Any) -> torch.Tensor:
    """Oracle: each row alone, unpadded, logits of the whole text, autograd's own functions."""
    total = torch.zeros((), dtype=torch.float64)
    filled = [row for row in BATCH if row.completion_ids]
    for row in filled:
        n = len(row.completion_ids)
        sides = []
        prompts = (row.prompts.student_ids, row.prompts.teacher_ids)
        for model, prompt in zip((student_model, teacher_model), prompts, strict=True):
            logits = model(input_ids=torch.tensor([[*prompt, *row.completion_ids]])).logits[0]
            sides.append((logits[len(prompt) - 1 : len(prompt) - 1 + n] / 1.1).log_softmax(-1))
        student, teacher = sides[0], sides[1].detach()
        terms = (teacher.exp() * (teacher - student)).clamp(max=0.05).sum(-1)
        r = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        weights = 0.25 + 0.75 * torch.sigmoid((r - 0.3) / 0.1)
        total = total + (weights * terms).mean() / len(filled)
    return total


def test_the_loss_is_that_of_rows_on_their_own_with_whole_logits(model: Any) -> None:
    made, gradient = loss_and_gradient(model, micro_batches(len(BATCH)))
    weight = model.model.layers[1].mlp.down_proj.weight.requires_grad_(True)
    weight.grad = None
    total = loss_of_rows(model, model)
    total.backward()
    expected = weight.grad.clone()
    weight.requires_grad_(False)
    assert made.loss == pytest.approx(float(total.detach()), abs=1e-9)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("objective", OBJECTIVE_NAMES)
def test_a_row_alone_is_the_row_in_a_batch(model: Any, objective: str) -> None:
    """Micro-batches of one row, of two and of all: padding and company change nothing."""
    schedule = MODERATE if objective == "pw-opsd" else None
    whole, gradient = loss_and_gradient(model, micro_batches(4), objective, schedule)
    assert gradient.abs().max() > 0
    for size in (1, 2):
        parts, same = loss_and_gradient(model, micro_batches(size), objective, schedule)
        assert parts.loss == pytest.approx(whole.loss, abs=1e-12)
        assert parts.diagnostics.divergence == pytest.approx(whole.diagnostics.divergence)
        torch.testing.assert_close(same, gradient, rtol=1e-9, atol=1e-12)


def test_padding_is_not_seen(model: Any) -> None:
    """Other ids and more of them after a row's end: the same states."""
    rows = make_rows(BATCH, ObjectiveSettings())
    longer = torch.nn.functional.pad(rows.student.ids_BS, (0, 5), value=77)
    ends_B1 = torch.tensor(
        [[len(row.prompts.student_ids) + len(row.completion_ids)] for row in BATCH]
    )
    noisy = longer.where(torch.arange(longer.shape[1]) < ends_B1, 99)
    with torch.no_grad():
        plain = states_of(model, rows.student)
        other = states_of(model, Side(noisy, rows.student.at_BT))
    assert torch.allclose(plain[rows.valid_BT], other[rows.valid_BT], atol=1e-12)


def test_a_reversed_schedule_gives_another_gradient(model: Any) -> None:
    rising = loss_and_gradient(model, micro_batches(4))[1]
    falling = loss_and_gradient(model, micro_batches(4), schedule=REVERSED)[1]
    cosine = torch.nn.functional.cosine_similarity(rising.flatten(), falling.flatten(), dim=0)
    assert 0 < cosine < 0.99
    assert (rising - falling).norm() > 0.1 * rising.norm()


def test_a_batch_in_which_no_token_counts_has_loss_0_and_gradients_of_0(model: Any) -> None:
    for objective in OBJECTIVE_NAMES:
        schedule = MODERATE if objective == "pw-opsd" else None
        empty = make_rows([rollout(5, 9, 0, seed) for seed in range(3)], ObjectiveSettings())
        made, gradient = loss_and_gradient(model, [empty], objective, schedule)
        assert made.loss == 0
        assert gradient.shape == model.model.layers[1].mlp.down_proj.weight.shape
        assert not gradient.any()
        assert made.diagnostics.means()["divergence"] is None


def test_eos_is_counted_by_the_rollouts_length() -> None:
    """Also where the EOS id, or the padding's, stands inside a rollout."""
    inside = Rollout(Prompts("p", (7, 8), (9,)), (3, 0, 3), 3)
    cut = Rollout(Prompts("q", (7,), (9,)), (5, 6), None)
    without = make_rows([inside, cut], ObjectiveSettings(eos="exclude"))
    including = make_rows([inside, cut], ObjectiveSettings(eos="include"))
    assert without.valid_BT.tolist() == [[True] * 3, [True, True, False]]
    assert including.valid_BT.tolist() == [[True] * 4, [True, True, False, False]]
    assert including.tokens_BT[0].tolist() == [3, 0, 3, 3]
    assert without.student.at_BT[0].tolist() == [1, 2, 3]
    assert without.teacher.at_BT[0].tolist() == [0, 1, 2]


def test_a_fraction_of_each_rollout_can_be_trained(model: Any) -> None:
    front = ObjectiveSettings(prefix_fraction=0.3)
    made, gradient = loss_and_gradient(model, micro_batches(4, front), settings=front)
    assert made.diagnostics.tokens == 3 + 1 + 4
    back = ObjectiveSettings(suffix_fraction=0.3)
    assert not torch.equal(
        gradient, loss_and_gradient(model, micro_batches(4, back), settings=back)[1]
    )
