"""What an engine is: requests of token ids in, completions of token ids out, in the order they
finish.

Knows nothing of problems, answers or phases. Nothing is decoded or encoded here: a forced token
stays the token it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

Key: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn. Nothing is inherited from a model's generation_config.

    temperature 0 is greedy. top_k -1 is off. max_new_tokens counts the sampled tokens, EOS
    included.
    """

    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to write. The seed belongs to this request alone (n = 1 always)."""

    key: Key
    prompt_ids: tuple[int, ...]
    sampling: Sampling
    seed: int


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine wrote for a request: token ids without the final EOS, or an error.

    An error is no completion: it is stored as an error and tried again with the same seed.
    """

    key: Key
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length", "error"]
    error: str | None = None
    stop_id: int | None = field(default=None, compare=False)
    """The EOS that ended it, where one did and the engine says which."""


class Engine(Protocol):
    """Writes tokens."""

    name: str

    def generate(
        self, requests: Sequence[Request], owed: Collection[Key] | None = None
    ) -> Iterator[Completion]:
        """Complete the owed requests (None: all), yielding each as it finishes.

        `requests` is the whole plan, whatever is owed of it: an engine whose draws depend on the
        batch forms its batches from the plan and runs a batch again whole where any of it is owed,
        so that an interrupted run equals an uninterrupted one.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Backend, versions, device and dtype, for the manifest."""
        ...

    def close(self) -> None:
        """Give back processes and memory. Safe to call twice."""
        ...
