"""The page: one file, well formed, harmless, with the finding first and the document's numbers."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest

import branchdiag.report
from branchdiag.protocol import Protocol
from branchdiag.report.page import render_page, setting_rows, write_report
from branchdiag.report.wording import count, number, p_value, score_label

CSS = Path(branchdiag.report.__file__).with_name("page.css").read_text(encoding="utf-8")


def render(run, document=None, examples=None):
    document = run.document if document is None else document
    return render_page(
        document, run.frames, {}, examples=run.examples if examples is None else examples
    )


@pytest.fixture(scope="session")
def paper_page(paper_run, parse):
    return parse(render(paper_run))


def section(page, name):
    return next(node for node in page.all("section") if node.attributes.get("id") == name)


def with_class(node, name):
    return [n for n in node.all() if name in n.attributes.get("class", "").split()]


def test_every_page_is_well_formed_and_asks_nothing_of_the_network(any_page, parse):
    page = parse(any_page)
    for node in page.all():
        assert node.tag not in {"script", "link", "iframe", "img", "object", "form"}
        for name, value in node.attributes.items():
            assert not name.startswith("on"), name
            if name in {"href", "src", "xlink:href"}:
                assert value.startswith(("#", "data:image/png;base64,")), value
    assert not re.search(r"https?://|//[a-z]|@import|url\((?!#)", any_page)
    policy = next(n for n in page.all("meta") if "http-equiv" in n.attributes)
    assert "default-src 'none'" in policy.attributes["content"]


def test_identifiers_are_unique_and_every_link_leads_somewhere(any_page, parse):
    page = parse(any_page)
    names = [n.attributes["id"] for n in page.all() if "id" in n.attributes]
    assert len(names) == len(set(names))
    links = [n.attributes["href"][1:] for n in page.all("a")]
    assert links and set(links) <= set(names)


def test_the_finding_comes_before_anything_else(any_run, any_page, parse):
    body = parse(any_page).all("body")[0]
    assert body.text().startswith(" ".join(any_run.document["finding"].split()))
    assert body.all("h1")[0].text() == " ".join(any_run.document["finding"].split())


def test_every_table_has_headers_and_every_drawing_words(any_page, parse):
    page = parse(any_page)
    for table in page.all("table"):
        headers = table.all("th")
        assert headers and all(h.attributes.get("scope") in {"col", "row"} for h in headers)
    for drawing in page.all("svg"):
        assert drawing.attributes["role"] == "img" and len(drawing.attributes["aria-label"]) > 10
    for figure in page.all("figure"):
        assert figure.all("svg")


def test_hostile_text_is_shown_and_not_obeyed(paper_run, parse, hostile):
    document = copy.deepcopy(paper_run.document)
    document["finding"] = f"Finding {hostile}: and {hostile}"
    document["run"] |= {"name": hostile, "command": hostile}
    document["model"] |= {"student": hostile, "teacher": hostile + "2"}
    document["caveats"] = [hostile]
    document["scores"][2] |= {"auroc": None, "reason": hostile, "name": hostile}
    document["sensitivity"][0]["description"] = hostile
    document["attrition"][0]["note"] = hostile
    document["settings"]["spine"]["prompt"] = hostile
    document["versions"][hostile] = hostile
    document["backend"] = {"E": {"name": hostile}}
    examples = copy.deepcopy(paper_run.examples)
    for view in examples:
        for key in ("problem", "before", "token", "after", "candidate_id"):
            view[key] = hostile
        for branch in view["children"]:
            branch["text"] = hostile
    text = render(paper_run, document, examples)
    assert "<script" not in text and "\x1b" not in text and "\u202e" not in text
    page = parse(text)
    assert not page.all("script")
    shown = page.text()
    assert shown.count('<script>alert("x")</script>') > 20
    assert "⟨U+001B⟩[31mred" in shown and "⟨U+202E⟩gnp.exe" in shown
    assert "[bold]not bold[/bold]" in shown


def test_every_number_is_the_documents(paper_page):
    known = {count, number, p_value, lambda v: number(v, 3)}
    nodes = paper_page.all("data")
    assert len(nodes) > 150
    for node in nodes:
        value = json.loads(node.attributes["value"])
        assert any(_try(write, value) == node.text() for write in known), node


def _try(write, value):
    try:
        return write(value)
    except (TypeError, ValueError):
        return None


def values_of(row):
    return [json.loads(node.attributes["value"]) for node in row.all("data")]


def test_the_table_of_scores_holds_each_entry_in_order(paper_run, paper_page):
    rows = section(paper_page, "scores").all("tbody")[0].all("tr")
    assert len(rows) == len(paper_run.document["scores"])
    for row, entry in zip(rows, paper_run.document["scores"], strict=True):
        header = row.all("th")[0].text()
        if entry["alias_of"]:
            assert header == entry["name"] and "as one_minus_r does" in row.text()
            continue
        sign = "+" if entry["sign"] > 0 else "−"
        assert header == f"{score_label(entry['name'])}{sign} {entry['name']}"
        compat = entry["paper_compat"]
        expected = [entry[key] for key in ("auroc", "ci_low", "ci_high", "stratified_auroc")]
        expected += [entry[key] for key in ("stratified_ci_low", "stratified_ci_high", "auprc")]
        expected += [entry["auprc_ci_low"], entry["auprc_ci_high"]]
        expected += [compat["auroc"], compat["ci_low"], compat["ci_high"]]
        assert values_of(row) == expected
        (dot,) = with_class(row, "dot")
        assert f"left:{100 * entry['auroc']:.2f}%" in dot.attributes["style"]


def test_the_relative_table_has_each_null_beside_its_figure(paper_run, paper_page):
    rows = section(paper_page, "relative").all("tbody")[0].all("tr")
    entries = [e for e in paper_run.document["scores_relative"] if not e["alias_of"]]
    for row, entry in zip(rows, entries, strict=True):
        keys = ("auroc", "ci_low", "ci_high", "null_mean", "p", "n_positive")
        assert values_of(row) == [entry[key] for key in keys]
        (null,) = with_class(row, "null")
        assert f"left:{100 * entry['null_mean']:.2f}%" in null.attributes["style"]


def test_counts_stand_in_the_tiles(paper_run, paper_page):
    tiles = {t.all("dt")[0].text(): values_of(t) for t in with_class(paper_page, "tile")}
    counts = paper_run.document["counts"]
    assert tiles["problems"] == [counts["problems"]]
    assert tiles["correct spines"] == [counts["correct_spines"]]
    assert tiles["candidates"] == [counts["candidates"], counts["usable_problems"]]
    assert tiles["real-uncertain"] == [counts["real_uncertain"], 4]
    slope = paper_run.document["slope"]
    assert tiles["slope of d on r"] == [slope["estimate"], slope["ci_low"], slope["ci_high"]]


def test_attrition_sources_and_sensitivity_are_there(paper_run, paper_page):
    attrition, sources, sensitivity = section(paper_page, "counts").all("table")
    stages = paper_run.document["attrition"]
    assert [values_of(r)[0] for r in attrition.all("tbody")[0].all("tr")] == [
        s["n"] for s in stages
    ]
    keys = ("problems", "correct_spines", "usable_problems", "candidates")
    keys += ("diversity", "gray", "real_uncertain")
    for row, source in zip(
        sources.all("tbody")[0].all("tr"), paper_run.document["per_source"], strict=True
    ):
        assert row.all("th")[0].text() == source["source"]
        assert values_of(row) == [source[key] for key in keys]
    keys = ("diversity", "gray", "real_uncertain", "unlabelled", "auroc", "ci_low", "ci_high")
    for row, label in zip(
        sensitivity.all("tbody")[0].all("tr"), paper_run.document["sensitivity"], strict=True
    ):
        assert values_of(row) == [label[key] for key in keys]


def test_every_caveat_is_a_point_of_the_list(any_run, any_page, parse):
    points = section(parse(any_page), "caveats").all("li")
    assert [p.text() for p in points] == [" ".join(c.split()) for c in any_run.document["caveats"]]


def test_a_missing_number_shows_its_reason(make, parse):
    run = make()
    run.document["scores"][1] |= {
        "auroc": None, "ci_low": None, "ci_high": None, "reason": "all equal",
    }  # fmt: skip
    run.document["scores"][2] |= {"ci_low": None, "ci_high": None, "reason": "no spread"}
    rows = section(parse(render(run)), "scores").all("tbody")[0].all("tr")
    assert "not computed: all equal" in rows[1].text() and not rows[1].all("data")
    assert "no interval: no spread" in rows[2].text()
    assert "open" in with_class(rows[2], "dot")[0].attributes["class"]


def test_where_nothing_can_be_told_apart_one_reason_stands_for_the_table(make, parse):
    page = parse(render(make(positives=0)))
    told = section(page, "scores").text()
    assert "Not computed: only one class among the labelled candidates." in told
    assert not section(page, "scores").all("table")


def test_examples_show_each_branch_with_its_counts(paper_run, paper_page):
    articles = section(paper_page, "candidates").all("article")
    for article, view in zip(articles, paper_run.examples, strict=True):
        rows = article.all("tbody")[0].all("tr")
        for row, branch in zip(rows, view["children"], strict=False):
            assert f"{branch['successes']} of {branch['samples']}" in row.text()
            assert values_of(row) == [branch["teacher"], branch["student"]]
        assert rows[-1].text().startswith("nothing forced")
        assert article.all("mark")[0].text() == view["token"].strip()


def test_settings_that_differ_from_the_paper_are_told_apart():
    settings = Protocol().model_dump(mode="json")
    assert all(row["paper"] is None for row in setting_rows(settings))
    settings["continuation"]["rollouts"] = 12
    settings["spine"]["thinking"] = False
    changed = {
        f"{row['section']}.{row['key']}": (row["value"], row["paper"])
        for row in setting_rows(settings)
        if row["paper"] is not None
    }
    assert changed == {"continuation.rollouts": ("12", "6"), "spine.thinking": ("off", "on")}


def test_the_page_is_written_whole_over_what_was_there(paper_run, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old", encoding="utf-8")
    write_report(paper_run.document, paper_run.frames, {}, path, examples=paper_run.examples)
    assert path.read_text(encoding="utf-8") == render(paper_run)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_lone_surrogate_does_not_cost_the_page(paper_run, tmp_path):
    examples = copy.deepcopy(paper_run.examples)
    examples[0]["before"] = "\ud800"
    write_report(paper_run.document, paper_run.frames, {}, tmp_path / "r.html", examples=examples)
    assert "⟨U+D800⟩" in (tmp_path / "r.html").read_text(encoding="utf-8")


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_contrasts_with_its_ground_in_both_themes(theme):
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", CSS.split("prefers-color-scheme")[theme]))
    for name in ("ink", "muted", "child", "control", "diversity", "relative"):
        for ground in ("paper", "wash"):
            pair = sorted([luminance(colours[name]), luminance(colours[ground])])
            contrast = (pair[1] + 0.05) / (pair[0] + 0.05)
            assert contrast >= 4.5, f"{name} on {ground}: {contrast:.2f}"


def test_the_themes_of_page_and_figures_agree():
    from branchdiag.report.style import ROLES

    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", CSS.split("prefers-color-scheme")[0]))
    page = {role: colours["line" if role == "grid" else role] for role in ROLES}
    assert page == ROLES
