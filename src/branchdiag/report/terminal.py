"""What the terminal shows: the summary of a run, its status, one candidate.

Takes plain dictionaries and a Rich console. Fits 80 columns, needs no colour, and falls back to
ASCII where the terminal's encoding asks for it. Model text is untrusted: it never reaches Rich's
markup, and control sequences are shown instead of sent. Computes nothing and reads no file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import fill
from typing import TypedDict

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from branchdiag.report.candidate import Branch, CandidateView
from branchdiag.report.console import cells, plain_table, say
from branchdiag.report.document import Report, ScoreEntry, primary
from branchdiag.report.leaderboard import LeaderboardGroup, ranked
from branchdiag.report.wording import (
    MISSING,
    count,
    finding_parts,
    interval,
    label_words,
    number,
    p_value,
    percent,
    plural,
    seconds,
    status_words,
    token_text,
    visible,
)

BAR_CELLS = 17
SHOWN_CAVEATS = 3
ANSWER_CHARACTERS = 40


class PhaseStatus(TypedDict):
    """Where a phase stands."""

    letter: str
    name: str
    state: str  # done, partial, waiting, failed, or outdated
    done: int
    total: int | None  # None: not known before the phases that it reads
    failed: int
    seconds: float | None


class RunStatus(TypedDict):
    """Where a run stands."""

    name: str
    directory: str
    model: str
    protocol: str
    holder: str | None  # who holds the run now
    phases: list[PhaseStatus]
    next: str | None  # the command that goes on
    report: str | None


def safe_text(text: str) -> str:
    """Text that may stand in Rich's markup: control sequences shown, square brackets literal."""
    return escape(visible(text))


def print_summary(document: Report, console: Console) -> None:
    """The counts, the table of scores, what limits them, the finding and the report's path."""
    counts = document["counts"]
    say(
        console,
        f"{count(counts['correct_spines'])} of {plural(counts['problems'], 'problem')} solved, "
        f"{plural(counts['candidates'], 'candidate')} in "
        f"{plural(counts['usable_problems'], 'usable problem')}: "
        f"{count(counts['diversity'])} diversity, {count(counts['real_uncertain'])} "
        f"real-uncertain, {count(counts['gray'])} gray"
        + (f", {count(counts['unlabelled'])} unlabelled" if counts["unlabelled"] else ""),
    )
    console.print()
    shown = primary(document["scores"])
    if shown:
        console.print(_score_table(shown, console))
        for line in _notes(document["scores"]):
            say(console, line, style="dim")
        console.print()
    say(console, "against the control", style="bold")
    for line in _against_control(document):
        say(console, f"  {line}")
    for group in document.get("leaderboard", []):
        print_leaderboard(group, console)
    _print_caveats(document["caveats"], console)
    console.print()
    statement, evidence = finding_parts(document["finding"])
    words = f"{status_words(document['finding_status'])}: {statement}"
    say(console, words, (f" {evidence}" if evidence else "", ""), style="bold")
    if "overall" in document:
        say(console, document["overall"]["sentence"])
    if document["report"]:
        say(console, f"report: {document['report']}", wrap=False)


def print_leaderboard(group: LeaderboardGroup, console: Console, shown: int = 6) -> None:
    """The first entries with their paired differences from 1 - r, and what they stand on."""
    console.print()
    entries = ranked(group)
    about = f"  {group['description']}; the first of {group['n_compared']}"
    say(console, "leaderboard", (about if len(entries) > shown else "", "dim"), style="bold")
    if entries:
        table = plain_table()
        for name, justify in (("", "right"), ("signal", "left"), ("AUROC", "left"),
                              ("interval", "left"), ("less 1-r", "right"),
                              ("all together", "left")):  # fmt: skip
            table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        for entry in entries[:shown]:
            table.add_row(
                *cells(
                    console,
                    str(entry["rank"]),
                    entry["name"],
                    number(entry["auroc"]),
                    interval(entry["ci_low"], entry["ci_high"]),
                    number(entry["vs_reference"]) if entry["name"] != group["reference"] else "",
                    interval(entry["vs_reference_low"], entry["vs_reference_high"])
                    if entry["name"] != group["reference"]
                    else "",
                )
            )
        console.print(table)
    for sentence in group["sentences"]:
        say(console, fill(sentence, console.width - 1), style="dim")


def print_status(status: RunStatus, console: Console) -> None:
    """The phases of a run with what each has done, who holds it, and how to go on."""
    about = f"  {status['model']}, protocol {status['protocol']}"
    say(console, status["name"], (about, ""), style="bold")
    table = plain_table()
    for name, justify in (("phase", "left"), ("state", "left"), ("done", "right"),
                          ("failed", "right"), ("time", "right")):  # fmt: skip
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for phase in status["phases"]:
        total = "?" if phase["total"] is None else count(phase["total"])
        table.add_row(
            *cells(
                console,
                f"{phase['letter']} {phase['name']}",
                phase["state"],
                f"{count(phase['done'])} of {total}",
                count(phase["failed"]) if phase["failed"] else "",
                "" if phase["seconds"] is None else seconds(phase["seconds"]),
            )
        )
    console.print(table)
    if status["holder"]:
        say(console, f"held by {status['holder']}")
    if status["next"]:
        say(console, f"go on with: {status['next']}", wrap=False)
    if status["report"]:
        say(console, f"report: {status['report']}", wrap=False)


def print_candidate(view: CandidateView, console: Console) -> None:
    """The spine around the position, the branches with both probabilities, every continuation."""
    about = (
        f"  {label_words(view['label'])}, r = {number(view['r'])}, "
        f"h_trunc = {number(view['h_trunc'], 3)} nats, gold answer {view['gold_answer']}"
    )
    say(console, view["candidate_id"], (about, ""), style="bold")
    console.print()
    say(console, view["problem"], style="dim")
    console.print()
    token = (f"[{token_text(view['token'])}]", "bold reverse")
    say(console, f"…{view['before']}", token, (f"{view['after']}…", "dim"))
    console.print()
    console.print(_branch_table(view, console))
    if not view["continuations"]:
        return
    arms = [*view["children"], *([view["control"]] if view["control"] else [])]
    names = {branch["arm"]: _branch_name(branch) for branch in arms}
    table = plain_table()
    for name, justify in (("branch", "left"), ("#", "right"), ("graded", "left"),
                          ("answer", "left"), ("tokens", "right")):  # fmt: skip
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for item in view["continuations"]:
        answer = "no box" if item["answer"] is None else visible(item["answer"], keep="")
        if len(answer) > ANSWER_CHARACTERS:
            answer = answer[: ANSWER_CHARACTERS - 1] + "…"
        graded = {True: "right", False: "wrong", None: "ungraded"}[item["correct"]]
        tokens = count(item["n_tokens"]) + (" cut" if item["truncated"] else "")
        table.add_row(
            *cells(
                console,
                names.get(item["arm"], item["arm"]),
                str(item["sample"]),
                graded,
                answer,
                tokens,
            )
        )
    console.print()
    console.print(table)


def _score_table(entries: Sequence[ScoreEntry], console: Console) -> Table:
    table = plain_table()
    columns = [("score", "left"), ("", "left"), ("AUROC", "left"), ("interval", "left")]
    wide = console.width >= 78
    if wide:
        columns.append(("0      .5       1", "left"))
    columns += [("within", "right"), ("AUPRC", "right"), ("paper", "right")]
    for name, justify in columns:
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for entry in entries:
        texts = [
            entry["name"],
            "+" if entry["sign"] > 0 else "−",
            number(entry["auroc"]),
            interval(entry["ci_low"], entry["ci_high"]),
        ]
        if wide:
            texts.append(bar(entry))
        texts += [
            number(entry["stratified_auroc"]),
            number(entry["auprc"], 3),
            number(entry["paper_compat"]["auroc"]),
        ]
        table.add_row(*cells(console, *texts))
    return table


def bar(entry: ScoreEntry) -> str:
    """An AUROC between 0 and 1 as a line of cells: the interval, the point, and a mark at 0.5."""
    cells = [" "] * BAR_CELLS

    def cell(value: float) -> int:
        return round(min(1.0, max(0.0, value)) * (BAR_CELLS - 1))

    cells[cell(0.5)] = "┊"
    if entry["auroc"] is None:
        return "".join(cells)
    if entry["ci_low"] is not None and entry["ci_high"] is not None:
        for index in range(cell(entry["ci_low"]), cell(entry["ci_high"]) + 1):
            cells[index] = "━"
    cells[cell(entry["auroc"])] = "●"
    return "".join(cells)


def _notes(entries: Sequence[ScoreEntry]) -> Iterable[str]:
    """Why figures are missing, a line a reason, and which rows are left out as aliases."""
    reasons: dict[str, list[str]] = {}
    for entry in primary(entries):
        if entry["reason"]:
            reasons.setdefault(entry["reason"], []).append(entry["name"])
    whole = len(primary(entries))
    for reason, names in reasons.items():
        yield f"{'every score' if len(names) == whole > 1 else ', '.join(names)}: {reason}"
    for entry in entries:
        if entry["alias_of"]:
            yield f"{entry['name']} ranks the candidates as {entry['alias_of']} does"


def _against_control(document: Report) -> Iterable[str]:
    """What is known relative to the control, a line a figure."""
    slope = document["slope"]
    if slope["estimate"] is None:
        yield f"slope of d on r: missing ({slope['reason']})"
    elif slope["ci_low"] is None:
        yield f"slope of d on r: {number(slope['estimate'], 3)} (no interval: {slope['reason']})"
    else:
        ends = interval(slope["ci_low"], slope["ci_high"], 3)
        yield f"slope of d on r: {number(slope['estimate'], 3)} {ends}"
    first = next((e for e in document["scores_relative"] if e["name"] == "one_minus_r"), None)
    if first is not None and first["auroc"] is not None:
        null = f"{number(first['null_mean'])} under its null, p {_p(first['p'])}"
        yield f"relative AUROC of one_minus_r: {number(first['auroc'])} ({null})"
    control = document["control"]
    if control is not None:
        yield (
            f"real-uncertain where the control is viable: "
            f"{count(control['real_uncertain_where_control_viable'])} of "
            f"{count(document['counts']['real_uncertain'])}"
        )


def _p(p: float | None) -> str:
    text = p_value(p)
    return text if text.startswith("<") or text == MISSING else f"= {text}"


def _print_caveats(sentences: Sequence[str], console: Console) -> None:
    if not sentences:
        return
    console.print()
    for sentence in sentences[:SHOWN_CAVEATS]:
        say(console, fill(f"! {sentence}", console.width - 1, subsequent_indent="  "), style="dim")
    left = len(sentences) - SHOWN_CAVEATS
    if left > 0:
        say(console, f"  and {plural(left, 'more caveat')} in the report", style="dim")


def _branch_name(branch: Branch) -> str:
    return token_text(branch["text"]) if branch["arm"] != "control" else "nothing forced"


def _branch_table(view: CandidateView, console: Console) -> Table:
    table = plain_table()
    for name, justify in (("forced", "left"), ("", "left"), ("teacher", "right"),
                          ("student", "right"), ("succeed", "right"), ("", "left")):  # fmt: skip
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    branches = [*view["children"], *([view["control"]] if view["control"] else [])]
    for branch in branches:
        won, of = branch["successes"], branch["samples"]
        done = won is not None and of
        table.add_row(
            *cells(
                console,
                _branch_name(branch),
                "spine" if branch["is_spine"] else "",
                number(branch["teacher"], 3) if branch["teacher"] is not None else "",
                number(branch["student"], 3) if branch["student"] is not None else "",
                f"{won} of {of}" if done else MISSING,
                _meter(won, of) if done and won is not None and of is not None else "",
            )
        )
    return table


def _meter(successes: int, samples: int) -> str:
    filled = round(12 * successes / samples)
    return "█" * filled + "░" * (12 - filled) + f" {percent(successes / samples)}"
