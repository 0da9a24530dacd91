"""How numbers and names are written, in the page, the figures and the terminal alike.

Turns numbers into text and makes untrusted text harmless to read. Knows nothing of HTML, Rich or
Matplotlib: each of those escapes for itself what comes from here.
"""

from __future__ import annotations

import unicodedata

MISSING = "–"
MINUS = "−"

SCORE_LABELS = {
    "one_minus_r": "earliness, 1 − r",
    "h_trunc": "truncated entropy",
    "h_full": "entropy",
    "h_mc": "dropout-mean entropy",
    "mi": "mutual information",
    "log_kappa": "log concentration κ",
    "h_student": "student entropy",
    "log_ratio": "log ratio q / p",
    "kl": "KL(q ‖ p)",
    "margin": "margin p₁ − p₂",
    "control_viability": "control viability V₀",
    "control_length": "control length",
    "position": "position, tokens",
}
LOCAL_SCORES = (
    "h_trunc", "h_full", "h_mc", "mi", "log_kappa", "h_student", "log_ratio", "kl", "margin",
)  # fmt: skip

LABEL_WORDS = {"diversity": "diversity", "real_uncertain": "real-uncertain", "gray": "gray"}

STATUS_WORDS = {
    "early_worse": "early tokens worse",
    "late_worse": "late tokens worse",
    "no_more_than_horizon": "no more than the horizon",
    "not_told_apart": "not told apart",
    "too_few": "too few",
}

PHASE_NAMES = {
    "A": "spine",
    "B": "teacher",
    "C": "candidates",
    "D": "dropout",
    "E": "continue",
    "F": "label",
    "S": "signals",
    "N1": "nodes",
    "N2": "arms",
    "N3": "grade arms",
    "N4": "alignment",
    "G": "report",
}


def score_label(name: str) -> str:
    """What a score is called in a figure."""
    return SCORE_LABELS.get(name, name)


def label_words(label: str | None) -> str:
    """A label as a word; no label: ungraded."""
    return "ungraded" if label is None else LABEL_WORDS.get(label, label)


def status_words(status: str) -> str:
    """A finding's status as words."""
    return STATUS_WORDS.get(status, status.replace("_", " "))


def number(value: float | None, digits: int = 2) -> str:
    """`value` with that many decimals, a true minus sign, and no negative zero."""
    if value is None:
        return MISSING
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def interval(low: float | None, high: float | None, digits: int = 2) -> str:
    """`[low, high]`, or a dash where there is none."""
    if low is None or high is None:
        return MISSING
    return f"[{number(low, digits)}, {number(high, digits)}]"


def percent(value: float | None, digits: int = 0) -> str:
    """A share as a percentage."""
    return MISSING if value is None else f"{number(100 * value, digits)}%"


def count(value: int | None) -> str:
    """A whole number with thousands set apart by commas."""
    return MISSING if value is None else f"{value:,}".replace("-", MINUS)


def plural(n: int, noun: str, plural_noun: str | None = None) -> str:
    """`1 problem`, `2 problems`."""
    return f"{count(n)} {noun if n == 1 else plural_noun or noun + 's'}"


def p_value(p: float | None) -> str:
    """A p-value: three decimals, or an upper limit where it is smaller."""
    if p is None:
        return MISSING
    return "< 0.001" if p < 0.001 else number(p, 3)


def seconds(value: float) -> str:
    """A duration in the unit that suits it."""
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{int(value // 60)} min {int(value % 60)} s"
    return f"{int(value // 3600)} h {int(value % 3600 // 60)} min"


def visible(text: str, *, keep: str = "\n\t") -> str:
    """The text with every character that steers a display shown instead of obeyed.

    Controls, format characters (bidirectional overrides, zero-width, tags), line separators,
    surrogates and private use become their code point, as in ⟨U+202E⟩; characters of `keep` stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        f"⟨U+{ord(char):04X}⟩"
        if char not in keep and unicodedata.category(char) in _STEERING
        else char
        for char in text
    )


_STEERING = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def token_text(text: str) -> str:
    """A token as one visible word: controls shown, line ends as ↵, outer spaces as ␣."""
    inner = text.strip(" ")
    left = len(text) - len(text.lstrip(" "))
    right = len(text) - left - len(inner)
    body = visible(inner.replace("\n", "↵"), keep="")
    return "␣" * left + body + "␣" * right


def figure_title(name: str) -> str:
    """What a figure shows, for a reader who cannot see it."""
    base = name.removesuffix(".narrow")
    if base.startswith("score_"):
        label = score_label(base.removeprefix("score_"))
        return f"Scatter of {label} against r, with histograms, by label."
    return {
        "scores": "AUROC of each score with its interval; the numbers are in the tables.",
        "failure_by_score": "Failure of continuations against the rank of each score.",
    }.get(base, base.replace("_", " "))


def teacher_sees(context: str | None) -> str:
    """What the teacher is told, as the end of a clause."""
    known = {"answer": "told the answer", "solution": "shown the solution", "none": "told nothing"}
    if context is None:
        return ""
    return known.get(context, f"prompted by {context}")


def finding_parts(finding: str) -> tuple[str, str]:
    """A finding as its statement, colon included, and the evidence after it, if any."""
    statement, colon, evidence = finding.partition(": ")
    return statement + colon.strip(), evidence
