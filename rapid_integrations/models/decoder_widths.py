"""The widths of a described decoder's rows, by which kernels say whether they serve it."""

from __future__ import annotations

from collections.abc import Iterator

from rapid_integrations.kernels.cpu import (
    COLUMNS,
    HEAD_DIMS,
    LATENT_COLUMNS,
    MAX_COLUMNS,
    MAX_EXPERTS,
    ROTATED_COLUMNS,
    serves_latents,
)
from rapid_integrations.models.description import Decoder, Mlp


def rank_of(described: Decoder) -> int | None:
    """Return how many numbers the latents of a decoder's attention have; None: it is not latent."""
    return next((each.latent.rank for each in described.attentions if each.latent is not None), None)


def head_dims_of(described: Decoder) -> set[int]:
    """Return how many numbers the heads of a decoder's layers have; of latent attention the rotated ones."""
    return {attention.head_dim or described.head_dim for attention in described.attentions}


def columns_of(described: Decoder) -> Iterator[int]:
    """Yield the width of every row of numbers that a step computes with."""
    yield described.embedding.weight.shape[1]
    if rank_of(described) is None:
        yield from (
            (own.heads or described.heads) * (own.head_dim or described.head_dim) for own in described.attentions
        )
    for layer in described.layers:
        if (recurrence := layer.recurs) is not None:
            yield recurrence.out.in_features
            if (unit := getattr(recurrence, "unit", None)) is not None:
                yield unit.values.shape[-1]
            for up in (getattr(recurrence, "decay_up", None), getattr(recurrence, "gate_up", None)):
                yield from () if up is None else (up.in_features,)
        if layer.attends is not None and (latent := layer.attends.latent) is not None:
            yield from (latent.plain, described.heads * latent.value)
            if latent.query_up is not None:
                yield latent.query_up.in_features
        if layer.input is not None:
            yield layer.input.projection.in_features
        if layer.laurel is not None:
            yield layer.laurel.right.in_features
        if isinstance(layer.mlp, Mlp):
            yield layer.mlp.down.in_features
        if layer.with_embedding:
            yield 2 * described.embedding.weight.shape[1]
        for part in (layer.attends, layer.mlp):
            if (adapter := getattr(part, "adapter", None)) is not None:
                yield from (each.in_features for each in adapter.up)
                yield sum(each.in_features for each in adapter.up)
        if (experts := layer.experts) is not None:
            yield 0 if experts.router[0].shape[0] <= MAX_EXPERTS else 1  # more of them are not served
            yield experts.inner
            if experts.shared is not None:
                yield experts.shared.down.in_features


def not_on_kernels(described: Decoder) -> str:
    """Return why the kernels do not compute a decoder; empty if they do."""
    if (rank := rank_of(described)) is not None:
        if not serves_latents(rank, described.head_dim):
            return (
                f"its latents and rotated keys have {rank} and {described.head_dim} numbers; the kernels serve "
                f"multiples of {LATENT_COLUMNS} and {ROTATED_COLUMNS} up to 512"
            )
    elif others := sorted(head_dims_of(described) - set(HEAD_DIMS)):
        return f"its heads have {others[0]} numbers; the kernels serve {', '.join(map(str, HEAD_DIMS))}"
    if described.beyond_kernels:
        return described.beyond_kernels
    for width in columns_of(described):
        if width % COLUMNS or width > MAX_COLUMNS:
            return f"a matrix has {width} columns; the kernels serve multiples of {COLUMNS} up to {MAX_COLUMNS:,}"
    return ""
