"""What the transformers engine promises beyond other engines: exact draws, exact resumption.

The oracle decodes one row at a time, without a cache and with draws of its own.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from branchdiag import models
from branchdiag.engines import Completion, Request, Sampling
from branchdiag.engines.decode import FAR_AHEAD, GroupDecoder, _Batch, _close_gaps, _Row
from branchdiag.engines.prefixes import Prefixes
from branchdiag.engines.transformers_engine import TransformersEngine
from branchdiag.engines.workers import WorkerFailed
from branchdiag.errors import MissingRequirement, UsageError
from branchdiag.protocol import EngineSettings
from tests import decoding_oracle as oracle
from tests.tiny_models import ARCHITECTURES, tiny_model

STOP_IDS = tuple(range(20))
CONTEXT = 128

KINDS = ((1.0, 0.95, -1), (0.7, 0.95, -1), (1.0, 1.0, -1), (1.2, 1.0, 10), (0.0, 1.0, -1))


def load(directory: Any, attention: str = "auto") -> Any:
    settings = EngineSettings.model_validate({"attention": attention})
    return models.load_model(models.resolve(str(directory)), settings, "cpu")


def engine_of(
    model: Any, batch_size: int = 8, n_workers: int = 1, **named: str
) -> TransformersEngine:
    return TransformersEngine(
        model,
        stop_ids=STOP_IDS,
        context_length=CONTEXT,
        batch_size=batch_size,
        n_workers=n_workers,
        **named,
    )


def requests_of(count: int, seed: int = 0) -> list[Request]:
    """Several samples of prompts that share prefixes, drawn in every way, with several budgets."""
    rng = random.Random(seed)
    base = [rng.randrange(300) for _ in range(70)]
    requests = []
    while len(requests) < count:
        prompt = (*base[: rng.randrange(70)], rng.randrange(300))
        kind, new = rng.choice(KINDS), rng.randrange(1, 40)
        requests += [
            Request(("p", len(requests) + i), prompt, Sampling(*kind, new), rng.getrandbits(63))
            for i in range(rng.randrange(1, 4))
        ]
    return requests[:count]


def by_key(engine: TransformersEngine, requests: list[Request], **kwargs: Any) -> Any:
    return {completion.key: completion for completion in engine.generate(requests, **kwargs)}


def assert_equal_to_the_oracle(model: Any, requests: list[Request]) -> None:
    """Row for row; one may differ, for a draw may sit on a boundary to float32 rounding."""
    done = by_key(engine_of(model), requests)
    differing = 0
    for request in requests:
        completion = done[request.key]
        wanted = oracle.decode(model, request, STOP_IDS, CONTEXT)
        differing += (completion.token_ids, completion.finish_reason) != wanted
    assert differing <= 1


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "olmo2"])
def test_sampled_rows_equal_the_oracle(architecture: Any) -> None:
    assert_equal_to_the_oracle(load(tiny_model(architecture)), requests_of(40))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("longest_prompt", [1, 2])
def test_prompts_of_one_token_have_an_empty_prefix(architecture: Any, longest_prompt: int) -> None:
    """All rows share it, and nothing lies before their only token."""
    rng = random.Random(5)
    requests = [
        Request(
            ("p", i),
            tuple(rng.randrange(40, 300) for _ in range(1 + i % longest_prompt)),
            Sampling(1.0, 0.95, -1, 6),
            rng.getrandbits(63),
        )
        for i in range(24)
    ]
    assert_equal_to_the_oracle(load(tiny_model(architecture)), requests)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_owed_does_not_change_a_token(architecture: Any) -> None:
    requests = requests_of(90)
    engine = engine_of(load(tiny_model(architecture)))
    everything = by_key(engine, requests)
    rng = random.Random(3)
    for share in (0.02, 0.3, 0.9):
        owed = {request.key for request in requests if rng.random() < share}
        assert by_key(engine, requests, owed=owed) == {key: everything[key] for key in owed}
    in_other_order = rng.sample(requests, len(requests))
    assert by_key(engine, in_other_order) == everything


def test_a_group_is_decoded_again_whole_where_any_of_it_is_owed() -> None:
    requests = requests_of(60)
    engine = engine_of(load(tiny_model("qwen3")), batch_size=64)
    shapes: list[tuple[int, ...]] = []
    engine.model.register_forward_pre_hook(  # type: ignore[union-attr]
        lambda _module, _args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)),
        with_kwargs=True,
    )
    list(engine.generate(requests))
    whole = list(shapes)
    shapes.clear()
    assert len(list(engine.generate(requests, owed={requests[7].key}))) == 1
    assert shapes and any(shapes == whole[i : i + len(shapes)] for i in range(len(whole)))
    assert max(rows for rows, columns in shapes if columns == 1) > 16


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_the_number_of_workers_does_not_change_a_token() -> None:
    requests = requests_of(120)
    model = load(tiny_model("qwen3"))
    alone = by_key(engine_of(model, n_workers=1), requests)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        (torch.ones(600, 600) @ torch.ones(600, 600)).softmax(-1)  # its threads exist at the fork
        assert by_key(engine_of(model, n_workers=3), requests) == alone
        assert by_key(engine_of(model, n_workers=1), requests) == alone
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batch_sizes_differ_in_rounding_only(architecture: Any) -> None:
    requests = requests_of(80)
    model = load(tiny_model(architecture))
    by_size = [by_key(engine_of(model, batch_size=size), requests) for size in (1, 5, 64)]
    same = sum(len({str(done[request.key]) for done in by_size}) == 1 for request in requests)
    assert same >= 78


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sharing_prefixes_changes_rounding_only(architecture: Any) -> None:
    requests = requests_of(80, seed=2)
    engine = engine_of(load(tiny_model(architecture)), batch_size=16)
    passes = []
    engine.model.register_forward_pre_hook(  # type: ignore[union-attr]
        lambda _module, _args, kwargs: passes.append("prefixes" in kwargs), with_kwargs=True
    )
    shared = by_key(engine, requests)
    assert sum(passes) > len(passes) / 2
    engine._decoder.can_share = False
    copied = by_key(engine, requests)
    assert sum(shared[r.key] == copied[r.key] for r in requests) >= 78


def test_prompts_that_share_little_are_decoded_with_copies() -> None:
    rng = random.Random(0)
    requests = [
        Request(("p", i), tuple(rng.randrange(300) for _ in range(30)), Sampling(0, 1, -1, 20), i)
        for i in range(20)
    ]
    assert_equal_to_the_oracle(load(tiny_model("olmo3")), requests)


def test_eager_attention_gives_the_tokens_of_sdpa() -> None:
    requests = requests_of(40)
    ways = [
        by_key(engine_of(load(tiny_model("olmo3"), way)), requests) for way in ("sdpa", "eager")
    ]
    assert sum(ways[0][r.key] == ways[1][r.key] for r in requests) >= 39


@pytest.mark.parametrize(
    "options",
    [{"tied": True}, {"pad": "eos"}, {"pad": "none", "tied": True}, {"unused_vocabulary": 0}],
    ids=str,
)
def test_heads_pads_and_vocabularies_of_every_kind(options: dict[str, Any]) -> None:
    assert_equal_to_the_oracle(load(tiny_model("llama", **options)), requests_of(20, seed=4))


def test_completions_come_as_they_finish() -> None:
    prompt = (40, 41, 42)
    budgets = {("long", 0): 60, ("short", 1): 2, ("middle", 2): 20}
    engine = TransformersEngine(
        load(tiny_model("qwen3")), stop_ids=(), context_length=CONTEXT, batch_size=8, n_workers=1
    )
    requests = [
        Request(key, prompt, Sampling(1.0, 1.0, -1, new), 5) for key, new in budgets.items()
    ]
    order = [completion.key for completion in engine.generate(requests)]
    assert order == sorted(budgets, key=lambda key: budgets[key])


def test_rows_beyond_the_batch_take_the_places_of_finished_ones() -> None:
    model = load(tiny_model("qwen3"))
    widths = []
    model.register_forward_pre_hook(
        lambda _module, _args, kwargs: widths.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    list(engine_of(model, batch_size=8).generate(requests_of(60)))
    steps = [rows for rows, columns in widths if columns == 1]
    assert max(steps) == 8
    assert sum(steps) / len(steps) > 6


def test_prefixes_are_let_go_when_no_row_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    prompts = [tuple(rng.randrange(300) for _ in range(30)) for _ in range(30)]
    compute = Prefixes.compute
    for rows_a_prompt, most in ((1, 4), (9, 3)):  # copied into the rows; shared by them
        engine = engine_of(load(tiny_model("qwen3")), batch_size=4)
        held: list[int] = []

        def record(self: Prefixes, numbers: Any, compute: Any = compute, held: Any = held) -> None:
            compute(self, numbers)
            held.append(len(self.held))

        monkeypatch.setattr(Prefixes, "compute", record)
        requests = [
            Request((i, k), prompt, Sampling(1.0, 1.0, -1, 5), seed=100 * i + k)
            for i, prompt in enumerate(prompts)
            for k in range(rows_a_prompt)
        ]
        assert len(list(engine.generate(requests))) == len(requests)
        assert max(held) <= most


def rows_of_each_step(model: Any) -> list[int]:
    """Filled as the model decodes: how many sequences each step computes."""
    rows: list[int] = []

    def record(_module: Any, _args: Any, kwargs: Any) -> None:
        ids = kwargs.get("input_ids")  # the oracle's are no keyword
        if ids is not None and ids.shape[1] == 1:
            rows.append(len(ids))

    model.register_forward_pre_hook(record, with_kwargs=True)
    return rows


@pytest.mark.parametrize("prompts", [1, 12])  # shared prefixes; copied ones
def test_samples_are_one_row_until_they_draw_differently(prompts: int) -> None:
    rng = random.Random(1)
    model = load(tiny_model("qwen3"))
    requests = [
        Request((i, k), prompt, Sampling(temperature, 1.0, top_k, 12), seed=1000 * i + k)
        for i in range(prompts)
        for prompt in [tuple(rng.randrange(20, 300) for _ in range(9))]
        for k, (temperature, top_k) in enumerate([(0.0, -1)] * 4 + [(1.0, 2)] * 3)
    ]
    rows = rows_of_each_step(model)
    engine = TransformersEngine(
        model, stop_ids=(), context_length=CONTEXT, batch_size=100, n_workers=1
    )
    done = by_key(engine, requests)
    expected = []
    for step in range(12):
        written = {(r.prompt_ids, r.sampling, done[r.key].token_ids[:step]) for r in requests}
        expected.append(len(written))
    assert rows == expected
    assert expected[0] == 2 * prompts and expected[-1] > 2 * prompts
    assert_equal_to_the_oracle(model, requests)


@pytest.mark.parametrize("shared", [True, False])
def test_rows_far_ahead_wait_for_others_as_long(
    shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(2)
    model = load(tiny_model("qwen3"))
    engine = engine_of(model)  # prepares the model's attention
    decoder = GroupDecoder(engine.model, stop_ids=(), context_length=CONTEXT, batch_size=16)
    requests = [
        Request(
            (i,),
            (*((40, 41, 42) if shared else rng.choices(range(300), k=3)), rng.randrange(300)),
            Sampling(1.0, 1.0, -1, 100 if i in (3, 11) else rng.randrange(1, 12)),
            seed=i,
        )
        for i in range(300)
    ]
    seen: list[tuple[int, int]] = []
    join = _Batch.join

    def record(self: _Batch, waiting: Any) -> None:
        join(self, waiting)
        seen.append((len(self.parked), self.cache.used if waiting else 0))

    monkeypatch.setattr(_Batch, "join", record)
    done = {c.key: c for finished in decoder.decode(requests) for c in finished}
    parked, wide = zip(*seen, strict=True)
    assert max(parked) == 2 and parked[-1] == 0
    assert max(wide) < 32 + 12 * FAR_AHEAD
    for request in [*requests[:30], *requests[-5:]]:
        wanted = oracle.decode(model, request, (), CONTEXT)
        assert (done[request.key].token_ids, done[request.key].finish_reason) == wanted


@given(st.lists(st.booleans(), max_size=12), st.data())
def test_rows_stand_without_gaps_and_few_are_moved(ends: list[bool], data: st.DataObject) -> None:
    def row() -> _Row:
        return _Row([], 0, 0)

    after = [None if end else row() for end in ends]
    alive = [i for i, end in enumerate(ends) if not end]
    parted = [
        (row(), data.draw(st.sampled_from(alive)))
        for _ in range(data.draw(st.integers(0, 6)) if alive else 0)
    ]
    rows, sources = _close_gaps(after, parted)
    known = [*((r, i) for i, r in enumerate(after) if r is not None), *parted]
    assert sorted((id(r), i) for r, i in zip(rows, sources, strict=True)) == sorted(
        (id(r), i) for r, i in known
    )
    stayed = sum(r is not None and i < len(rows) and rows[i] is r for i, r in enumerate(after))
    assert stayed == sum(i < len(known) for i in alive)  # only those beyond the end move


def test_logits_that_are_not_finite_are_the_error_of_one_row() -> None:
    model = load(tiny_model("qwen3"))
    poison = 299
    with torch.inference_mode():
        model.get_input_embeddings().weight[poison] = torch.nan
    good = [r for r in requests_of(20) if poison not in r.prompt_ids]
    bad = Request(("bad",), (50, poison, 51), Sampling(1.0, 0.95, -1, 5), 0)
    engine = engine_of(model)
    done = by_key(engine, [*good, bad])
    assert done[bad.key] == Completion(bad.key, (), "error", "the model's logits are not finite")
    spoilt = [c for c in done.values() if c.finish_reason == "error"]
    assert len(spoilt) <= 3  # others may have drawn the poison themselves
    assert any(done[r.key].finish_reason == "stop" for r in good)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_lack_of_memory_names_the_batch_size_to_take(n_workers: int) -> None:
    model = load(tiny_model("qwen3"))

    def fail(*_: Any) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")

    model.register_forward_pre_hook(fail)
    with pytest.raises(MissingRequirement) as raised:
        list(engine_of(model, batch_size=48, n_workers=n_workers).generate(requests_of(300)))
    assert raised.value.exit_status == 5
    assert "--set engine.batch_size=24" in str(raised.value)
    in_training = engine_of(model, 48, n_workers, batch_setting="rollout.batch_size")
    with pytest.raises(MissingRequirement, match=r"--set rollout\.batch_size=24"):
        list(in_training.generate(requests_of(300)))


@pytest.mark.parametrize(("n_workers", "expected"), [(1, KeyError), (2, WorkerFailed)])
def test_a_bug_is_not_hidden(n_workers: int, expected: type[Exception]) -> None:
    model = load(tiny_model("qwen3"))

    def fail(*_: Any) -> None:
        raise KeyError("a bug")

    model.register_forward_pre_hook(fail)
    with pytest.raises(expected, match="a bug"):
        list(engine_of(model, n_workers=n_workers).generate(requests_of(300)))


def test_two_requests_of_one_key_are_a_bug_of_the_caller() -> None:
    request = requests_of(1)[0]
    with pytest.raises(ValueError, match="one key"):
        list(engine_of(load(tiny_model("qwen3"))).generate([request, request]))


def test_an_architecture_without_a_key_value_cache_is_refused() -> None:
    config = AutoConfig.for_model(
        "qwen3_next",
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(UsageError, match="linear_attention"):
        engine_of(model)


def test_generation_leaves_the_callers_autograd_mode_alone() -> None:
    running = engine_of(load(tiny_model("qwen3"))).generate(requests_of(20))
    next(running)
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
