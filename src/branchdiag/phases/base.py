"""What a phase is, and what it is handed.

A phase declares which tables it reads and writes, what one unit of its work is, and a generator
that turns owed units into rows. It never writes a file: parts, resuming, retries, progress and
signals are the pipeline's. A phase never imports another phase: they meet in tables.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from branchdiag.protocol import Protocol

if TYPE_CHECKING:
    from branchdiag.engines.base import Engine
    from branchdiag.models import ResolvedModel
    from branchdiag.problems import Problem
    from branchdiag.scoring.valid_tokens import ValidTokens
    from branchdiag.store.run import RunDirectory

DIVERSITY, REAL_UNCERTAIN, GRAY = "diversity", "real_uncertain", "gray"
"""What a candidate can be: its branches succeed, all fail, or something between."""

Unit: TypeAlias = tuple[str | int, ...]
Rows: TypeAlias = Mapping[str, Sequence[Mapping[str, Any]]]
Fill: TypeAlias = Callable[
    ["Context", Sequence[Mapping[str, Any]], Sequence[str]], list[dict[str, Any]]
]


@dataclass(frozen=True)
class Done:
    """A finished unit: its rows for each table. No rows is an outcome too."""

    unit: Unit
    rows: Rows
    tokens: int = 0


@dataclass(frozen=True)
class Failed:
    """A unit that could not be done; it stays owed and is tried again with the same seed."""

    unit: Unit
    kind: str
    message: str


Outcome: TypeAlias = Done | Failed


@dataclass(frozen=True)
class Phase:
    """One phase, declared.

    Attributes:
        reads: letters of the phases whose tables it reads.
        writes: its tables, in writing order; a unit is done once the last one holds it.
        unit: the columns that name a unit in each of its tables; none: the phase is one unit, made
            anew whenever anything it reads has changed.
        settings: sections or keys of the protocol that can change its results.
        inputs: which of student, teacher, problems, seed, engine, dtype can change its results.
        version: raised when the code changes what the same settings give.
        needs_model: whether it loads a model (and so may hold a GPU).
        units: every unit the phase should have, in order.
        work: owed units -> outcomes, in any order.
        fill: rows of a part that is older than some columns, and those columns' names -> the same
            rows with them. None: its tables' columns come with their rows alone.
        command: the command that runs it; None: run-all does.
        also_reads: letters of stages that it shows where they are complete, and does without.
    """

    letter: str
    name: str
    question: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    unit: tuple[str, ...]
    settings: tuple[str, ...]
    inputs: tuple[str, ...]
    version: int
    needs_model: bool
    units: Callable[[Context], list[Unit]]
    work: Callable[[Context, Sequence[Unit]], Generator[Outcome]]
    fill: Fill | None = None
    command: str | None = None
    also_reads: tuple[str, ...] = ()


@dataclass
class Context:
    """What a phase may use: the run's tables, the settings, and models loaded when first asked
    for.
    """

    run: RunDirectory
    protocol: Protocol
    seed: int
    problems: tuple[Problem, ...]
    student: ResolvedModel
    teacher: ResolvedModel
    engine_name: str
    note: Callable[[str], None]
    described: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that student and teacher share."""
        from branchdiag.models import load_tokenizer

        return load_tokenizer(self.student)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Token ids as text, special tokens kept."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=False))

    def check_teacher(self) -> None:
        """Refuse a teacher whose tokens are not the student's.

        Raises:
            UsageError: names the first token that differs.
        """
        if self.teacher.content_id != self.student.content_id:
            from branchdiag.models import check_same_tokenizer, load_tokenizer

            check_same_tokenizer(self.tokenizer, load_tokenizer(self.teacher))

    @cached_property
    def student_model(self) -> Any:
        """The student, for forward passes."""
        return self._load(self.student)

    @cached_property
    def teacher_model(self) -> Any:
        """The teacher: the same object as the student where the weights are the same."""
        if self.teacher.content_id == self.student.content_id:
            return self.student_model
        return self._load(self.teacher)

    def _load(self, resolved: ResolvedModel) -> Any:
        from branchdiag.models import load_model, use_one_thread_if_small

        model = load_model(resolved, self.protocol.engine)
        use_one_thread_if_small(model)
        return model

    @cached_property
    def valid_tokens(self) -> ValidTokens:
        """Which tokens may be proposed as children."""
        from branchdiag.models import stop_token_ids
        from branchdiag.scoring.valid_tokens import valid_token_mask

        return valid_token_mask(
            self.tokenizer,
            len(self.tokenizer),
            end_ids=stop_token_ids(self.student, self.tokenizer),
        )

    def open_engine(self, max_total_tokens: int, *, teacher: bool = False) -> Engine:
        """The engine that writes tokens with the student, or the teacher. The caller closes it."""
        from branchdiag.engines import create_engine

        settings = self.protocol.engine.model_copy(update={"name": self.engine_name})
        engine: Engine = create_engine(
            settings,
            self.teacher if teacher else self.student,
            max_total_tokens=max_total_tokens,
            log_path=self.engine_log,
        )
        self.described["teacher_engine" if teacher else "engine"] = engine.describe()
        return engine

    @property
    def engine_log(self) -> Path:
        """Where an engine's own log lines go."""
        return self.run.logs / "engine.log"

    def problem(self, problem_id: str) -> Problem:
        """The problem of that identifier."""
        return self._by_id[problem_id]

    @cached_property
    def _by_id(self) -> dict[str, Problem]:
        return {problem.problem_id: problem for problem in self.problems}


def candidate_id(problem_id: str, position: int) -> str:
    """The name of a candidate: problem_id@position."""
    return f"{problem_id}@{position}"
