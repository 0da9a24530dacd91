"""The tables of an evaluation: keys, columns, a type and a description a column.

Declared apart from a run's tables: an evaluation is a directory of its own. Knows nothing of files
or of how a figure is computed.
"""

from __future__ import annotations

from branchdiag.store.schemas import (
    ERRORS,
    FLAG,
    INTEGER,
    PROBLEMS,
    STRING,
    TOKEN,
    TOKENS,
    Column,
    TableSchema,
)

_MODEL = Column("model", STRING, "Short name of the model, unique in the evaluation.")
_PROBLEM = Column("problem_id", STRING, "Identifier of the problem, unique in the evaluation.")
_SEED_SET = Column("seed_set", TOKEN, "Which repeat of the whole evaluation, from 0.")
_SAMPLE = Column("sample", TOKEN, "Index of the sample within its problem and repeat, from 0.")

SAMPLES = TableSchema(
    "samples",
    "S",
    ("model", "problem_id", "seed_set", "sample"),
    (
        _MODEL,
        _PROBLEM,
        _SEED_SET,
        _SAMPLE,
        Column("seed", INTEGER, "Seed of the request (63 bits); the same for every model."),
        Column("prompt_hash", STRING, "SHA-256 (16 hex digits) of the prompt's token ids."),
        Column("n_prompt_tokens", TOKEN, "Length of the prompt, in tokens."),
        Column("thinking_open", FLAG, "Whether the prompt ends inside an open think block."),
        Column("token_ids", TOKENS, "Sampled tokens without EOS."),
        Column("n_tokens", TOKEN, "Length of token_ids."),
        Column("text", STRING, "The tokens decoded, special tokens kept."),
        Column("finish_reason", STRING, "stop (EOS) or length (budget)."),
    ),
)

GRADES = TableSchema(
    "grades",
    "G",
    ("model", "problem_id", "seed_set", "sample"),
    (
        _MODEL,
        _PROBLEM,
        _SEED_SET,
        _SAMPLE,
        Column("answer", STRING, "The answer that counts; missing: no complete box.", True),
        Column("extraction", STRING, "How the search for a box ended: ok, empty, malformed, ..."),
        Column("correct", FLAG, "Whether it matches the reference; no box is wrong."),
        Column("grade_path", STRING, "Which rule of the grader decided."),
        Column("cluster", TOKEN, "Cluster of equal answers, numbered by first occurrence."),
    ),
)

OUTCOMES = TableSchema(
    "outcomes",
    "G",
    ("model", "problem_id", "seed_set"),
    (
        _MODEL,
        _PROBLEM,
        _SEED_SET,
        Column("n", TOKEN, "Samples of the problem in this repeat."),
        Column("n_correct", TOKEN, "Samples with a correct answer."),
        Column("n_formatted", TOKEN, "Samples with a complete box that is not empty."),
        Column("n_truncated", TOKEN, "Samples cut off by the budget."),
        Column("n_tokens", INTEGER, "Sampled tokens of all samples together."),
        Column("n_clusters", TOKEN, "Clusters of equal answers, invalid ones as one."),
        Column("majority_sample", TOKEN, "First sample of the largest cluster."),
        Column("majority_votes", TOKEN, "Samples in that cluster."),
        Column("majority_correct", FLAG, "Grade of that sample; missing: undecided.", True),
        Column("majority_reason", STRING, "Why it is undecided.", True),
    ),
)

EVALUATION_TABLES: dict[str, TableSchema] = {
    schema.name: schema for schema in (PROBLEMS, SAMPLES, GRADES, OUTCOMES, ERRORS)
}
