"""What the two stages of an evaluation are handed: directory, settings, models, problems.

Extends a phase's context, so that the code that makes phases durable (owed units, parts, retries,
signals) runs the stages of an evaluation as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

from branchdiag.evaluation.models import EvaluatedModel
from branchdiag.evaluation.settings import EvaluationSettings
from branchdiag.phases.base import Context


@dataclass
class EvaluationContext(Context):
    """A phase's context with the evaluation's own settings and models."""

    settings: EvaluationSettings = field(default_factory=EvaluationSettings)
    models: tuple[EvaluatedModel, ...] = ()

    def groups(self) -> Iterator[tuple[str, str, int]]:
        """(model, problem, seed set): the samples that are voted on together, in order."""
        problems = [problem.problem_id for problem in self.problems]
        return product([model.label for model in self.models], problems, range(self.settings.seeds))


def evaluation_of(context: Context) -> EvaluationContext:
    """The context as an evaluation's.

    Raises:
        TypeError: it is a phase's. A bug of the caller.
    """
    if not isinstance(context, EvaluationContext):
        raise TypeError("an evaluation's stage was handed a phase's context")
    return context
