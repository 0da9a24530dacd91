"""Which candidates stand together, and that settings added later leave old fingerprints alone."""

from __future__ import annotations

import pytest

from branchdiag.phases.groups import diagnosed, groups_of, primary_ids
from branchdiag.protocol import CandidateSettings, Protocol

CORRECT = {"a": True, "b": False, "c": None}
ROWS = [
    {"candidate_id": f"{problem}@{how}", "problem_id": problem, "selected_by": how}
    for problem in CORRECT
    for how in ("entropy", "random", "both", None)
]


def ids(settings: CandidateSettings) -> dict[str, set[str]]:
    return {name: found for name, (_, found) in groups_of(ROWS, CORRECT, settings).items()}


def test_the_papers_group_is_what_entropy_chose_on_correct_spines() -> None:
    expected = {"a@entropy", "a@both", "a@None"}
    assert ids(CandidateSettings()) == {"primary": expected}
    for settings in (
        CandidateSettings(random_per_problem=2),
        CandidateSettings(spines="all"),
        CandidateSettings(spines="all", random_per_problem=2),
    ):
        assert ids(settings)["primary"] == expected
        assert primary_ids(ROWS, CORRECT, settings) == expected


def test_incorrect_spines_and_random_positions_are_apart() -> None:
    found = ids(CandidateSettings(spines="all", random_per_problem=2))
    assert found.keys() == {
        "primary", "random_positions", "incorrect_spines", "incorrect_spines_random_positions"
    }  # fmt: skip
    assert found["random_positions"] == {"a@random", "a@both"}
    assert found["incorrect_spines"] == {"b@entropy", "b@both", "b@None"}
    assert found["incorrect_spines_random_positions"] == {"b@random", "b@both"}
    assert not any("c@" in name for group in found.values() for name in group)


def test_incorrect_alone_are_the_primary_group_and_say_so() -> None:
    groups = groups_of(ROWS, CORRECT, CandidateSettings(spines="incorrect"))
    description, found = groups["primary"]
    assert found == {"b@entropy", "b@both", "b@None"} and "incorrect spines" in description
    assert diagnosed("incorrect") == (False,) and diagnosed("all") == (True, False)


@pytest.mark.parametrize(("name", "value"), [("spines", "all"), ("random_per_problem", 3)])
def test_settings_added_later_are_left_out_of_fingerprints_at_their_default(
    name: str, value: object
) -> None:
    assert name not in Protocol().candidates.result_settings()
    changed = CandidateSettings(**{name: value})
    assert changed.result_settings()[name] == value
    assert name in Protocol().to_toml()
