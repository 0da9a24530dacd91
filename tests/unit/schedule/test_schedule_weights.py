"""The weights of a mask, against the formula written out token by token."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from branchdiag.errors import UsageError
from branchdiag.schedule import DIRECTIONS, PRESETS, Schedule

masks = arrays.arrays(bool, st.tuples(st.integers(0, 4), st.integers(0, 12)))
schedules = st.builds(
    Schedule,
    w_min=st.floats(0, 1),
    tau=st.floats(-0.2, 1.2),
    s=st.floats(0, 1) | st.sampled_from([0.0, 1e-9, 1e-6]),
    direction=st.sampled_from(["increasing", "decreasing"]),
)


def oracle(schedule: Schedule, mask) -> list[list[float]]:
    """Equations 5 and 6 of the paper, a token at a time."""
    rows = []
    for row in mask:
        length, seen, weights = sum(bool(v) for v in row), 0, []
        for valid in row:
            if not valid:
                weights.append(0.0)
                continue
            seen += 1
            z = ((seen - 0.5) / length - schedule.tau) / max(schedule.s, 1e-6)
            z = -z if schedule.direction == "decreasing" else z
            rise = 1 / (1 + math.exp(-z)) if z > -700 else 0.0
            weights.append(schedule.w_min + (1 - schedule.w_min) * rise)
        rows.append(weights)
    return rows


@given(schedules, masks)
@settings(deadline=None)
def test_weights_are_the_formula_for_numpy_and_torch(schedule, mask) -> None:
    weights = schedule.weights(mask)
    expected = np.array(oracle(schedule, mask)).reshape(mask.shape)
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-12)
    tensor = schedule.weights(torch.from_numpy(mask), dtype=torch.float64)
    np.testing.assert_allclose(tensor.numpy(), expected, rtol=0, atol=1e-12)
    assert not np.isnan(weights).any()
    assert (weights[~mask] == 0).all()


@given(schedules, masks)
def test_falling_is_the_mirror_of_rising(schedule, mask) -> None:
    other = "increasing" if schedule.direction == "decreasing" else "decreasing"
    mirrored = Schedule(schedule.w_min, 1 - schedule.tau, schedule.s, other)
    np.testing.assert_allclose(
        mirrored.weights(mask[:, ::-1])[:, ::-1], schedule.weights(mask), atol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "mild": (0.634, 0.909, 0.991, 0.870),
        "moderate": (0.286, 0.911, 0.999, 0.771),
        "sharp": (0.100, 0.893, 1.000, 0.640),
        "aggressive": (0.050, 0.525, 1.000, 0.525),
    }.items(),
)
def test_presets_have_the_published_values(name, values) -> None:
    schedule = Schedule.preset(name)
    found = [
        *schedule.curve([0.0, 0.5, 1.0]),
        schedule.curve((np.arange(4000) + 0.5) / 4000).mean(),
    ]
    np.testing.assert_allclose(found, values, atol=6e-4)


def test_holes_are_passed_over_and_not_counted() -> None:
    schedule = Schedule.preset("moderate")
    holed = np.array([[False, True, False, False, True, True]])
    dense = np.ones((1, 3), bool)
    np.testing.assert_array_equal(schedule.weights(holed)[holed], schedule.weights(dense)[0])


def test_uniform_is_one_where_valid() -> None:
    mask = np.array([[True, False], [False, False]])
    np.testing.assert_array_equal(Schedule.uniform().weights(mask), [[1, 0], [0, 0]])
    assert Schedule.uniform().is_uniform
    assert torch.equal(
        Schedule.uniform().weights(torch.from_numpy(mask)), torch.tensor([[1.0, 0], [0, 0]])
    )


def test_the_sharpest_step_does_not_overflow() -> None:
    with np.errstate(all="raise", under="ignore"):
        weights = Schedule(0.1, 0.5, 0.0).weights(np.ones((1, 4), bool))
    np.testing.assert_array_equal(weights, [[0.1, 0.1, 1.0, 1.0]])
    assert torch.allclose(
        Schedule(0.1, 0.5, 0.0).weights(torch.ones(1, 4, dtype=torch.bool)),
        torch.tensor([[0.1, 0.1, 1.0, 1.0]]),
    )


def test_weights_take_the_masks_kind() -> None:
    schedule = Schedule.preset("mild")
    assert schedule.weights(np.ones((1, 3), bool)).dtype == np.float64
    assert schedule.weights(np.ones((1, 3), np.float32)).dtype == np.float32
    assert schedule.weights(np.ones((1, 3), np.int64)).dtype == np.float64
    assert schedule.weights(np.ones((1, 3), bool), dtype=np.dtype("float32")).dtype == np.float32
    assert schedule.weights(torch.ones(1, 3, dtype=torch.int64)).dtype == torch.float32
    half = torch.ones(1, 1000, dtype=torch.bfloat16)
    assert schedule.weights(half).dtype == torch.bfloat16
    exact = schedule.weights(torch.ones(1, 1000, dtype=torch.float64))
    # Positions are counted in full even where the mask's type cannot hold them.
    assert torch.allclose(schedule.weights(half).double(), exact, atol=2**-8)


def test_a_sentence_says_what_is_no_mask() -> None:
    for mask in (np.ones(3, bool), [[True]], torch.ones(1, 1, 1)):
        with pytest.raises(UsageError, match="two dimensions"):
            Schedule.uniform().weights(mask)


def test_a_saved_schedule_is_read_back_without_loss(tmp_path) -> None:
    for schedule in (
        Schedule(0.25, 0.3, 0.1, "decreasing", {"origin": "fit", "band": {"r": [0.5]}}),
        Schedule.preset("sharp"),
        Schedule.uniform(),
        Schedule(0.1 + 0.2, 1 / 3, 1e-3),
    ):
        schedule.save(tmp_path / "s.json")
        again = Schedule.load(tmp_path / "s.json")
        assert again == schedule
        assert again.document == schedule.document


GOOD = {
    "schema": "branchdiag.schedule",
    "version": 1,
    "w_min": 0.5,
    "tau": 0.2,
    "s": 0.1,
    "direction": "increasing",
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": "other"}, "no schedule"),
        ({"version": 2}, "version 2"),
        ({"w_min": None}, "w_min is None"),
        ({"w_min": 1.5}, "w_min is 1.5"),
        ({"w_min": "0.5"}, "w_min is '0.5'"),
        ({"w_min": True}, "w_min is True"),
        ({"w_min": float("nan")}, "w_min is nan"),
        ({"tau": float("inf")}, "tau is inf"),
        ({"tau": 7}, "tau is 7"),
        ({"s": -0.1}, "s is -0.1"),
        ({"s": None}, "both tau and s"),
        ({"s": None, "tau": None}, "1 everywhere"),
        ({"direction": "up"}, "no direction 'up'"),
        ({"direction": "none"}, "either rises or falls"),
        ({"direction": ["none"]}, "no direction"),
    ],
)
def test_each_mistake_in_a_file_is_named_with_the_file(tmp_path, change, said) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(GOOD | change))
    with pytest.raises(UsageError, match=said) as caught:
        Schedule.load(file)
    assert "mine.json" in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize("key", ["w_min", "tau", "s", "direction"])
def test_a_missing_key_is_named(tmp_path, key) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({k: v for k, v in GOOD.items() if k != key}))
    with pytest.raises(UsageError, match=f"lacks {key}"):
        Schedule.load(file)


@pytest.mark.parametrize("text", [None, b"{", b"[]", b"3", b"\xff\xfe"])
def test_what_is_no_schedule_file_is_said(tmp_path, text) -> None:
    file = tmp_path / "mine.json"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(UsageError):
        Schedule.load(file)


def test_an_unknown_preset_is_an_error_that_lists_them() -> None:
    with pytest.raises(UsageError) as caught:
        Schedule.preset("harsh")
    assert all(name in str(caught.value) for name in PRESETS)
    assert set(DIRECTIONS) == {"increasing", "decreasing", "none"}


def test_the_module_loads_neither_numpy_nor_torch() -> None:
    code = "import sys, branchdiag.schedule; print({'numpy', 'torch', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_package_gives_it_without_loading_what_it_does_not_need() -> None:
    code = """
import sys, branchdiag
schedule = branchdiag.Schedule.preset("mild")
assert not {"numpy", "torch"} & set(sys.modules)
import numpy as np
assert schedule.weights(np.ones((2, 3))).shape == (2, 3)
assert "torch" not in sys.modules
assert not hasattr(branchdiag, "Schedul")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
