"""What an objective is: a loss local to one token, its weight, and which tokens count.

Every objective here has the form

    L = sum over tokens of  c_t * l_t

where l_t depends on nothing but the student's and the teacher's distribution at token t and the
sampled token, and c_t (weight and reduction) is a constant for the gradient. All that couples
tokens (a row's length, a schedule, accumulated discrepancy, a quantile over the batch) is in c_t.
So the vocabulary can be walked a few tokens at a time, and micro-batches add up exactly.

An objective gives l_t and its gradient to the student's logits in closed form (`token_terms`), the
weight of a token (`token_weights`), and the tokens that count (`gate`, `counted`). Knows no hidden
states, no model, and no optimizer. `accumulation` makes c_t of these, `fused_loss` the rest.

Dimensions: B rows of a micro-batch, T tokens (of a row, or of a block of tokens of any rows),
V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from branchdiag.errors import UsageError

Reduction = Literal["sequence", "token"]


@dataclass(frozen=True)
class Distribution:
    """One side's next-token distributions at temperature T, float32 or float64."""

    log_probs_TV: Tensor
    probs_TV: Tensor
    entropies_T: Tensor
    """Nats, over the whole vocabulary."""

    def log_probs_of(self, tokens_T: Tensor) -> Tensor:
        """Log-probability [T] of one token a position."""
        return self.log_probs_TV.gather(-1, tokens_T[:, None])[:, 0]


@dataclass(frozen=True)
class TokenTerms:
    """What a block of tokens costs."""

    losses_T: Tensor
    gradients_TV: Tensor
    """d l_t / d (student's logits / temperature); rows sum to 0."""
    divergences_T: Tensor
    """The method's divergence with nothing clipped; KL(teacher || student) where it has none."""
    clipped_entries_T: Tensor | None = None
    """Vocabulary entries whose summand was clipped; None for a method that clips none."""


@dataclass(frozen=True)
class TokenStatistics:
    """Detached numbers [B, T] at the objective's temperature, 0 where a token is not valid."""

    student_log_probs_BT: Tensor
    """Of the sampled token, nats."""
    teacher_log_probs_BT: Tensor
    student_entropies_BT: Tensor


@dataclass(frozen=True)
class MicroBatch:
    """What is known of the rows of one micro-batch apart from their distributions."""

    valid_BT: Tensor
    """Tokens of the rollout. Whether EOS is one is decided here, by who makes the mask."""
    trained_BT: Tensor
    """The valid tokens the loss may use: all, or those of `token_masks.keep_fraction`."""
    weights_BT: Tensor | None = None
    """A schedule's weights, of the valid tokens; None without a schedule."""
    statistics: TokenStatistics | None = None

    def __post_init__(self) -> None:
        if self.valid_BT.dtype != torch.bool or self.trained_BT.dtype != torch.bool:
            raise ValueError("masks must be boolean")
        if self.valid_BT.dim() != 2 or self.trained_BT.shape != self.valid_BT.shape:
            raise ValueError("masks must be [B, T], and both of one shape")
        if bool((self.trained_BT & ~self.valid_BT).any()):
            raise ValueError("a trained token is not a valid one")
        if self.weights_BT is not None:
            if self.weights_BT.shape != self.valid_BT.shape:
                raise ValueError("weights and masks differ in shape")
            used = self.weights_BT[self.trained_BT]
            if not bool((torch.isfinite(used) & (used >= 0)).all()):
                raise ValueError("a weight is negative or no finite number")

    def needed_statistics(self) -> TokenStatistics:
        """The statistics, where the objective cannot do without."""
        if self.statistics is None:
            raise ValueError("this objective needs the micro-batch's token statistics first")
        return self.statistics


@dataclass(frozen=True)
class Objective(ABC):
    """A method. Settings are the fields; the defaults are the method's own."""

    name: ClassVar[str]
    takes_schedule: ClassVar[bool] = False
    default_reduction: ClassVar[Reduction] = "token"
    statistics_of: ClassVar[Literal["nothing", "micro-batch", "global batch"]] = "nothing"
    """Whose `TokenStatistics` must be there before a micro-batch's coefficients can be made."""

    temperature: float = 1.1
    """Divides both sides' logits; that of the rollouts."""

    def __post_init__(self) -> None:
        self.require(self.temperature > 0, "temperature", "be above 0")

    @abstractmethod
    def token_terms(
        self, student: Distribution, teacher: Distribution, tokens_T: Tensor
    ) -> TokenTerms:
        """Losses of T tokens and their gradients. May overwrite the distributions it is given."""

    def token_weights(self, rows: MicroBatch) -> Tensor:
        """Weights [B, T], float64, detached; of no meaning where a token is not trained."""
        return torch.ones_like(rows.valid_BT, dtype=torch.float64)

    def gate(self, batch: Sequence[MicroBatch], step: int) -> float | None:
        """A number that `counted` needs from the whole global batch; None where it needs none."""
        return None

    def counted(self, rows: MicroBatch, gate: float | None, step: int) -> Tensor:
        """The trained tokens [B, T] that enter the loss and its denominators."""
        return rows.trained_BT

    def check_schedule(self, given: bool) -> None:
        """Refuse a schedule that would do nothing, and a missing one.

        Raises:
            UsageError: a schedule for an objective that takes none, or none for one that does.
        """
        if given and not self.takes_schedule:
            raise UsageError(
                f"the objective {self.name} takes no schedule",
                fix="leave --schedule out, or use --objective pw-opsd",
            )
        if self.takes_schedule and not given:
            raise UsageError(
                f"the objective {self.name} needs a schedule",
                fix="give one with --schedule: a file, a preset, or uniform",
            )

    def require(self, holds: bool, setting: str, must: str) -> None:
        """Raise UsageError about a setting unless `holds`."""
        if not holds:
            raise UsageError(
                f"{setting} must {must}",
                where=f"objective {self.name}, {setting}={getattr(self, setting)}",
            )


def forward_kl(student: Distribution, teacher: Distribution) -> Tensor:
    """KL(teacher || student) [T], nats, over the whole vocabulary."""
    divergences_T: Tensor = torch.linalg.vecdot(
        teacher.probs_TV, teacher.log_probs_TV - student.log_probs_TV
    )
    return divergences_T
