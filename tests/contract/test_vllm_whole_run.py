"""The whole run on vLLM's own engine, and Phase E of one run by both engines side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from branchdiag.phases import e_continue, f_label
from branchdiag.phases.base import Done
from branchdiag.pipeline.verification import context_of_run
from branchdiag.protocol import LabelSettings
from branchdiag.store.run import RunDirectory
from tests.command_line import branchdiag

pytestmark = pytest.mark.vllm
ARGUMENTS = (
    "--limit=30",
    "--set=continuation.rollouts=6",
    "--set=report.resamples=300",
    "--set=report.permutations=200",
    "--progress=plain",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("agreement")
    ended = branchdiag("run-all", *ARGUMENTS, "--engine=transformers", "--out=run", cwd=cwd)
    assert ended.status == 0, ended.err
    return cwd / "run"


def test_the_whole_run_completes_on_vllm(run: Path) -> None:
    ended = branchdiag(
        "run-all", *ARGUMENTS, "--engine=vllm", "--out=other", "--json", cwd=run.parent
    )
    assert ended.status == 0, ended.err
    document = ended.json
    assert document["counts"]["candidates"] > 0
    assert document["backend"]["engine"] == "vllm"
    assert document["agreement"]["argmax"] > 0.99
    one, other = RunDirectory.open(run), RunDirectory.open(run.parent / "other")
    mine = {row["problem_id"]: row for row in one.table("spines").rows()}
    theirs = {row["problem_id"]: row for row in other.table("spines").rows()}
    assert mine.keys() == theirs.keys()
    for name, row in mine.items():
        assert row["prompt_ids"] == theirs[name]["prompt_ids"]
    # A greedy trace is the same unless two tokens are nearly level somewhere on the way.
    same = sum(row["spine_ids"] == theirs[name]["spine_ids"] for name, row in mine.items())
    assert same >= 0.9 * len(mine)


def test_phase_e_by_both_engines_has_the_same_prompts_seeds_and_viability(run: Path) -> None:
    directory = RunDirectory.open(run)
    stored = {
        (row["candidate_id"], row["arm"], row["sample"]): row
        for row in directory.table("continuations").rows()
    }
    with directory.lock():
        context = context_of_run(directory)
        context.engine_name = "vllm"
        outcomes = list(e_continue.work(context, e_continue.units(context)))
    assert all(isinstance(outcome, Done) for outcome in outcomes)
    made = {o.unit: o.rows["continuations"][0] for o in outcomes if isinstance(o, Done)}
    assert made.keys() == stored.keys()
    for key, row in made.items():
        for column in ("seed", "prompt_hash", "n_prompt_tokens"):
            assert row[column] == stored[key][column]
    differences, problems = viability_differences(context, stored, made)
    from branchdiag.stats.bootstrap import cluster_mean_interval

    estimate = cluster_mean_interval(
        differences, problems, resamples=2000, level=0.95, seed=0, max_dropped_share=0.1
    )
    print(f"mean difference in viability, vLLM less transformers: {estimate}")
    assert estimate.ci_low is not None and estimate.ci_high is not None
    assert estimate.ci_low <= 0.0 <= estimate.ci_high


def viability_differences(context, stored, made):
    """Mean viability of each candidate's arms on vLLM less that on transformers."""
    spines = {row["problem_id"]: row for row in context.run.table("spines").rows()}
    candidates = {row["candidate_id"]: row for row in context.run.table("candidates").rows()}
    settings = context.protocol.continuation
    assert context.protocol.label == LabelSettings()
    shares: dict[str, list[float]] = {name: [] for name in candidates}
    for sign, rows in ((-1.0, stored), (1.0, made)):
        by_candidate: dict[str, list] = {name: [] for name in candidates}
        for key, row in rows.items():
            by_candidate[key[0]].append(row)
        for name, group in by_candidate.items():
            spine = spines[candidates[name]["problem_id"]]
            prefix, texts = f_label.texts_of(
                context.tokenizer, candidates[name], spine, group, settings
            )
            right = [f_label.answers_of(t, prefix)[0] == spine["gold_answer"] for t in texts]
            shares[name].append(sign * float(np.mean(right)))
    names = sorted(shares)
    return (
        np.array([sum(shares[name]) for name in names]),
        np.array([candidates[name]["problem_id"] for name in names]),
    )
