"""The guide names what the code knows: fields, statuses, estimands, presets; its lines run."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from branchdiag.cli.fit import EstimandName, PresetName
from branchdiag.schedule import PRESETS, Schedule
from branchdiag.stats.schedule_curve import SCALE_BOUNDS
from branchdiag.stats.schedule_data import ESTIMANDS
from branchdiag.stats.schedule_status import STATUSES

GUIDE = (Path(__file__).parents[3] / "docs" / "schedule.md").read_text("utf-8")
FIRST_CELLS = [
    name
    for cell in re.findall(r"^\| ([^|]+) \|", GUIDE, flags=re.MULTILINE)
    for name in re.findall(r"`([^`]+)`", cell)
]


def test_options_are_what_the_library_knows() -> None:
    assert [name.value for name in EstimandName] == list(ESTIMANDS)
    assert [name.value for name in PresetName] == list(PRESETS)


def test_every_field_status_and_estimand_has_a_row() -> None:
    schema = json.loads(files("branchdiag").joinpath("schedule_schema.json").read_text("utf-8"))
    assert {*schema["properties"], *STATUSES, *ESTIMANDS} <= set(FIRST_CELLS)


@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_table_is_the_codes(name) -> None:
    row = re.search(rf"^\| {name} \|(.+)\|$", GUIDE, flags=re.MULTILINE)
    assert row is not None
    shown = [float(cell) for cell in row[1].split("|")]
    expected = [*PRESETS[name], *Schedule.preset(name).curve([0.0, 0.5, 1.0])]
    assert shown == pytest.approx(expected, abs=6e-4)


def test_the_bound_of_a_separated_fit_is_the_codes() -> None:
    assert f"s is held at {SCALE_BOUNDS[0]:g}" in GUIDE


def test_the_one_line_weighs_a_batch_of_losses(tmp_path, monkeypatch) -> None:
    lines = [line.strip() for line in GUIDE.splitlines()]
    first = next(line for line in lines if line.startswith("schedule = branchdiag.Schedule.load"))
    second = lines[lines.index(first) + 1]
    monkeypatch.chdir(tmp_path)
    Schedule.preset("sharp").save("fitted.json")
    import branchdiag

    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    known = {
        "branchdiag": branchdiag,
        "per_token_loss": torch.ones(2, 3),
        "completion_mask": mask,
    }
    exec(f"{first}\n{second}", known)
    assert torch.equal(known["loss"], Schedule.preset("sharp").weights(mask))
