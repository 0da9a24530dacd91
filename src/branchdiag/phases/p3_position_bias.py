"""Side stage P3: does the value of a token fall or rise along the trace?

Reads the spines, Phase B's positions and the labels, and the tables of P0 and P2; writes
`prefix_curves` and `position_bias.json`, from which page, terminal and figures are made. Computes
what arXiv 2606.22600 shows (its figures 1b and 3, its weight), fits the schedule of the same run
beside it, and says which prescription the two support. Samples nothing and draws nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from branchdiag.phases.base import Context, Done, Outcome, Phase, Unit
from branchdiag.phases.labelled import labelled_candidates, read_tables
from branchdiag.phases.p3_document import (
    ALL,
    CORRECT,
    GROUPS,
    INCORRECT,
    POSITION_BIAS,
    change_entry,
    estimate_entry,
    make_document,
    schedule_entry,
    told_to_teacher,
)
from branchdiag.phases.prefixes import STUDENT, TEACHER, WRITERS, cut_of

if TYPE_CHECKING:
    from branchdiag.protocol import Protocol
    from branchdiag.stats.estimate import BoolArray, Estimate, FloatArray, Resampling
    from branchdiag.stats.horizon import Slope
    from branchdiag.stats.position_bias import GainChange
    from branchdiag.stats.schedule_fit import FittedSchedule

BY_POSITION = {
    "discrepancy_by_r": ("r", "step"),
    "discrepancy_by_position": ("position", "step"),
    "accumulated_by_r": ("r", "before"),
    "share_by_r": ("r", "share"),
    "weight_by_r": ("r", "weight"),
}
"""Curves over tokens: series -> abscissa and ordinate."""


@dataclass(frozen=True)
class PrefixShares:
    """Share of correct continuations of each graded problem (P, F), by writer.

    correct_P: whether its spine is. after_box_PF: prefixes that hold the spine's first box.
    """

    problems: Sequence[str]
    fractions: tuple[float, ...]
    share_PF: Mapping[str, FloatArray]
    correct_P: BoolArray
    after_box_PF: BoolArray

    def of_group(self, group: str) -> BoolArray:
        """Which problems a group holds, (P,)."""
        import numpy as np

        return {
            ALL: np.ones_like(self.correct_P),
            CORRECT: self.correct_P,
            INCORRECT: ~self.correct_P,
        }[group]


@dataclass(frozen=True)
class Tokens:
    """Every scored token: which spine, where, and what IW-OPD makes of it. NaN where missing."""

    columns: Mapping[str, FloatArray]
    spine: Any
    correct: BoolArray
    n_missing: int
    n_spines_left_out: int

    def of_group(self, group: str) -> BoolArray:
        """Which tokens a group holds."""
        import numpy as np

        return {ALL: np.ones_like(self.correct), CORRECT: self.correct, INCORRECT: ~self.correct}[
            group
        ]


def prefix_shares(
    spines: Mapping[str, Mapping[str, Any]],
    grades: Sequence[Mapping[str, Any]],
    fractions: tuple[float, ...],
) -> PrefixShares:
    """Shares at every fraction; fractions that cut a short spine at one place share its samples.

    Args:
        spines: problem_id -> its row.
        grades: rows of `prefix_grades`, of whole problems.
    """
    import numpy as np

    counts: dict[tuple[str, int, str], list[int]] = {}
    after_box = set()
    for row in grades:
        cell = counts.setdefault((row["problem_id"], row["cut"], row["writer"]), [0, 0])
        cell[0] += bool(row["correct"])
        cell[1] += 1
        if row["after_box"]:
            after_box.add((row["problem_id"], row["cut"]))
    problems = sorted({name for name, _, _ in counts})
    shape = (len(problems), len(fractions))
    shares = {writer: np.full(shape, np.nan) for writer in WRITERS}
    late = np.zeros(shape, np.bool_)
    for p, name in enumerate(problems):
        for f, fraction in enumerate(fractions):
            cut = cut_of(fraction, spines[name]["n_spine_tokens"])
            late[p, f] = (name, cut) in after_box
            for writer in WRITERS:
                won, of = counts[name, cut, writer]
                shares[writer][p, f] = won / of
    correct = np.array([bool(spines[name]["correct"]) for name in problems], np.bool_)
    return PrefixShares(problems, fractions, shares, correct, late)


def scored_tokens(
    correct: Mapping[str, bool | None],
    positions: Sequence[Mapping[str, Any]],
    log_ratios: Sequence[Mapping[str, Any]],
) -> Tokens:
    """|ln(q / p)| of every scored token, with what has accumulated before it.

    Args:
        correct: problem_id -> whether its spine is.
        positions: rows with problem_id, position, teacher_logprob and student_logprob.
        log_ratios: rows with problem_id, position and log_ratio. A spine that Phase B scored only
            once it was resumed is in both: it counts once.
    """
    import numpy as np

    from branchdiag.stats.position_bias import accumulate, relative_position

    rows = [(row["problem_id"], row["position"], _difference(row)) for row in positions]
    scored = {name for name, _, _ in rows}
    others = (row for row in log_ratios if row["problem_id"] not in scored)
    rows += [(row["problem_id"], row["position"], row["log_ratio"]) for row in others]
    rows.sort(key=lambda row: (row[0], row[1]))
    spine = np.array([name for name, _, _ in rows], dtype=object).astype(str)
    position = np.array([place for _, place, _ in rows], np.float64)
    step = np.abs(np.array([np.nan if v is None else v for _, _, v in rows], np.float64))
    made = accumulate(step, position, spine)
    return Tokens(
        columns={
            "r": relative_position(position, spine),
            "position": position,
            "step": step,
            "before": made.before_T,
            "share": made.share_T,
            "weight": made.weight_T,
        },
        spine=spine,
        correct=np.array([bool(correct[name]) for name, _, _ in rows], np.bool_),
        n_missing=int(np.isnan(step).sum()),
        n_spines_left_out=made.n_left_out,
    )


def _difference(row: Mapping[str, Any]) -> float | None:
    teacher, student = row["teacher_logprob"], row["student_logprob"]
    return None if teacher is None or student is None else teacher - student


def curve_rows(
    shares: PrefixShares, tokens: Tokens, bins: int, resampling: Resampling
) -> list[dict[str, Any]]:
    """The rows of `prefix_curves`: every series of every group."""
    from branchdiag.stats.position_bias import prefix_curve
    from branchdiag.stats.reliability import binned_curve

    rows: list[dict[str, Any]] = []
    student, teacher = (shares.share_PF[writer] for writer in WRITERS)
    for group in GROUPS:
        own = shares.of_group(group)
        series = {STUDENT: student, TEACHER: teacher, "gain": teacher - student}
        for name, values in series.items():
            points = prefix_curve(shares.fractions, values[own], **resampling)
            for index, point in enumerate(points):
                row = {"group": group, "series": name, "bin": index, "x": point["fraction"]}
                rows.append(row | {key: point[key] for key in ("y", "lo", "hi", "n", "reason")})
        mine = tokens.of_group(group)
        for name, (x, y) in BY_POSITION.items():
            made = binned_curve(
                name,
                tokens.columns[x][mine],
                tokens.columns[y][mine],
                tokens.spine[mine],
                bins=bins,
                **resampling,
            )
            rows += [{"group": group, **binned} for binned in made]
    return rows


def gain_changes(shares: PrefixShares, resampling: Resampling) -> dict[str, GainChange]:
    """The change of the gain in each group, and over all spines without prefixes after a box."""
    import numpy as np

    from branchdiag.stats.position_bias import gain_change

    gain = shares.share_PF[TEACHER] - shares.share_PF[STUDENT]
    changes = {
        group: gain_change(shares.fractions, gain[shares.of_group(group)], **resampling)
        for group in GROUPS
    }
    if shares.after_box_PF.any():
        before = np.where(shares.after_box_PF, np.nan, gain)
        changes["before_box"] = gain_change(shares.fractions, before, **resampling)
    return changes


def first_accuracy(shares: PrefixShares, resampling: Resampling) -> Estimate:
    """Share of correct continuations of the first prefix, of the writer that may have fewer."""
    import numpy as np

    from branchdiag.stats.position_bias import expanded_mean

    problems = np.arange(len(shares.problems))
    found = [expanded_mean(shares.share_PF[w][:, 0], problems, **resampling) for w in WRITERS]
    # By the interval: what has to be shown of both writers is then shown by this one.
    return min(found, key=lambda e: (e.value or 0.0) if e.ci_low is None else e.ci_low)


def discrepancy_slopes(tokens: Tokens, resampling: Resampling) -> dict[str, Slope]:
    """Change of |ln(q / p)| along the trace, in each group."""
    from branchdiag.stats.position_bias import step_slope

    slopes = {}
    for group in GROUPS:
        own = tokens.of_group(group)
        columns = (tokens.columns["step"][own], tokens.columns["r"][own], tokens.spine[own])
        slopes[group] = step_slope(*columns, **resampling)
    return slopes


def fitted(context: Context) -> FittedSchedule:
    """What `fit-schedule` would fit to this run, with its own settings."""
    from branchdiag.stats.schedule_fit import fit_schedule

    settings = context.protocol.candidates
    return fit_schedule(labelled_candidates(read_tables(context.run), settings))


def units(context: Context) -> list[Unit]:
    """The whole stage is one unit."""
    return [()]


def analyse(
    shares: PrefixShares,
    tokens: Tokens,
    schedule: FittedSchedule,
    protocol: Protocol,
    *,
    counts: Mapping[str, Any],
    models: Mapping[str, str],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The document and the rows of `prefix_curves`.

    Args:
        schedule: fitted to the same run.
        counts: of `counts_of`. models: names of student and teacher.
    """
    from branchdiag.signals.accumulated import GAMMA
    from branchdiag.stats.prescription import prescribe
    from branchdiag.stats.prescription_sentences import Evidence

    settings = protocol.report
    resampling: Resampling = {
        "resamples": settings.resamples,
        "level": settings.level,
        "seed": settings.seed,
        "max_dropped_share": settings.max_dropped_share,
    }
    rows = curve_rows(shares, tokens, settings.bins, resampling)
    changes = gain_changes(shares, resampling)
    slopes = discrepancy_slopes(tokens, resampling)
    evidence = Evidence(
        schedule_status=schedule.status,
        schedule_direction=schedule.direction,
        schedule_reason=schedule.reason,
        schedule_spines=INCORRECT if protocol.candidates.spines == INCORRECT else CORRECT,
        gain=changes[ALL],
        first_accuracy=first_accuracy(shares, resampling),
        discrepancy=slopes[ALL],
        n_incorrect=int((~shares.correct_P).sum()),
        by_spine={kind: slopes[kind].estimate for kind in (CORRECT, INCORRECT)},
        told=told_to_teacher(protocol),
        gamma=GAMMA,
        level=settings.level,
    )
    document = make_document(
        prescription=prescribe(evidence),
        evidence=evidence,
        curves=rows,
        changes={group: change_entry(change) for group, change in changes.items()},
        slopes={
            group: {"n_spines": slope.n_problems, **estimate_entry(slope.estimate)}
            for group, slope in slopes.items()
        },
        schedule=schedule_entry(schedule),
        counts=counts,
        context=protocol.teacher.context,
        settings=protocol.prefixes.model_dump(mode="json"),
        models=models,
    )
    return document, rows


def work(context: Context, owed: Sequence[Unit]) -> Generator[Outcome]:
    """Analyse what the stages before have made; write the document, hand over the curves."""
    from branchdiag.store.atomic import write_json

    run = context.run
    columns = ["problem_id", "correct", "n_spine_tokens"]
    spines = {row["problem_id"]: row for row in run.table("spines").read(columns).to_pylist()}
    grades = run.table("prefix_grades").rows()
    shares = prefix_shares(spines, grades, context.protocol.prefixes.fractions)
    tokens = scored_tokens(
        {name: row["correct"] for name, row in spines.items()},
        run.table("positions")
        .read(["problem_id", "position", "teacher_logprob", "student_logprob"])
        .to_pylist(),
        run.table("log_ratios").read(["problem_id", "position", "log_ratio"]).to_pylist(),
    )
    failed = sum(
        int(run.manifest["phases"].get(letter, {}).get("failed", 0))
        for letter in PHASE.reads
        if letter.startswith("P")
    )
    document, rows = analyse(
        shares,
        tokens,
        fitted(context),
        context.protocol,
        counts={**counts_of(spines, grades, shares, tokens), "failed_units": failed},
        models={"student": context.student.name, "teacher": context.teacher.name},
    )
    write_json(run.path / POSITION_BIAS, document)
    yield Done((), {"prefix_curves": rows})


def counts_of(
    spines: Mapping[str, Mapping[str, Any]],
    grades: Sequence[Mapping[str, Any]],
    shares: PrefixShares,
    tokens: Tokens,
) -> dict[str, Any]:
    """What the document stands on, and what was left out."""
    usable = [
        row for row in spines.values() if row["correct"] is not None and row["n_spine_tokens"]
    ]
    cuts = {(row["problem_id"], row["cut"]) for row in grades}
    after = {(row["problem_id"], row["cut"]) for row in grades if row["after_box"]}
    by_writer = {writer: [r for r in grades if r["writer"] == writer] for writer in WRITERS}
    return {
        "problems": len(spines),
        "spines_correct": int(shares.correct_P.sum()),
        "spines_incorrect": int((~shares.correct_P).sum()),
        "spines_ungraded": sum(row["correct"] is None for row in spines.values()),
        "spines_without_samples": len(usable) - len(shares.problems),
        "prefixes": len(cuts),
        "prefixes_shared": len(shares.problems) * len(shares.fractions) - len(cuts),
        "prefixes_after_box": len(after),
        "samples": {writer: len(rows) for writer, rows in by_writer.items()},
        "truncated": {
            writer: sum(bool(row["truncated"]) for row in rows)
            for writer, rows in by_writer.items()
        },
        "tokens_scored": len(tokens.correct),
        "tokens_without_discrepancy": tokens.n_missing,
        "spines_without_accumulated": tokens.n_spines_left_out,
    }


PHASE = Phase(
    letter="P3",
    name="bias",
    question="Do the data support discounting early tokens, late ones, or neither?",
    reads=("A", "B", "C", "F", "P0", "P1", "P2"),
    writes=("prefix_curves",),
    unit=(),
    settings=("report",),
    inputs=(),
    version=1,
    needs_model=False,
    units=units,
    work=work,
    command="prefixes",
)
