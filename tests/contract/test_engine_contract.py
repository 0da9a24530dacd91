"""What every engine promises, over three architectures, against decoding without any engine.

The oracle (`decoding_oracle`) runs the whole sequence through the model in float32 for every token.
vLLM runs these tests in an environment of its own (`make test-vllm`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from scipy import stats

from branchdiag import models
from branchdiag.engines import Completion, Engine, Request, Sampling, create_engine
from branchdiag.protocol import EngineSettings
from tests import decoding_oracle as oracle
from tests.tiny_models import ARCHITECTURES, tiny_model

CONTEXT = 96
STOP_IDS = tuple(range(33))
"""Many tokens end a completion here, so that random models do end theirs."""

GREEDY = (0.0, 1.0, -1)
SAMPLED = (1.0, 0.95, -1)


@pytest.fixture(params=ARCHITECTURES, scope="module")
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def resolved(architecture: str) -> models.ResolvedModel:
    directory = tiny_model(architecture)  # type: ignore[arg-type]
    return models.resolve(str(directory))


@pytest.fixture(scope="module")
def model(resolved: models.ResolvedModel) -> Any:
    return models.load_model(resolved, EngineSettings(), "cpu")


@pytest.fixture(
    params=["transformers", pytest.param("vllm", marks=pytest.mark.vllm)], scope="module"
)
def engine(
    request: pytest.FixtureRequest,
    resolved: models.ResolvedModel,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Engine]:
    made = create_engine(
        EngineSettings(name=request.param, device="cpu", batch_size=7, max_num_seqs=7),
        resolved,
        max_total_tokens=CONTEXT,
        log_path=tmp_path_factory.mktemp("log") / "engine.log",
        stop_ids=STOP_IDS,
    )
    yield made
    made.close()
    made.close()


def requests_of(
    count: int, kind: tuple[float, float, int], *, longest: int = 60, new: int = 24, seed: int = 0
) -> list[Request]:
    """Prompts that share prefixes, of many lengths, with budgets of many sizes."""
    rng = random.Random(seed)
    temperature, top_p, top_k = kind
    base = [rng.randrange(300) for _ in range(longest)]
    requests = []
    for i in range(count):
        prompt = (*base[: rng.randrange(longest)], rng.randrange(300))
        sampling = Sampling(temperature, top_p, top_k, rng.randrange(1, new))
        requests.append(Request(("prompt", i), prompt, sampling, seed=rng.getrandbits(63)))
    return requests


def by_key(completions: Iterator[Completion]) -> dict[Any, Completion]:
    done = list(completions)
    assert len({completion.key for completion in done}) == len(done)
    return {completion.key: completion for completion in done}


def test_greedy_completions_equal_plain_argmax_decoding(engine: Engine, model: Any) -> None:
    requests = requests_of(24, GREEDY)
    done = by_key(engine.generate(requests))
    assert done.keys() == {request.key for request in requests}
    for request in requests:
        completion = done[request.key]
        wanted = oracle.decode(model, request, STOP_IDS)
        assert (completion.token_ids, completion.finish_reason) == wanted
    assert {completion.finish_reason for completion in done.values()} == {"stop", "length"}


def test_completions_keep_to_stop_ids_budget_and_context(engine: Engine) -> None:
    requests = requests_of(30, SAMPLED, longest=CONTEXT - 2, new=200)
    for request in requests:
        completion = by_key(engine.generate([request]))[request.key]
        room = min(request.sampling.max_new_tokens, CONTEXT - len(request.prompt_ids))
        assert not set(completion.token_ids) & set(STOP_IDS)
        assert completion.error is None
        if completion.finish_reason == "length":
            assert len(completion.token_ids) == room
        else:
            assert completion.finish_reason == "stop" and len(completion.token_ids) < room


def test_the_end_token_counts_towards_the_budget(engine: Engine, model: Any) -> None:
    for request in requests_of(20, GREEDY):
        tokens, reason = oracle.decode(
            model, Request(request.key, request.prompt_ids, Sampling(*GREEDY, 30), 0), STOP_IDS
        )
        if reason == "stop" and tokens:
            break
    else:
        pytest.fail("no random prompt ended")
    for budget, wanted in ((len(tokens) + 1, "stop"), (len(tokens), "length")):
        cut = Request(("cut", budget), request.prompt_ids, Sampling(*GREEDY, budget), 0)
        completion = by_key(engine.generate([cut]))[cut.key]
        assert (completion.token_ids, completion.finish_reason) == (tokens, wanted)


def test_a_forced_token_is_not_tokenised_again(
    engine: Engine, model: Any, resolved: models.ResolvedModel
) -> None:
    tokenizer = models.load_tokenizer(resolved)
    one, two = (tokenizer.convert_tokens_to_ids(digit) for digit in "12")
    telling = 0
    for text in ("So the answer is ", "Then 3 + ", "Mia has ", "x = "):
        prompt = (*tokenizer.encode(text), one, two)
        through_text = tuple(tokenizer.encode(tokenizer.decode(prompt)))
        assert through_text != prompt  # "1", "2" would come back as "12"
        request = Request(("forced",), prompt, Sampling(*GREEDY, 12), 0)
        wanted = oracle.decode(model, request, STOP_IDS)
        changed = Request(("changed",), through_text, Sampling(*GREEDY, 12), 0)
        telling += oracle.decode(model, changed, STOP_IDS) != wanted
        completion = by_key(engine.generate([request]))[request.key]
        assert (completion.token_ids, completion.finish_reason) == wanted
    assert telling  # the other ids would have shown


def test_a_seed_gives_its_tokens_again_and_another_seed_others(engine: Engine) -> None:
    prompt = requests_of(1, SAMPLED)[0].prompt_ids
    sampling = Sampling(*SAMPLED, 8)
    requests = [Request(("sample", i), prompt, sampling, seed=2**62 + i) for i in range(12)]
    first, again = (by_key(engine.generate(requests)) for _ in range(2))
    assert first == again
    assert len({completion.token_ids for completion in first.values()}) > 6


def test_draws_follow_the_nucleus_of_the_model(engine: Engine, model: Any) -> None:
    import torch

    n = 1500
    prompt = requests_of(1, SAMPLED, seed=5)[0].prompt_ids
    requests = [Request(("draw", i), prompt, Sampling(0.8, 0.9, -1, 1), seed=i) for i in range(n)]
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0, -1].tolist()
    expected = oracle.distribution(logits, 0.8, 0.9, -1)
    ends = sum(p for token, p in expected.items() if token in STOP_IDS)
    counts = dict.fromkeys(expected, 0)
    stopped = 0
    for completion in engine.generate(requests):
        if completion.finish_reason == "stop":
            stopped += 1
        else:
            counts[completion.token_ids[0]] += 1  # a KeyError is a token outside the nucleus
    common = [t for t, p in expected.items() if p * n >= 5 and t not in STOP_IDS]
    observed = [counts[token] for token in common]
    wanted = [expected[token] * n for token in common]
    observed.append(n - sum(observed))
    wanted.append(n - sum(wanted))
    assert len(common) >= 4
    assert stats.chisquare(observed, wanted).pvalue > 1e-3
    assert abs(stopped - ends * n) < 5 * (ends * n + 1) ** 0.5 + 5


def test_only_what_is_owed_comes_back(engine: Engine) -> None:
    requests = requests_of(20, GREEDY)
    owed = {request.key for request in requests[3:20:5]}
    everything = by_key(engine.generate(requests))
    some = by_key(engine.generate(requests, owed=owed))
    assert some == {key: everything[key] for key in owed}
    assert not list(engine.generate(requests, owed=set()))
    assert not list(engine.generate([]))


def test_a_bad_request_is_an_error_of_its_own(engine: Engine) -> None:
    good = requests_of(3, GREEDY)
    sampling = Sampling(*GREEDY, 4)
    bad = {
        ("empty",): Request(("empty",), (), sampling, 0),
        ("unknown",): Request(("unknown",), (5, 100_000), sampling, 0),
        ("full",): Request(("full",), (40,) * CONTEXT, sampling, 0),
    }
    done = by_key(engine.generate([*bad.values(), *good]))
    assert done[("empty",)].finish_reason == done[("unknown",)].finish_reason == "error"
    assert "100000" in (done[("unknown",)].error or "")
    assert (done[("full",)].finish_reason, done[("full",)].token_ids) == ("length", ())
    assert {key: done[key] for key in (r.key for r in good)} == by_key(engine.generate(good))


def test_the_engine_works_on_after_an_abandoned_generate(engine: Engine) -> None:
    requests = requests_of(30, GREEDY)
    interrupted = engine.generate(requests)
    first = next(interrupted)
    interrupted.close()  # type: ignore[attr-defined]
    assert by_key(engine.generate(requests))[first.key] == first


def test_an_engine_says_what_it_is(engine: Engine) -> None:
    described = engine.describe()
    assert described["engine"] == engine.name
    assert described["dtype"] == "float32"
    assert {"torch", "transformers", "device"} <= described.keys()
