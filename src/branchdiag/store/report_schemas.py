"""The tables of Phase G: scores, the leaderboard, curves.

Declared as those of `schemas`, which names them all.
"""

from __future__ import annotations

from branchdiag.store.columns import FLAG, REAL, STRING, TOKEN, Column, TableSchema

SCORES = TableSchema(
    "scores",
    "G",
    ("figure", "name"),
    (
        Column("figure", STRING, "absolute, relative, finished or strict: which label is told."),
        Column("name", STRING, "Name of the score."),
        Column("sign", TOKEN, "Declared orientation: +1 or -1 towards the positive class."),
        Column("auroc", REAL, "AUROC of the problem-centred score, unfolded.", True),
        Column("ci_low", REAL, "Lower end of its cluster-bootstrap interval.", True),
        Column("ci_high", REAL, "Upper end.", True),
        Column("auprc", REAL, "Average precision of the centred score.", True),
        Column("auprc_ci_low", REAL, "Lower end of its interval.", True),
        Column("auprc_ci_high", REAL, "Upper end.", True),
        Column("prevalence", REAL, "Share of positives: the AUPRC of no information.", True),
        Column("stratified_auroc", REAL, "Concordant share of within-problem pairs.", True),
        Column("stratified_ci_low", REAL, "Lower end of its interval.", True),
        Column("stratified_ci_high", REAL, "Upper end.", True),
        Column("n_positive", TOKEN, "Positive candidates."),
        Column("n_negative", TOKEN, "Negative candidates."),
        Column("n_problems", TOKEN, "Problems with a candidate in the figure."),
        Column("n_problems_positive", TOKEN, "Problems that carry a positive."),
        Column("n_dropped_resamples", TOKEN, "Resamples with one class only."),
        Column("n_missing", TOKEN, "Candidates without this score."),
        Column("compat_auroc", REAL, "The paper's folded figure max(a, 1 - a).", True),
        Column("compat_ci_low", REAL, "Its interval, folded inside the bootstrap.", True),
        Column("compat_ci_high", REAL, "Upper end.", True),
        Column("null_mean", REAL, "Mean of the permuted null (relative figure).", True),
        Column("p", REAL, "Two-sided permutation p-value (relative figure).", True),
        Column("n_pairs", TOKEN, "Within-problem pairs of a positive and a negative."),
        Column("alias_of", STRING, "The score this one ranks identically to.", True),
        Column("reason", STRING, "Why the AUROC or its interval is missing.", True),
        Column("auprc_reason", STRING, "Why the AUPRC or its interval is missing.", True),
        Column("stratified_reason", STRING, "Why the stratified AUROC is missing.", True),
        Column("null_reason", STRING, "Why the permuted null is missing.", True),
    ),
)

LEADERBOARD = TableSchema(
    "leaderboard",
    "G",
    ("group", "name"),
    (
        Column("group", STRING, "Which candidates are told apart; groups are never pooled."),
        Column("name", STRING, "Name of the score or signal."),
        Column("kind", STRING, "score (Phases B, C, D, F) or signal (stage S)."),
        Column("paper", STRING, "Whose signal it is.", True),
        Column("sign", TOKEN, "Declared orientation: +1 or -1 towards real-uncertain."),
        Column("rank", TOKEN, "Place by AUROC among the entries compared, from 1.", True),
        Column("alias_of", STRING, "An earlier entry with the same centred values.", True),
        Column("alias_opposite", FLAG, "Whether it is that one turned round.", True),
        Column("auroc", REAL, "AUROC of the problem-centred values, unfolded.", True),
        Column("ci_low", REAL, "Lower end of its pointwise cluster-bootstrap interval.", True),
        Column("ci_high", REAL, "Upper end.", True),
        Column("simultaneous_low", REAL, "Lower end with all entries taken together.", True),
        Column("simultaneous_high", REAL, "Upper end.", True),
        Column("p_half", REAL, "Two-sided p against 0.5, adjusted for all entries.", True),
        Column("auprc", REAL, "Average precision of the centred values.", True),
        Column("auprc_ci_low", REAL, "Lower end of its interval.", True),
        Column("auprc_ci_high", REAL, "Upper end.", True),
        Column("stratified_auroc", REAL, "Concordant share of within-problem pairs.", True),
        Column("stratified_ci_low", REAL, "Lower end of its interval.", True),
        Column("stratified_ci_high", REAL, "Upper end.", True),
        Column("relative_auroc", REAL, "AUROC for a drop below the control.", True),
        Column("relative_ci_low", REAL, "Lower end of its interval.", True),
        Column("relative_ci_high", REAL, "Upper end.", True),
        Column("relative_null_mean", REAL, "Mean of its permuted null.", True),
        Column("relative_p", REAL, "Two-sided permutation p-value of it.", True),
        *(
            Column(f"{prefix}{suffix}", REAL, f"{text} {against}.", True)
            for prefix, against in (
                ("vs_reference", "AUROC less that of 1 - r, the same candidates and resamples"),
                ("vs_best", "AUROC less that of the best entry"),
            )
            for suffix, text in (
                ("", "Paired difference:"),
                ("_ci_low", "Lower pointwise end of the difference:"),
                ("_ci_high", "Upper pointwise end of the difference:"),
                ("_low", "Lower end with all such differences taken together:"),
                ("_high", "Upper end with all such differences taken together:"),
                ("_p", "Two-sided p, adjusted for all such differences:"),
            )
        ),
        Column("n_positive", TOKEN, "Positive candidates."),
        Column("n_negative", TOKEN, "Negative candidates."),
        Column("n_missing", TOKEN, "Candidates without this value."),
        Column("reason", STRING, "Why the AUROC or its interval is missing.", True),
        Column("relative_reason", STRING, "Why the relative figure is missing.", True),
        Column("comparison_reason", STRING, "Why it is not compared with others.", True),
    ),
)

CURVES = TableSchema(
    "curves",
    "G",
    ("series", "bin"),
    (
        Column("series", STRING, "What is drawn, for example failure_by_r or control_by_r."),
        Column("bin", TOKEN, "Index of the bin, from 0."),
        Column("x", REAL, "Mean of the abscissa in the bin."),
        Column("y", REAL, "Value."),
        Column("lo", REAL, "Lower end of the cluster band.", True),
        Column("hi", REAL, "Upper end.", True),
        Column("n", TOKEN, "Candidates in the bin."),
        Column("reason", STRING, "Why there is no band.", True),
    ),
)
