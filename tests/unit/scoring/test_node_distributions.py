"""Supports and distributions of nodes against whole logits of the models' own forward."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from branchdiag.scoring import distributions
from branchdiag.scoring.node_distributions import node_distributions

PROMPT, TEACHER_PROMPT, OTHER = [5, 6, 7], [5, 6, 7, 8, 9], [9, 9, 4]
CHILDREN = {3: (11, 12, 13), 17: (250, 4), 40: (30, 31, 32)}


def whole(model, prompt, spine, temperature=1.0):
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*prompt, *spine]])).logits[0].double()
    return torch.softmax(logits[len(prompt) - 1 : -1] / temperature, -1).numpy()


@pytest.fixture
def models(load_tiny):
    return load_tiny("qwen3"), load_tiny("qwen3", seed=1)


def measured(student, teacher, token_ids, contexts, mask=None, **settings):
    width = student.config.vocab_size
    values = {
        "student_tokens": 3, "min_probability": 0.0, "temperature": 1.0, "chunk_positions": 128,
    }  # fmt: skip
    return node_distributions(
        student, teacher, PROMPT, contexts, token_ids, CHILDREN,
        np.ones(width, dtype=bool) if mask is None else mask, **(values | settings),
    )  # fmt: skip


def test_supports_and_masses_are_those_of_whole_softmaxes(models, token_ids) -> None:
    student, teacher = models
    p = whole(student, PROMPT, token_ids, 0.7)
    mask = np.ones(p.shape[1], dtype=bool)
    mask[::3] = False
    contexts = {"answer": TEACHER_PROMPT, "other": OTHER}
    found = measured(student, teacher, token_ids, contexts, mask, temperature=0.7)
    for (position, children), (support, views) in zip(CHILDREN.items(), found, strict=True):
        own = [t for t in np.argsort(-p[position], kind="stable").tolist() if mask[t]][:3]
        expected = list(dict.fromkeys([*children, *own, token_ids[position]]))
        assert list(support.token_ids) == expected
        assert support.sources[: len(children)] == ("child",) * len(children)
        assert support.student == pytest.approx(p[position][expected], rel=1e-4)
        assert support.excluded == pytest.approx(1 - p[position][expected].sum(), abs=1e-5)
        entropy = -sum(x * math.log(x) for x in p[position] if x > 0)
        assert support.entropy == pytest.approx(entropy, rel=1e-4)
        for name, prompt in contexts.items():
            q, view = whole(teacher, prompt, token_ids, 0.7)[position], views[name]
            assert view.teacher == pytest.approx(q[expected], rel=1e-3)
            assert view.excluded == pytest.approx(1 - q[expected].sum(), abs=1e-5)
            terms = q * (np.log(q) - np.log(p[position]))
            assert view.forward_kl == pytest.approx(terms.sum(), rel=1e-3)
            assert view.clipped_forward_kl == pytest.approx(terms.clip(max=0.05).sum(), rel=1e-3)
            reverse = (p[position] * (np.log(p[position]) - np.log(q))).sum()
            assert view.reverse_kl == pytest.approx(reverse, rel=1e-3)
            half = (p[position] + q) / 2
            jsd = (q * np.log(q / half)).sum() + (p[position] * np.log(p[position] / half)).sum()
            assert view.jsd == pytest.approx(jsd / 2, rel=1e-3)


def test_a_teacher_told_nothing_is_the_student_to_the_last_bit(models, token_ids) -> None:
    student, teacher = models
    found = measured(student, student, token_ids, {"none": PROMPT, "answer": TEACHER_PROMPT})
    for support, views in found:
        assert views["none"].teacher == support.student
        assert views["none"].excluded == support.excluded and views["none"].forward_kl == 0
        assert views["answer"].teacher != support.student
    other = measured(student, teacher, token_ids, {"none": PROMPT})
    assert all(views["none"].teacher != support.student for support, views in other)


def test_the_support_depends_on_the_student_alone(models, token_ids) -> None:
    student, teacher = models
    one = measured(student, teacher, token_ids, {"answer": TEACHER_PROMPT})
    two = measured(student, student, token_ids, {"none": PROMPT, "answer": OTHER})
    assert [support for support, _ in one] == [support for support, _ in two]


def test_chunks_and_blocks_change_nothing(models, token_ids, monkeypatch) -> None:
    student, teacher = models
    contexts = {"answer": TEACHER_PROMPT}
    one = measured(student, teacher, token_ids, contexts)
    monkeypatch.setitem(distributions.BLOCK_ELEMENTS, "cpu", 1)
    two = measured(student, teacher, token_ids, contexts, chunk_positions=2)
    for (a, seen), (b, again) in zip(one, two, strict=True):
        assert a.token_ids == b.token_ids and a.sources == b.sources
        assert a.student == pytest.approx(b.student, rel=1e-5)
        assert seen["answer"].teacher == pytest.approx(again["answer"].teacher, rel=1e-5)


def test_unlikely_tokens_of_the_student_stay_out_and_the_spines_stays_in(models, token_ids) -> None:
    student, teacher = models
    (first, *_) = measured(student, teacher, token_ids, {}, min_probability=1.0)
    assert first[0].token_ids == (11, 12, 13, token_ids[3])
    assert first[0].sources == ("child", "child", "child", "spine") and first[1] == {}
    (none, *_) = measured(student, teacher, token_ids, {}, student_tokens=0)
    assert none[0] == first[0]


def test_what_is_outside_is_refused(models, token_ids) -> None:
    student, teacher = models
    settings = {
        "student_tokens": 1, "min_probability": 0.0, "temperature": 1.0, "chunk_positions": 8,
    }  # fmt: skip
    mask = np.ones(student.config.vocab_size, dtype=bool)
    with pytest.raises(ValueError, match="inside the spine"):
        node_distributions(student, teacher, PROMPT, {}, token_ids, {99: (1,)}, mask, **settings)
    with pytest.raises(ValueError, match="outside the common vocabulary"):
        node_distributions(student, teacher, PROMPT, {}, token_ids, {3: (10**6,)}, mask, **settings)
