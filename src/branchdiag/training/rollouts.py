"""The student's own rollouts: from the prompts of a step to completions in token ids.

Reads prompts and an engine; writes nothing. A draw is seeded by (run seed, step, problem), so a
step that is run again, or divided over processes otherwise, draws the same. Nothing is decoded to
text and encoded again. Knows no loss.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from branchdiag.engines.base import Completion, Engine, Request, Sampling
from branchdiag.errors import TooManyFailures
from branchdiag.store.fingerprint import derive_seed
from branchdiag.training.data import Prompts

if TYPE_CHECKING:
    from branchdiag.training.student import Student


@dataclass(frozen=True, slots=True)
class Rollout:
    """A problem's prompts and what the student wrote."""

    prompts: Prompts
    completion_ids: tuple[int, ...]
    """Without EOS."""
    stop_id: int | None
    """The EOS that ended it; None where it was cut."""

    def trained_ids(self, eos: Literal["exclude", "include"]) -> tuple[int, ...]:
        """The tokens that count: their number is that of the draws, whatever the padding token."""
        if eos == "include" and self.stop_id is not None:
            return (*self.completion_ids, self.stop_id)
        return self.completion_ids


class Sampler(Protocol):
    """Draws completions with the student's current weights."""

    def sample(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Complete every request, in any order."""
        ...

    def close(self) -> None:
        """Give back processes and memory."""
        ...


class InProcess:
    """The transformers engine on the very model that is trained."""

    def __init__(self, engine: Engine, student: Student) -> None:
        self._engine, self._student = engine, student

    def sample(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Complete every request with the model in evaluation mode."""
        with evaluation_mode(self._student.model), self._student.decoding():
            yield from self._engine.generate(requests)

    def close(self) -> None:
        """Let go of the model."""
        self._engine.close()


class WithVllm:
    """vLLM in a process of its own; each call hands it the adapter as it is now.

    Args:
        engine: takes an adapter's directory and a number with `use_adapter`.
        student: writes an adapter.
        directory: where it is written, over and over.
    """

    def __init__(self, engine: Any, student: Student, directory: Path) -> None:
        self._engine, self._student, self._directory = engine, student, directory
        self._number = 0

    def sample(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Save the adapter, pass it as a LoRA request, and complete every request."""
        self._number += 1
        directory = self._directory / str(self._number % 2)
        self._student.write(directory)
        self._engine.use_adapter(str(directory), self._number)
        yield from self._engine.generate(requests)

    def close(self) -> None:
        """End vLLM's processes."""
        self._engine.close()
        shutil.rmtree(self._directory, ignore_errors=True)


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """No dropout inside; afterwards the mode is as it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def draw_rollouts(
    sampler: Sampler,
    prompts: Sequence[tuple[int, Prompts]],
    sampling: Sampling,
    *,
    seed: int,
    purpose: str,
    step: int,
) -> list[Rollout]:
    """One rollout a prompt, in the prompts' order.

    Args:
        prompts: each with the number of its pass over the data (one problem may come twice).
        purpose: "train" or "held out": streams that share no draw.
        step: optimizer steps done before.

    Raises:
        TooManyFailures: the engine could not complete a request: a step is not made of the rest.
    """
    requests = [
        Request(
            (index,),
            pair.student_ids,
            sampling,
            derive_seed(seed, purpose, step, epoch, pair.problem_id),
        )
        for index, (epoch, pair) in enumerate(prompts)
    ]
    done = {completion.key: completion for completion in sampler.sample(requests)}
    rollouts = []
    for request, (_, pair) in zip(requests, prompts, strict=True):
        completion = done[request.key]
        if completion.finish_reason == "error":
            raise TooManyFailures(
                f"a rollout failed: {completion.error}",
                where=f"{pair.problem_id}, step {step + 1}",
                fix="a lower optimizer.learning_rate, or compute.dtype=float32; --resume goes on "
                "from the last checkpoint",
            )
        rollouts.append(Rollout(pair, completion.token_ids, completion.stop_id))
    return rollouts
