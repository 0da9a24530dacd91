"""The decoding loop of one group of requests: prefill what they share, then a token a row a step.

Reads a causal language model and requests; yields completions as they finish; writes nothing. A
row stands for all requests whose tokens are the same till now, prompt included: the samples of an
arm are one row until they draw differently, and part then. A row that finishes leaves the batch and
the group's next requests take its place. Every row's first step feeds its last prompt token, so
that what comes before it, the prefix, can be shared: the arms of a candidate and the candidates of
a spine cost one forward pass over the longest prefix, and where many requests share it, one place
in memory. Knows nothing of plans, processes or what is owed.

Dimensions: R rows, S samples (requests in flight), T columns (tokens), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import torch

from branchdiag.engines.attention import Layers, can_share_prefixes
from branchdiag.engines.base import Completion, Request
from branchdiag.engines.cache import AlignedCache, Newcomer
from branchdiag.engines.plan import share_prefixes
from branchdiag.engines.prefixes import Prefixes
from branchdiag.engines.sampling import Filters, draw, uniforms

JOINING_SHARE = 8
"""Requests join when this part (1/8) of the batch is free: fewer are not worth a prefill."""
ROOM_COLUMNS = 32
"""Columns taken ahead when there is no more room."""
REQUESTS_A_PREFIX = 8
"""A group with this many requests a prefix, on average, keeps prefixes outside of the rows."""
FAR_AHEAD = 4
"""A row this many times as wide as the mean waits for others like it: a step is as wide as its
widest row, and one that never ends would slow down all the others."""
PARKED_SHARE = 4
"""At most this part (1/4) of the batch waits so; what waits keeps its memory."""


@dataclass(slots=True)
class _Row:
    """Requests whose tokens are the same till now: one sequence for the model."""

    requests: list[Request]
    budget: int
    prefix: int
    tokens: list[int] = field(default_factory=list)

    @property
    def prompt(self) -> tuple[int, ...]:
        return self.requests[0].prompt_ids

    @property
    def newest(self) -> int:
        """The token that the next step feeds."""
        return self.tokens[-1] if self.tokens else self.prompt[-1]

    @property
    def position(self) -> int:
        """Where that token stands."""
        return len(self.prompt) - 1 + len(self.tokens)


class GroupDecoder:
    """Decodes groups of requests with one model.

    Args:
        model: a causal language model in evaluation mode.
        stop_ids: tokens that end a completion; never part of it.
        context_length: prompt and completion together never exceed it.
        batch_size: requests decoded together.
    """

    def __init__(
        self, model: Any, *, stop_ids: Sequence[int], context_length: int, batch_size: int
    ) -> None:
        self.model = model
        self.stop_ids = frozenset(stop_ids)
        self.context_length = context_length
        self.batch_size = batch_size
        self.vocabulary_size = int(model.get_input_embeddings().weight.shape[0])
        self.can_share = can_share_prefixes(model)

    @torch.inference_mode()
    def decode(self, requests: Sequence[Request]) -> Iterator[list[Completion]]:
        """Complete every request; each list holds what one step finished.

        A request that cannot be decoded (no prompt, an unknown token id, logits that are not
        finite) gives an error completion and leaves the others alone.
        """
        waiting, refused = self._admit(requests)
        if refused:
            yield refused
        longest, numbers = share_prefixes([row.prompt[:-1] for row in waiting])
        for row, number in zip(waiting, numbers, strict=True):
            row.prefix = number
        shared = self.can_share and len(waiting) >= REQUESTS_A_PREFIX * len(longest)
        prefixes = Prefixes(self.model, longest, stacked=shared)
        batch = _Batch(self.model, prefixes, self.stop_ids, self.batch_size)
        waiting.reverse()  # popped from the end
        while waiting or batch.in_flight:
            batch.join(waiting)
            if finished := batch.step():
                yield finished

    def _admit(self, requests: Sequence[Request]) -> tuple[list[_Row], list[Completion]]:
        rows, done = [], []
        for request in requests:
            budget = min(
                request.sampling.max_new_tokens, self.context_length - len(request.prompt_ids)
            )
            unknown = [t for t in request.prompt_ids if not 0 <= t < self.vocabulary_size]
            if not request.prompt_ids:
                done.append(Completion(request.key, (), "error", "the prompt holds no token"))
            elif unknown:
                reason = f"token id {unknown[0]} is not in the model's {self.vocabulary_size} ids"
                done.append(Completion(request.key, (), "error", reason))
            elif budget <= 0:
                done.append(Completion(request.key, (), "length"))
            else:
                rows.append(_Row([request], budget, prefix=-1))
        return rows, done


class _Batch:
    """The rows being decoded, their cache, and the rows parked until there are others as wide.

    Args:
        size: requests in flight at most, parked ones counted.
    """

    def __init__(self, model: Any, prefixes: Prefixes, stop_ids: frozenset[int], size: int) -> None:
        self.model, self.prefixes, self.stop_ids, self.size = model, prefixes, stop_ids, size
        self.rows: list[_Row] = []
        self.parked: list[tuple[_Row, Layers]] = []
        self.cache = AlignedCache()

    @property
    def in_flight(self) -> int:
        """Requests that have joined and not finished."""
        return sum(len(row.requests) for row in self.rows) + self._n_parked

    @property
    def _n_parked(self) -> int:
        return sum(len(row.requests) for row, _ in self.parked)

    def join(self, waiting: list[_Row]) -> None:
        """Take requests from the end of those that wait, if there is place, and make room."""
        joining = _merged(self._called(waiting))
        self.prefixes.compute({row.prefix for row in joining})
        newcomers = [self._newcomer(row) for row in joining]
        if self.parked and not waiting:
            joining += [row for row, _ in self.parked]
            newcomers += [Newcomer(own[0][0].shape[1], own) for _, own in self.parked]
            self.parked = []
        columns = max((newcomer.length for newcomer in newcomers), default=0)
        if not self.cache.room or columns > self.cache.used:
            if waiting:
                self._park()
            everyone = [*self.rows, *joining, *waiting]
            self.cache.reserve(
                rows=min(self.size, sum(len(row.requests) for row in everyone)),
                columns=columns,
                room=min(ROOM_COLUMNS, max(row.budget - len(row.tokens) for row in everyone)),
                like=newcomers[0].layers if newcomers else None,
            )
        if newcomers:
            self.cache.append(newcomers)
            self.rows += joining
            needed = list(waiting)
            if self.prefixes.stacked:
                needed += [*self.rows, *(row for row, _ in self.parked)]
            self.prefixes.keep({row.prefix for row in needed})

    def _called(self, waiting: list[_Row]) -> list[_Row]:
        free = self.size - self.in_flight
        if len(waiting) > free and JOINING_SHARE * free < self.size and self.rows:
            return []
        return [waiting.pop() for _ in range(min(free, len(waiting)))]

    def _newcomer(self, row: _Row) -> Newcomer:
        """A shared prefix brings nothing: it lies outside of the rows."""
        length = 0 if self.prefixes.stacked else row.position
        return Newcomer(length, self.prefixes.held[row.prefix])

    def _park(self) -> None:
        """Set aside the rows that make all others wide."""
        if not self.rows:
            return
        mean = sum(self.cache.lengths) / len(self.rows)
        left = self.size // PARKED_SHARE - self._n_parked
        staying = []
        for i, row in enumerate(self.rows):
            if self.cache.lengths[i] > FAR_AHEAD * mean and len(row.requests) <= left:
                left -= len(row.requests)
                self.parked.append((row, self.cache.row(i)))
            else:
                staying.append(i)
        self.rows = [self.rows[i] for i in staying]
        self.cache.arrange(staying)

    def step(self) -> list[Completion]:
        """Feed every row's newest token and draw each request's next; what that finishes."""
        device = self.model.device
        position_R = torch.tensor([row.position for row in self.rows], device=device)
        options = {}
        if self.prefixes.stacked:
            options["prefixes"] = self.prefixes.step(
                [row.prefix for row in self.rows],
                [len(row.prompt) - 1 for row in self.rows],
                position_R,
            )
        logits_RV = self.model(
            input_ids=torch.tensor([[row.newest] for row in self.rows], device=device),
            attention_mask=self.cache.mask,
            position_ids=position_R[:, None],
            past_key_values=self.cache.cache,
            use_cache=True,
            logits_to_keep=1,
            **options,
        ).logits[:, -1]
        self.cache.advance()
        samplings = [row.requests[0].sampling for row in self.rows]
        filters = Filters.of(
            [sampling.temperature for sampling in samplings],
            [sampling.top_p for sampling in samplings],
            [sampling.top_k for sampling in samplings],
            device,
        )
        samples = [(i, row, request) for i, row in enumerate(self.rows) for request in row.requests]
        uniform_S = uniforms(
            [request.seed for _, _, request in samples], [len(row.tokens) for _, row, _ in samples]
        )
        row_S = torch.tensor([i for i, _, _ in samples], device=device)
        tokens = draw(logits_RV, filters, torch.from_numpy(uniform_S).to(device), row_S).tolist()
        return self._take(iter(tokens))

    def _take(self, tokens: Iterator[int]) -> list[Completion]:
        """Give each request its token: rows go on, part or end."""
        finished: list[Completion] = []
        after: list[_Row | None] = []
        parted: list[tuple[_Row, int]] = []
        for i, row in enumerate(self.rows):
            by_token: dict[int, list[Request]] = {}
            for request in row.requests:
                by_token.setdefault(next(tokens), []).append(request)
            going_on = []
            for token, requests in by_token.items():
                if (end := self._end_of(row, token)) is not None:
                    finished += [replace(end, key=request.key) for request in requests]
                else:
                    written = row.tokens if len(by_token) == 1 else list(row.tokens)
                    written.append(token)
                    going_on.append(_Row(requests, row.budget, row.prefix, written))
            after.append(going_on[0] if going_on else None)
            parted += [(new, i) for new in going_on[1:]]
        self.rows, sources = _close_gaps(after, parted)
        self.cache.arrange(sources)
        return finished

    def _end_of(self, row: _Row, token: int) -> Completion | None:
        """What a token makes of a row's requests, if it ends them."""
        key = row.requests[0].key
        if token < 0:
            return Completion(key, (), "error", "the model's logits are not finite")
        if token in self.stop_ids:
            return Completion(key, tuple(row.tokens), "stop", stop_id=token)
        if len(row.tokens) + 1 == row.budget:
            return Completion(key, (*row.tokens, token), "length")
        return None


def _merged(rows: list[_Row]) -> list[_Row]:
    """Rows of one prompt and one way of sampling become one."""
    merged = []
    for _, same in groupby(rows, key=lambda row: (row.prompt, row.requests[0].sampling)):
        first, *others = same
        first.requests += [row.requests[0] for row in others]
        merged.append(first)
    return merged


def _close_gaps(
    after: list[_Row | None], parted: list[tuple[_Row, int]]
) -> tuple[list[_Row], list[int]]:
    """Rows that parted, then the last rows, take the places of those that ended.

    Args:
        after: what has become of each row; None if it ended.
        parted: further rows, each with the index of the row that it parted from.

    Returns:
        The rows, and for each the index of the row whose cache it goes on from.
    """
    places = list(zip(after, range(len(after)), strict=True))
    new = parted[::-1]
    for gap in [i for i, row in enumerate(after) if row is None]:
        if new:
            places[gap] = new.pop()
            continue
        while places and places[-1][0] is None:
            places.pop()
        if gap >= len(places):
            break
        places[gap] = places.pop()
    places += new[::-1]
    return [row for row, _ in places if row is not None], [source for _, source in places]
