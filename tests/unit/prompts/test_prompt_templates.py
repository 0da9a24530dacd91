"""Template texts: what is replaced, what is literal, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchdiag.errors import UsageError
from branchdiag.problems import Problem
from branchdiag.prompts import (
    FIELDS,
    fill,
    parse_template,
    require_solutions,
    student_template,
    teacher_template,
)
from branchdiag.protocol import SpineSettings, TeacherPrompts, TeacherSettings

PROBLEM = Problem(
    "s/1", "s", "What is $\\frac{1}{2} + {answer}$?", "42", "So \\boxed{42}. {problem}"
)


def filled(text: str, problem: Problem = PROBLEM) -> str:
    return fill(parse_template(text, where="test"), problem)


def test_the_paper_s_teacher_prompt_reads_boxed_answer() -> None:
    text = fill(teacher_template(TeacherSettings(), SpineSettings().prompt), PROBLEM)
    assert text == (
        "You are a privileged teacher. Solve the problem and end your solution with the correct "
        "boxed answer.\n"
        "Problem: What is $\\frac{1}{2} + {answer}$?\n"
        "Privileged ground-truth final answer: 42\n"
        "Use the ground-truth answer above. Produce a complete step-by-step solution that ends "
        "with \\boxed{42}."
    )


def test_the_student_s_prompt_keeps_its_empty_box() -> None:
    assert fill(student_template(SpineSettings()), PROBLEM) == (
        "What is $\\frac{1}{2} + {answer}$?\n\n"
        "Please reason step by step, and put your final answer within \\boxed{}."
    )


def test_the_solution_context() -> None:
    text = fill(teacher_template(TeacherSettings(context="solution"), "{problem}"), PROBLEM)
    assert "=== Reference Solution Begin ===\nSo \\boxed{42}. {problem}\n=== Ref" in text
    assert text.endswith("within \\boxed{}.")


def test_the_context_none_is_the_student_s_prompt_unless_it_has_its_own() -> None:
    assert teacher_template(TeacherSettings(context="none"), "Q: {problem}").text == "Q: {problem}"
    prompts = TeacherPrompts(none="Other: {problem}")
    own = TeacherSettings(context="none", prompts=prompts)
    assert teacher_template(own, "Q: {problem}").text == "Other: {problem}"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("{problem} \\boxed{} {}", "P \\boxed{} {}"),
        ("{problem}{answer}", "P42"),
        ("{problem} \\frac{a}{b} x_{max} \\sqrt[n]{m} { question }", None),
        ("{problem} \\boxed{{answer}}", "P \\boxed{42}"),
        ("{problem} \\text{{{answer}}}", "P \\text{{42}}"),
        ("{problem} {'a': 1} {1} {a b}", None),
    ],
)
def test_braces_that_are_no_placeholder_are_literal(text: str, result: str | None) -> None:
    problem = Problem("s/1", "s", "P", "42")
    assert filled(text, problem) == (result or text.replace("{problem}", "P"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Solve it.", "{problem} is missing"),
        ("", "{problem} is missing"),
        ("{problem} {question}", "unknown placeholder {question}"),
        ("{problem} {anwser}", "did you mean {answer}?"),
        ("{problem}{question}", "unknown placeholder {question}"),
        ("{{problem}}", "{{problem}} keeps a pair of braces; write {problem}"),
        ("{problem} \\boxed{answer}", "write \\boxed{{answer}}"),
        ("{problem} \\frac{1}{answer}", "write \\frac{1}{{answer}}"),
    ],
)
def test_likely_slips_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_template(text, where="my.txt")
    assert said in str(raised.value)
    assert "my.txt" in str(raised.value)


def test_all_faults_of_a_template_are_listed() -> None:
    with pytest.raises(UsageError) as raised:
        parse_template("{question} {hint}", where="t")
    assert all(name in str(raised.value) for name in ("{problem} is", "{question}", "{hint}"))


def test_the_student_may_not_be_told() -> None:
    with pytest.raises(UsageError, match="may not be used here"):
        student_template(SpineSettings(prompt="{problem} {answer}"))
    prompts = TeacherPrompts(none="{problem} {answer}")
    with pytest.raises(UsageError, match="may not be used here"):
        teacher_template(TeacherSettings(context="none", prompts=prompts), "{problem}")
    prompts = TeacherPrompts(answer="{problem}")
    with pytest.raises(UsageError, match=r"has no \{answer\}"):
        teacher_template(TeacherSettings(prompts=prompts), "{problem}")


def test_a_template_file(tmp_path: Path) -> None:
    path = tmp_path / "teacher.txt"
    path.write_bytes("\ufeffÜber: {problem}\r\nHint: {answer}\r\n".encode())
    template = teacher_template(TeacherSettings(context=str(path)), "{problem}")
    assert template.text == "Über: {problem}\nHint: {answer}"
    assert template.fields == {"problem", "answer"}
    path.write_text("{problem} {hint}", encoding="utf-8")
    with pytest.raises(UsageError) as raised:
        teacher_template(TeacherSettings(context=str(path)), "{problem}")
    assert str(path) in str(raised.value)
    path.write_bytes(b"{problem} \xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        teacher_template(TeacherSettings(context=str(path)), "{problem}")


def test_a_context_that_is_neither_known_nor_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean answer"):
        teacher_template(TeacherSettings(context="anwser"), "{problem}")
    with pytest.raises(UsageError, match="no such teacher context"):
        teacher_template(TeacherSettings(context=str(tmp_path)), "{problem}")


def test_problems_without_a_solution_are_all_named() -> None:
    template = teacher_template(TeacherSettings(context="solution"), "{problem}")
    problems = [Problem(f"s/{index}", "s", "p", "1") for index in range(30)]
    with pytest.raises(UsageError) as raised:
        require_solutions(template, [PROBLEM, *problems])
    text = str(raised.value)
    assert "30 of 31 problems" in text
    assert "s/19 and 10 more" in text
    with pytest.raises(UsageError, match="s/3"):
        fill(template, problems[3])
    require_solutions(parse_template("{problem}", where="t"), problems)


pieces = st.lists(
    st.one_of(
        st.sampled_from(["{", "}", "{{", "}}", "problem", "{answer}", "{solution}", "\\boxed{}"]),
        st.text(max_size=4),
    ),
    max_size=8,
).map("".join)
holes = st.lists(st.sampled_from([" {problem} ", " {answer} ", " {solution} ", " \\boxed{} - "]))


@given(holes=holes, problem=pieces, answer=pieces, solution=pieces)
def test_what_is_put_in_is_never_searched_again(
    holes: list[str], problem: str, answer: str, solution: str
) -> None:
    values = {"problem": problem, "answer": answer, "solution": solution}
    text = "{problem}" + "".join(holes)
    by_hand = problem + "".join(  # piece by piece, so that nothing can be replaced twice
        next((f" {values[name]} " for name in FIELDS if f"{{{name}}}" in hole), hole)
        for hole in holes
    )
    assert filled(text, Problem("s/1", "s", problem, answer, solution)) == by_hand
