"""Phase C: at which positions is a branch forced, and with which tokens (arXiv 2605.21606,
appendix A).

Reads `spines` and `positions`; writes `candidates`. A position qualifies where the teacher's second
token is plausible, nothing there is junk, and the answer is not yet boxed; of those, the highest
truncated entropies win, kept apart by a least spacing. By a setting, further ones are drawn from
all that qualify without a look at entropy. Knows no model: it chooses from stored rows.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from branchdiag.phases.base import Context, Done, Outcome, Phase, Unit, candidate_id
from branchdiag.phases.groups import selected_by
from branchdiag.protocol import CandidateSettings
from branchdiag.store.fingerprint import derive_seed


def select_spaced(
    positions: Sequence[int], scores: Sequence[float], *, spacing: int, limit: int
) -> list[int]:
    """Greedy choice by falling score, each at least `spacing` from every one taken.

    Ties go to the earlier position. Returns at most `limit` positions, in rising order.
    """
    order = sorted(zip(positions, scores, strict=True), key=lambda pair: (-pair[1], pair[0]))
    taken: list[int] = []
    for position, _ in order:
        if len(taken) == limit:
            break
        if all(abs(position - other) >= spacing for other in taken):
            taken.append(position)
    return sorted(taken)


def select_random(positions: Sequence[int], *, spacing: int, limit: int, seed: int) -> list[int]:
    """Draws without replacement, each at least `spacing` from every one taken; in rising order.

    Which are drawn depends on the set of positions and the seed alone.
    """
    import numpy as np

    taken: list[int] = []
    for position in np.random.default_rng(seed).permutation(sorted(positions)).tolist():
        if len(taken) == limit:
            break
        if all(abs(position - other) >= spacing for other in taken):
            taken.append(position)
    return sorted(taken)


def children_of(
    row: Mapping[str, Any], settings: CandidateSettings, text_of: Callable[[int], str]
) -> list[int]:
    """Indices into a position's top tokens that become children, the teacher's order kept.

    With `merge_equal_children`, a token whose stripped lower-case text equals an earlier child's is
    passed over.
    """
    chosen: list[int] = []
    seen: set[str] = set()
    for index, token_id in enumerate(row["top_ids"]):
        if row["top_teacher"][index] <= 0:
            break  # fewer valid tokens than top_k
        text = text_of(token_id).strip().lower()
        if settings.merge_equal_children and text in seen:
            continue
        seen.add(text)
        chosen.append(index)
        if len(chosen) == settings.max_children:
            break
    return chosen


def choose(
    positions: Sequence[Mapping[str, Any]],
    *,
    n_spine_tokens: int,
    boxed_position: int | None,
    settings: CandidateSettings,
    text_of: Callable[[int], str],
    is_junk: Callable[[int], bool],
    seed: int = 0,
) -> list[dict[str, Any]]:
    """The candidates of one spine, as rows.

    Args:
        positions: the spine's rows of `positions`.
        n_spine_tokens: L, so that r = (position + 0.5) / L.
        boxed_position: first token of the first box; it and all after it are no candidates.
        text_of: a token decoded.
        is_junk: whether a token is white space, punctuation or a control tag.
        seed: of the draw that looks at no entropy, where there is one.
    """
    eligible: dict[int, tuple[Mapping[str, Any], list[int]]] = {}
    for row in positions:
        position = row["position"]
        if not row["plausible"] or (boxed_position is not None and position >= boxed_position):
            continue
        junk = position == 0 or is_junk(row["token_id"]) or is_junk(row["top_ids"][0])
        if settings.junk_filter and junk:
            continue
        children = children_of(row, settings, text_of)
        if len(children) >= settings.min_children:
            eligible[position] = (row, children)
    kept = select_spaced(
        list(eligible),
        [row["h_trunc"] for row, _ in eligible.values()],
        spacing=settings.spacing_tokens,
        limit=settings.max_per_problem,
    )
    drawn = select_random(
        list(eligible),
        spacing=settings.spacing_tokens,
        limit=settings.random_per_problem,
        seed=seed,
    )
    return [
        {
            **_candidate_row(*eligible[position], n_spine_tokens=n_spine_tokens, text_of=text_of),
            "selected_by": selected_by(position in kept, position in drawn),
        }
        for position in sorted({*kept, *drawn})
    ]


def _candidate_row(
    row: Mapping[str, Any],
    children: Sequence[int],
    *,
    n_spine_tokens: int,
    text_of: Callable[[int], str],
) -> dict[str, Any]:
    child_ids = [row["top_ids"][index] for index in children]
    return {
        "candidate_id": candidate_id(row["problem_id"], row["position"]),
        "problem_id": row["problem_id"],
        "position": row["position"],
        "r": (row["position"] + 0.5) / n_spine_tokens,
        "h_trunc": row["h_trunc"],
        "p1": row["p1"],
        "p2": row["p2"],
        "spine_token_id": row["token_id"],
        "child_ids": child_ids,
        "child_texts": [text_of(token_id) for token_id in child_ids],
        "child_teacher": [row["top_teacher"][index] for index in children],
        "child_student": [row["top_student"][index] for index in children],
        "spine_child": (child_ids.index(row["token_id"]) if row["token_id"] in child_ids else None),
        "n_children": len(child_ids),
    }


def units(context: Context) -> list[Unit]:
    """One unit a scored spine."""
    scored = context.run.table("positions").read(["problem_id"])["problem_id"].unique()
    return [(name,) for name in sorted(scored.to_pylist())]


def work(context: Context, owed: Sequence[Unit]) -> Generator[Outcome]:
    """Choose candidates spine by spine; a spine with none is done as well."""
    from branchdiag.scoring.valid_tokens import is_junk_text

    wanted = {str(unit[0]) for unit in owed}
    spines = {row["problem_id"]: row for row in context.run.table("spines").rows()}
    by_problem: dict[str, list[dict[str, Any]]] = {name: [] for name in wanted}
    for part in context.run.table("positions").scan():
        # Plausible rows alone become Python objects: a long run has millions of the others.
        for row in part.filter(part["plausible"]).to_pylist():
            if row["problem_id"] in wanted:
                by_problem[row["problem_id"]].append(row)

    texts: dict[int, str] = {}

    def text_of(token_id: int) -> str:
        if token_id not in texts:
            texts[token_id] = context.tokenizer.decode([token_id], skip_special_tokens=False)
        return texts[token_id]

    control = {int(token_id) for token_id in context.tokenizer.added_tokens_decoder}
    for unit in owed:
        spine = spines[str(unit[0])]
        rows = choose(
            by_problem[spine["problem_id"]],
            n_spine_tokens=spine["n_spine_tokens"],
            boxed_position=spine["boxed_position"],
            settings=context.protocol.candidates,
            text_of=text_of,
            is_junk=lambda token_id: token_id in control or is_junk_text(text_of(token_id)),
            seed=derive_seed(context.seed, "random position", spine["problem_id"]),
        )
        yield Done(unit, {"candidates": rows})


PHASE = Phase(
    letter="C",
    name="candidates",
    question="Where does the teacher see a real alternative, and which tokens are forced there?",
    reads=("A", "B"),
    writes=("candidates",),
    unit=("problem_id",),
    settings=("candidates",),
    inputs=(),
    version=1,
    needs_model=False,
    units=units,
    work=work,
)
