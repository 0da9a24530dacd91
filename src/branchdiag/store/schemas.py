"""Every table of a run: its key, its columns, a type and a description a column.

The one place where columns are declared (those of Phase G in `report_schemas`, of the side
diagnostics in `stage_schemas`): the phase cards,
the documentation and the tests are held against it. Knows nothing of files.
"""

from __future__ import annotations

from branchdiag.signals import SIGNALS
from branchdiag.store.columns import (
    FLAG,
    INTEGER,
    INTEGERS,
    REAL,
    REALS,
    STRING,
    STRINGS,
    TOKEN,
    TOKENS,
    Column,
    TableSchema,
)
from branchdiag.store.report_schemas import CURVES, LEADERBOARD, SCORES
from branchdiag.store.stage_schemas import STAGE_TABLES

__all__ = [
    "CURVES",
    "FLAG",
    "INTEGER",
    "INTEGERS",
    "LEADERBOARD",
    "POSITIONS",
    "PROBLEMS",
    "REAL",
    "REALS",
    "SCORES",
    "STRING",
    "STRINGS",
    "TABLES",
    "TOKEN",
    "TOKENS",
    "Column",
    "TableSchema",
]

_PROBLEM = Column("problem_id", STRING, "Identifier of the problem, unique in the run.")
_POSITION = Column(
    "position", TOKEN, "Index of the spine token that the distribution predicts, from 0."
)
_CANDIDATE = Column("candidate_id", STRING, "problem_id@position.")
_R = Column("r", REAL, "Relative position (position + 0.5) / L, L the spine's length in tokens.")
_ARM = Column("arm", STRING, "child:<token_id>, control (nothing forced) or spine.")
_SAMPLE = Column("sample", TOKEN, "Index of the sample within its arm, from 0.")

PROBLEMS = TableSchema(
    "problems",
    "-",
    ("problem_id",),
    (
        _PROBLEM,
        Column("index", TOKEN, "Place in the run's order, from 0."),
        Column("source", STRING, "Problem set the problem came from."),
        Column("problem", STRING, "Text of the problem."),
        Column("answer", STRING, "Reference answer."),
        Column("solution", STRING, "Reference solution, where the source has one.", nullable=True),
    ),
)

SPINES = TableSchema(
    "spines",
    "A",
    ("problem_id",),
    (
        _PROBLEM,
        Column("source", STRING, "Problem set the problem came from."),
        Column("problem", STRING, "Text of the problem."),
        Column("gold_answer", STRING, "Reference answer."),
        Column("prompt_ids", TOKENS, "Rendered student prompt, as token ids."),
        Column("spine_ids", TOKENS, "Generated tokens, thinking included, without the final EOS."),
        Column("n_spine_tokens", TOKEN, "Length of spine_ids: the L of every relative position."),
        Column("text", STRING, "The spine decoded, special tokens kept."),
        Column("answer", STRING, "Last complete boxed answer, if there is one.", nullable=True),
        Column("correct", FLAG, "Whether it matches; missing: it could not be graded.", True),
        Column("grade_path", STRING, "Which rule of the grader decided."),
        Column("spine_mode", STRING, "greedy, or fallback: one sampled try after no box."),
        Column("finish_reason", STRING, "stop (EOS) or length (budget)."),
        Column("boxed_position", TOKEN, "First token of the first \\boxed; candidates stop.", True),
        Column("seed", INTEGER, "Seed of the request (63 bits)."),
    ),
)

POSITIONS = TableSchema(
    "positions",
    "B",
    ("problem_id", "position"),
    (
        _PROBLEM,
        _POSITION,
        Column("token_id", TOKEN, "The spine token at this position."),
        Column("h_full", REAL, "Teacher's entropy over the whole vocabulary, nats."),
        Column("h_student", REAL, "Student's entropy over the whole vocabulary, nats."),
        Column("h_trunc", REAL, "Entropy of the teacher's top-k valid tokens, renormalised, nats."),
        Column("h_trunc_partial", REAL, "The same sum without renormalising, nats."),
        Column("h_trunc_tail", REAL, "The same with the rest of the mass as one bucket, nats."),
        Column("covered_mass", REAL, "Teacher probability on those top-k valid tokens."),
        Column(
            "teacher_logprob", REAL, "Teacher's log-probability of the spine token, nats.", True
        ),
        Column(
            "student_logprob", REAL, "Student's log-probability of the spine token, nats.", True
        ),
        Column("kl", REAL, "KL(teacher || student), whole vocabulary, nats.", True),
        Column("reverse_kl", REAL, "KL(student || teacher), whole vocabulary, nats.", True),
        Column("jsd", REAL, "Jensen-Shannon divergence (beta 0.5), nats."),
        Column("p1", REAL, "Teacher's probability of its first valid token (whole softmax)."),
        Column("p2", REAL, "Teacher's probability of its second valid token."),
        Column("teacher_top_id", TOKEN, "Teacher's first token, valid or not."),
        Column("student_top_id", TOKEN, "Student's first token, valid or not."),
        Column("plausible", FLAG, "p2 >= min_p2 and p2 / p1 >= min_ratio."),
        Column("top_ids", TOKENS, "Teacher's top-k valid ids, where plausible.", nullable=True),
        Column("top_teacher", REALS, "Teacher's probabilities of top_ids.", nullable=True),
        Column("top_student", REALS, "Student's probabilities of top_ids.", nullable=True),
    ),
)

CANDIDATES = TableSchema(
    "candidates",
    "C",
    ("candidate_id",),
    (
        _CANDIDATE,
        _PROBLEM,
        _POSITION,
        _R,
        Column("h_trunc", REAL, "Entropy by which the candidate was chosen, nats."),
        Column("p1", REAL, "Teacher's probability of its first valid token."),
        Column("p2", REAL, "Teacher's probability of its second valid token."),
        Column("spine_token_id", TOKEN, "The spine's own token here."),
        Column("child_ids", TOKENS, "Tokens to force: the teacher's top valid ones, in order."),
        Column("child_texts", STRINGS, "Each child decoded."),
        Column("child_teacher", REALS, "Teacher's probability of each child (whole softmax)."),
        Column("child_student", REALS, "Student's probability of each child (whole softmax)."),
        Column("spine_child", TOKEN, "Index of the child that is the spine's token.", True),
        Column("n_children", TOKEN, "Number of children."),
        Column("selected_by", STRING, "entropy, random or both; missing: entropy.", True),
    ),
)

DROPOUT = TableSchema(
    "dropout",
    "D",
    ("candidate_id",),
    (
        _CANDIDATE,
        _PROBLEM,
        Column("h_full", REAL, "Entropy of the unperturbed teacher, nats."),
        Column("h_mc", REAL, "Entropy of the mean over dropout samples, nats."),
        Column("mi", REAL, "Mutual information h_mc - mean entropy, nats, at least 0."),
        Column("kappa", REAL, "Dirichlet concentration by matched moments, raw; at most 1e12."),
        Column("trace", REAL, "Sum over the vocabulary of the samples' variance (ddof 1)."),
    ),
)

CONTINUATIONS = TableSchema(
    "continuations",
    "E",
    ("candidate_id", "arm", "sample"),
    (
        _CANDIDATE,
        _PROBLEM,
        _ARM,
        _SAMPLE,
        Column("seed", INTEGER, "Seed of the request (63 bits)."),
        Column("prompt_hash", STRING, "SHA-256 (16 hex digits) of the request's token ids."),
        Column("n_prompt_tokens", TOKEN, "Student prompt, prefix and forced token together."),
        Column("token_ids", TOKENS, "Sampled tokens, after the forced one, without EOS."),
        Column("n_tokens", TOKEN, "Length of token_ids."),
        Column("finish_reason", STRING, "stop (EOS) or length (budget)."),
    ),
)

GRADES = TableSchema(
    "grades",
    "F",
    ("candidate_id", "arm", "sample"),
    (
        _CANDIDATE,
        _PROBLEM,
        _ARM,
        _SAMPLE,
        Column("answer", STRING, "Last complete box in (forced token + continuation).", True),
        Column(
            "correct", FLAG, "Whether it matches; no box is wrong; missing: not gradable.", True
        ),
        Column("correct_strict", FLAG, "The same, counting only after closed thinking.", True),
        Column("grade_path", STRING, "Which rule of the grader decided."),
        Column("truncated", FLAG, "Cut off by the budget."),
        Column("n_tokens", TOKEN, "Sampled tokens."),
    ),
)

LABELS = TableSchema(
    "labels",
    "F",
    ("candidate_id",),
    (
        _CANDIDATE,
        _PROBLEM,
        _POSITION,
        _R,
        Column("arms", STRINGS, "Arms of the candidate, children first."),
        Column("successes", INTEGERS, "Correct samples of each arm."),
        Column("samples", INTEGERS, "Graded samples of each arm."),
        Column("truncated", INTEGERS, "Samples of each arm cut off by the budget."),
        Column("lengths", REALS, "Mean tokens of each arm's samples, the forced one included."),
        Column("n_children", TOKEN, "Number of forced children."),
        Column("mean_child_viability", REAL, "Mean over children of successes / samples.", True),
        Column("control_viability", REAL, "The control arm's successes / samples (V0).", True),
        Column("control_length", REAL, "Mean length of the control's samples, tokens.", True),
        Column("d", REAL, "mean_child_viability - control_viability.", True),
        Column("control_viable", FLAG, "V0 at or above the diversity share.", True),
        Column("label", STRING, "diversity, real_uncertain or gray; missing: ungraded.", True),
        Column("label_finished", STRING, "The label over finished samples alone.", True),
        Column("label_strict", STRING, "The label under the stricter answer rule.", True),
        Column("share_truncated", REAL, "Share of all samples cut off by the budget."),
    ),
)

SIGNAL_VALUES = TableSchema(
    "signals",
    "S",
    ("candidate_id",),
    (
        _CANDIDATE,
        _PROBLEM,
        _POSITION,
        *(Column(signal.name, REAL, signal.description, True) for signal in SIGNALS.values()),
    ),
)

ERRORS = TableSchema(
    "errors",
    "-",
    ("phase", "unit", "attempt"),
    (
        Column("phase", STRING, "Letter of the phase."),
        Column("unit", STRING, "The unit that failed, as its key."),
        Column("attempt", STRING, "Which attempt of the run (start time, UTC)."),
        Column("kind", STRING, "Name of the error's class."),
        Column("message", STRING, "The error's text."),
    ),
)

TABLES: dict[str, TableSchema] = {
    schema.name: schema
    for schema in (
        PROBLEMS,
        SPINES,
        POSITIONS,
        CANDIDATES,
        DROPOUT,
        CONTINUATIONS,
        GRADES,
        LABELS,
        SIGNAL_VALUES,
        SCORES,
        LEADERBOARD,
        CURVES,
        *STAGE_TABLES,
        ERRORS,
    )
}
