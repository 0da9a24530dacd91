"""The decoding loop of one group of requests: prefill what they share, then a token a row a step.

Reads a causal language model and requests; yields completions as they finish; writes nothing. A row
that finishes leaves the batch and the group's next request takes its place. Every row's first step
feeds its last prompt token, so that what comes before it, the prefix, can be shared: six samples
of an arm, the arms of a candidate and the candidates of a spine cost one forward pass over the
longest prefix, and where many rows share it, one place in memory (`attention`). Knows nothing of
plans, processes or what is owed.

Dimensions: R rows, T columns (tokens), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache

from branchdiag.engines.attention import SharedPrefix, StepPrefixes, can_share_prefixes
from branchdiag.engines.base import Completion, Request
from branchdiag.engines.cache import AlignedCache, Layers, Newcomers
from branchdiag.engines.plan import Prefix, share_prefixes
from branchdiag.engines.sampling import Filters, draw, uniforms

PREFILL_TOKENS = 8192
"""Tokens of one prefill pass, padding included (one longer prefix is still one pass)."""
REBUILD_SHARE = 8
"""The batch is rebuilt when this part of its rows (1/8) is done: it costs about half a step."""
ROOM_COLUMNS = 32
"""Columns taken ahead at a rebuild."""
ROWS_A_PREFIX = 8
"""A group whose prefixes have this many rows each, on average, keeps them outside of the rows."""


@dataclass(slots=True)
class _Row:
    """A request in flight."""

    request: Request
    budget: int
    holder: int
    tokens: list[int] = field(default_factory=list)

    @property
    def prefix_length(self) -> int:
        """Tokens of the prompt before its last."""
        return len(self.request.prompt_ids) - 1

    @property
    def newest(self) -> int:
        """The token that the next step feeds."""
        return self.tokens[-1] if self.tokens else self.request.prompt_ids[-1]


class GroupDecoder:
    """Decodes groups of requests with one model.

    Args:
        model: a causal language model in evaluation mode.
        stop_ids: tokens that end a completion; never part of it.
        context_length: prompt and completion together never exceed it.
        batch_size: rows decoded together.
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

    def decode(self, requests: Sequence[Request]) -> Iterator[list[Completion]]:
        """Complete every request; each list holds what one step finished.

        A request that cannot be decoded (no prompt, an unknown token id, logits that are not
        finite) gives an error completion and leaves the others alone.
        """
        waiting, refused = self._admit(requests)
        if refused:
            yield refused
        longest, holders = share_prefixes([row.request.prompt_ids[:-1] for row in waiting])
        for row, holder in zip(waiting, holders, strict=True):
            row.holder = holder
        yield from self._run(waiting, longest)

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
                rows.append(_Row(request, budget, holder=-1))
        return rows, done

    @torch.inference_mode()
    def _run(self, waiting: list[_Row], longest: list[Prefix]) -> Iterator[list[Completion]]:
        shared = self.can_share and len(waiting) >= ROWS_A_PREFIX * len(longest)
        waiting.reverse()  # popped from the end
        prefixes: dict[int, Layers] = {}
        cache = AlignedCache()
        batch: list[_Row | None] = []
        state: _Batch | None = None
        while waiting or any(row is not None for row in batch):
            alive = [i for i, row in enumerate(batch) if row is not None]
            free = self.batch_size - len(alive) if waiting else len(batch) - len(alive)
            if state is None or cache.room == 0 or REBUILD_SHARE * free >= max(1, len(batch)):
                joining = [waiting.pop() for _ in range(min(free, len(waiting)))] if waiting else []
                self._prefill({row.holder for row in joining} - prefixes.keys(), longest, prefixes)
                batch = [batch[i] for i in alive] + list(joining)
                rows = [row for row in batch if row is not None]
                cache.rebuild(alive, _newcomers(joining, prefixes, shared), self._room(rows))
                state = _Batch.of(rows, prefixes if shared else None, self.model.device)
                still = {row.holder for row in (waiting + rows if shared else waiting)}
                for holder in prefixes.keys() - still:
                    del prefixes[holder]
            tokens = self._step(cache, batch, state)
            finished = []
            for i, token in enumerate(tokens):
                member = batch[i]
                if member is not None and (done := self._take(member, token)) is not None:
                    finished.append(done)
                    batch[i] = None
            if finished:
                yield finished

    def _room(self, rows: list[_Row]) -> int:
        """Columns to take ahead: no more than the longest budget left."""
        return min(ROOM_COLUMNS, max(row.budget - len(row.tokens) for row in rows))

    def _prefill(
        self, holders: set[int], longest: list[Prefix], prefixes: dict[int, Layers]
    ) -> None:
        """Compute keys and values of whole prefixes, in passes of about `PREFILL_TOKENS`."""
        todo = sorted(holders, key=lambda holder: (len(longest[holder]), holder))
        while todo:
            width = max(1, len(longest[todo[-1]]))
            now = todo[-max(1, PREFILL_TOKENS // width) :]
            del todo[-len(now) :]
            # Padded on the right: a causal model's prefix does not see what follows it.
            ids = [[*longest[holder], *[0] * (width - len(longest[holder]))] for holder in now]
            cache: Any = DynamicCache()
            self.model(
                input_ids=torch.tensor(ids, device=self.model.device),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            for i, holder in enumerate(now):
                length = len(longest[holder])
                prefixes[holder] = [
                    (layer.keys[i, :, :length].clone(), layer.values[i, :, :length].clone())
                    for layer in cache.layers
                ]

    def _step(self, cache: AlignedCache, batch: list[_Row | None], state: _Batch) -> list[int]:
        """Feed every row's newest token and draw the next. Finished rows ride along unread."""
        device = self.model.device
        feed = [row.newest if row is not None else 0 for row in batch]
        position_R = torch.from_numpy(state.positions).to(device)
        options = {}
        if state.shared is not None:
            options["prefixes"] = StepPrefixes(state.shared, position_R)
        logits_RV = self.model(
            input_ids=torch.tensor(feed, device=device)[:, None],
            attention_mask=cache.mask_RT[:, : cache.used + 1],
            position_ids=position_R[:, None],
            past_key_values=cache.cache,
            use_cache=True,
            logits_to_keep=1,
            **options,
        ).logits[:, -1]
        cache.lengths = [length + 1 for length in cache.lengths]
        uniform_R = torch.from_numpy(uniforms(state.seeds, state.steps)).to(device)
        state.steps += 1
        state.positions = np.minimum(state.positions + 1, self.context_length - 1)
        return draw(logits_RV, state.filters, uniform_R).tolist()

    def _take(self, row: _Row, token: int) -> Completion | None:
        """Give a row its token; the completion if that ends it."""
        key = row.request.key
        if token < 0:
            return Completion(key, (), "error", "the model's logits are not finite")
        if token in self.stop_ids:
            return Completion(key, tuple(row.tokens), "stop", stop_id=token)
        row.tokens.append(token)
        if len(row.tokens) == row.budget:
            return Completion(key, tuple(row.tokens), "length")
        return None


@dataclass(slots=True)
class _Batch:
    """What a step needs of its rows beside their tokens; made at a rebuild."""

    seeds: np.ndarray[Any, np.dtype[np.uint64]]
    steps: np.ndarray[Any, np.dtype[np.int64]]
    positions: np.ndarray[Any, np.dtype[np.int64]]
    filters: Filters
    shared: list[SharedPrefix] | None

    @staticmethod
    def of(rows: list[_Row], prefixes: dict[int, Layers] | None, device: torch.device) -> _Batch:
        samplings = [row.request.sampling for row in rows]
        return _Batch(
            np.array([row.request.seed for row in rows], dtype=np.uint64),
            np.array([len(row.tokens) for row in rows], dtype=np.int64),
            np.array([row.prefix_length + len(row.tokens) for row in rows], dtype=np.int64),
            Filters.of(
                [sampling.temperature for sampling in samplings],
                [sampling.top_p for sampling in samplings],
                [sampling.top_k for sampling in samplings],
                device,
            ),
            None if prefixes is None else _share(rows, prefixes, device),
        )


def _share(
    rows: list[_Row], prefixes: dict[int, Layers], device: torch.device
) -> list[SharedPrefix]:
    """The prefixes that lie outside of the rows, each with its rows."""
    members: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault(row.holder, []).append(i)
    return [
        SharedPrefix(
            torch.tensor(indices, device=device),
            prefixes[holder],
            torch.tensor([rows[i].prefix_length for i in indices], device=device),
        )
        for holder, indices in members.items()
    ]


def _newcomers(rows: list[_Row], prefixes: dict[int, Layers], shared: bool) -> list[Newcomers]:
    """Rows that join, with a copy of their prefix unless it is shared; those of one together."""
    groups = groupby(rows, key=lambda row: (row.holder, 0 if shared else row.prefix_length))
    return [
        Newcomers(len(list(members)), length, prefixes[holder])
        for (holder, length), members in groups
    ]
