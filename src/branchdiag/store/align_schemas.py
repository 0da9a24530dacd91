"""The tables of the gradient-alignment stages N1 to N4.

Knows nothing of files.
"""

from __future__ import annotations

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

_PROBLEM = Column("problem_id", STRING, "Identifier of the problem, unique in the run.")
_NODE = Column("candidate_id", STRING, "problem_id@position: the candidate that is the node.")
_POSITION = Column("position", TOKEN, "Index of the spine token that is predicted, from 0.")
_R = Column("r", REAL, "Relative position (position + 0.5) / L, L the spine's length in tokens.")
_CONTEXT = Column("context", STRING, "What the teacher sees: answer, solution, none or a file.")
_ARM = Column("arm", STRING, "child:<token_id>: the token of the support that is forced.")
_SAMPLE = Column("sample", TOKEN, "Index in its arm; those below Phase E's number are Phase E's.")

NODE_CONTEXTS = TableSchema(
    "node_contexts",
    "N1",
    ("candidate_id", "context"),
    (
        _NODE,
        _CONTEXT,
        _PROBLEM,
        _POSITION,
        Column("teacher", REALS, "Teacher's probability of each token of the support, T = 1."),
        Column("teacher_excluded", REAL, "Its probability of all other tokens."),
        Column("teacher_entropy", REAL, "Its entropy over the whole vocabulary, nats."),
        Column("forward_kl", REAL, "KL(teacher || student), whole vocabulary, nats.", True),
        Column("reverse_kl", REAL, "KL(student || teacher), whole vocabulary, nats.", True),
        Column("jsd", REAL, "Jensen-Shannon divergence (beta 0.5), nats.", True),
        Column("clipped_forward_kl", REAL, "Sum of min(q ln(q / p), 0.05) over it, nats.", True),
    ),
)

NODES = TableSchema(
    "nodes",
    "N1",
    ("candidate_id",),
    (
        _NODE,
        _PROBLEM,
        _POSITION,
        _R,
        Column("support_ids", TOKENS, "Tokens of the support: children, student's own, spine's."),
        Column("support_texts", STRINGS, "Each decoded."),
        Column("sources", STRINGS, "Why each is there: child, student or spine; the first."),
        Column("student", REALS, "Student's probability of each (whole softmax)."),
        Column("student_excluded", REAL, "Its probability of all other tokens."),
        Column("student_entropy", REAL, "Its entropy over the whole vocabulary, nats."),
    ),
)

ARM_CONTINUATIONS = TableSchema(
    "arm_continuations",
    "N2",
    ("candidate_id", "arm", "sample"),
    (
        _NODE,
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

ARM_GRADES = TableSchema(
    "arm_grades",
    "N3",
    ("candidate_id", "arm", "sample"),
    (
        _NODE,
        _PROBLEM,
        _ARM,
        _SAMPLE,
        Column("answer", STRING, "Last complete box in (forced token + continuation).", True),
        Column("correct", FLAG, "Whether it matches; no box is wrong."),
        Column("correct_strict", FLAG, "The same, counting only after closed thinking."),
        Column("grade_path", STRING, "Which rule of the grader decided."),
        Column("truncated", FLAG, "Cut off by the budget."),
        Column("n_tokens", TOKEN, "Sampled tokens."),
    ),
)

NODE_ARMS = TableSchema(
    "node_arms",
    "N3",
    ("candidate_id",),
    (
        _NODE,
        _PROBLEM,
        Column("arms", STRINGS, "The arm of each token of the support, in its order."),
        Column("successes", INTEGERS, "Correct samples of each, Phase E's and N2's together."),
        Column("samples", INTEGERS, "Graded samples of each."),
        Column("truncated", INTEGERS, "Of them cut off by the budget."),
        Column("first_successes", INTEGERS, "Correct among those of even index: the first half."),
        Column("first_samples", INTEGERS, "Graded samples of even index."),
    ),
)

GRADIENTS = TableSchema(
    "gradients",
    "N4",
    ("candidate_id", "context"),
    (
        _NODE,
        _CONTEXT,
        _PROBLEM,
        _POSITION,
        _R,
        Column("spine_correct", FLAG, "Whether the spine is correct; never pooled."),
        Column("n_support", TOKEN, "Tokens of the support."),
        Column("student_success", REAL, "Sum of the student's shares times success rates."),
        Column("teacher_success", REAL, "The same with the teacher's shares."),
        Column("advantage", REAL, "teacher_success - student_success."),
        Column("cosine_forward_kl", REAL, "Of the forward KL's descent with the ideal.", True),
        Column("cosine_reverse_kl", REAL, "Of the reverse KL's.", True),
        Column("cosine_jsd", REAL, "Of the Jensen-Shannon divergence's.", True),
        Column("cosine_clipped_forward_kl", REAL, "Of the clipped forward KL's.", True),
        Column("reason", STRING, "Why a cosine is missing.", True),
    ),
)

ALIGNMENT = TableSchema(
    "alignment",
    "N4",
    ("group", "figure", "context", "against", "bin"),
    (
        Column("group", STRING, "Which nodes; groups are never pooled."),
        Column(
            "figure", STRING, "advantage, advantage_slope, cosine_*, pooled_*, corrected_*, ..."
        ),
        Column("context", STRING, "What the teacher sees; empty: of the ideal gradient alone."),
        Column("against", STRING, "The context that is taken off; empty: none."),
        Column("bin", TOKEN, "Bin of r, from 0; -1: all positions."),
        Column("r", REAL, "Mean relative position of the nodes.", True),
        Column("value", REAL, "The estimate.", True),
        Column("ci_low", REAL, "Lower end of its pointwise interval.", True),
        Column("ci_high", REAL, "Upper end.", True),
        Column("low", REAL, "Lower end with all pairs of contexts taken together.", True),
        Column("high", REAL, "Upper end.", True),
        Column("p", REAL, "Two-sided p of a difference, adjusted for all pairs.", True),
        Column("n_nodes", TOKEN, "Nodes that carry it."),
        Column("n_problems", TOKEN, "Problems they are in."),
        Column("n_undefined", TOKEN, "Nodes at which it is not defined."),
        Column("reason", STRING, "Why the estimate or its interval is missing.", True),
    ),
)

ALIGN_TABLES = (
    NODE_CONTEXTS,
    NODES,
    ARM_CONTINUATIONS,
    ARM_GRADES,
    NODE_ARMS,
    GRADIENTS,
    ALIGNMENT,
)
