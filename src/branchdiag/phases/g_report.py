"""Phase G: which signal tells reliable alternatives from the ones that fail, and where they lie.

Reads every earlier table; writes `scores`, `leaderboard` and `curves`, the figures, `report.json`
and `report.html`. AUROC of problem-centred scores with a declared orientation and unfolded
cluster-bootstrap intervals is primary; the paper's folded figure stands beside it (arXiv
2605.21606, section 3.2, table 1). Everything absolute is followed by what is left relative to the
control. Computes no score of its own: a score is a column that B, C, D, F or S measured.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from branchdiag.phases.base import Context, Done, Outcome, Phase, Unit
from branchdiag.phases.groups import PRIMARY, diagnosed, groups_of
from branchdiag.phases.side_by_side import in_order
from branchdiag.protocol import ReportSettings

if TYPE_CHECKING:
    import pandas as pd

    from branchdiag.phases.g_leaderboard import Entries, Group
    from branchdiag.stats.arms import Arms
    from branchdiag.stats.estimate import Resampling
    from branchdiag.stats.finding import Finding
    from branchdiag.stats.horizon import AgainstControl
    from branchdiag.stats.overall import Overall
    from branchdiag.stats.scores import ScoreResult

REPORT_PAGE, REPORT_DOCUMENT = "report.html", "report.json"
KAPPA_FLOOR = 1e-6
LOCAL_SCORES = (
    "h_trunc",
    "h_full",
    "h_mc",
    "mi",
    "log_kappa",
    "h_student",
    "log_ratio",
    "kl",
    "margin",
)
SENSITIVITY = ("label_finished", "label_strict", "control_viable")


@dataclass(frozen=True)
class Analysis:
    """What Phase G found, before it is laid out."""

    scores: list[dict[str, Any]]
    curves: list[dict[str, Any]]
    slopes: AgainstControl
    finding: Finding
    overall: Overall
    score_values: pd.DataFrame
    groups: list[Group]

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of every table of the phase."""
        board = [row for group in self.groups for row in group.rows]
        return {"scores": self.scores, "leaderboard": board, "curves": self.curves}


def resampling_of(settings: ReportSettings) -> Resampling:
    """The settings of every bootstrap of a report."""
    return {
        "resamples": settings.resamples,
        "level": settings.level,
        "seed": settings.seed,
        "max_dropped_share": settings.max_dropped_share,
    }


def score_values(
    labels: pd.DataFrame,
    candidates: pd.DataFrame,
    positions: pd.DataFrame,
    dropout: pd.DataFrame,
) -> pd.DataFrame:
    """One row a labelled candidate: its label and every score, raw and not oriented.

    Args:
        labels, candidates, positions, dropout: the tables; `dropout` may be empty, and its scores
            are then missing.
    """
    import numpy as np

    frame = labels.merge(
        candidates[["candidate_id", "h_trunc", "p1", "p2"]], on="candidate_id", validate="1:1"
    )
    local = positions[
        [
            "problem_id",
            "position",
            "h_full",
            "h_student",
            "kl",
            "teacher_logprob",
            "student_logprob",
        ]
    ]
    frame = frame.merge(local, on=["problem_id", "position"], how="left", validate="1:1")
    frame["one_minus_r"] = 1.0 - frame["r"]
    frame["log_ratio"] = frame["teacher_logprob"] - frame["student_logprob"]
    frame["margin"] = frame["p1"] - frame["p2"]
    if len(dropout):
        columns = dropout[["candidate_id", "h_mc", "mi", "kappa"]]
        frame = frame.merge(columns, on="candidate_id", how="left", validate="1:1")
        frame["log_kappa"] = np.log(frame.pop("kappa").clip(lower=KAPPA_FLOOR))
    return frame.sort_values("candidate_id", ignore_index=True)


def analyse(
    values: pd.DataFrame,
    candidates: pd.DataFrame,
    settings: ReportSettings,
    entries: Entries | None = None,
) -> Analysis:
    """Every statistic of the report on the primary group, the leaderboard left out.

    Args:
        values: of `score_values`.
        candidates: the table, for the forced tokens' probabilities.
        entries: of the same candidates, where they are known: the scores are among them.
    """
    from branchdiag.phases.g_leaderboard import evaluate_entries
    from branchdiag.stats.estimate import Estimate
    from branchdiag.stats.finding import finding
    from branchdiag.stats.horizon import against_control, teacher_advantage
    from branchdiag.stats.overall import overall
    from branchdiag.stats.scores import SCORES, evaluate_scores

    resampling = resampling_of(settings)
    if entries is None:
        entries = evaluate_entries(values, values[["candidate_id"]], settings, resampling)
    problems = values["problem_id"].to_numpy(str)
    rows = [score_row("absolute", result) for result in entries.absolute if result.name in SCORES]
    rows += [score_row("relative", result) for result in entries.relative if result.name in SCORES]
    position = next(result for result in entries.absolute if result.name == "one_minus_r")
    for figure in SENSITIVITY:
        varied = evaluate_scores(
            {"one_minus_r": values["one_minus_r"].to_numpy(float)},
            labels_under(values, figure),
            problems,
            declared={"one_minus_r": SCORES["one_minus_r"]},
            **resampling,
        )
        rows += [score_row(figure, result) for result in varied]
    slopes = against_control(
        arms_of_labels(values),
        values["r"].to_numpy(float),
        problems,
        permutations=settings.permutations,
        **resampling,
    )
    return Analysis(
        scores=rows,
        curves=curve_rows(values, candidates, settings),
        slopes=slopes,
        finding=finding(
            auroc=Estimate(position.auroc, position.ci_low, position.ci_high, position.reason),
            slopes=slopes,
            n_positive=position.n_positive,
            n_problems_positive=position.n_problems_positive,
            level=settings.level,
        ),
        overall=overall(
            values["d"].to_numpy(float),
            teacher_advantage(*child_arrays(values, candidates)),
            problems,
            **resampling,
        ),
        score_values=values,
        groups=[],
    )


def labels_under(values: pd.DataFrame, figure: str) -> Any:
    """The labels of a sensitivity figure, (C,): another rule, or where the control is viable."""
    if figure != "control_viable":
        return values[figure].to_numpy(object)
    return values["label"].where(values["control_viable"].eq(True), None).to_numpy(object)


def arms_of_labels(values: pd.DataFrame) -> Arms:
    """The arms of the `labels` table as arrays."""
    from branchdiag.stats.arms import Arms

    return Arms.from_lists(
        *(
            [list(entry) for entry in values[name]]
            for name in ("arms", "successes", "samples", "lengths")
        )
    )


def curve_rows(
    values: pd.DataFrame, candidates: pd.DataFrame, settings: ReportSettings
) -> list[dict[str, Any]]:
    """The rows of `curves`: failure by position and by score, the control, the advantage."""
    from branchdiag.stats.reliability import advantage_curve, binned_curve, failure_curves

    resampling = resampling_of(settings)
    r, problems = values["r"].to_numpy(float), values["problem_id"].to_numpy(str)
    local = {name: values[name].to_numpy(float) for name in LOCAL_SCORES if name in values}
    rows = failure_curves(
        r,
        1.0 - values["mean_child_viability"].to_numpy(float),
        1.0 - values["control_viability"].to_numpy(float),
        local,
        problems,
        bins=settings.bins,
        **resampling,
    )
    rows += binned_curve(
        "d_by_r", r, values["d"].to_numpy(float), problems, bins=settings.bins, **resampling
    )
    teacher, student, viability = child_arrays(values, candidates)
    rows += advantage_curve(
        r, teacher, student, viability, problems, bins=settings.bins, **resampling
    )
    return [dict(row) for row in rows]


def child_arrays(values: pd.DataFrame, candidates: pd.DataFrame) -> tuple[Any, Any, Any]:
    """Teacher and student probability and viability of each child, (C, K), NaN where no child."""
    import numpy as np

    own = candidates.set_index("candidate_id").loc[values["candidate_id"]]
    width = int(values["n_children"].max()) if len(values) else 0
    arrays = tuple(np.full((len(values), width), np.nan) for _ in range(3))
    columns = (own["child_teacher"], own["child_student"], values["successes"], values["samples"])
    for row, (count, *lists) in enumerate(zip(values["n_children"], *columns, strict=True)):
        teacher, student, successes, samples = (np.asarray(each)[:count] for each in lists)
        arrays[0][row, :count], arrays[1][row, :count] = teacher, student
        arrays[2][row, :count] = successes / samples
    return arrays[0], arrays[1], arrays[2]


def score_row(figure: str, result: ScoreResult) -> dict[str, Any]:
    """The `scores` row of a result; a relative one has its null as well."""
    import dataclasses

    row = dataclasses.asdict(result)
    compat = row.pop("paper_compat")
    row["figure"] = figure
    row |= {f"compat_{key}": value for key, value in compat.items()}
    for name in ("aliases", "n_problems_mixed", "n_permutations", "n_undefined", "n_fixed"):
        row.pop(name, None)
    return row


def units(context: Context) -> list[Unit]:
    """The whole phase is one unit."""
    return [()]


def work(context: Context, owed: Sequence[Unit]) -> Generator[Outcome]:
    """Analyse what the run has, write figures and report, hand over the rows."""
    from branchdiag.phases.g_document import examples, make_document
    from branchdiag.report.document import to_json
    from branchdiag.report.figures import draw_all
    from branchdiag.report.page import write_report
    from branchdiag.report.sections import SECTIONS, read_sections
    from branchdiag.report.style import render, save_figures
    from branchdiag.store.atomic import write_text

    frames, analysis = analyse_run(context)
    document = make_document(context, frames, analysis)
    document["sections"] = read_sections(context.run.path, context.run.manifest["phases"])
    drawn = report_frames(frames, analysis)
    figures = draw_all(document, drawn)
    for command, section in document["sections"].items():
        figures |= SECTIONS[command].draw(section)
    # Nothing of one figure is in another: they are rendered side by side.
    rendered = dict(zip(figures, in_order(render, list(figures.items())), strict=True))
    save_figures(figures, context.run.figures, rendered)
    write_report(
        document,
        drawn,
        figures,
        context.run.path / REPORT_PAGE,
        examples=examples(context, frames["labels"]["candidate_id"].tolist()),
        rendered=rendered,
    )
    # Last: where report.json is, everything it speaks of is there.
    write_text(context.run.path / REPORT_DOCUMENT, to_json(document))
    yield Done((), analysis.rows())


def analyse_run(context: Context) -> tuple[dict[str, pd.DataFrame], Analysis]:
    """The primary group's tables and the analysis of the run, groups told apart."""
    from branchdiag.phases.g_leaderboard import (
        add_range_restriction,
        evaluate_entries,
        evaluate_group,
    )

    settings = context.protocol.report
    resampling = resampling_of(settings)
    groups = read_groups(context)
    evaluated = []
    for name, (description, frames) in groups.items():
        values = score_values(
            frames["labels"], frames["candidates"], frames["positions"], frames["dropout"]
        )
        entries = evaluate_entries(values, frames["signals"], settings, resampling)
        evaluated.append(evaluate_group(name, description, entries, settings.level, resampling))
        if name == PRIMARY:
            primary = frames
            analysis = analyse(values, frames["candidates"], settings, entries)
    return primary, replace(analysis, groups=add_range_restriction(evaluated))


def read_groups(context: Context) -> dict[str, tuple[str, dict[str, pd.DataFrame]]]:
    """Every table that the report reads, cut to each group's candidates; the primary group first.

    Spines are all of them in every group; positions are those of the spines that are diagnosed
    with the group.
    """
    by_candidate = ("candidates", "dropout", "continuations", "grades", "labels", "signals")
    whole = {
        name: context.run.table(name).frame() for name in ("spines", "positions", *by_candidate)
    }
    correct = whole["spines"].set_index("problem_id")["correct"]
    settings = context.protocol.candidates
    rows: list[Any] = whole["candidates"].to_dict("records")
    groups = groups_of(rows, {str(key): value for key, value in correct.items()}, settings)
    base = diagnosed(settings.spines)
    result = {}
    for name, (description, ids) in groups.items():
        kind = base[-1] if name.startswith("incorrect_spines") else base[0]
        own = correct.index[correct.eq(kind)]
        frames = dict(whole)
        frames["positions"] = _among(whole["positions"], "problem_id", own)
        for table in by_candidate:
            frames[table] = _among(whole[table], "candidate_id", ids)
        result[name] = (description, frames)
    return result


def _among(frame: pd.DataFrame, column: str, wanted: Iterable[str]) -> pd.DataFrame:
    """The rows whose name is wanted, their order kept."""
    return frame[frame[column].isin(list(wanted))].reset_index(drop=True)


def report_frames(
    frames: Mapping[str, pd.DataFrame], analysis: Analysis
) -> dict[str, pd.DataFrame]:
    """What the figures and the page are drawn from."""
    import pandas as pd

    return {
        **frames,
        "curves": pd.DataFrame(analysis.curves),
        "score_values": analysis.score_values,
    }


PHASE = Phase(
    letter="G",
    name="report",
    question="Which signal tells where the teacher fails, and is it more than the way left to go?",
    reads=("A", "B", "C", "D", "E", "F", "S"),
    writes=("scores", "leaderboard", "curves"),
    unit=(),
    settings=("report",),
    inputs=(),
    version=1,
    needs_model=False,
    units=units,
    work=work,
    also_reads=("P3", "N4"),
)
