"""The page: one self-contained HTML file that a person wants to read.

Reads the report document, the frames behind the figures, the figures and a few candidates; writes
one file without a script and without any address. Model text is untrusted: Jinja escapes
everything, and characters that steer a display are shown instead of obeyed. Every number comes from
the document and stands in a `<data>` element with its full precision. Computes no statistic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from branchdiag.protocol import Protocol
from branchdiag.report import wording
from branchdiag.report.candidate import CandidateView
from branchdiag.report.document import Report, ScoreEntry, common_reason
from branchdiag.report.figures import (
    ADVANTAGE_SERIES,
    CONTROL_SERIES,
    DIFFERENCE_SERIES,
    FAILURE_SERIES,
    has_series,
    series,
)
from branchdiag.report.sections import SECTIONS
from branchdiag.report.style import NARROW, Rendered, inline_svg
from branchdiag.store.atomic import write_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TEMPLATE = "template.html.j2"


def write_report(
    document: Report,
    frames: Mapping[str, pd.DataFrame],
    figures: Mapping[str, Figure],
    path: Path,
    *,
    examples: Sequence[CandidateView] = (),
    rendered: Mapping[str, Rendered] | None = None,
) -> None:
    """Write the page to `path`; a reader never sees half of it.

    Args:
        document: the report document, caveats included.
        frames: as for `figures.draw_all`; the tables of numbers under the figures come from
            `curves`.
        figures: what `figures.draw_all` gave; one that is not there is left out.
        path: the file to write or replace.
        examples: a few candidates to show with the spine around them.
        rendered: what `style.render` made of the figures, where that is known.
    """
    write_text(path, render_page(document, frames, figures, examples=examples, rendered=rendered))


def render_page(
    document: Report,
    frames: Mapping[str, pd.DataFrame],
    figures: Mapping[str, Figure],
    *,
    examples: Sequence[CandidateView] = (),
    rendered: Mapping[str, Rendered] | None = None,
) -> str:
    """The page as text. See `write_report`."""
    curves = frames["curves"]
    statement, evidence = wording.finding_parts(document["finding"])
    sections = document.get("sections", {})
    alternatives = _alternative_texts(curves)
    for command, section in sections.items():
        alternatives |= SECTIONS[command].describe(section)
    drawings = {  # our own drawings: the one thing that the template does not escape
        name: Markup(
            inline_svg(
                figure,
                name,
                alternatives.get(name, wording.figure_title(name)),
                None if rendered is None else rendered[name].svg,
            )
        )
        for name, figure in figures.items()
    }
    return (
        environment()
        .get_template(TEMPLATE)
        .render(
            doc=document,
            counts=document["counts"],
            drawings=drawings,
            narrow=NARROW,
            score_drawings=[name for name in figures if name.startswith("score_")],
            tables={
                "failure_by_position": _numbers(
                    curves, {"forced": FAILURE_SERIES, "control": CONTROL_SERIES}
                ),
                "difference_by_position": _numbers(curves, {"d": DIFFERENCE_SERIES}),
                "advantage_by_position": _numbers(curves, {"advantage": ADVANTAGE_SERIES}),
            },
            missing=common_reason(document["scores"]),
            missing_relative=common_reason(document["scores_relative"]),
            statement=statement,
            evidence=evidence,
            backend=_backend_rows(document["backend"]),
            teacher_sees=wording.teacher_sees(
                document["settings"].get("teacher", {}).get("context")
            ),
            label_shares=_label_shares(document),
            settings=setting_rows(document["settings"]),
            examples=examples,
            parts=[(SECTIONS[command], section) for command, section in sections.items()],
            level=wording.percent(document["settings"].get("report", {}).get("level", 0.95)),
        )
    )


def environment() -> Environment:
    """Jinja as every page uses it: all is escaped, what is undefined is an error, and characters
    that steer a display are shown."""
    made = Environment(
        loader=PackageLoader("branchdiag.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_harmless,
    )
    made.filters.update(
        capitalize_first=lambda text: text[:1].upper() + text[1:],
        count=wording.count,
        interval=wording.interval,
        label_words=wording.label_words,
        number=wording.number,
        p_value=wording.p_value,
        percent=wording.percent,
        phase_name=lambda letter: wording.PHASE_NAMES.get(letter, letter),
        place=_place,
        score_label=wording.score_label,
        seconds=wording.seconds,
        status_words=wording.status_words,
        teacher_sees=wording.teacher_sees,
        token_text=wording.token_text,
    )
    made.tests["primary"] = _is_primary
    return made


def _harmless(value: Any) -> Any:
    """What every expression of the template passes through before it is escaped."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return wording.visible(value)
    return value


def _is_primary(entry: ScoreEntry) -> bool:
    return entry["alias_of"] is None


def _place(value: float) -> str:
    """Where an AUROC lies along a bar, as a CSS length; the bar's ends are 0 and 1."""
    return f"{100 * min(1.0, max(0.0, value)):.2f}%"


def _numbers(curves: pd.DataFrame, columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """The points of some series as rows of a table: which, x, y, lo, hi, n."""
    rows = []
    for what, name in columns.items():
        if has_series(curves, name):
            rows += [
                {
                    "what": what,
                    "x": float(point["x"]),
                    "y": float(point["y"]),
                    "lo": _finite(point["lo"]),
                    "hi": _finite(point["hi"]),
                    "n": int(point["n"]),
                }
                for point in series(curves, name).to_dict("records")
            ]
    return rows


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and value == value else None


def _alternative_texts(curves: pd.DataFrame) -> dict[str, str]:
    """What a line chart says to someone who cannot see it: where its lines begin and end."""

    def ends(name: str, what: str, share: bool) -> str | None:
        if not has_series(curves, name):
            return None
        points = series(curves, name)
        (x0, y0), (x1, y1) = (
            (float(points.x.iloc[end]), float(points.y.iloc[end])) for end in (0, -1)
        )
        write = wording.percent if share else wording.number
        return (
            f"{what}: {write(y0)} at r = {wording.number(x0)}, {write(y1)} at r = "
            f"{wording.number(x1)}."
        )

    def joined(title: str, parts: Iterable[str | None]) -> str:
        return " ".join([title, *(part for part in parts if part)])

    return {
        "failure_by_position": joined(
            "Failure of continuations against position.",
            [
                ends(FAILURE_SERIES, "After a forced token", True),
                ends(CONTROL_SERIES, "With nothing forced", True),
            ],
        ),
        "difference_by_position": joined(
            "Viability after a forced token less that of the control, against position.",
            [ends(DIFFERENCE_SERIES, "Mean of a bin", False)],
        ),
        "advantage_by_position": joined(
            "The teacher's advantage against position.",
            [ends(ADVANTAGE_SERIES, "Mean of a bin", False)],
        ),
    }


def _backend_rows(backend: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Who wrote tokens, as rows; phases that were served alike share one."""
    rows: dict[str, list[str]] = {}
    for key, value in backend.items():
        text = setting_text(value)
        if isinstance(value, Mapping):
            text = ", ".join(f"{name} {setting_text(part)}" for name, part in value.items())
        rows.setdefault(text, []).append(key)
    return [(", ".join(keys), text) for text, keys in rows.items()]


def _label_shares(document: Report) -> list[dict[str, Any]]:
    counts = document["counts"]
    total = counts["candidates"]
    return [
        {"label": label, "n": n, "share": n / total if total else 0.0}
        for label, n in (
            ("real_uncertain", counts["real_uncertain"]),
            ("gray", counts["gray"]),
            ("diversity", counts["diversity"]),
            ("unlabelled", counts["unlabelled"]),
        )
        if n or label != "unlabelled"
    ]


def setting_rows(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings as rows (section, key, value, the paper's value where it differs)."""
    paper = _flat(Protocol().model_dump(mode="json"))
    rows = []
    for key, value in _flat(settings).items():
        section, _, name = key.rpartition(".")
        differs = key in paper and paper[key] != value
        rows.append(
            {
                "section": section,
                "key": name,
                "value": setting_text(value),
                "paper": setting_text(paper[key]) if differs else None,
            }
        )
    return rows


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def setting_text(value: Any) -> str:
    """A setting's value as a reader sees it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
