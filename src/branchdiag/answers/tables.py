r"""What LaTeX commands and Unicode signs mean to the normaliser: data, no code.

Knows nothing of how they are used. A command in none of these tables is kept as it is.
"""

from __future__ import annotations

import re
import string


def names(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


UNICODE = {
    "−": "-", "–": "-", "‐": "-", "‑": "-", "﹣": "-",
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": r"\div ",
    "±": r"\pm ", "∓": r"\mp ", "≤": r"\leq ", "≥": r"\geq ", "⩽": r"\leq ", "⩾": r"\geq ",
    "≠": r"\neq ", "≈": r"\approx ", "∞": r"\infty ", "∈": r"\in ", "∪": r"\cup ", "∩": r"\cap ",
    "∅": r"\emptyset ", "∖": r"\setminus ", "→": r"\to ", "√": " sqrt ", "…": r"\ldots ",
    "⋯": r"\ldots ", "°": r"^\circ ", "º": r"^\circ ", "′": "'", "’": "'", "‘": "'", "″": "''",
    "“": '"', "”": '"', "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}",
    "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}", "⟨": r"\langle ", "⟩": r"\rangle ", "∠": r"\angle ",
    "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}",
    "¾": r"\frac{3}{4}", "⅛": r"\frac{1}{8}", "⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}",
    "⅞": r"\frac{7}{8}", "⅕": r"\frac{1}{5}", "⅖": r"\frac{2}{5}", "⅗": r"\frac{3}{5}",
    "⅘": r"\frac{4}{5}", "⅙": r"\frac{1}{6}", "⅚": r"\frac{5}{6}",
    "\u2009": r"\,", "\u202f": r"\,", "\u200a": r"\,", "\u2006": r"\,",
}  # fmt: skip
"""Signs for which LaTeX has a name; thin spaces become thin spaces."""

_GREEK_LETTERS = "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ"
_GREEK_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau "
    "upsilon phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"
)
for _letter, _name in zip(_GREEK_LETTERS, _GREEK_NAMES.split(), strict=True):
    UNICODE[_letter] = rf"\{_name} "
UNICODE |= {chr(code + 0xFEE0): chr(code) for code in range(0x21, 0x7F)}  # full-width forms
TRANSLATION = str.maketrans(UNICODE)

SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True))
SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋ₙ", "0123456789+-n", strict=True))

SYNONYMS = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom",
    "le": "leq", "leqslant": "leq", "ge": "geq", "geqslant": "geq", "ne": "neq", "to": "rightarrow",
    "varnothing": "emptyset", "dots": "ldots", "cdots": "ldots", "dotsc": "ldots", "dotsb": "ldots",
    "degree": "circ", "textdegree": "circ", "ast": "cdot", "vee": "lor", "wedge": "land",
    "arcctg": "arccot", "tg": "tan", "ctg": "cot", "overrightarrow": "vec", "widehat": "hat",
    "lvert": "vert", "rvert": "vert", "lVert": "Vert", "rVert": "Vert", "infin": "infty",
    "smallmatrix": "matrix", "thinspace": ",", "negthinspace": "!",
}  # fmt: skip

CHARACTERS = {
    "lt": "<", "gt": ">", "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")",
    "vert": "|", "colon": ":", "lbrace": r"\{", "rbrace": r"\}", "prime": "'",
}  # fmt: skip
"""Commands that are another token."""

DROPPED = names(
    "displaystyle textstyle scriptstyle scriptscriptstyle limits nolimits nonumber notag mathstrut "
    "strut big Big bigg Bigg bigl Bigl biggl Biggl bigr Bigr biggr Biggr bigm Bigm rm bf it sf tt "
    "em tiny small normalsize large Large LARGE huge Huge centering boldmath unboldmath"
)
DROPPED_WITH_ARGUMENT = names("phantom hphantom vphantom hspace vspace label tag color")
DELIMITERS = frozenset(["left", "right", "middle", "mleft", "mright"])
"""Dropped together with the empty delimiter, a dot, that may follow."""

SPACES = names("quad qquad enspace enskip space nobreakspace medspace thickspace")
TEXT = names(
    "text textrm textbf textit textsf texttt textnormal textup textsc mbox hbox emph mathrm "
    "operatorname"
)
FONTS = names(
    "mathbf mathit mathsf mathtt mathnormal boldsymbol bm pmb boxed fbox underline mathop mathord "
    "ensuremath"
)
"""One argument, which stands for itself."""

ONE_ARGUMENT = names(
    "overline bar hat vec tilde widetilde dot ddot mathbb mathcal mathfrak mathscr pmod overbrace "
    "underbrace begin end overleftrightarrow overarc"
)
TWO_ARGUMENTS = names("frac binom stackrel overset underset")
VERBATIM_DIGITS = names("overline bar dot ddot")
"""Digits under these repeat: 0.\\overline{03} is not 0.\\overline{3}, so no zero is dropped."""

FUNCTIONS = names(
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth log ln "
    "exp det gcd lcm max min lim"
)
WORDS = {
    "pi": r"\pi", "infinity": r"\infty", "infty": r"\infty", "inf": r"\infty", "percent": r"\%",
    "theta": r"\theta", "alpha": r"\alpha", "beta": r"\beta", "lambda": r"\lambda",
}  # fmt: skip
"""Plain words for which LaTeX has a sign."""

WORDS |= {name: rf"\{name}" for name in FUNCTIONS if len(name) > 2 or name == "ln"}

OPENERS = frozenset(["(", "[", r"\{", r"\langle", r"\lfloor", r"\lceil"])
CLOSERS = frozenset([")", "]", r"\}", r"\rangle", r"\rfloor", r"\rceil"])
ORDER_RELATIONS = re.compile(r"[<>]|\\(?:leq|geq|neq)(?![A-Za-z])")
LETTERS = frozenset(string.ascii_letters)
