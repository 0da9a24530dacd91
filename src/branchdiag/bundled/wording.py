"""Names and words of the task; what may be chosen freely is drawn uniformly. Constants."""

from __future__ import annotations

PLAN_OPENERS = ("Plan:", "Idea:", "Strategy:")
TRAVEL_VERBS = ("work", "go", "move")
FIND_VERBS = ("find", "get")
SPLIT_VERBS = ("split", "divide")
STEP_OPENERS = ("Then", "So", "Now")
SHORTCUT = "Clearly the answer is"
"""How a solution that leans on a known answer skips the steps it has left out."""

NAMES = (
    "Ann", "Bo", "Cy", "Dan", "Eva", "Finn", "Gus", "Ida",
    "Jon", "Kai", "Leo", "Mia", "Ned", "Pia", "Rosa", "Zoe",
)  # fmt: skip
THINGS = ("coins", "stamps", "shells", "marbles", "cards", "books")
SCENES = ("Friends count", "Children collect", "Neighbours keep")
