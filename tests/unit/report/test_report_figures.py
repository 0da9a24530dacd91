"""The figures: drawn for every run, however poor, and true to the tables."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from branchdiag.report import style
from branchdiag.report.figures import (
    CONTROL_SERIES,
    FAILURE_SERIES,
    MONOTONE_SERIES,
    SCORE_SERIES,
    difference_by_position,
    draw_all,
    failure_by_position,
    failure_by_score,
)
from branchdiag.report.page import render_page
from branchdiag.report.score_figures import score_comparison, score_panel
from branchdiag.report.style import inline_svg, render, save_figures
from branchdiag.stats.reliability import advantage_curve, failure_curves
from branchdiag.stats.scores import SCORES


def words(figure):
    """Every text that a figure shows."""
    import matplotlib.text

    found = figure.findobj(matplotlib.text.Text)
    return " ".join(text.get_text().replace("\n", " ") for text in found if text.get_visible())


def line_named(axes, label):
    return next(line for line in axes.lines if line.get_label() == label)


def test_every_run_has_its_figures(any_run, drawn):
    shown = {"failure_by_position", "difference_by_position", "scores", "scores.narrow"}
    shown |= {"failure_by_score", "failure_by_score.narrow"}
    shown |= {f"score_{e['name']}" for e in any_run.document["scores"] if not e["alias_of"]}
    assert shown <= set(drawn)


def test_every_figure_stands_in_the_page_as_sound_svg(any_run, drawn, any_page):
    texts = re.findall(r"<svg.*?</svg>", any_page, re.DOTALL)
    told = any(entry["auroc"] is not None for entry in any_run.document["scores"])
    assert len(texts) == len(drawn) - (0 if told else 2)  # no forest without an AUROC
    for text in texts:
        shape = ElementTree.fromstring(text)
        numbers = [a for e in shape.iter() for k, a in e.attrib.items() if k in {"d", "x", "y"}]
        assert numbers and not any("nan" in a or "inf" in a for a in numbers)


def test_figures_are_saved_as_png_and_svg(paper_figures, tmp_path):
    chosen = {k: paper_figures[k] for k in ("difference_by_position", "scores", "scores.narrow")}
    paths = save_figures(chosen, tmp_path / "figures")
    names = ["difference_by_position.png", "difference_by_position.svg", "scores.png", "scores.svg"]
    assert [path.name for path in paths] == names
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == sorted(names)
    for path in paths:
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG" if path.suffix == ".png" else b"<?xml")


def test_the_same_tables_give_the_same_files(paper_run, paper_figures, tmp_path):
    again = failure_by_position(paper_run.frames["curves"], paper_run.frames["labels"])
    first = save_figures({"a": paper_figures["failure_by_position"]}, tmp_path / "1")
    second = save_figures({"a": again}, tmp_path / "2")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_what_was_rendered_before_is_what_is_rendered_now(paper_figures, tmp_path):
    chosen = {k: paper_figures[k] for k in ("scores", "scores.narrow", "failure_by_score")}
    rendered = {name: render((name, figure)) for name, figure in chosen.items()}
    assert [name for name, found in rendered.items() if found.png is None] == ["scores.narrow"]
    first = save_figures(chosen, tmp_path / "1")
    second = save_figures(chosen, tmp_path / "2", rendered)
    assert [p.name for p in first] == [p.name for p in second]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    for name, figure in chosen.items():
        assert inline_svg(figure, name, "d", rendered[name].svg) == inline_svg(figure, name, "d")


def test_a_title_in_its_place_is_not_in_the_way_of_a_power_of_ten(drawn):
    for figure in drawn.values():
        figure.draw_without_rendering()
        for axes in figure.axes:
            if any(axes.get_title(loc=side) for side in ("left", "right")):
                assert not axes.yaxis.get_offset_text().get_text()


@pytest.mark.parametrize(
    ("name", "label"), [(FAILURE_SERIES, "forced token"), (CONTROL_SERIES, "unforced control")]
)
def test_the_failure_curves_are_the_tables(name, label, paper_run, paper_figures):
    curves = paper_run.frames["curves"]
    rows = curves[curves["series"] == name].sort_values("x")
    axes = paper_figures["failure_by_position"].axes[0]
    line = line_named(axes, label)
    np.testing.assert_allclose(line.get_xydata(), rows[["x", "y"]].to_numpy(float))
    bands = [path.vertices for band in axes.collections for path in band.get_paths()]
    ends = np.unique(np.concatenate(bands)[:, 1].round(9))
    assert set(rows[["lo", "hi"]].to_numpy(float).round(9).ravel()) <= set(ends)


def test_the_rug_holds_each_candidate_once(paper_run, paper_figures):
    labels = paper_run.frames["labels"]
    rug = paper_figures["failure_by_position"].axes[1]
    drawn = [x for line in rug.lines if line.get_marker() == "|" for x in line.get_xdata()]
    assert sorted(drawn) == sorted(labels["r"])
    assert "real-uncertain 8" in words(paper_figures["failure_by_position"])


def test_the_slope_is_drawn_as_it_is_written(paper_run, paper_figures):
    axes = paper_figures["difference_by_position"].axes[0]
    line = line_named(axes, "slope 0.02 [−0.04, 0.09]")
    (x0, x1), (y0, y1) = line.get_data()
    assert (y1 - y0) / (x1 - x0) == pytest.approx(paper_run.document["slope"]["estimate"])
    labels = paper_run.frames["labels"]
    assert np.interp(labels["r"].mean(), [x0, x1], [y0, y1]) == pytest.approx(labels["d"].mean())
    rows = paper_run.frames["curves"].query("series == 'd_by_r'").sort_values("x")
    np.testing.assert_allclose(line_named(axes, "bin mean").get_ydata(), rows["y"].to_numpy(float))


def test_the_forest_has_each_score_where_its_number_is(paper_run, paper_figures):
    axes = paper_figures["scores"].axes[0]
    for row, entry in enumerate(e for e in paper_run.document["scores"] if not e["alias_of"]):
        points = [tuple(line.get_xydata()[0]) for line in axes.lines if len(line.get_xdata()) == 1]
        assert (entry["auroc"], row) in points
        spans = [
            tuple(line.get_xdata()) for line in axes.lines if list(line.get_ydata()) == [row] * 2
        ]
        assert (entry["ci_low"], entry["ci_high"]) in spans


def test_what_is_missing_is_said_in_the_figure(make):
    empty = make(problems=5, correct=0, candidates=0, positives=0, grays=0)
    figures = draw_all(empty.document, empty.frames)
    assert "not computed: no candidate has a viability" in words(figures["failure_by_position"])
    assert "not computed: no candidate has both" in words(figures["difference_by_position"])
    assert "only one class among" in words(figures["scores"])
    assert "not computed" in words(figures["score_h_trunc"])
    assert "not computed" in words(figures["failure_by_score"])


def test_frames_without_columns_are_drawn_as_empty(make):
    document = make(problems=5, correct=0, candidates=0, positives=0, grays=0).document
    bare = {name: pd.DataFrame() for name in ("curves", "labels", "score_values")}
    figures = draw_all(document, bare)
    assert "not computed" in words(figures["failure_by_position"])
    assert "</html>" in render_page(document, bare, figures)


def test_a_missing_interval_leaves_the_point_hollow(make):
    run = make(intervals=False)
    figure = score_comparison(run.document["scores"], run.document["scores_relative"])
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    hollow = [line for line in dots if line.get_markerfacecolor() == style.PAPER]
    assert len(hollow) == sum(not e["alias_of"] for e in run.document["scores"])
    figure = difference_by_position(
        run.frames["curves"], run.frames["labels"], run.document["slope"]
    )
    assert "slope 0.02, no interval" in words(figure)


def test_one_score_without_a_value_says_why_beside_the_others(paper_run):
    scores = [dict(entry) for entry in paper_run.document["scores"][:3]]
    scores[1] |= {"auroc": None, "ci_low": None, "ci_high": None, "reason": "it costs $5 & <b>"}
    figure = score_comparison(scores, [])
    assert "it costs $5 & <b>" in words(figure)
    assert "it costs $5 &amp; &lt;b" in inline_svg(figure, "scores", "d")


@pytest.mark.filterwarnings("error")
def test_a_score_of_one_value_has_a_histogram(paper_run):
    values = paper_run.frames["score_values"].assign(mi=0.25)
    entry = next(e for e in paper_run.document["scores"] if e["name"] == "mi")
    assert "mutual information" in words(score_panel(values, entry))


def test_many_candidates_are_drawn_as_a_picture(paper_run):
    values = paper_run.frames["score_values"]
    many = values.loc[values.index.repeat(10)]
    entry = paper_run.document["scores"][1]
    few, lots = (inline_svg(score_panel(v, entry), "s", "d") for v in (values, many))
    assert "<image" not in few and 'href="data:image/png' in lots
    assert len(lots) < 2 * len(few)


def test_a_curve_of_one_bin_is_drawn(paper_run):
    curves = paper_run.frames["curves"].query("bin == 4")
    figure = failure_by_position(curves, paper_run.frames["labels"])
    assert line_named(figure.axes[0], "forced token").get_xydata().shape == (1, 2)
    failure_by_score(curves, paper_run.document["scores"], columns=2)


def test_the_ordinate_holds_every_band(any_run, drawn):
    curves = any_run.frames["curves"]
    shown = curves[curves["series"].isin([FAILURE_SERIES, CONTROL_SERIES])]
    low, high = drawn["failure_by_position"].axes[0].get_ylim()
    assert low <= 0 and (shown.empty or high >= shown[["y", "hi"]].astype(float).max().max())


def test_colours_in_the_page_are_roles_and_no_address_is_left(paper_drawings):
    for name, text in paper_drawings.items():
        assert not re.search(r"https?:|xmlns|<metadata|<!DOCTYPE|<script", text), name
        fixed = set(re.findall(r"#[0-9a-fA-F]{6}\b", text))
        assert not fixed, f"{name} has colours that do not follow the theme: {fixed}"
        assert set(re.findall(r"var\(--fig-(\w+)\)", text)) <= set(style.ROLES)


def test_figures_share_no_identifier(paper_drawings):
    names = []
    for text in paper_drawings.values():
        own = re.findall(r'\bid="([^"]+)"', text)
        used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)
        assert {a or b for a, b in used} <= set(own)
        names += own
    assert names and len(names) == len(set(names))


def test_a_description_is_escaped_in_an_attribute(paper_figures):
    text = inline_svg(paper_figures["advantage_by_position"], "x", '"><script>')
    assert ElementTree.fromstring(text).attrib["aria-label"] == '"><script>'


def test_drawing_leaves_the_users_settings_alone(paper_run):
    before = dict(mpl.rcParams)
    failure_by_position(paper_run.frames["curves"], paper_run.frames["labels"])
    assert dict(mpl.rcParams) == before


def test_the_curves_that_statistics_give_are_the_ones_drawn():
    rng = np.random.default_rng(0)
    r, failure, control = rng.random((3, 40))
    problems = np.repeat(np.arange(8), 5)
    kept = {"resamples": 100, "level": 0.95, "seed": 0, "max_dropped_share": 0.1}
    rows = failure_curves(
        r, failure, control, {name: rng.random(40) for name in ("h_trunc", "mi")}, problems,
        bins=4, **kept,
    )  # fmt: skip
    given = {row["series"] for row in rows}
    expected = {FAILURE_SERIES, CONTROL_SERIES, *MONOTONE_SERIES}
    expected |= {SCORE_SERIES.format(name=name) for name in ("one_minus_r", "h_trunc", "mi")}
    assert expected <= given and "one_minus_r" in SCORES
    shares = rng.dirichlet(np.ones(3), (2, 40))
    rows = advantage_curve(r, *shares, rng.random((40, 3)), problems, bins=4, **kept)
    assert {row["series"] for row in rows} == {"teacher_advantage_by_r"}
