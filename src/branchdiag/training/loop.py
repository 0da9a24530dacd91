"""One step of training, and what it needs in memory: model, teacher, optimizer, sampler.

Reads prompts; changes weights; returns a line of numbers. Writes checkpoints where told, nothing
else. Before each pass over a micro-batch the random generator is set from (seed, step, first row),
so that dropout is the same in a second pass over the rows, in a resumed run, and in processes that
divide the batch between the same micro-batches. (arXiv 2605.21606, appendix I, for the defaults.)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import psutil
import torch
from torch import Tensor

from branchdiag.errors import UsageError
from branchdiag.models import ResolvedModel
from branchdiag.store.fingerprint import derive_seed
from branchdiag.training import checkpoints
from branchdiag.training.data import Prompts, TrainingData
from branchdiag.training.diagnostics import Diagnostics
from branchdiag.training.inputs import TrainRequest
from branchdiag.training.model import learning_rate, load_student, make_optimizer
from branchdiag.training.objectives.base import Objective
from branchdiag.training.objectives.opsd import OPSD
from branchdiag.training.processes import Processes
from branchdiag.training.rollouts import Rollout, draw_rollouts, evaluation_mode
from branchdiag.training.samplers import make_sampler
from branchdiag.training.settings import ObjectiveSettings
from branchdiag.training.step import BatchLoss, Rows, batch_loss, make_rows, states_of
from branchdiag.training.teacher import make_teacher


class Loop:
    """The state of a training run.

    Attributes:
        step: updates done.
        student: what is trained.
    """

    def __init__(
        self,
        request: TrainRequest,
        resolved: ResolvedModel,
        tokenizer: Any,
        data: TrainingData,
        objective: Objective,
        processes: Processes,
    ) -> None:
        self.step = 0
        self.data, self.resolved = data, resolved
        self._settings, self._objective, self._processes = request.settings, objective, processes
        self._out = request.out
        self._held_out: list[Rollout] = []
        self._schedule = None if request.schedule is None else request.schedule.schedule
        self.student = load_student(resolved, request.settings, processes.device)
        self._teacher = make_teacher(self.student, request.settings.teacher)
        self._optimizer = make_optimizer(self.student, request.settings)
        self._sampler = make_sampler(
            request.settings, resolved, tokenizer, self.student, processes, request.out
        )

    def restore(self, step: int) -> None:
        """Take up the checkpoint after `step` updates."""
        if self._measures():  # the untrained student writes them, which will be gone
            self._held_out = self._draw(self._held_out_share()[1], "held out", 0)
        average = checkpoints.restore(self._out, step, self.student, self._optimizer)
        self._teacher.restore(average)
        self.step = step

    def save(self) -> None:
        """Write a checkpoint of now."""
        checkpoints.save(self._out, self.step, self.student, self._optimizer, self._teacher.state())

    def prepare(self) -> tuple[list[Rollout], BatchLoss, float]:
        """Rollouts and gradients of the next update: what a signal may cut off.

        Returns:
            This process's rollouts, its loss, and the seconds that the rollouts took.
        """
        settings = self._settings
        began = time.monotonic()
        prompts = self.data.batch(self.step, settings.optimizer.batch_size, settings.seed)
        first, share = self._processes.share(prompts)
        rollouts = self._draw(share, "train", self.step)
        drawn_s = time.monotonic() - began
        self._optimizer.zero_grad(set_to_none=True)
        self.student.model.train()
        made = batch_loss(
            self._objective,
            self._micro_batches(rollouts, first, settings.objective),
            self._student_states,
            self._teacher.states,
            self.student.own.head,
            teacher_head=self._teacher.head,
            settings=settings.objective,
            schedule=self._schedule,
            step=self.step,
            gather=self._processes.gather_micro_batches,
        )
        self._processes.add_gradients(self.student.trained.values())
        return rollouts, made, drawn_s

    def update(
        self, prepared: tuple[list[Rollout], BatchLoss, float], began: float
    ) -> dict[str, Any]:
        """Take the step, and say what it was: a line of metrics.

        Raises:
            UsageError: the gradient is no finite number.
        """
        rollouts, made, drawn_s = prepared
        settings = self._settings
        norm = torch.nn.utils.clip_grad_norm_(
            self.student.trained.values(), settings.optimizer.max_grad_norm
        )
        if not bool(torch.isfinite(norm)):
            raise UsageError(
                "the gradient is not a finite number",
                where=f"step {self.step + 1}",
                fix="a lower optimizer.learning_rate; --resume goes on from the last checkpoint",
            )
        rate = learning_rate(settings, self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self.student.after_step()
        self._teacher.after_step()
        self.step += 1
        return self._line(rollouts, made, rate, float(norm), drawn_s, time.monotonic() - began)

    def measure(self) -> dict[str, Any] | None:
        """KL(teacher || student) a token on the held-out problems; None where there are none.

        On rollouts of now, and on those of the untrained student, which stay what they are: the
        first also changes with what the student writes.
        """
        if not self._measures():
            return None
        first, share = self._held_out_share()
        rollouts = self._draw(share, "held out", 0)
        if self.step == 0:
            self._held_out = rollouts
        own, lengths = self._divergence(rollouts, first)
        before = own if self.step == 0 else self._divergence(self._held_out, first)[0]
        return {
            "step": self.step,
            "problems": len(self.data.held_out),
            "divergence": own["divergence"],
            "divergence_first_rollouts": before["divergence"],
            "student_entropy": own["student_entropy"],
            "completion_tokens": sum(lengths) / len(lengths),
        }

    def _measures(self) -> bool:
        return len(self.data.held_out) >= self._processes.count

    def _held_out_share(self) -> tuple[int, Sequence[tuple[int, Prompts]]]:
        """The number of this process's first held-out problem, and its problems."""
        return self._processes.share([(0, pair) for pair in self.data.held_out])

    def _divergence(
        self, rollouts: Sequence[Rollout], first: int
    ) -> tuple[dict[str, float | None], list[int]]:
        """Means over all processes' tokens, and the rollouts' lengths."""
        settings = ObjectiveSettings(eos=self._settings.objective.eos)
        with evaluation_mode(self.student.model):
            made = batch_loss(
                OPSD(temperature=self._objective.temperature, clip=None),
                self._micro_batches(rollouts, first, settings),
                self._student_states,
                self._teacher.states,
                self.student.own.head,
                teacher_head=self._teacher.head,
                settings=settings,
                schedule=None,
                step=0,
                gather=self._processes.gather_micro_batches,
                backward=False,
            )
        parts = self._processes.gather((made.diagnostics, _lengths(rollouts)))
        means = Diagnostics.total([diagnostics for diagnostics, _ in parts]).means()
        return means, [length for _, part in parts for length in part[0]]

    def close(self) -> None:
        """Give back what the sampler holds."""
        self._sampler.close()

    def _draw(
        self, prompts: Sequence[tuple[int, Prompts]], purpose: str, step: int
    ) -> list[Rollout]:
        settings = self._settings
        return draw_rollouts(
            self._sampler,
            prompts,
            settings.sampling(),
            seed=settings.seed,
            purpose=purpose,
            step=step,
        )

    def _micro_batches(
        self, rollouts: Sequence[Rollout], first: int, settings: ObjectiveSettings
    ) -> list[Rows]:
        size = self._settings.optimizer.micro_batch_size
        return [
            make_rows(rollouts[start : start + size], settings, first + start)
            for start in range(0, len(rollouts), size)
        ]

    def _student_states(self, rows: Rows) -> Tensor:
        torch.manual_seed(derive_seed(self._settings.seed, "dropout", self.step, rows.number))
        return states_of(self.student.model, rows.student)

    def _line(
        self,
        rollouts: Sequence[Rollout],
        made: BatchLoss,
        rate: float,
        norm: float,
        drawn_s: float,
        step_s: float,
    ) -> dict[str, Any]:
        parts = self._processes.gather(
            (made, _lengths(rollouts), _memory_mib(self.student.model.device))
        )
        diagnostics = Diagnostics.total([part.diagnostics for part, _, _ in parts])
        lengths = [length for _, (part, _), _ in parts for length in part]
        cut = sum(number for _, (_, number), _ in parts)
        return {
            "step": self.step,
            "loss": sum(part.loss for part, _, _ in parts),
            **diagnostics.means(),
            "completion_tokens": sum(lengths) / len(lengths),
            "truncated_share": cut / len(lengths),
            "empty_share": lengths.count(0) / len(lengths),
            "grad_norm": norm,
            "learning_rate": rate,
            "tokens": sum(lengths),
            "tokens_per_s": sum(lengths) / step_s,
            "rollout_s": drawn_s,
            "step_s": step_s,
            "memory_mib": max(memory for _, _, memory in parts),
            "missing": diagnostics.missing(),
        }


def _lengths(rollouts: Sequence[Rollout]) -> tuple[list[int], int]:
    """Tokens of each rollout, and how many were cut."""
    return (
        [len(rollout.completion_ids) for rollout in rollouts],
        sum(rollout.stop_id is None for rollout in rollouts),
    )


def _memory_mib(device: torch.device) -> float:
    """The most that the GPU has held so far, or what this process holds."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return float(psutil.Process().memory_info().rss) / 2**20
