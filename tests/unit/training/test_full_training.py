"""All weights trained: exact gradients, teachers that stay where they are, small steps not lost."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from branchdiag import models
from branchdiag.engines.transformers_engine import TransformersEngine
from branchdiag.errors import UsageError
from branchdiag.protocol import EngineSettings
from branchdiag.training import processes
from branchdiag.training.full import CHECKPOINT, FullStudent
from branchdiag.training.merge import merge
from branchdiag.training.objectives import make_objective
from branchdiag.training.settings import ObjectiveSettings, TeacherRoleSettings
from branchdiag.training.step import batch_loss, states_of
from branchdiag.training.teacher import Teacher, make_teacher
from tests.tiny_models import tiny_model
from tests.unit.training.test_training_step import BATCH, MODERATE, loss_of_rows, micro_batches

SMALL = 1e-5
"""A step of which a weight in bfloat16 keeps nothing."""


def full_student(directory: Path, dtype: torch.dtype) -> FullStudent:
    resolved = models.resolve(str(directory))
    name: Any = "bfloat16" if dtype == torch.bfloat16 else "float32"
    model: Any = models.load_model(resolved, EngineSettings(device="cpu", dtype=name))
    return FullStudent(model.double() if dtype == torch.float64 else model, resolved)


def backward(student: FullStudent, teacher: Teacher, size: int) -> float:
    made = batch_loss(
        make_objective("pw-opsd"),
        micro_batches(size),
        lambda rows: states_of(student.model, rows.student),
        teacher.states,
        student.own.head,
        teacher_head=teacher.head,
        settings=ObjectiveSettings(),
        schedule=MODERATE,
        step=0,
    )
    return made.loss


def move(student: FullStudent, scale: float, seed: int = 0) -> None:
    """A step in a random direction."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in student.trained.values():
            value += scale * torch.randn(value.shape, generator=draw, dtype=value.dtype)
    student.after_step()


@pytest.mark.parametrize("kind", ["fixed", "current", "ema"])
@pytest.mark.parametrize("tied", [False, True])
def test_every_weight_gets_the_gradient_of_the_plain_loss(tied: bool, kind: Any) -> None:
    """Oracle: float64, two models, each row alone, whole logits, autograd through all of it."""
    student = full_student(tiny_model(tied=tied), torch.float64)
    # As in a run: the engine is there, and has put its attention into the model.
    TransformersEngine(student.model, stop_ids=(), context_length=64, batch_size=2)
    begun = copy.deepcopy(student.model)
    teacher = make_teacher(student, TeacherRoleSettings(kind=kind, ema_decay=0.75))
    move(student, 0.05)
    teacher.after_step()
    moved = copy.deepcopy(student.model)
    other = {"fixed": begun, "current": moved, "ema": begun}[kind]
    if kind == "ema":
        with torch.no_grad():
            for mean, value in zip(other.parameters(), moved.parameters(), strict=True):
                mean.copy_(0.75 * mean + 0.25 * value)
    loss = loss_of_rows(moved, other)
    moved.zero_grad()
    loss.backward()
    assert backward(student, teacher, 2) == pytest.approx(float(loss.detach()), abs=1e-10)
    expected = dict(moved.named_parameters())
    assert student.trained.keys() == expected.keys()
    assert any("embed_tokens" in name for name in expected)
    assert tied != any("lm_head" in name for name in expected)
    for name, value in student.trained.items():
        assert value.grad is not None and value.grad.abs().max() > 0
        torch.testing.assert_close(
            value.grad,
            expected[name].grad,
            rtol=1e-7,
            atol=1e-11,
            msg=lambda m, n=name: f"{n}: {m}",
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fixed_teacher_and_an_average_stay_while_the_student_moves(dtype: torch.dtype) -> None:
    student = full_student(tiny_model(tied=True), dtype)
    fixed = make_teacher(student, TeacherRoleSettings(kind="fixed"))
    current = make_teacher(student, TeacherRoleSettings(kind="current"))
    average = make_teacher(student, TeacherRoleSettings(kind="ema", ema_decay=0.999))
    (rows,) = micro_batches(len(BATCH))

    def seen(teacher: Teacher) -> torch.Tensor:
        return teacher.states(rows) @ teacher.head.weight_Vd.detach().T

    first = seen(fixed)
    assert torch.equal(seen(current), first) and torch.equal(seen(average), first)
    move(student, 0.1)
    kept = {name: value.clone() for name, value in student.model.state_dict().items()}
    average.after_step()
    assert torch.equal(seen(fixed), first)
    assert not torch.equal(seen(current), first)
    near = (seen(average) - first).float().norm() / (seen(current) - first).float().norm()
    assert near < 0.1
    assert all(torch.equal(value, kept[n]) for n, value in student.model.state_dict().items())
    again = make_teacher(student, TeacherRoleSettings(kind="ema", ema_decay=0.999))
    again.restore({name: value.clone() for name, value in average.state().items()})
    assert torch.equal(seen(again), seen(average))


def test_small_steps_of_a_bfloat16_model_add_up(tmp_path: Path) -> None:
    """300 steps of AdamW at 1e-5, all in one direction: 3e-3. Without the copy, nothing."""
    student = full_student(tiny_model(layers=1), torch.bfloat16)
    begun = {name: value.detach().clone() for name, value in student.trained.items()}
    bare = {name: torch.nn.Parameter(v.bfloat16()) for name, v in begun.items()}
    for values in (student.trained, bare):
        optimizer = torch.optim.AdamW(values.values(), lr=SMALL, weight_decay=0.0)
        for _ in range(300):
            for value in values.values():
                value.grad = torch.ones_like(value)
            optimizer.step()
    student.after_step()
    for name, value in student.trained.items():
        torch.testing.assert_close(value, begun[name] - 300 * SMALL, rtol=0, atol=1e-5)
        large = begun[name].abs() > 0.05
        assert torch.equal(bare[name][large], begun[name][large].bfloat16())
        place = student.model.get_parameter(name)
        assert place.dtype == torch.bfloat16 and torch.equal(place, value.bfloat16())
    # A checkpoint holds what the model's own type would lose.
    student.write_checkpoint(tmp_path)
    other = full_student(tiny_model(layers=1), torch.bfloat16)
    other.read_checkpoint(tmp_path)
    assert all(torch.equal(other.trained[name], value) for name, value in student.trained.items())
    found = other.model.state_dict()
    assert all(torch.equal(found[n], value) for n, value in student.model.state_dict().items())


def test_gradients_of_micro_batches_are_summed_in_float32() -> None:
    student = full_student(tiny_model(layers=1), torch.bfloat16)
    places = dict(student.model.named_parameters())
    for factor in (1.0, 2.0**-12, 2.0**-12):  # a sum in bfloat16 stays 1
        sum((place * factor).sum() for place in places.values()).backward()  # type: ignore[union-attr]
    for name, value in student.trained.items():
        assert value.grad is not None and places[name].grad is None
        assert torch.equal(value.grad, torch.full_like(value, 1 + 2.0**-11))


def test_a_tied_weight_is_one_weight(tmp_path: Path) -> None:
    from safetensors import safe_open

    student = full_student(tiny_model(tied=True), torch.float32)
    student.write_checkpoint(tmp_path)
    with safe_open(tmp_path / CHECKPOINT, framework="pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
        names = set(file.keys())
    assert names == set(student.trained)
    other = full_student(tiny_model(), torch.float32)
    with pytest.raises(ValueError, match=r"tensors differ: lm_head\.weight"):
        other.read_checkpoint(tmp_path)


def test_the_written_model_is_the_student(tmp_path: Path) -> None:
    """Whatever its generation settings are: transformers would not write these."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = shutil.copytree(tiny_model(tied=True), tmp_path / "base")
    odd = json.loads((base / "generation_config.json").read_text()) | {"do_sample": False}
    (base / "generation_config.json").write_text(json.dumps(odd))
    (base / "pytorch_model.bin").write_bytes(b"the base model's own weights, once more")
    (base / "LICENSE").write_text("free")
    ids = torch.arange(3, 20)[None]
    for dtype in (torch.float32, torch.bfloat16):
        student = full_student(base, dtype)
        move(student, 0.05)
        target = tmp_path / str(dtype)
        target.mkdir()
        student.write(target)
        read = AutoModelForCausalLM.from_pretrained(target, dtype="auto")
        assert read.dtype == dtype
        with torch.no_grad():
            assert torch.equal(read(input_ids=ids).logits, student.model(input_ids=ids).logits)
        assert json.loads((target / "generation_config.json").read_text()) == odd
        text = "Solve 12 + 3"
        tokenizers = [AutoTokenizer.from_pretrained(path) for path in (base, target)]
        assert tokenizers[0](text) == tokenizers[1](text)
        assert tokenizers[0].chat_template == tokenizers[1].chat_template
        names = {path.name for path in target.iterdir()}
        assert "LICENSE" in names and "pytorch_model.bin" not in names


@pytest.mark.parametrize(
    ("dtype", "kind", "bytes_each"),
    [
        (torch.float32, "fixed", 4 + 4 + 8 + 4),
        (torch.float32, "current", 4 + 4 + 8),
        (torch.bfloat16, "fixed", 2 + 4 + 4 + 8 + 2),
        (torch.bfloat16, "ema", 2 + 4 + 4 + 8 + 6),
    ],
)
def test_memory_is_said_before_it_is_taken(dtype: torch.dtype, kind: str, bytes_each: int) -> None:
    student = full_student(tiny_model(), dtype)
    weights = sum(place.numel() for place in student.model.parameters())
    assert student.memory_bytes(kind) == weights * bytes_each
    said = student.remark(kind)
    assert f"all {weights:,} weights" in said
    assert ("second copy" in said) == (kind != "current")


def test_gradients_are_added_over_processes_in_messages_of_a_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "BUCKET_ELEMENTS", 10)
    parameters = [torch.zeros(size) for size in (4, 6, 1, 12, 3, 3)]
    buckets = list(processes._buckets(parameters))
    assert [[len(p) for p in bucket] for bucket in buckets] == [[4, 6], [1], [12], [3, 3]]
    assert [id(p) for bucket in buckets for p in bucket] == [id(p) for p in parameters]
    assert list(processes._buckets([])) == []


def test_there_is_nothing_to_merge_in_a_whole_model(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_model(), run / "model")
    for given in (run, run / "model"):
        with pytest.raises(UsageError, match="there is nothing to merge") as refused:
            merge(given, tmp_path / "merged")
        assert f"branchdiag evaluate {run / 'model'}" in str(refused.value)
