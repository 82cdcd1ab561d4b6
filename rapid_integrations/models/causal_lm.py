"""The protocol between the decoding loop and whatever computes logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from rapid_integrations.cache import KVCache, Rows
from rapid_integrations.cache.cache_view import CacheView
from rapid_integrations.cache.windows import most_held


@runtime_checkable
class CausalLM(Protocol):
    """A decoder-only language model.

    Attributes:
        name: for messages and statistics.
        context_window: tokens that its positions reach.
        vocab_size: width of its logits (padding rows included).
        device: where token ids must lie.
        dtype: what it computes in.
        num_parameters: for telling a larger drafter from a smaller one.
        weight_bytes: bytes of weights that a step of one token reads.
        kernels: which of this package's kernels compute its steps; "none (reason)" if others do.
        kv_bytes_per_token: bytes that one token's keys and values take in all layers.
    """

    name: str
    context_window: int
    vocab_size: int
    device: torch.device
    dtype: torch.dtype
    num_parameters: int

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one decode step reads."""
        ...

    @property
    def kernels(self) -> str:
        """Which of this package's kernels compute its steps; "none (reason)" if others do."""
        ...

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that one token's keys and values take in all layers."""
        ...

    def fingerprint(self) -> str:
        """Return a digest that identifies the model with its present weights, in any process.

        Raises:
            CacheError: the weights cannot be identified (they lie on several devices, say). Nothing that the model has
                prefilled is then saved to disk.
        """
        ...

    def close(self) -> None:
        """Undo every change to objects that belong to the caller; safe to call again."""
        ...

    def new_cache(self, capacity: int) -> KVCache:
        """Return an empty cache with room for `capacity` tokens."""
        ...

    def forward(self, rows: Sequence[Rows]) -> list[Tensor]:
        """Read further tokens of one or several texts in one pass, which reads every weight once for all of them.

        A token has the same bits alone, among others of its text and in company of other texts, if the model runs on
        this package's kernels.

        Args:
            rows: what each reader wants; no two share a cache. Each cache grows by its T.

        Returns:
            for each reader (keep, vocab_size) float32.

        Raises:
            NotANumberError: NaN among them.
        """
        ...

    @property
    def rows_together(self) -> int:
        """Rows that a pass of several readers may have; more rows of one reader take a pass of their own."""
        ...

    @property
    def passes_together(self) -> bool:
        """Whether `forward` costs several texts less than one pass each: not if it reads one after another."""
        ...

    @property
    def prompts_together(self) -> bool:
        """Whether pieces of several texts' prompts may share a pass, in which each token has the bits it has alone."""
        ...

    @property
    def reads_trees(self) -> bool:
        """Whether `forward` takes a tree of tokens (`Rows.parents`). If not, only chains are proposed to it."""
        ...


def cache_variant(model: CausalLM, capacity: int) -> int:
    """Return the variant of a cache with room for `capacity` tokens: 1 if the model rotates so long a text otherwise.

    `model.switch`, if it has one, is the capacity above which it does.
    """
    switch: int | None = getattr(model, "switch", None)
    return int(switch is not None and capacity > switch)


def cache_bytes(model: CausalLM, tokens: int) -> int:
    """Return the bytes that a cache of a text needs, with room for `tokens`.

    `model.state_bytes`, if it has it, is the size of its layers' recurrent states. A running text holds three of them:
    the present one, that at the round's start, and the one that the prefix ended with.
    """
    states: int = getattr(model, "state_bytes", 0)
    return rows_bytes(model, tokens) + 3 * states


def rows_bytes(model: CausalLM, tokens: int) -> int:
    """Return the most bytes that the keys and values of a text of so many tokens take.

    `model.windowed`, if it has it, is the window of the layers that free rows, and their part of `kv_bytes_per_token`.
    """
    window, nbytes = getattr(model, "windowed", (0, 0))
    held = most_held(tokens, window) if window else tokens
    return tokens * (model.kv_bytes_per_token - nbytes) + held * nbytes


@runtime_checkable
class MovesKeys(Protocol):
    """A model whose cached keys may be moved to other positions."""

    @property
    def moves_keys(self) -> bool:
        """Whether that is so for this model."""
        ...

    def shifted(self, layer: int, keys: Tensor, by: int) -> Tensor:
        """Return a layer's cached keys (1, H_kv, T, D) as they are `by` positions further on."""
        ...


class PartOfLM(CausalLM, Protocol):
    """A model without some of its layers, which reads on behind rows that the whole model has."""

    def new_view(self, cache: KVCache, runs: Sequence[tuple[int, int]] | None = None) -> CacheView:
        """Return a view of the whole model's cache; see `CacheView` for `runs`."""
        ...


@runtime_checkable
class HasParts(Protocol):
    """A model whose layers may be left out, and which reads views of its caches.

    Attributes:
        num_layers: of its decoder.
    """

    num_layers: int

    @property
    def has_parts(self) -> bool:
        """Whether that is so for this model."""
        ...

    def part(self, skipped: frozenset[int] = frozenset()) -> PartOfLM:
        """Return the model without some layers. It shares the weights, and is the same object for the same layers."""
        ...


@runtime_checkable
class GivesStates(Protocol):
    """A model whose passes give hidden states (`Rows.states`), and whose embedding table and head others may use.

    Attributes:
        hidden_size: E.
        num_layers: of its decoder.
    """

    hidden_size: int
    num_layers: int

    def embedded(self, token_ids: Tensor) -> Tensor:
        """Return tokens' rows of the embedding table, (T, E), as they lie in it."""
        ...

    def logits_of(self, states: Tensor) -> Tensor:
        """Return what the model's head makes of states behind its final norm: (T, vocab_size) float32 of (T, E)."""
        ...
