r"""Grading: hand-made hostile cases, one line a gold answer, all rules, in a real worker.

The first blocks are the false positives and negatives of math-verify that are known: base
subscripts, scrambled words, times, percent, decimals, order, intervals and currency.
"""

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchdiag.answers.grade import Grade, cheap_grade
from branchdiag.answers.normalise import MAX_CHARACTERS
from branchdiag.answers.pool import GradingPool

CASES: list[tuple[str, list[str], list[str]]] = [
    # (gold, answers that equal it, answers that do not)
    # bases
    (
        "4210_5",
        ["4210_{5}", r"4210_{\text{five}}", "4210_{five}", r"4210 \text{ (base 5)}", "4210",
         "x=4210_5"],
        ["4210_7", "4210_{10}", "421_5", "555"],
    ),
    ("4210", ["4210_5"], ["421_5"]),
    ("52_8", ["52_8"], ["42", "52_{10}", r"42_{10}", r"2\cdot 26"]),
    ("101_2, 11_2", ["11_2,101_2"], ["101_2, 11_3"]),
    # words
    ("yes", ["Yes", r"\text{yes}", '"yes"'], ["sey", "no", "5"]),
    ("no", [], ["on", "yes"]),
    (r"\text{Evelyn}", ["Evelyn", "evelyn", r"\textbf{Evelyn}."], ["Evelny", "Eve", "-Evelyn"]),
    ("Evelyn", [r"\text{Evelyn}"], ["Evelny", r"\text{Evelny}"]),
    (r"\text{ellipse}", ["an ellipse", r"\text{Ellipse}", r"x=\text{ellipse}"],
     ["parabola", "7", r"\frac12"]),
    (r"\text{Alice and Bob}", ["Bob and Alice", "Alice, Bob"], ["Alice", "Alice and Rob"]),
    (r"\text{June 20}", ["June 20"], ["June 21", "20"]),
    ("black and white", [], ["black or white"]),
    ("x", [], [r"\text{even}", "y", "X", "x'"]),
    ("xy", [r"x\cdot y", r"x \times y"], ["yx z"]),
    ("5", [r"\text{5}"], ["one", r"\text{none}", ""]),
    # times and ratios
    ("12:30", ["12 : 30", r"12:30 \text{ p.m.}"], ["24:60", "2/5", "0.4", "12:31"]),
    (r"12:30 \text{ p.m.}", ["12:30 PM", "12:30"], [r"12:30\text{ a.m.}"]),
    ("1:2", ["1 : 2", r"1\colon 2"], ["2:1", "2:4", r"\frac12"]),
    # percent
    (r"10\%", ["0.1", "10", "10 percent", r"\frac{1}{10}", "10%"], ["100", r"0.1\%", "1000"]),
    ("10", [r"10\%", r"1000\%"], [r"100\%", "0.1"]),
    ("0.1", [r"10\%"], [r"0.1\%", "10"]),
    # decimals
    ("1/3", ["0.333333", r"0.\overline{3}", "0.3333333", r"\frac{2}{6}"], ["0.3333", "0.333334"]),
    ("0.333333", ["1/3"], ["0.3333333"]),
    (".0000672", [r"6.72\times10^{-5}", "6.72e-5"], ["0.0000668", "0.000067", "0.0000674"]),
    (r"2\times10^{-20}", [r"\frac{2}{10^{20}}"], ["10^{-20}", "0"]),
    (r"3\sqrt{13}", ["10.816654", "10.8167", r"\sqrt{117}"], ["10.82", "10.8168"]),
    (r"\frac{1}{\sqrt2}", [r"\frac{\sqrt{2}}{2}", r"\sqrt{2}/2", "0.7071068"], ["0.7071"]),
    # order, brackets, lists
    ("1,2", ["2,1", r"\{2,1\}", "(1,2)", "1;2", "x=1, x=2", "x = 2 and x = 1", "1,1,2"],
     ["(2,1)", "1", "1,2,3", "1,3", "[1,3]"]),
    ("(1,2)", ["1,2", r"\left(1, 2\right)", r"(x,y)=(1,2)", r"\langle 1,2 \rangle", "x=1,y=2"],
     ["(2,1)", "2,1", "[1,2]", r"\{1,2\}", "(1,2,3)", "12"]),
    ("(2,1)", ["(2,1)"], ["(1,2)", "1,2"]),
    ("1,1,2", ["2,1,1"], ["1,2"]),
    (r"\{(1,2),(3,4)\}", ["(3,4),(1,2)"], ["(4,3),(1,2)"]),
    ("100,200", ["100, 200", "200, 100", "100200"], ["(100,300)", "100, 201", "100"]),
    ("1,234", ["1234", r"1,\!234", "1, 234"], ["1.234", "1, 235"]),
    ("100, 200", ["100,200", "200,100"], ["100200"]),
    (r"1\pm\sqrt{19}", [r"1+\sqrt{19}, 1-\sqrt{19}", r"x=1\pm\sqrt{19}"], [r"1+\sqrt{19}", "1"]),
    (r"\{1\pm\sqrt{5},-2\}", [r"-2,1+\sqrt5,1-\sqrt5"], [r"-2, 1\pm\sqrt 3"]),
    ("(x,y)=(1,2)", ["(1,2)"], ["(y,x)=(1,2)", "(2,1)"]),
    # intervals and inequalities, both ways
    ("x<2", [r"(-\infty,2)", "2>x", "2x<4", "-x>-2"], ["x>2", r"x\le2", r"(-\infty,2]", "y<2"]),
    (r"(-\infty,2)", ["x<2"], [r"x\le2", r"(-\infty, 2]", "x<3", r"(2,\infty)"]),
    ("[-2,7]", [r"x \in [-2,7]", r"-2\le x\le 7"], ["(-2,7)", "(-2,7]", r"-2<x\le 7", "-2,7"]),
    (r"x \in [-2,7]", ["[-2,7]", r"7\ge x\ge -2"], [r"y\in[-2,7]", "[-2,8]"]),
    (r"(0,9) \cup (9,36)", [r"(9,36)\cup(0,9)", r"(0,36)\setminus\{9\}"], [r"(0,9]\cup(9,36)"]),
    (r"(-\infty, 2) \cup (3, \infty)", [r"x<2 \text{ or } x>3", "x>3, x<2"],
     [r"x<2 \text{ and } x>3", r"(-\infty,3)\cup(2,\infty)", r"3 \pm 2 \sqrt{2}"]),
    (r"\mathbb{R}", [r"(-\infty,\infty)"], [r"(0,\infty)"]),
    (r"(2,\infty)", [r"\{x : x > 2\}", r"\{x \mid x>2\}", "x>2"], [r"\infty", r"(2,3)"]),
    (r"\left(\frac{3}{5},\frac{8}{3}\right]", ["(0.6, 8/3]"], [r"(\frac35,\frac83)"]),
    (r"\emptyset", [r"\varnothing", r"\{\}", "no solution"], [r"\{0\}", "0"]),
    # currency and units
    (r"\$18.90", ["18.90", "18.9", "$18.90", r"18.90\text{ dollars}"],
     ["18.91", r"18.90\text{ cents}"]),
    ("18.90", [r"\$18.90"], [r"\$18.09"]),
    (r"\$32,\!348", ["32348", r"\$32,348", r"\$32348.00"], [r"\$32,\!349"]),
    (r"5.4 \text{ cents}", ["5.4", "5.4 cents"], [r"5.4\text{ dollars}"]),
    (r"864 \mbox{ inches}^2", ["864", r"864\text{ in}^2", "864 square inches"],
     [r"864\text{ cm}^2", r"864\text{ inches}^3"]),
    (r"90^\circ", ["90", "90 degrees", "90°"], ["91", r"\frac{\pi}{2}"]),
    (r"\frac{270}7\text{ degrees}", [r"\frac{270}{7}", r"38\frac47^\circ"], [r"\frac{270}{8}"]),
    (r"2 \text{ million}", ["2000000", "2,000,000"], ["2", r"2\text{ billion}"]),
    ("5", [r"5\text{ apples}", r"5 \text{ cm}"], [r"6\text{ cm}"]),
    ("3", [r"3 \pmod{7}", r"x \equiv 3 \pmod 7"], ["3m", "3d", r"4\pmod 7"]),
    (r"6\text{ ft }2\text{ in}", [r"6 \text{ ft } 2 \text{ in}"], [r"2\text{ ft }6\text{ in}"]),
    # choice letters
    (r"\text{(C)}", ["C", "(C)", r"\textbf{(C)}\ 12", "c", r"\text{C}"], ["D", "(D)", "12"]),
    ("C", ["(C)"], ["D"]),
    # numbers
    ("25", ["025", "25.0", "25.", "$25$", "+25", "x=25", r"5^2"], ["-25", "25.5", "26", "52"]),
    ("0", ["-0", "0.0"], ["x^2-1=0", r"\pi(R^2-r^2)", "1"]),
    (r"1\frac{4}{5}", [r"\frac95", "1.8", "9/5", "1 4/5"], [r"\frac{4}{5}", "5/9"]),
    ("6", ["2(3)", "(2)(3)", r"2\cdot 3", "3!", r"\lfloor 6.7\rfloor"], ["2(4)", "23"]),
    ("5", [], ["2(3)", "(2)(3)"]),
    ("18", [r"3\binom{4}{2}"], []),
    ("9", [], [r"3\binom{4}{2}"]),
    ("2^{2023}", [r"2\cdot 2^{2022}"], ["2^{2023}-1", "2^{2022}"]),
    ("2^{100}-1", [], ["2^{100}", "2^{100}-2"]),
    ("x", ["x+0"], [r"x+10^{-200}"]),
    (r"\infty", [r"+\infty"], [r"-\infty", "5"]),
    ("5", ["5.0"], [r"\infty", r"\frac{1}{0}", "0/0", r"\ldots", r"\frac{5"]),
    # expressions
    ("3R^2", [r"R^2\cdot 3"], ["3r^2", "3R^3"]),
    (r"\pi(R^2-r^2)", [r"\pi(R-r)(R+r)"], ["0", r"\pi(r^2-R^2)"]),
    (r"\cot x", [r"\frac{\cos x}{\sin x}", r"\frac{1}{\tan x}"], [r"\tan x", r"\cot y"]),
    ("6-5i", ["-5i+6", "6 - 5 i"], ["6+5i", "-6-5i", "6-5"]),
    ("-3+4i", ["(1+2i)^2"], ["3+4i"]),
    (r"\frac12+\frac{\sqrt3}{2}i", [r"e^{i\pi/3}"], [r"e^{-i\pi/3}"]),
    (r"1+\sqrt2", [r"\sqrt{3+2\sqrt2}"], [r"1-\sqrt2"]),
    ("|x|", [r"\sqrt{x^2}", r"\left|x\right|"], ["x", "-x"]),
    (r"\sqrt{x}\sqrt{y}", [r"\sqrt{xy}"], [r"\sqrt{x+y}"]),
    ("-2", [r"\sqrt[3]{-8}"], ["2"]),
    ("(a+5)(b+2)", ["ab+2a+5b+10", "(b+2)(a+5)"], ["(a+2)(b+5)"]),
    (r"\frac{x^9-1}{x-1}", ["x^8 + x^7 + x^6 + x^5 + x^4 + x^3 + x^2 + x + 1"], ["x^8"]),
    ("f(x)", ["f(x)"], ["f'(x)", "f(2x)", "fx"]),
    ("x", [], ["x^T", "2^T", "x!"]),
    (r"\frac12", [r"\sin 30^\circ", r"\frac12=0.5", "0.5"], [r"\sin 30"]),
    (r"\binom{n}{2}", [r"\frac{n(n-1)}{2}"], [r"\frac{n(n+1)}{2}"]),
    ("55", [r"\sum_{k=1}^{10}k"], []),
    (r"2\sqrt2", [r"2\sqrt2\approx 2.83", r"x=2\sqrt2\approx 2.83", r"\sqrt8"], ["2.83"]),
    (r"\angle ABC", [r"\angle ABC"], [r"\angle BAC"]),
    # equations
    ("x=5", ["5", "5=x", "2x=10", "x-5=0"], ["y=5", "x=-5", "x=6"]),
    ("5", ["x=5", "a+b=5", r"\text{Area}=5", r"\text{Answer: }5"], ["x=6", "x+y=6"]),
    ("y = 2x + 3", ["2x+3", "2x-y+3=0", "y-2x=3"], ["y=2x-3", "2x-3", "x=2y+3"]),
    ("5x - 7y + 11z + 4 = 0", ["-10x+14y-22z-8=0", "5x-7y+11z=-4"], ["5x-7y+11z-4=0"]),
    ("x^2+4y^2=4", [r"\frac{x^2}{4}+y^2=1"], ["x^2+y^2=4"]),
    (r"y=\frac1x", ["xy=1"], ["y=x"]),
    # matrices
    (
        r"\begin{pmatrix} 1/5 \\ -18/5 \end{pmatrix}",
        [r"\begin{bmatrix}0.2\\-3.6\end{bmatrix}", r"\frac15\begin{pmatrix}1\\-18\end{pmatrix}",
         r"\left(\frac15, -\frac{18}{5}\right)"],
        [r"\begin{pmatrix} 1/5 & -18/5 \end{pmatrix}", r"\begin{pmatrix}-18/5\\1/5\end{pmatrix}",
         r"\begin{pmatrix} 1/5 \\ -18/5 \\ 0 \end{pmatrix}", "5"],
    ),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
     [r"\left[\begin{array}{cc}1&2\\3&4\end{array}\right]"],
     [r"\begin{pmatrix}1&3\\2&4\end{pmatrix}", r"\begin{vmatrix}1&2\\3&4\end{vmatrix}", "-2"]),
]  # fmt: skip

HOSTILE = [
    "9^{9^{9}}",
    "9^{9^{9^{9}}}",
    "10000000!",
    "(10^{10})!",
    r"\binom{10^9}{10^8}",
    "x^{9^{9^9}}",
    "9" * 10**6,
    "0." + "3" * 10**5,
    r"\frac{1}{" * 300 + "x" + "}" * 300,
    r"\frac{1}{1+" * 15 + "x" + "}" * 15,
    "(" * 900,
    "(" * 900 + "x" + ")" * 900,
    "{" * 900,
    r"\sqrt" * 400 + "2",
    "x=" * 150,
    "1/" * 400 + "1",
    "-" * 200 + "5x",
    "1,222," * 160,
    "x" + "!" * 300,
    "\x00\x01\ufffd\u202e42\u0000x",
    "\ud800",
    "𝟜𝟚",
    r"\input{/etc/passwd}",
    "__import__('os').system('true')",
    "'" * 900,
    "\\" * 999,
    r"\begin{pmatrix}" * 100,
    r"\left(" * 100,
]
"""Predictions for the gold answer 2\\sqrt{3} that are wrong, whatever they cost."""


def flat() -> list[tuple[str, str, bool]]:
    rows = [(p, gold, True) for gold, equal, _ in CASES for p in [gold, *equal]]
    return rows + [(p, gold, False) for gold, _, different in CASES for p in different]


@pytest.fixture(scope="module")
def grades() -> Iterator[dict[tuple[str, str], Grade]]:
    """Every pair of this module, graded once by one real worker."""
    pairs = [(predicted, gold) for predicted, gold, _ in flat()]
    pairs += [(predicted, r"2\sqrt{3}") for predicted in HOSTILE]
    pairs += [(text, gold) for text, gold, _ in PATHS if text is not None]
    with GradingPool(workers=1, timeout_s=20) as pool:
        yield dict(zip(pairs, pool.grade_many(pairs), strict=True))


@pytest.mark.parametrize(("predicted", "gold", "correct"), flat())
def test_hand_made_cases(
    grades: dict[tuple[str, str], Grade], predicted: str, gold: str, correct: bool
) -> None:
    assert grades[predicted, gold].correct is correct, grades[predicted, gold]


@pytest.mark.parametrize("predicted", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_hostile_answers_are_wrong_in_bounded_time(
    grades: dict[tuple[str, str], Grade], predicted: str
) -> None:
    assert grades[predicted, r"2\sqrt{3}"].correct is False


PATHS = [
    (None, "5", "invalid"),
    (" ", "5", "invalid"),
    ("042", "42", "integer"),
    (r"\dfrac12", r"\frac{1}{2}", "exact"),
    ("no", "yes", "words"),
    ("(C)", r"\text{(C)}", "exact"),
    ("A", r"\text{(C)}", "choice"),
    ("4210_7", "4210_5", "base"),
    ("2/5", "12:30", "ratio"),
    ("0.5", r"\frac12", "rational"),
    ("0.333333", r"\frac13", "rounded"),
    (r"90^\circ", "90", "units/integer"),
    (r"10\%", "0.1", "percent"),
    ("x=5", "5", "assignment/integer"),
    ("2,1", "1,2", "list"),
    ("(2,1)", "(1,2)", "bracket/integer"),
    (r"\sqrt{12}", r"2\sqrt3", "numeric"),
    ("3.4641016", r"2\sqrt3", "rounded"),
    ("2x=10", "x=5", "equation"),
    ("2x<10", "x<5", "relation"),
    ("x<5", r"(-\infty,5)", "set"),
    (r"\foo", r"2\sqrt3", "unparsed"),
    ("x" * 5000, r"2\sqrt3", "oversize"),
    ("7", "", "no_gold"),
    ("7", r"\foo{x}", "gold_unparsed"),
]


@pytest.mark.parametrize(
    ("predicted", "gold", "path"), [row for row in PATHS if row[0] is not None]
)
def test_the_path_names_the_rule_that_decided(
    grades: dict[tuple[str, str], Grade], predicted: str, gold: str, path: str
) -> None:
    assert grades[predicted, gold].path == path


def test_a_reference_that_cannot_be_read_is_a_missing_grade(
    grades: dict[tuple[str, str], Grade],
) -> None:
    assert grades["7", r"\foo{x}"].correct is None
    assert grades["7", ""].correct is None
    assert cheap_grade(r"\foo{x}", r"\foo{x}") == Grade(True, "exact")


def test_no_box_is_wrong_without_a_worker() -> None:
    assert cheap_grade(None, "5") == Grade(False, "invalid")
    assert cheap_grade("", "5") == Grade(False, "invalid")


@given(st.text(max_size=60), st.text(max_size=60))
def test_cheap_rules_never_raise_and_are_reflexive(predicted: str, gold: str) -> None:
    cheap_grade(predicted, gold)
    if gold.strip():
        assert cheap_grade(gold, gold).correct is True  # type: ignore[union-attr]


LATEX = st.lists(
    st.sampled_from(
        ["1", "2", "10", "x", "+", "-", "=", "<", "(", ")", "[", "]", ",", ", ", r"\{", r"\}", ":",
         r"\frac{1}{2}", r"\sqrt{2}", r"\pi", r"\text{ cm}", r"\text{or}", r"\%", r"^\circ", "_5",
         r"\$", "yes", r"\pm", r"\infty", r"\begin{pmatrix}1\\2\end{pmatrix}", "'", "^2", ".5"]
    ),
    max_size=8,
).map("".join)  # fmt: skip


@given(LATEX, LATEX)
def test_cheap_rules_never_raise_on_formulas(predicted: str, gold: str) -> None:
    grade = cheap_grade(predicted, gold)
    if grade is not None and grade.correct is None:
        assert grade.path.split("/")[-1] in ("no_gold", "gold_unparsed", "error")


@given(st.integers(), st.integers())
def test_integers_are_decided_exactly(one: int, other: int) -> None:
    assert cheap_grade(f"{one:,}", f"0{other}" if other >= 0 else str(other)) == Grade(
        one == other, "integer"
    )


def test_cheap_rules_are_bounded_on_two_hostile_answers() -> None:
    nested = "(" + ", ".join(["(1, 2, 3)"] * (MAX_CHARACTERS // 12)) + ")"
    sets = r"\{" + ", ".join(rf"\{{{i}, x\}}" for i in range(120)) + r"\}"
    other = r"\{" + ", ".join(rf"\{{x, {i}.5\}}" for i in range(120)) + r"\}"
    started = time.perf_counter()
    for pair in [(nested, nested + "x"), (sets, other), (other, sets)]:
        cheap_grade(*pair)
    assert time.perf_counter() - started < 10
