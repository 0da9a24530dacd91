"""What is logged beside the loss: sums over tokens that add up over micro-batches and processes.

Knows no objective and no file. The loss of a clipped divergence can be negative and can fall while
the student moves away from the teacher, so the unclipped divergence and the share that the clip met
stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class Diagnostics:
    """Sums over the trained tokens; those of the weight over the tokens in the loss."""

    tokens: float = 0.0
    entries: float = 0.0
    """Tokens times vocabulary, where the objective clips; 0 where it does not."""
    divergence: float = 0.0
    student_entropy: float = 0.0
    teacher_entropy: float = 0.0
    clipped_tokens: float = 0.0
    """Tokens with at least one clipped entry."""
    clipped_entries: float = 0.0
    counted_tokens: float = 0.0
    weight: float = 0.0

    def __add__(self, other: Diagnostics) -> Diagnostics:
        return Diagnostics(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @staticmethod
    def total(parts: Sequence[Diagnostics]) -> Diagnostics:
        """The sum of parts; of none, zeros."""
        return sum(parts, start=Diagnostics())

    def means(self) -> dict[str, float | None]:
        """Means over tokens, None where there is nothing to take one of (`missing` says why).

        divergence (nats, nothing clipped), student_entropy, teacher_entropy (nats, at the
        objective's temperature), clipped_token_share, clipped_entry_share (of tokens, of
        vocabulary entries), counted_share (of the trained tokens, those in the loss), weight_mean
        (over the tokens in the loss, before the reduction).
        """
        per_token = (self.divergence, self.student_entropy, self.teacher_entropy)
        divergence, student_entropy, teacher_entropy = (
            _ratio(value, self.tokens) for value in per_token
        )
        clips = self.entries > 0
        return {
            "divergence": divergence,
            "student_entropy": student_entropy,
            "teacher_entropy": teacher_entropy,
            "clipped_token_share": _ratio(self.clipped_tokens, self.tokens) if clips else None,
            "clipped_entry_share": _ratio(self.clipped_entries, self.entries),
            "counted_share": _ratio(self.counted_tokens, self.tokens),
            "weight_mean": _ratio(self.weight, self.counted_tokens),
        }

    def missing(self) -> dict[str, str]:
        """For each mean that is None, the reason."""
        reasons = {}
        for name, value in self.means().items():
            if value is not None:
                continue
            if self.tokens == 0:
                reasons[name] = "no token is trained on"
            elif name.startswith("clipped"):
                reasons[name] = "the objective clips nothing"
            else:
                reasons[name] = "no token counts in the loss"
        return reasons


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None
