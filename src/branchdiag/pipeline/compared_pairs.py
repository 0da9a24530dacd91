"""Two runs brought together by their problems: which are in both, and the paired differences.

Takes two runs as read; gives counts of what they share and the figures that can be paired. A
problem is the same where its text and its answer are; candidates are never paired, since each run's
own spine and teacher put them where they are. Writes nothing and says nothing in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from branchdiag.pipeline.compared_runs import ComparedRun
    from branchdiag.stats.run_differences import Difference, PairedFigure

    Array = npt.NDArray[np.float64]
    Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shared:
    """What two runs have in common.

    problems: (id in the first, id in the second) of each. changed: equal ids whose text or answer
    differs, which are not paired. diagnosed: shared problems with a candidate in both.
    same_spines: shared problems with the same spine, token by token. same_places: candidates at
    the same position of the same spine; same_children: of them, those with the same forced tokens.
    """

    problems: tuple[tuple[str, str], ...]
    only_first: int
    only_second: int
    changed: int
    diagnosed: int
    same_spines: int
    same_places: int
    same_children: int

    def counts(self) -> dict[str, int]:
        """As numbers, the problems counted."""
        counts = asdict(self)
        return counts | {"problems": len(self.problems)}


def shared(first: ComparedRun, second: ComparedRun) -> Shared:
    """Match the problems of two runs, and count what else is the same."""
    pairs = match_problems(first.frames["problems"], second.frames["problems"])
    sizes = [len(run.frames["problems"]) for run in (first, second)]
    texts = [_texts(run.frames["problems"]) for run in (first, second)]
    spines = [_spines(run.frames["spines"]) for run in (first, second)]
    same = [(a, b) for a, b in pairs if a in spines[0] and spines[0][a] == spines[1].get(b)]
    places = [_places(run.frames["candidates"]) for run in (first, second)]
    both = [
        (children, places[1][(b, at)])
        for a, b in same
        for (name, at), children in places[0].items()
        if name == a and (b, at) in places[1]
    ]
    diagnosed = [set(run.frames["labels"]["problem_id"]) for run in (first, second)]
    return Shared(
        problems=tuple(pairs),
        only_first=sizes[0] - len(pairs),
        only_second=sizes[1] - len(pairs),
        changed=sum(
            name in texts[1] and texts[1][name] != content for name, content in texts[0].items()
        ),
        diagnosed=sum(a in diagnosed[0] and b in diagnosed[1] for a, b in pairs),
        same_spines=len(same),
        same_places=len(both),
        same_children=sum(mine == theirs for mine, theirs in both),
    )


def match_problems(first: pd.DataFrame, second: pd.DataFrame) -> list[tuple[str, str]]:
    """Pairs of ids of equal problems, in the first run's order.

    Text and answer must be equal. Where a run has several such problems, their ids must be too.
    """
    by_content: list[dict[tuple[str, str], list[str]]] = []
    for frame in (first, second):
        found: dict[tuple[str, str], list[str]] = {}
        for name, content in _texts(frame).items():
            found.setdefault(content, []).append(name)
        by_content.append(found)
    pairs = []
    for content, names in by_content[0].items():
        others = by_content[1].get(content, [])
        if len(names) == len(others) == 1:
            pairs.append((names[0], others[0]))
        else:
            pairs += [(name, name) for name in names if name in others]
    return pairs


def paired_differences(
    first: ComparedRun, second: ComparedRun, common: Shared, *, n_pairs: int
) -> list[Difference]:
    """Every figure that problems can pair, second less first.

    Resampling is that of the first run's report.
    """
    from branchdiag.stats.run_differences import differences

    settings = first.report["settings"]["report"]
    n = len(common.problems)
    rows = [
        _rows(run, {pair[side]: place for place, pair in enumerate(common.problems)})
        for side, run in enumerate((first, second))
    ]
    return differences(
        _figures(rows[0], rows[1], n),
        n,
        n_pairs=n_pairs,
        permutations=settings["permutations"],
        resamples=settings["resamples"],
        level=settings["level"],
        seed=settings["seed"],
        max_dropped_share=settings["max_dropped_share"],
    )


@dataclass(frozen=True)
class _Rows:
    """A run's spines and candidates of shared problems: places (0 ... P - 1) and columns."""

    spine_place: Places
    spines: Mapping[str, Array]
    place: Places
    candidates: Mapping[str, Array]
    label: npt.NDArray[np.object_]


def _rows(run: ComparedRun, places: Mapping[str, int]) -> _Rows:
    import numpy as np

    from branchdiag.phases.g_report import child_arrays
    from branchdiag.stats.horizon import teacher_advantage

    spines, labels = run.frames["spines"], run.frames["labels"]
    spines = spines[spines["problem_id"].isin(list(places))]
    labels = labels[labels["problem_id"].isin(list(places))].sort_values("candidate_id")
    arrays = child_arrays(labels.reset_index(drop=True), run.frames["candidates"])
    return _Rows(
        spine_place=_placed(spines, places),
        spines={
            "solved": np.array(spines["correct"].astype("float64"), dtype=np.float64),
            "spine_tokens": spines["n_spine_tokens"].to_numpy(float),
        },
        place=_placed(labels, places),
        candidates={
            "r": labels["r"].to_numpy(float),
            "child_viability": labels["mean_child_viability"].to_numpy(float),
            "control_viability": labels["control_viability"].to_numpy(float),
            "d": labels["d"].to_numpy(float),
            "advantage": teacher_advantage(*arrays),
        },
        label=labels["label"].to_numpy(object),
    )


def _placed(frame: pd.DataFrame, places: Mapping[str, int]) -> Places:
    """The place of each row's problem."""
    import numpy as np

    return np.array([places[name] for name in frame["problem_id"]], dtype=np.int64)


def _figures(first: _Rows, second: _Rows, n_problems: int) -> list[PairedFigure]:
    from branchdiag.stats.run_differences import paired_auroc, paired_mean, paired_slope

    def mean(name: str, kind: str) -> PairedFigure:
        places, columns = {
            "spines": ("spine_place", "spines"),
            "candidates": ("place", "candidates"),
        }[kind]
        return paired_mean(
            name,
            *(
                means_by_problem(getattr(rows, columns)[name], getattr(rows, places), n_problems)
                for rows in (first, second)
            ),
        )

    def slope(name: str, column: str, sign: float) -> PairedFigure:
        mine, theirs = (
            (sign * rows.candidates[column], rows.candidates["r"], rows.place)
            for rows in (first, second)
        )
        return paired_slope(name, mine, theirs, n_problems)

    return [
        mean("solved", "spines"),
        mean("spine_tokens", "spines"),
        mean("child_viability", "candidates"),
        mean("control_viability", "candidates"),
        mean("d", "candidates"),
        mean("advantage", "candidates"),
        slope("failure_slope", "child_viability", -1.0),
        slope("d_slope", "d", 1.0),
        paired_auroc("auroc_one_minus_r", _earliness(first), _earliness(second), n_problems),
    ]


def means_by_problem(values: Array, places: Places, n_problems: int) -> Array:
    """Mean (P,) of the finite values of each problem, NaN where it has none."""
    import numpy as np

    present = np.isfinite(values)
    sums = np.bincount(places[present], values[present], n_problems)
    counts = np.bincount(places[present], minlength=n_problems)
    means = np.full(n_problems, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def _earliness(rows: _Rows) -> tuple[Array, Any, Places]:
    """1 - r centred in its problem over the binary candidates, the positives, and their places."""
    from branchdiag.stats.scores import SCORES, binary_labels, oriented_residuals

    labels, used = binary_labels(rows.label)
    values = 1.0 - rows.candidates["r"][used]
    residuals = oriented_residuals(SCORES["one_minus_r"], values, rows.place[used])
    return residuals, labels[used] == "real_uncertain", rows.place[used]


def _texts(problems: pd.DataFrame) -> dict[str, tuple[str, str]]:
    rows = zip(problems["problem_id"], problems["problem"], problems["answer"], strict=True)
    return {name: (text.strip(), answer.strip()) for name, text, answer in rows}


def _spines(spines: pd.DataFrame) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Each problem's spine: its text as well, since other tokenizers share ids."""
    rows = zip(spines["problem_id"], spines["text"], spines["spine_ids"], strict=True)
    return {name: (text, tuple(map(int, ids))) for name, text, ids in rows}


def _places(candidates: pd.DataFrame) -> dict[tuple[str, int], tuple[int, ...]]:
    rows = zip(
        candidates["problem_id"], candidates["position"], candidates["child_ids"], strict=True
    )
    return {(name, int(at)): tuple(map(int, ids)) for name, at, ids in rows}
