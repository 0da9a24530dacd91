"""The tables of the stages P0 to P3, which `branchdiag prefixes` writes.

Declared as those of `schemas`, which names them all.
"""

from __future__ import annotations

from branchdiag.store.columns import FLAG, INTEGER, REAL, STRING, TOKEN, TOKENS, Column, TableSchema

_PROBLEM = Column("problem_id", STRING, "Identifier of the problem, unique in the run.")
_CUT = Column("cut", TOKEN, "Spine tokens that are kept: floor(fraction x L).")
_FRACTION = Column("fraction", STRING, "The smallest fraction that cuts there, as written.")
_WRITER = Column("writer", STRING, "student or teacher: who goes on, under its own prompt.")

LOG_RATIOS = TableSchema(
    "log_ratios",
    "P0",
    ("problem_id", "position"),
    (
        _PROBLEM,
        Column("position", TOKEN, "Index of the spine token, from 0."),
        Column("log_ratio", REAL, "ln(q / p) of the spine's own token, nats.", True),
    ),
)

PREFIX_SAMPLES = TableSchema(
    "prefix_samples",
    "P1",
    ("problem_id", "cut", "writer", "sample"),
    (
        _PROBLEM,
        _CUT,
        _FRACTION,
        _WRITER,
        Column("sample", TOKEN, "Index of the sample, from 0."),
        Column("seed", INTEGER, "Seed of the request (63 bits)."),
        Column("prompt_hash", STRING, "SHA-256 (16 hex digits) of the request's token ids."),
        Column("n_prompt_tokens", TOKEN, "The writer's prompt and the prefix together."),
        Column("token_ids", TOKENS, "Sampled tokens, without EOS."),
        Column("n_tokens", TOKEN, "Length of token_ids."),
        Column("finish_reason", STRING, "stop (EOS) or length (budget)."),
    ),
)

PREFIX_GRADES = TableSchema(
    "prefix_grades",
    "P2",
    ("problem_id", "cut", "writer", "sample"),
    (
        _PROBLEM,
        _CUT,
        _FRACTION,
        _WRITER,
        Column("sample", TOKEN, "Index of the sample, from 0."),
        Column("answer", STRING, "Last complete box in the continuation.", True),
        Column("correct", FLAG, "Whether it matches; no box is wrong."),
        Column("grade_path", STRING, "Which rule of the grader decided."),
        Column("after_box", FLAG, "Whether the prefix holds the spine's first box, or part of it."),
        Column("truncated", FLAG, "Cut off by the budget."),
        Column("n_tokens", TOKEN, "Sampled tokens."),
    ),
)

PREFIX_CURVES = TableSchema(
    "prefix_curves",
    "P3",
    ("group", "series", "bin"),
    (
        Column("group", STRING, "all, correct or incorrect: whose spines."),
        Column("series", STRING, "Which curve (the card says each)."),
        Column("bin", TOKEN, "Point of the curve, from 0."),
        Column("x", REAL, "Fraction, relative position or token index, by the series."),
        Column("y", REAL, "Mean there.", True),
        Column("lo", REAL, "Lower end of its cluster-bootstrap interval.", True),
        Column("hi", REAL, "Upper end.", True),
        Column("n", TOKEN, "Problems (fractions) or tokens (positions) in the mean."),
        Column("reason", STRING, "Why the mean or its interval is missing.", True),
    ),
)

PREFIX_TABLES = (LOG_RATIOS, PREFIX_SAMPLES, PREFIX_GRADES, PREFIX_CURVES)
