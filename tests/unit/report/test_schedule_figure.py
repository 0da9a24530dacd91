"""The schedule's figure and what the terminal says of it, for each kind of result."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from branchdiag.report.schedule_figure import draw_schedule, headline
from branchdiag.report.schedule_terminal import print_schedule
from branchdiag.schedule import PRESETS, Schedule
from branchdiag.stats.schedule_band import FitSettings
from branchdiag.stats.schedule_document import make_document, to_schedule
from branchdiag.stats.schedule_fit import fit_schedule
from tests.unit.schedule.planted_schedules import candidates, horizon, level, plant, shape

QUICK = FitSettings(resamples=20, permutations=1000, slope_resamples=50)
RISING = plant(shape(0.4, 0.3, 0.1), level(0.9), seed=0, n_problems=40)


def panels_of(data, **options):
    fitted = fit_schedule(data, settings=QUICK, **options)
    schedule = to_schedule(fitted)
    return draw_schedule(schedule, fitted).axes, schedule


def names_of(axes) -> list[str]:
    return axes.get_legend_handles_labels()[1]


def test_the_three_panels_show_data_isotonic_curves_fit_control_and_presets() -> None:
    (success, ratio, weight), schedule = panels_of(RISING)
    assert {"forced", "control", "isotonic", "fit"} <= set(names_of(success))
    assert {"forced / control", "isotonic", "fit"} <= set(names_of(ratio))
    assert {*PRESETS, "fit", "written"} == set(names_of(weight))
    # One band behind the fit, both isotonic curves, a point a candidate.
    assert len(weight.collections) == 1
    assert sum(line.get_drawstyle() == "steps-mid" for line in success.lines) == 2
    assert len(success.collections[0].get_offsets()) == RISING.r.size
    written = next(line for line in weight.lines if line.get_label() == "written")
    np.testing.assert_allclose(written.get_ydata(), schedule.curve(written.get_xdata()))


@pytest.mark.parametrize(
    "data",
    [
        candidates([], [], np.zeros((0, 4))),
        plant(shape(0.4, 0.3, 0.1), level(0.9), seed=0, n_problems=1),
        plant(level(1.0), level(0.0), seed=0, n_problems=20),
        plant(horizon(), horizon(), seed=0, n_problems=30),
    ],
    ids=["no candidates", "one problem", "no variation, no control", "horizon"],
)
def test_what_is_missing_is_said_and_weight_one_is_drawn(data) -> None:
    (success, ratio, weight), schedule = panels_of(data)
    assert schedule.is_uniform
    written = next(line for line in weight.lines if line.get_label() == "written")
    assert (written.get_ydata() == 1.0).all()
    for axes in (success, ratio):
        assert names_of(axes) or "not computed" in axes.texts[0].get_text()


def test_candidates_are_not_drawn_against_a_rate_of_samples() -> None:
    (success, *_), _ = panels_of(RISING, estimand="binary")
    assert "control" not in names_of(success)
    assert success.get_ylabel() == "candidates not real-uncertain"


def test_a_preset_alone_is_one_panel() -> None:
    figure = draw_schedule(Schedule.preset("sharp"), None)
    (weight,) = figure.axes
    assert set(names_of(weight)) == {*PRESETS, "written"}
    assert "preset sharp, not fitted" in figure.texts[0].get_text()


@pytest.mark.parametrize("preset", [None, "mild"])
@pytest.mark.parametrize("data", [RISING, candidates([], [], np.zeros((0, 4)))])
def test_the_terminal_says_it_in_80_columns(data, preset) -> None:
    document = make_document(fit_schedule(data, settings=QUICK), preset=preset)
    stream = io.StringIO()
    files = ["fitted.json", "fitted.png"]
    print_schedule(document, files, Console(file=stream, width=80))
    text = stream.getvalue()
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "branchdiag train --schedule fitted.json" in text
    assert " ".join(headline(document).split()) in " ".join(text.split())
    assert ("95% band" in text) == (document["band"] is not None)
    assert ("w = 1 for every token" in text) == (data.r.size == 0 and preset is None)
