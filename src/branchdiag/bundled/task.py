"""The synthetic task of the bundled model: who has how many, solved by a plan and its steps.

A problem names a few people, relates what they have ("Mia has Leo plus 4"), gives one or two
values and asks for one. A solution first commits to a plan - its kind and the path of people it
will go through - and then executes it, one calculation a step. Four kinds of plan exist, and the
problem alone decides which one works:

    forward    from a given value up the definitions to the person asked for
    backward   from a given value down through the inverse of the definitions
    both       two people asked for: two chains, then a sum or a difference
    split      only a total of two is given: divide it first, then go forward

Statements that are not needed (dead ends, other given values) make the choice a real one. Openers,
verbs and the order of independent chains are free, drawn uniformly. No probability of success is
set: later steps follow the plan that was written, so one that does not fit goes wrong by itself.

Writes nothing; reads nothing but its seed. Knows no tokenizer, no chat template and no model.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from branchdiag.bundled import wording

PlanKind = Literal["forward", "backward", "both", "split"]
Operation = Literal["plus", "minus", "times", "over"]

KINDS: tuple[PlanKind, ...] = ("forward", "backward", "both", "split")
LARGEST = 99
"""No quantity exceeds this: two digits keep the arithmetic easy and the planning the hard part."""
HELD_OUT_ONE_IN = 8
"""Problems whose content key is a multiple of this are not trained on: the sets hold only such."""


@dataclass(frozen=True)
class Relation:
    """`child` has a quantity defined by `parent`'s: "child has parent plus `amount`"."""

    child: str
    parent: str
    operation: Operation
    amount: int

    def sentence(self) -> str:
        """The statement as the problem tells it."""
        return f"{self.child} has {self.definition()}"

    def definition(self) -> str:
        """The child's quantity in words: "Leo plus 4"."""
        return f"{self.parent} {self.operation} {self.amount}"

    def forward(self, parent_value: int) -> int:
        """The child's quantity from the parent's."""
        return self.calculation(parent_value)[1]

    def calculation(self, value: int, inverse: bool = False) -> tuple[str, int]:
        """In signs, from `value` (child's if `inverse`, else parent's), and the result."""
        match _INVERSE[self.operation] if inverse else self.operation:
            case "plus":
                return f"{value} + {self.amount}", value + self.amount
            case "minus":
                return f"{value} - {self.amount}", value - self.amount
            case "times":
                return f"{value} * 2", value * 2
            case "over":
                return f"{value} / 2", value // 2


_INVERSE: dict[Operation, Operation] = {
    "plus": "minus",
    "minus": "plus",
    "times": "over",
    "over": "times",
}


def _either_order(first: str, second: str, rng: random.Random) -> tuple[str, str]:
    return (first, second) if rng.random() < 0.5 else (second, first)


@dataclass(frozen=True)
class Problem:
    """One problem: its text, its answer, and the structure a solution is written from."""

    kind: PlanKind
    text: str
    answer: int
    given: str
    """The person whose quantity the solution starts from (split: the lesser of the pair)."""
    given_value: int
    """That quantity (split: the total of the pair)."""
    targets: tuple[str, ...]
    relations: tuple[Relation, ...]
    values: dict[str, int] = field(compare=False)
    asks_difference: bool = False
    pair: tuple[str, str] | None = None
    """split: (the greater, the lesser), whose relation is "plus"."""
    second_given: str | None = None
    """both: the person whose quantity the second chain starts from."""

    @property
    def content_key(self) -> str:
        """A hash of the problem that names and things do not change: equal content, equal key."""
        order: dict[str, str] = {}

        def rename(match: re.Match[str]) -> str:
            return order.setdefault(match[0], f"P{len(order)}")

        text = re.sub(r"\b(?:" + "|".join(wording.NAMES) + r")\b", rename, self.text)
        text = re.sub(r"\b(?:" + "|".join(wording.THINGS) + r")\b", "things", text)
        text = re.sub("|".join(wording.SCENES), "People have", text)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def is_held_out(self) -> bool:
        """Whether the problem may be in a packaged set; training leaves every such problem out."""
        return int(self.content_key, 16) % HELD_OUT_ONE_IN == 0

    @property
    def n_steps(self) -> int:
        """Calculations that a solution writes."""
        return write_solution(self, random.Random(0)).count(" = ")


def make_problem(
    rng: random.Random,
    kind: PlanKind | None = None,
    n_links: int | None = None,
    clutter: float = 1.0,
) -> Problem:
    """Draw one problem; `n_links` is the number of definitions its plan goes through (at least 1).

    `kind` and `n_links` are drawn uniformly (2 to 7 links) where they are not given. `clutter`,
    from 0 to 1, scales how often statements are added that no solution needs.
    """
    drawn: PlanKind = rng.choice(KINDS) if kind is None else kind
    n_links = n_links or rng.randint(2, 7)
    names = list(wording.NAMES)
    rng.shuffle(names)
    values: dict[str, int] = {}
    relations: list[Relation] = []
    facts: list[str] = []
    root = names.pop()
    values[root] = rng.randint(2, 20)

    def attach(parent: str) -> str:
        child = names.pop()
        relation = _draw_relation(rng, child, parent, values[parent])
        relations.append(relation)
        values[child] = relation.forward(values[parent])
        return child

    def chain(start: str, length: int) -> list[str]:
        path = [start]
        for _ in range(length):
            path.append(attach(path[-1]))
        return path

    pair: tuple[str, str] | None = None
    second_given: str | None = None
    asks_difference = False
    given, given_value = root, values[root]
    if drawn == "forward":
        targets: tuple[str, ...] = (chain(root, n_links)[-1],)
    elif drawn == "backward":
        given = chain(root, n_links)[-1]
        given_value = values[given]
        targets = (root,)
    elif drawn == "both":
        n_first = rng.randint(1, max(1, n_links - 1))
        second_given = names.pop()
        values[second_given] = rng.randint(2, 20)
        first, second = chain(root, n_first), chain(second_given, max(1, n_links - n_first))
        targets = (first[-1], second[-1])
        asks_difference = rng.random() < 0.5
        if sum(values[name] for name in targets) > LARGEST:
            asks_difference = True
        if values[targets[0]] == values[targets[1]]:
            return make_problem(rng, drawn, n_links, clutter)
        if asks_difference and values[targets[0]] < values[targets[1]]:
            targets = (targets[1], targets[0])
    else:
        more = names.pop()
        amount = rng.randint(2, 9)
        relations.append(Relation(more, root, "plus", amount))
        values[more] = values[root] + amount
        pair, given_value = (more, root), values[more] + values[root]
        targets = (chain(rng.choice(pair), n_links - 1)[-1],)

    statements: list[str] = []
    if pair:
        statements.append(f"{root} shares {given_value} with {more}")
    else:
        facts += [given, second_given] if second_given else [given]
    _add_unneeded(rng, clutter, drawn, targets[0], relations, values, facts, names, attach)
    statements += [f"{name} owns {values[name]}" for name in facts]
    statements += [relation.sentence() for relation in relations]
    rng.shuffle(statements)

    thing = rng.choice(wording.THINGS)
    if len(targets) == 1:
        question = f"Now {targets[0]} asks: how many {thing} are mine?"
        answer = values[targets[0]]
    elif asks_difference:
        question = f"Now {targets[0]} asks: how many more {thing} are mine than {targets[1]}'s?"
        answer = values[targets[0]] - values[targets[1]]
    else:
        first_name, second_name = _either_order(targets[0], targets[1], rng)
        question = f"Now {first_name} and {second_name} ask: how many {thing} are ours?"
        answer = values[targets[0]] + values[targets[1]]
    text = "\n".join(
        [f"{rng.choice(wording.SCENES)} {thing}:", *(f"- {told}" for told in statements), question]
    )
    return Problem(
        drawn, text, answer, given, given_value, targets, tuple(relations), values,
        asks_difference, pair, second_given,
    )  # fmt: skip


def _add_unneeded(
    rng: random.Random,
    clutter: float,
    kind: PlanKind,
    target: str,
    relations: list[Relation],
    values: dict[str, int],
    facts: list[str],
    names: list[str],
    attach: Callable[[str], str],
) -> None:
    """Add statements that no solution needs: side branches, an unknown parent, another value."""
    for _ in range(rng.randint(0, round(3 * clutter))):
        attach(rng.choice(list(values)))
    if kind == "backward" and rng.random() < 0.5 * clutter:
        # The person asked for is defined by somebody unknown: going forward is a dead end.
        parent = names.pop()
        amount = rng.randint(2, 9)
        relations.append(Relation(target, parent, "minus", amount))
        values[parent] = values[target] + amount
    if rng.random() < 0.5 * clutter:
        # A second value is given that leads to nothing that is asked for.
        other = names.pop()
        values[other] = rng.randint(2, 20)
        facts.append(other)
        if rng.random() < 0.5:
            attach(other)


def _draw_relation(rng: random.Random, child: str, parent: str, parent_value: int) -> Relation:
    """A definition of `child` that keeps its quantity a whole number from 1 to LARGEST."""
    while True:
        operation: Operation = rng.choice(("plus", "minus", "times", "over"))
        amount = rng.randint(2, 9) if operation in ("plus", "minus") else 2
        if operation == "over" and parent_value % 2:
            continue
        relation = Relation(child, parent, operation, amount)
        if 1 <= relation.forward(parent_value) <= LARGEST:
            return relation


def write_solution(problem: Problem, rng: random.Random, lean: bool = False) -> str:
    """One solution: the plan, then the steps, wording and free orders drawn from `rng`.

    With `lean` the answer is taken as known: the steps stop at a place drawn uniformly and the
    answer is stated. Every variant reaches the same answer.
    """
    definition = {relation.child: relation for relation in problem.relations}
    plan, steps = _PLANNERS[problem.kind](problem, definition, rng)
    if lean:
        steps = [*steps[: rng.randint(1, len(steps) - 1)], f"{wording.SHORTCUT} {problem.answer}."]
    return " ".join([f"{rng.choice(wording.PLAN_OPENERS)} {plan}.", *steps])


def boxed_solution(problem: Problem, rng: random.Random) -> str:
    """A solution and its boxed answer, as the packaged sets and the teacher's prompt hold it."""
    return f"{write_solution(problem, rng)} \\boxed{{{problem.answer}}}"


def _step(rng: random.Random, name: str, quantity: str, calculation: str = "") -> str:
    """A sentence of a solution: who has what, and what that comes to."""
    if calculation:
        calculation = f" making {calculation}"
    return f"{rng.choice(wording.STEP_OPENERS)} {name} has {quantity}{calculation}."


def _given(rng: random.Random, name: str, value: int) -> str:
    """The sentence that takes up a given value."""
    return f"{rng.choice(wording.STEP_OPENERS)} {name} owns {value}."


def _path(definition: dict[str, Relation], end: str, known: Sequence[str]) -> list[str]:
    """From `end` through its definitions to the first person in `known`, both included."""
    path = [end]
    while path[-1] not in known:
        path.append(definition[path[-1]].parent)
    return path


def _route(path: Sequence[str], end: str) -> str:
    """`path` in words: "Ann who has Mia who has Leo who " and what ends it, "owns 12"."""
    return f"{' who has '.join(path)} who {end}"


def _climb(
    definition: dict[str, Relation], path: Sequence[str], values: dict[str, int], rng: random.Random
) -> list[str]:
    """The steps that follow `path` (target first) from its known end; fills `values`."""
    steps = []
    for name in reversed(path[:-1]):
        relation = definition[name]
        signs, values[name] = relation.calculation(values[relation.parent])
        steps.append(_step(rng, name, relation.definition(), f"{signs} = {values[name]}"))
    return steps


def _plan_forward(
    problem: Problem, definition: dict[str, Relation], rng: random.Random
) -> tuple[str, list[str]]:
    path = _path(definition, problem.targets[0], [problem.given])
    route = _route(path, f"owns {problem.given_value}")
    steps = [_given(rng, problem.given, problem.given_value)]
    steps += _climb(definition, path, {problem.given: problem.given_value}, rng)
    return f"{rng.choice(wording.TRAVEL_VERBS)} forward to {route}", steps


def _plan_backward(
    problem: Problem, definition: dict[str, Relation], rng: random.Random
) -> tuple[str, list[str]]:
    path = _path(definition, problem.given, problem.targets)
    plan = f"{rng.choice(wording.TRAVEL_VERBS)} backward from {_route(path, 'asks')}"
    value = problem.given_value
    steps = [_given(rng, problem.given, value)]
    for child, parent in itertools.pairwise(path):
        relation = definition[child]
        signs, value = relation.calculation(value, inverse=True)
        steps.append(_step(rng, child, relation.definition(), f"{parent} {signs} = {value}"))
    return plan, steps


def _plan_both(
    problem: Problem, definition: dict[str, Relation], rng: random.Random
) -> tuple[str, list[str]]:
    assert problem.second_given is not None
    givens = [problem.given, problem.second_given]
    values = {name: problem.values[name] for name in givens}
    routes, steps = [], []
    for target in _either_order(problem.targets[0], problem.targets[1], rng):
        path = _path(definition, target, givens)
        routes.append(_route(path, f"owns {values[path[-1]]}"))
        steps.append(_given(rng, path[-1], values[path[-1]]))
        steps += _climb(definition, path, values, rng)
    plan = f"{rng.choice(wording.FIND_VERBS)} both {routes[0]} and {routes[1]}"
    first, second = (str(values[target]) for target in problem.targets)
    if problem.asks_difference:
        steps.append(f"The difference is {first} - {second} = {problem.answer}.")
    else:
        first, second = _either_order(first, second, rng)
        steps.append(f"The total is {first} + {second} = {problem.answer}.")
    return plan, steps


def _plan_split(
    problem: Problem, definition: dict[str, Relation], rng: random.Random
) -> tuple[str, list[str]]:
    assert problem.pair is not None
    more, less = problem.pair
    amount = definition[more].amount
    path = _path(definition, problem.targets[0], [less])
    one, other = _either_order(more, less, rng)
    route = _route(path, f"shares {problem.given_value}")
    plan = f"{rng.choice(wording.SPLIT_VERBS)} {one} and {other} to reach {route}"
    rest = problem.given_value - amount
    values = {less: rest // 2}
    shared = f"{problem.given_value} - {amount} = {rest}"
    steps = [
        f"{rng.choice(wording.STEP_OPENERS)} {less} shares {problem.given_value} with {more}.",
        _step(rng, more, f"{definition[more].definition()} leaving {shared}"),
        _step(rng, less, f"{rest} / 2 = {values[less]}"),
    ]
    return plan, steps + _climb(definition, path, values, rng)


_PLANNERS = {
    "forward": _plan_forward,
    "backward": _plan_backward,
    "both": _plan_both,
    "split": _plan_split,
}
