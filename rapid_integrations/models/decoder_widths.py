"""The widths of a described decoder's rows, by which kernels say whether they serve it."""

from __future__ import annotations

from collections.abc import Iterator

from rapid_integrations.kernels.cpu import MAX_EXPERTS
from rapid_integrations.models.description import Decoder, Experts


def rank_of(described: Decoder) -> int | None:
    """Return how many numbers the latents of a decoder's attention have; None: it is not latent."""
    latent = described.layers[0].attention.latent
    return None if latent is None else latent.rank


def head_dims_of(described: Decoder) -> set[int]:
    """Return how many numbers the heads of a decoder's layers have; of latent attention the rotated ones."""
    return {layer.attention.head_dim or described.head_dim for layer in described.layers}


def columns_of(described: Decoder) -> Iterator[int]:
    """Yield the width of every row of numbers that a step computes with."""
    yield described.embedding.weight.shape[1]
    if rank_of(described) is None:
        yield from (described.heads * each for each in head_dims_of(described))
    for layer in described.layers:
        if (latent := layer.attention.latent) is not None:
            yield from (latent.plain, described.heads * latent.value)
            if latent.query_up is not None:
                yield latent.query_up.in_features
        if layer.input is not None:
            yield layer.input.projection.in_features
        if isinstance(layer.mlp, Experts):
            yield 0 if layer.mlp.router[0].shape[0] <= MAX_EXPERTS else 1  # more of them are not served
            yield layer.mlp.inner
            if layer.mlp.shared is not None:
                yield layer.mlp.shared.down.in_features
        else:
            yield layer.mlp.down.in_features
