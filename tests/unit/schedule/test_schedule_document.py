"""The JSON document, against the published schema."""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema
import numpy as np
import pytest

from branchdiag.errors import UsageError
from branchdiag.schedule import PRESETS, Schedule
from branchdiag.stats.bootstrap import draw_multiplicities
from branchdiag.stats.schedule_band import FitSettings
from branchdiag.stats.schedule_data import ESTIMANDS
from branchdiag.stats.schedule_document import make_document, run_provenance, to_schedule
from branchdiag.stats.schedule_fit import fit_schedule
from branchdiag.stats.schedule_status import STATUSES
from tests.unit.schedule.planted_schedules import candidates, horizon, level, plant, shape

SCHEMA = json.loads(files("branchdiag").joinpath("schedule_schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
QUICK = FitSettings(resamples=20, permutations=1000, slope_resamples=50)
MANIFEST = {
    "created": "2026-01-01T00:00:00+00:00",
    "branchdiag": "0.1.0",
    "inputs": {
        "student": {"name": "org/m", "path": "/x", "revision": "abc", "content_id": "c"},
        "teacher": {"name": "org/m", "revision": None, "content_id": "c"},
        "data_id": "d",
    },
    "phases": {
        "A": {"fingerprint": "fp1:a", "status": "complete", "failed": 2},
        "G": {"status": "started", "failed": 1},
    },
}


@pytest.fixture(scope="module")
def fitted():
    return fit_schedule(
        plant(shape(0.4, 0.3, 0.1), level(0.9), seed=0),
        settings=QUICK,
        provenance=run_provenance(MANIFEST, "runs/one"),
    )


def test_the_schema_is_one_and_lists_what_the_code_knows() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    properties = SCHEMA["properties"]
    assert properties["status"]["enum"] == [*STATUSES, None]
    assert set(properties["estimand"]["enum"]) == set(ESTIMANDS)
    assert set(properties["preset"]["enum"]) == {*PRESETS, None}


@pytest.mark.parametrize("estimand", [None, "binary", "teacher-weighted"])
@pytest.mark.parametrize(
    ("child", "control", "n_problems"),
    [
        (shape(0.4, 0.3, 0.1), level(0.9), 30),
        (shape(0.3, 0.6, 0.1, falling=True), level(0.9), 30),
        (horizon(), horizon(), 30),
        (level(0.5), level(0.5), 2),
        (level(1.0), level(1.0), 20),
    ],
    ids=["rising", "falling", "horizon", "too few", "no variation"],
)
def test_every_document_follows_the_published_schema(child, control, n_problems, estimand) -> None:
    data = plant(child, control, seed=0, n_problems=n_problems)
    document = make_document(fit_schedule(data, estimand=estimand, settings=QUICK))
    VALIDATOR.validate(json.loads(json.dumps(document, allow_nan=False)))


@pytest.mark.parametrize("schedule", [Schedule.uniform(), Schedule(0.2, 0.5, 0.1, "decreasing")])
def test_other_schedules_follow_it_too(schedule) -> None:
    VALIDATOR.validate(schedule.document)
    VALIDATOR.validate(Schedule.preset("moderate").document)


def test_the_schema_refuses_what_the_code_refuses(fitted) -> None:
    good = make_document(fitted)
    for change in (
        {"version": 2},
        {"w_min": 1.2},
        {"tau": None},
        {"s": None},
        {"direction": "none"},
        {"status": "flat"},
        {"status": "fine"},
        {"status": None},
        {"preset": "mild"},
        {"origin": "preset"},
        {"fits": {}},
    ):
        assert not VALIDATOR.is_valid(good | change), change
    for key in ("w_min", "status", "band", "counts", "run", "model"):
        assert not VALIDATOR.is_valid({k: v for k, v in good.items() if k != key}), key


def test_the_document_says_where_it_comes_from(fitted) -> None:
    document = make_document(fitted)
    assert document["origin"] == "fit"
    assert document["model"] == {"name": "org/m", "revision": "abc", "content_id": "c"}
    assert document["run"]["fingerprints"] == {"A": "fp1:a"}
    assert document["run"]["failed_units"] == 2
    assert document["estimand"] == "viability"
    assert document["estimand_named"] is False
    assert document["band"] == document["fits"]["viability"]["band"]
    assert document["band"]["r"] == [round(0.05 * i, 2) for i in range(1, 20)]
    curves = document["fits"]["relative"]["curves"]
    assert curves["quantity"] == "ratio to the control"
    assert sum(curves["data"]["n"]) == document["fits"]["relative"]["counts"]["used"]
    for data in (curves["data"], document["control"]["data"]):
        assert all(a < y < b for a, y, b in zip(data["low"], data["y"], data["high"], strict=True))
    # Isotonic both ways; the one against the data is flat.
    rising, falling = (curves[f"isotonic_{way}"]["y"] for way in ("increasing", "decreasing"))
    assert rising == sorted(rising)
    assert rising[-1] - rising[0] > falling[0] - falling[-1]


def test_fitted_json_round_trips_and_weighs(tmp_path, fitted) -> None:
    to_schedule(fitted).save(tmp_path / "fitted.json")
    again = Schedule.load(tmp_path / "fitted.json")
    assert again.document == make_document(fitted)
    assert (again.w_min, again.tau, again.s) == (fitted.w_min, fitted.tau, fitted.s)
    assert again.curve(0.0) == pytest.approx(make_document(fitted)["fits"]["viability"]["w_at_0"])


def test_a_preset_is_taken_knowingly_beside_the_fit(fitted) -> None:
    document = make_document(fitted, preset="sharp")
    VALIDATOR.validate(document)
    assert (document["w_min"], document["tau"], document["s"]) == PRESETS["sharp"]
    assert (document["origin"], document["preset"]) == ("preset", "sharp")
    assert document["status"] is None
    assert document["band"] is None
    assert "sharp, taken knowingly: not fitted" in document["reason"]
    assert f"the fit to this run is {fitted.status}" in document["reason"]
    assert document["fits"] == make_document(fitted)["fits"]
    with pytest.raises(UsageError, match="no preset"):
        make_document(fitted, preset="harsh")


def test_bins_of_a_ratio_are_sums_over_sums_with_a_band_of_problems() -> None:
    # Four candidates a problem at four positions: a bin is one of them from every problem.
    generator = np.random.default_rng(0)
    successes = generator.binomial(6, [0.9, 0.5, 0.6, 0.7], (48, 4))
    data = candidates(np.tile([0.1, 0.2, 0.8, 0.9], 12), np.repeat(np.arange(12), 4), successes)
    found = make_document(fit_schedule(data, settings=QUICK))["fits"]["relative"]["curves"]["data"]
    # Inside a problem every candidate has as many samples, so all weigh the same.
    children = successes[:, 1:].sum(axis=1).reshape(12, 4) / 18
    controls = successes[:, 0].reshape(12, 4) / 6
    np.testing.assert_allclose(found["r"], [0.1, 0.2, 0.8, 0.9])
    np.testing.assert_allclose(found["y"], children.sum(0) / controls.sum(0))
    assert found["n"] == [12, 12, 12, 12]
    (drawn,) = draw_multiplicities(12, resamples=QUICK.slope_resamples, seed=QUICK.seed)
    ratios = np.array([(times @ children) / (times @ controls) for times in drawn])
    low, high = np.quantile(ratios, [0.025, 0.975], axis=0)
    np.testing.assert_allclose(found["low"], low)
    np.testing.assert_allclose(found["high"], high)


def test_a_bin_without_a_free_success_has_no_ratio() -> None:
    successes = np.array([[0, 1, 1, 1], [4, 4, 4, 4], [5, 4, 2, 2], [6, 6, 5, 4]] * 3)
    data = candidates(np.tile([0.1, 0.2, 0.8, 0.9], 3), np.repeat([0, 1, 2], 4), successes)
    document = make_document(fit_schedule(data, settings=QUICK))
    VALIDATOR.validate(json.loads(json.dumps(document, allow_nan=False)))
    curves = document["fits"]["relative"]["curves"]
    np.testing.assert_allclose(curves["data"]["r"], [0.2, 0.8, 0.9])
    assert len(document["control"]["data"]["r"]) == 4
