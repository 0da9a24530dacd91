"""Whether a run's tables are sound, each by itself and with each other.

Reads every part of every table, its page checksums included; needs no lock and changes nothing
(a damaged part is reported, not set aside). Checks what follows from the tables alone: schema,
missing values, keys, references between tables, seeds, lengths, and that every continuation
started from exactly its spine's prefix and its forced token. Does not recompute what a phase
computed: labels and scores are the phases' own to check.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from branchdiag.errors import SettingsConflict
from branchdiag.store.fingerprint import tokens_hash
from branchdiag.store.parts import UnreadablePart, read_part
from branchdiag.store.schemas import TABLES, TableSchema

if TYPE_CHECKING:
    from branchdiag.store.run import RunDirectory

_EXAMPLES = 3

# Child table, columns, parent table: what the child's columns name must be in the parent's.
_REFERENCES = (
    ("positions", ("problem_id",), "spines"),
    ("candidates", ("problem_id", "position"), "positions"),
    ("dropout", ("candidate_id", "problem_id"), "candidates"),
    ("continuations", ("candidate_id", "problem_id"), "candidates"),
    ("grades", ("candidate_id", "problem_id", "arm", "sample"), "continuations"),
    ("labels", ("candidate_id", "problem_id", "position"), "candidates"),
    ("signals", ("candidate_id", "problem_id", "position"), "candidates"),
)

# Table, column that holds a length, list columns that must have it (where they are not missing).
_LENGTHS = (
    ("spines", "n_spine_tokens", ("spine_ids",)),
    ("continuations", "n_tokens", ("token_ids",)),
    ("candidates", "n_children", ("child_ids", "child_texts", "child_teacher", "child_student")),
)

# List columns too large to keep of a whole table, once their part was checked.
_LEFT_OUT = {
    "positions": ("top_ids", "top_teacher", "top_student"),
    "continuations": ("token_ids",),
}


@dataclass(frozen=True)
class Finding:
    """Something wrong: in which table, which check found it, where, and what it is."""

    table: str
    check: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.table}: {self.message} [{self.where}]"


def verify_tables(run: RunDirectory) -> list[Finding]:
    """All that is wrong with the run's tables; empty where they are sound.

    One finding stands for all rows of a part or table with the same fault and shows a few of them.

    Raises:
        StorageError: the disk would not give a part.
    """
    findings: list[Finding] = []
    tables: dict[str, pa.Table] = {}
    for name, schema in TABLES.items():
        if run.table(name).exists():
            tables[name] = _read(run, schema, findings)
            findings += _check_keys(tables[name], schema)
    for child, columns, parent in _REFERENCES:
        if child in tables:
            findings += _check_reference(tables, child, columns, parent)
    if "spines" in tables and "positions" in tables:
        findings += _check_spine_tokens(tables, "positions", "token_id")
    if "spines" in tables and "candidates" in tables:
        findings += _check_spine_tokens(tables, "candidates", "spine_token_id")
    if "continuations" in tables:
        findings += _check_seeds(tables["continuations"])
        if "spines" in tables and "candidates" in tables:
            findings += _check_prompts(tables)
    return findings


def _read(run: RunDirectory, schema: TableSchema, findings: list[Finding]) -> pa.Table:
    """The table without its largest columns; adds what is wrong with its parts to `findings`."""
    names = [column.name for column in schema.columns]
    left_out = _LEFT_OUT.get(schema.name, ())
    kept = [schema.arrow.empty_table().drop_columns(list(left_out))]
    for path in run.table(schema.name).part_paths():
        try:
            part = read_part(path, schema, names)
        except FileNotFoundError:  # set aside by a writer at this moment
            continue
        except (UnreadablePart, SettingsConflict) as error:
            reason = error.what if isinstance(error, SettingsConflict) else str(error)
            findings.append(Finding(schema.name, "part", path.name, f"unreadable: {reason}"))
            continue
        findings += _check_values(part, schema, path.name)
        kept.append(part.drop_columns(list(left_out)))
    return pa.concat_tables(kept)


def _check_values(part: pa.Table, schema: TableSchema, where: str) -> Iterator[Finding]:
    """Missing elements, NaN and lengths within one part.

    A column in which nothing may be missing has no way to hold a null in a part of this schema.
    """
    for column in schema.columns:
        values = part.column(column.name)
        inner = pc.list_flatten(values) if pa.types.is_list(column.type) else values
        if inner is not values and inner.null_count:
            yield Finding(schema.name, "missing", where, f"{column.name} holds a missing element")
        if pa.types.is_floating(inner.type) and pc.any(pc.is_nan(inner)).as_py():
            yield Finding(schema.name, "not a number", where, f"{column.name} holds NaN")
    for table, length, lists in _LENGTHS:
        for name in lists if table == schema.name else ():
            rows = pc.not_equal(pc.list_value_length(part.column(name)), part.column(length))
            if pc.any(rows).as_py():
                text = f"{length} is not the length of {name}"
                yield _finding(part, schema, rows, "length", text, where)
    if schema.name == "candidates":
        position = part.column("position").cast(pa.string())
        named = pc.binary_join_element_wise(part.column("problem_id"), position, "@")
        rows = pc.not_equal(named, part.column("candidate_id"))
        if pc.any(rows).as_py():
            text = "candidate_id is not problem_id@position"
            yield _finding(part, schema, rows, "name", text, where)


def _check_keys(table: pa.Table, schema: TableSchema) -> Iterator[Finding]:
    counts = table.group_by(list(schema.key)).aggregate([([], "count_all")])
    rows = pc.greater(counts.column("count_all"), 1)
    if pc.any(rows).as_py():
        yield _finding(counts, schema, rows, "key", "rows with the same key", "all parts")


def _check_reference(
    tables: dict[str, pa.Table], child: str, columns: tuple[str, ...], parent: str
) -> Iterator[Finding]:
    keys = list(columns)
    known = tables[parent] if parent in tables else TABLES[parent].arrow.empty_table()
    lost = (
        tables[child].select(keys).join(known.select(keys), keys=keys, join_type="left anti")
    ).sort_by([(name, "ascending") for name in keys])
    if lost.num_rows:
        shown = "; ".join(_key_text(row) for row in lost.slice(0, _EXAMPLES).to_pylist())
        text = f"{lost.num_rows} rows refer to nothing in {parent}, for example {shown}"
        yield Finding(child, "reference", "all parts", text)


def _check_seeds(continuations: pa.Table) -> Iterator[Finding]:
    repeated = continuations.num_rows - pc.count_distinct(continuations.column("seed")).as_py()
    if repeated:
        text = f"{repeated} rows have another row's seed: their samples are not independent"
        yield Finding("continuations", "seed", "all parts", text)


def _check_spine_tokens(
    tables: dict[str, pa.Table], name: str, token_column: str
) -> Iterator[Finding]:
    """Every position must lie on its spine and carry the spine's token."""
    spines = _spines(tables["spines"])
    table = tables[name].select(["problem_id", "position", token_column])
    wrong = []
    for part in table.to_batches():
        problem_ids, positions, tokens = (column.to_pylist() for column in part.columns)
        for problem_id, position, token in zip(problem_ids, positions, tokens, strict=True):
            ids = spines[problem_id][1] if problem_id in spines else None
            # A problem without a spine is a broken reference and reported as that.
            if ids is not None and not (0 <= position < len(ids) and ids[position] == token):
                wrong.append(f"{problem_id}@{position}")
    if wrong:
        text = f"{len(wrong)} positions without the spine's token, for example "
        yield Finding(name, "token", "all parts", text + ", ".join(sorted(wrong)[:_EXAMPLES]))


def _check_prompts(tables: dict[str, pa.Table]) -> Iterator[Finding]:
    """Every continuation must start from student prompt, spine prefix and its arm's token."""
    spines = _spines(tables["spines"])
    columns = ["candidate_id", "problem_id", "position", "spine_token_id", "child_ids"]
    candidates = {c["candidate_id"]: c for c in tables["candidates"].select(columns).to_pylist()}
    columns = ["candidate_id", "arm", "sample", "prompt_hash", "n_prompt_tokens"]
    expected: dict[tuple[str, str], tuple[str, int] | None] = {}
    unknown_arms, wrong = [], []
    for row in tables["continuations"].select(columns).to_pylist():
        candidate = candidates.get(row["candidate_id"])
        if candidate is None or candidate["problem_id"] not in spines:
            continue  # a broken reference, reported as that
        arm = (row["candidate_id"], row["arm"])
        if arm not in expected:
            expected[arm] = _prompt_of(candidate, row["arm"], *spines[candidate["problem_id"]])
        place = f"{row['candidate_id']} {row['arm']} {row['sample']}"
        if expected[arm] is None:
            unknown_arms.append(place)
        elif expected[arm] != (row["prompt_hash"], row["n_prompt_tokens"]):
            wrong.append(place)
    for places, what in (
        (unknown_arms, "rows of an arm that their candidate does not have"),
        (wrong, "rows whose prompt is not student prompt, spine prefix and forced token"),
    ):
        if places:
            shown = ", ".join(sorted(places)[:_EXAMPLES])
            text = f"{len(places)} {what}, for example {shown}"
            yield Finding("continuations", "prompt", "all parts", text)


def _prompt_of(
    candidate: dict[str, Any], arm: str, prompt: np.ndarray, spine: np.ndarray
) -> tuple[str, int] | None:
    """Hash and length of the arm's prompt; None where the candidate has no such arm."""
    if arm == "control":
        forced = []
    elif arm == "spine":
        forced = [candidate["spine_token_id"]]
    elif arm.startswith("child:") and arm[6:] in map(str, candidate["child_ids"]):
        forced = [int(arm[6:])]
    else:
        return None
    ids = [*prompt.tolist(), *spine[: candidate["position"]].tolist(), *forced]
    return tokens_hash(ids), len(ids)


def _spines(table: pa.Table) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Prompt and spine token ids of every problem."""
    names = table.column("problem_id").to_pylist()
    prompts, spines = table.column("prompt_ids"), table.column("spine_ids")
    return {
        name: (prompts[i].values.to_numpy(), spines[i].values.to_numpy())
        for i, name in enumerate(names)
    }


def _finding(
    table: pa.Table, schema: TableSchema, rows: Any, check: str, what: str, where: str
) -> Finding:
    bad = table.filter(rows).select(list(schema.key))
    shown = "; ".join(_key_text(row) for row in bad.slice(0, _EXAMPLES).to_pylist())
    text = f"{what} ({bad.num_rows} rows, for example {shown})"
    return Finding(schema.name, check, where, text)


def _key_text(row: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in row.items())
