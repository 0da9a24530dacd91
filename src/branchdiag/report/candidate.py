"""One candidate with everything around it: what `inspect` prints and the page shows as an example.

Built from plain rows of `spines`, `candidates`, `labels`, `grades` and `continuations` and a
function that decodes token ids. Every text in a view is the model's and untrusted: who shows it
escapes it. Knows no table files, no tokenizer and no way of showing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict

Decode = Callable[[Sequence[int]], str]

CONTEXT_TOKENS = 60


class Branch(TypedDict):
    """One arm: a forced child with both probabilities, or the control without any."""

    arm: str
    text: str
    teacher: float | None
    student: float | None
    successes: int | None  # missing: not labelled yet
    samples: int | None
    is_spine: bool


class Continuation(TypedDict):
    """One sampled continuation and what became of it."""

    arm: str
    sample: int
    answer: str | None
    correct: bool | None
    truncated: bool
    n_tokens: int
    text: str


class CandidateView(TypedDict):
    """A candidate, the spine around it, its branches and their continuations."""

    candidate_id: str
    problem_id: str
    problem: str
    gold_answer: str
    position: int
    r: float
    label: str | None
    h_trunc: float
    before: str
    token: str
    after: str
    children: list[Branch]
    control: Branch | None
    continuations: list[Continuation]


def candidate_view(
    candidate: Mapping[str, Any],
    spine: Mapping[str, Any],
    decode: Decode,
    *,
    label: Mapping[str, Any] | None = None,
    grades: Iterable[Mapping[str, Any]] = (),
    continuations: Iterable[Mapping[str, Any]] = (),
    context_tokens: int = CONTEXT_TOKENS,
) -> CandidateView:
    """Join the rows of one candidate; what is not there yet (labels, grades) is left missing.

    Args:
        candidate: its row of `candidates`.
        spine: the row of `spines` of its problem.
        decode: token ids -> text, special tokens kept.
        label: its row of `labels`.
        grades: its rows of `grades`.
        continuations: its rows of `continuations`; without them continuations have no text.
        context_tokens: spine tokens shown before the position, and half as many after it.
    """
    at, ids = int(candidate["position"]), list(spine["spine_ids"])
    counts = _counts(label)
    children = []
    for index, token_id in enumerate(candidate["child_ids"]):
        successes, samples = counts.get(f"child:{token_id}", (None, None))
        children.append(
            Branch(
                arm=f"child:{token_id}",
                text=str(candidate["child_texts"][index]),
                teacher=float(candidate["child_teacher"][index]),
                student=float(candidate["child_student"][index]),
                successes=successes,
                samples=samples,
                is_spine=candidate["spine_child"] == index,
            )
        )
    control = None
    if "control" in counts:
        won, of = counts["control"]
        control = Branch(
            arm="control", text="", teacher=None, student=None,
            successes=won, samples=of, is_spine=False,
        )  # fmt: skip
    return CandidateView(
        candidate_id=str(candidate["candidate_id"]),
        problem_id=str(candidate["problem_id"]),
        problem=str(spine["problem"]),
        gold_answer=str(spine["gold_answer"]),
        position=at,
        r=float(candidate["r"]),
        label=None if label is None else label["label"],
        h_trunc=float(candidate["h_trunc"]),
        before=decode(ids[max(0, at - context_tokens) : at]),
        token=decode(ids[at : at + 1]),
        after=decode(ids[at + 1 : at + 1 + context_tokens // 2]),
        children=children,
        control=control,
        continuations=_continuations(grades, continuations, decode),
    )


def _counts(label: Mapping[str, Any] | None) -> dict[str, tuple[int, int]]:
    if label is None:
        return {}
    rows = zip(label["arms"], label["successes"], label["samples"], strict=True)
    return {arm: (int(won), int(of)) for arm, won, of in rows}


def _continuations(
    grades: Iterable[Mapping[str, Any]],
    continuations: Iterable[Mapping[str, Any]],
    decode: Decode,
) -> list[Continuation]:
    graded = {(row["arm"], row["sample"]): row for row in grades}
    written = {(row["arm"], row["sample"]): row for row in continuations}
    result = []
    for key in dict.fromkeys([*written, *graded]):
        grade, row = graded.get(key), written.get(key)
        source = row if grade is None else grade
        assert source is not None
        cut = row["finish_reason"] == "length" if row is not None else source["truncated"]
        result.append(
            Continuation(
                arm=str(key[0]),
                sample=int(key[1]),
                answer=None if grade is None else grade["answer"],
                correct=None if grade is None else grade["correct"],
                truncated=bool(cut),
                n_tokens=int(source["n_tokens"]),
                text="" if row is None else decode(list(row["token_ids"])),
            )
        )
    return result


def pick_examples(labels: Iterable[Mapping[str, Any]], limit: int = 6) -> list[str]:
    """Candidates worth a look, by id; which ones depends on the rows alone, not on their order.

    Real-uncertain ones where the control is viable come first (there the forced token is to blame),
    then the other real-uncertain ones, gray ones, and diversity ones; within each those with the
    lowest d. One place is kept for a diversity candidate, and a problem comes twice only when
    others run out.
    """
    ranked = sorted((row for row in labels if row["label"] in _ORDER), key=_rank)
    kept = next((row for row in ranked if row["label"] == "diversity"), None)
    others = [row for row in ranked if row is not kept]
    problems = {None if kept is None else kept["problem_id"]}
    fresh: list[Mapping[str, Any]] = []
    repeated: list[Mapping[str, Any]] = []
    for row in others:
        (repeated if row["problem_id"] in problems else fresh).append(row)
        problems.add(row["problem_id"])
    chosen = [] if kept is None else [kept]
    chosen = (chosen + fresh + repeated)[:limit]
    return [str(row["candidate_id"]) for row in sorted(chosen, key=_rank)]


_ORDER = {"real_uncertain": 1, "gray": 2, "diversity": 3}


def _rank(row: Mapping[str, Any]) -> tuple[int, float, str]:
    kind = _ORDER[str(row["label"])]
    if kind == 1 and row["control_viable"]:
        kind = 0
    d = row["d"]
    return kind, float(d) if d is not None and d == d else 1.0, str(row["candidate_id"])
