"""Signals of a spine against whole logits of the models' own forward, without chunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from branchdiag.scoring import distributions
from branchdiag.scoring.spine_signals import spine_signals
from branchdiag.signals import SIGNALS, SpineLogprobs, View

PROMPT, TEACHER_PROMPT = [5, 6, 7], [5, 6, 7, 8, 9]


def whole(model, prompt, spine, temperature):
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*prompt, *spine]])).logits[0].double()
    return torch.log_softmax(logits[len(prompt) - 1 : -1] / temperature, -1)


@pytest.fixture
def models(load_tiny):
    return load_tiny("qwen3"), load_tiny("qwen3", seed=1)


def test_signals_are_those_of_whole_logits(models, token_ids) -> None:
    student, teacher = models
    positions = [0, 3, 17, 58]
    found = spine_signals(
        student, teacher, PROMPT, TEACHER_PROMPT, token_ids, positions, list(SIGNALS.values()),
        temperature=0.7, chunk_positions=16,
    )  # fmt: skip
    log_q = whole(teacher, TEACHER_PROMPT, token_ids, 0.7)
    log_p = whole(student, PROMPT, token_ids, 0.7)
    tokens, at = torch.tensor(token_ids), torch.tensor(positions)
    own = [side.gather(1, tokens[:, None])[:, 0] for side in (log_q, log_p)]
    view = View(log_q[at], log_p[at], tokens[at], at, SpineLogprobs(*own, log_q.amax(-1)))
    assert found.keys() == SIGNALS.keys()
    for name, values in found.items():
        expected = SIGNALS[name].measure(view).double().numpy()
        assert values == pytest.approx(expected, rel=2e-4, abs=2e-4), name


def test_chunks_and_blocks_change_nothing(models, token_ids, monkeypatch) -> None:
    student, teacher = models

    def measured(chunk):
        return spine_signals(
            student, teacher, PROMPT, TEACHER_PROMPT, token_ids, [1, 40, 41],
            list(SIGNALS.values()), temperature=1.0, chunk_positions=chunk,
        )  # fmt: skip

    one = measured(1000)
    monkeypatch.setitem(distributions.BLOCK_ELEMENTS, "cpu", 1)
    for name, values in measured(2).items():
        assert values == pytest.approx(one[name], rel=1e-5, abs=1e-5), name


def test_local_signals_alone_never_look_at_the_rest_of_the_spine(models, token_ids) -> None:
    student, teacher = models
    local = [s for s in SIGNALS.values() if not s.whole_spine]
    arguments = {"temperature": 1.0, "chunk_positions": 8}
    alone = spine_signals(
        student, teacher, PROMPT, TEACHER_PROMPT, token_ids[:21], [20], local, **arguments
    )
    among = spine_signals(
        student, teacher, PROMPT, TEACHER_PROMPT, token_ids, [20], local, **arguments
    )
    assert alone.keys() == {s.name for s in local}
    for name, values in alone.items():
        assert values == pytest.approx(among[name], rel=1e-4, abs=1e-5), name


def test_a_share_without_a_gap_is_nan_and_no_positions_give_no_values(models, token_ids) -> None:
    student, _ = models
    chosen = [SIGNALS["akl_head_share"], SIGNALS["iw_opd_share"]]
    same = spine_signals(
        student, student, PROMPT, PROMPT, token_ids, [4], chosen,
        temperature=1.0, chunk_positions=8,
    )  # fmt: skip
    assert np.isnan(same["akl_head_share"]).all() and same["iw_opd_share"].tolist() == [0.0]
    none = spine_signals(
        student, student, PROMPT, PROMPT, token_ids, [], chosen, temperature=1.0, chunk_positions=8
    )
    assert [len(values) for values in none.values()] == [0, 0]
    with pytest.raises(ValueError, match="inside the spine"):
        spine_signals(
            student, student, PROMPT, PROMPT, token_ids, [60], chosen,
            temperature=1.0, chunk_positions=8,
        )  # fmt: skip
