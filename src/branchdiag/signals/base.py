"""What a control signal is, what it may look at, and how a function becomes one.

Knows no model, no table and no statistic. A signal is a function of a few positions of a spine: of
both full distributions there, of the spine's own token, and, where it says so, of what both sides
say of each token of the whole spine. Written with the methods of tensors alone, so that the
tables, which take their columns from here, load no torch.

The sign is declared before any data are seen and points to *real-uncertain*, a place where every
branch fails: disagreement and entropy point there (+1), agreement, confidence and acceptance away
from it (-1), and a signal of position as the paper that uses it says.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Sign: TypeAlias = Literal[1, -1]


@dataclass(frozen=True, eq=False)
class SpineLogprobs:
    """What is kept of every position of a spine, float64 [L], nats.

    Attributes:
        teacher_L, student_L: each side's log-probability of the spine's own token.
        teacher_top_L: the teacher's log-probability of its own first token.
    """

    teacher_L: Tensor
    student_L: Tensor
    teacher_top_L: Tensor

    @cached_property
    def advantages(self) -> Tensor:
        """A = ln q(y) - ln p(y) of every token of the spine [L]."""
        return self.teacher_L - self.student_L


@dataclass(frozen=True, eq=False)
class View:
    """T positions of a spine as a signal sees them; q is the teacher, p the student.

    Attributes:
        log_q_TV, log_p_TV: float64 log-probabilities over the common vocabulary, nats; -inf where
            a side excludes a token.
        token_T: the spine's own tokens, int64.
        position_T: their indices in the spine, int64, from 0.
        spine: what is kept of the whole spine; read by signals that declare it alone.
    """

    log_q_TV: Tensor
    log_p_TV: Tensor
    token_T: Tensor
    position_T: Tensor
    spine: SpineLogprobs | None = None

    @cached_property
    def q(self) -> Tensor:
        """Teacher's probabilities [T, V]."""
        return self.log_q_TV.exp()

    @cached_property
    def p(self) -> Tensor:
        """Student's probabilities [T, V]."""
        return self.log_p_TV.exp()

    @cached_property
    def entropy_q(self) -> Tensor:
        """Teacher's entropy over the whole vocabulary, nats."""
        return -expectation(self.q, self.log_q_TV)

    @cached_property
    def entropy_p(self) -> Tensor:
        """Student's entropy over the whole vocabulary, nats."""
        return -expectation(self.p, self.log_p_TV)

    @cached_property
    def forward_kl(self) -> Tensor:
        """KL(q || p), nats."""
        return expectation(self.q, self.log_q_TV - self.log_p_TV)

    @cached_property
    def reverse_kl(self) -> Tensor:
        """KL(p || q), nats."""
        return expectation(self.p, self.log_p_TV - self.log_q_TV)

    @cached_property
    def student_top(self) -> Tensor:
        """The student's first token; of equals, the lower id."""
        return self.log_p_TV.argmax(-1)

    @property
    def advantage(self) -> Tensor:
        """A = ln q(y) - ln p(y) of the spine's own token here."""
        return at_token(self.log_q_TV, self.token_T) - at_token(self.log_p_TV, self.token_T)

    @property
    def whole_spine(self) -> SpineLogprobs:
        """What is kept of the whole spine.

        Raises:
            ValueError: the signal did not declare that it needs them.
        """
        if self.spine is None:
            raise ValueError("a signal that looks at the whole spine declares whole_spine=True")
        return self.spine


Measure: TypeAlias = Callable[[View], "Tensor"]


@dataclass(frozen=True)
class Signal:
    """A registered signal.

    Attributes:
        name: of its column and its row, everywhere.
        sign: declared direction towards real-uncertain.
        paper: whose signal it is, with the arXiv number.
        meaning: one line: what is measured, with its unit.
        measure: a view of T positions -> [T], not finite where it is undefined.
        whole_spine: whether it reads `View.whole_spine`.
    """

    name: str
    sign: Sign
    paper: str
    meaning: str
    measure: Measure
    whole_spine: bool

    @property
    def description(self) -> str:
        """The meaning with its source, as a column says it."""
        return f"{self.meaning} {self.paper}; sign {'+' if self.sign > 0 else '-'}."


SIGNALS: dict[str, Signal] = {}
"""Every registered signal by name, in the order of every table."""


def signal(*, sign: Sign, paper: str, whole_spine: bool = False) -> Callable[[Measure], Measure]:
    """Register a function as the signal of its name; the first paragraph of its docstring is its
    meaning.

    Raises:
        ValueError: the name is taken, or there is no docstring. A bug.
    """

    def register(measure: Measure) -> Measure:
        name = measure.__name__
        text = inspect.getdoc(measure) or ""
        meaning = " ".join(text.split("\n\n")[0].split())
        if name in SIGNALS or not meaning:
            raise ValueError(f"signal {name}: registered before, or without a meaning")
        SIGNALS[name] = Signal(name, sign, paper, meaning, measure, whole_spine)
        return measure

    return register


def expectation(probabilities_TV: Tensor, values_TV: Tensor) -> Tensor:
    """Row sums of probabilities x values [T], with 0 x infinity = 0."""
    return (probabilities_TV * values_TV).nansum(-1)


def at_token(values_TV: Tensor, token_T: Tensor) -> Tensor:
    """Each row's value at its token [T]."""
    return values_TV.gather(1, token_T[:, None])[:, 0]
