"""The task of the bundled model: problems have one answer and every solution reaches it."""

from __future__ import annotations

import json
import random
import re
from fractions import Fraction

import pytest

from branchdiag.bundled import PROBLEM_SETS, problems_path, task, wording

STATEMENT = re.compile(
    r"- (?P<a>\w+) shares (?P<total>\d+) with (?P<b>\w+)"
    r"|- (?P<child>\w+) has (?P<parent>\w+) (?P<operation>plus|minus|times|over) (?P<amount>\d+)"
    r"|- (?P<name>\w+) owns (?P<value>\d+)"
)


def solve_from_text(text: str) -> int:
    """An oracle that shares no code with the task: Gaussian elimination over the statements."""
    _, *statements, question = text.split("\n")
    equations: list[tuple[dict[str, Fraction], Fraction]] = []
    for statement in statements:
        found = STATEMENT.fullmatch(statement)
        assert found, statement
        if found["total"]:
            equations.append(
                ({found["a"]: Fraction(1), found["b"]: Fraction(1)}, Fraction(found["total"]))
            )
        elif found["child"]:
            amount = Fraction(found["amount"])
            factor = {"times": amount, "over": 1 / amount}.get(found["operation"], Fraction(1))
            shift = {"plus": amount, "minus": -amount}.get(found["operation"], Fraction(0))
            equations.append(({found["child"]: Fraction(1), found["parent"]: -factor}, shift))
        else:
            equations.append(({found["name"]: Fraction(1)}, Fraction(found["value"])))
    wanted: dict[str, Fraction]
    if found := re.fullmatch(
        r"Now (\w+) asks: how many more \w+ are mine than (\w+)'s\?", question
    ):
        wanted = {found[1]: Fraction(1), found[2]: Fraction(-1)}
    elif found := re.fullmatch(r"Now (\w+) and (\w+) ask: how many \w+ are ours\?", question):
        wanted = {found[1]: Fraction(1), found[2]: Fraction(1)}
    else:
        found = re.fullmatch(r"Now (\w+) asks: how many \w+ are mine\?", question)
        assert found
        wanted = {found[1]: Fraction(1)}
    # Eliminate: express `wanted` by the equations; it must be determined by them.
    pivots: list[tuple[str, dict[str, Fraction], Fraction]] = []
    for left, right in equations:
        left, right = reduce(left, right, pivots)
        if left:
            name = next(iter(left))
            pivots.append((name, left, right))
    left, minus_answer = reduce(wanted, Fraction(0), pivots)
    while left and any(name in left for name, _, _ in pivots):
        left, minus_answer = reduce(left, minus_answer, pivots)
    assert not left, "the problem does not determine its answer"
    assert minus_answer.denominator == 1
    return -int(minus_answer)


def reduce(left, right, pivots):
    left = dict(left)
    for name, row, value in pivots:
        if name in left:
            scale = left[name] / row[name]
            for other, coefficient in row.items():
                left[other] = left.get(other, Fraction(0)) - scale * coefficient
            right -= scale * value
            left = {key: c for key, c in left.items() if c}
    return left, right


def check_steps(solution: str) -> list[int]:
    """Recompute every "a op b = c" of `solution`; the results in order."""
    results = []
    for a, op, b, c in re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", solution):
        a, b, c = int(a), int(b), int(c)
        assert {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[op] == c
        results.append(c)
    return results


@pytest.mark.parametrize("kind", task.KINDS)
@pytest.mark.parametrize("n_links", range(1, 8))
def test_every_problem_determines_its_answer_and_its_steps_compute_it(kind, n_links):
    rng = random.Random(n_links)
    for _ in range(12):
        problem = task.make_problem(rng, kind, n_links)
        assert problem.kind == kind
        assert solve_from_text(problem.text) == problem.answer >= 1
        assert check_steps(task.write_solution(problem, rng))[-1] == problem.answer


def test_all_wordings_and_orders_reach_the_same_answer_through_the_same_people():
    rng = random.Random(3)
    for _ in range(40):
        problem = task.make_problem(rng)
        solutions = {task.write_solution(problem, rng) for _ in range(20)}
        assert len(solutions) > 10
        assert {check_steps(text)[-1] for text in solutions} == {problem.answer}
        people = {tuple(sorted(re.findall(r"has ([A-Z]\w+) ", text))) for text in solutions}
        assert len(people) == 1


def test_steps_go_through_the_people_that_the_plan_names():
    rng = random.Random(4)
    for _ in range(200):
        problem = task.make_problem(rng)
        plan, steps = task.write_solution(problem, rng).split(". ", 1)
        planned = {name for name in wording.NAMES if re.search(rf"\b{name}\b", plan)}
        assert {name for name in wording.NAMES if re.search(rf"\b{name}\b", steps)} == planned


def test_the_plan_kind_is_not_given_away_by_the_question():
    """Forward, backward and split ask the same question: the statements decide."""
    rng = random.Random(5)
    for kind in ("forward", "backward", "split"):
        for _ in range(20):
            assert re.search(
                r"Now \w+ asks: how many \w+ are mine\?$", task.make_problem(rng, kind).text
            )


def test_a_leaning_solution_states_the_answer_early_and_the_others_never_do():
    rng = random.Random(6)
    for _ in range(100):
        problem = task.make_problem(rng)
        assert task.write_solution(problem, rng, lean=True).endswith(
            f"{wording.SHORTCUT} {problem.answer}."
        )
        assert wording.SHORTCUT not in task.write_solution(problem, rng)


def test_generation_depends_on_the_seed_alone():
    def draw(seed):
        rng = random.Random(seed)
        return [task.make_problem(rng).text for _ in range(10)]

    assert draw(1) == draw(1) != draw(2)


def test_content_key_ignores_names_and_things_but_not_numbers_or_structure():
    rng = random.Random(7)
    for _ in range(50):
        problem = task.make_problem(rng)
        renamed = dict(
            zip(wording.NAMES, rng.sample(wording.NAMES, len(wording.NAMES)), strict=True)
        )
        text = re.sub("|".join(wording.NAMES), lambda m, r=renamed: r[m[0]], problem.text)
        for thing in wording.THINGS:
            text = text.replace(thing, "books")
        twin = task.Problem(**{**problem.__dict__, "text": text})
        assert twin.content_key == problem.content_key
        other = re.sub(r"\d+", lambda m: str(int(m[0]) + 1), problem.text, count=1)
        assert (
            task.Problem(**{**problem.__dict__, "text": other}).content_key != problem.content_key
        )


def packaged(name):
    return [json.loads(line) for line in problems_path(name).read_text().splitlines()]


def content_key(text):
    blank = task.make_problem(random.Random(0))
    return task.Problem(**{**blank.__dict__, "text": text})


def test_packaged_sets_are_large_enough_disjoint_and_never_trained_on():
    sizes = {"diagnose": 300, "evaluate": 100, "distill": 2000}
    keys = []
    for name in PROBLEM_SETS:
        rows = packaged(name)
        assert len(rows) >= sizes[name]
        assert len({row["id"] for row in rows}) == len(rows)
        for row in rows:
            problem = content_key(row["problem"])
            assert problem.is_held_out
            keys.append(problem.content_key)
    assert len(set(keys)) == len(keys)


def test_packaged_solutions_recompute_and_end_in_the_boxed_answer():
    for name in PROBLEM_SETS:
        for row in packaged(name)[:: 8 if name == "distill" else 1]:
            assert all(isinstance(row[f], str) for f in ("id", "problem", "solution", "answer"))
            assert solve_from_text(row["problem"]) == int(row["answer"])
            assert check_steps(row["solution"])[-1] == int(row["answer"])
            assert row["solution"].endswith(f"\\boxed{{{row['answer']}}}")


def test_packaged_problems_have_four_plans_and_traces_that_vary_threefold():
    rows = packaged("diagnose")
    assert {row["plan"] for row in rows} == set(task.KINDS)
    lengths = sorted(len(re.findall(r"\w+|[^\w\s]", row["solution"])) for row in rows)
    assert lengths[-1] >= 3 * lengths[0]
