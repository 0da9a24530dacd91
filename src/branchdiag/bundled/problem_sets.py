"""The three packaged problem sets: fixed seeds, disjoint by content, written as JSON Lines.

`python -m branchdiag.bundled.problem_sets` writes diagnose.jsonl, evaluate.jsonl and distill.jsonl
beside this module. Each line has the strings id, problem, solution and answer, and what the problem
is: plan (its kind), n_links and n_steps. Knows no model.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from branchdiag.bundled import examples, task

SIZES = {"diagnose": 360, "evaluate": 120, "distill": 2000}
SEEDS = {"diagnose": 101, "evaluate": 202, "distill": 303}
HARD = ("diagnose",)
"""Sets of harder problems: more statements that no solution needs, and mostly the kind of plan that
the model finds hardest. Where every problem is easy, every branch is viable."""
HARD_CLUTTER = 1.5
HARD_KINDS: tuple[task.PlanKind, ...] = (*task.KINDS, "both", "both", "both", "both")
FOLDER = Path(__file__).parent / "problems"


def draw_sets() -> dict[str, list[dict[str, Any]]]:
    """The rows of every set: held-out problems, no two of any set with equal content."""
    seen: set[str] = set()
    return {name: _draw(name, size, SEEDS[name], seen) for name, size in SIZES.items()}


def _draw(name: str, size: int, seed: int, seen: set[str]) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    while len(rows) < size:
        n_links = rng.randint(*examples.LINKS)
        if name in HARD:
            problem = task.make_problem(rng, rng.choice(HARD_KINDS), n_links, HARD_CLUTTER)
        else:
            problem = task.make_problem(rng, n_links=n_links, clutter=examples.CLUTTER)
        solution = task.boxed_solution(problem, rng)
        if not problem.is_held_out or problem.content_key in seen:
            continue
        seen.add(problem.content_key)
        rows.append(
            {
                "id": f"{name}-{len(rows):04d}",
                "problem": problem.text,
                "solution": solution,
                "answer": str(problem.answer),
                "plan": problem.kind,
                "n_links": n_links,
                "n_steps": problem.n_steps,
            }
        )
    return rows


def write_sets(folder: Path = FOLDER) -> None:
    """Write every set into `folder`, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in draw_sets().items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_sets()
