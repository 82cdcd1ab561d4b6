"""Alternating updates (AltUp): several streams of states, of which each layer computes one and guesses the others.

Baykal et al. 2023, "Alternating Updates for Efficient Transformers" (NeurIPS). Gemma 3n has them. Their matrices are
small and are not quantised.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear, relu

from rapid_integrations.kernels.cpu import NativeAlternation, NativeLaurel, NativeMatrix, NativeStreams
from rapid_integrations.models.description import Alternation, Laurel, Streams
from rapid_integrations.models.linear import PlainLinear
from rapid_integrations.models.norms import normalised, normed_rows

_LEAST = 1e-5  # of a stream's mean square


def spread(described: Streams, x: Tensor) -> Tensor:
    """Return the streams (n, T, E) of embedded tokens (T, E)."""
    others = (_as_large(PlainLinear(each.weight.data)(x), x) for each in described.spread)
    return torch.stack([x, *others])


def merged(described: Streams, streams: Tensor) -> Tensor:
    """Return the states (T, E) before the final norm."""
    parts = zip(described.merged, streams[1:], strict=True)
    others = (_as_large(PlainLinear(matrix.weight.data)(each), streams[0]) for matrix, each in parts)
    return torch.stack([streams[0], *others]).mean(dim=0)


def predicted(own: Alternation, active: int, streams: Tensor) -> Tensor:
    """Return what a layer guesses of all streams, (n, T, E). It computes the active one from its guess."""
    count, rows, _ = streams.shape
    mixing = linear(_modalities(own, streams[active]), own.prediction.weight).view(rows, count, count)
    return (streams.permute(1, 2, 0) @ mixing.transpose(1, 2)).permute(2, 0, 1) + streams


def corrected(own: Alternation, active: int, guesses: Tensor, x: Tensor) -> Tensor:
    """Return the streams (n, T, E) behind a layer that has computed the active one, `x` (T, E)."""
    factors = linear(_modalities(own, x), own.correction.weight) + 1  # (T, n)
    return (x - guesses[active]) * factors.t()[:, :, None] + guesses


def augmented(own: Laurel, normed: Tensor, kernels: bool = False) -> Tensor:
    """Return the learned augmented residual (LAuReL, arXiv 2411.07501) of normalised rows (T, E).

    `kernels`: whether they compute its norm.
    """
    narrow = PlainLinear(own.left.weight.data)(normed)
    return normed + normed_rows(own.norm, PlainLinear(own.right.weight.data)(narrow), kernels)


def thinned(gate: Tensor, sparsity: float) -> Tensor:
    """Return what of a gate (T, I) exceeds the share `sparsity` of a normal distribution with its mean and spread."""
    deviation = gate.std(dim=-1, keepdim=True, unbiased=False)
    return relu(gate - (gate.mean(dim=-1, keepdim=True) + deviation * quantile(sparsity, gate.dtype)))


def quantile(sparsity: float, dtype: torch.dtype) -> float:
    """Return what a share `sparsity` of the standard normal distribution is below, rounded to the model's dtype."""
    return float(torch.special.ndtri(torch.tensor(sparsity)).to(dtype))


def native_laurel(own: Laurel) -> NativeLaurel:
    """Return a learned augmented residual for the kernels."""
    left, right = (NativeMatrix(each.weight.data) for each in (own.left, own.right))
    return NativeLaurel(left, right, own.norm)


def native_alternation(own: Alternation) -> NativeAlternation:
    """Return how a layer guesses and corrects streams of states, for the kernels."""
    prediction, correction = own.prediction.weight.data, own.correction.weight.data
    output = None if own.output is None else own.output.data
    return NativeAlternation(NativeMatrix(own.router.weight.data), own.norm, own.scale, prediction, correction, output)


def native_streams(own: Streams) -> NativeStreams:
    """Return how a decoder spreads and merges its streams, for the kernels."""
    spread, merged = ([NativeMatrix(each.weight.data) for each in part] for part in (own.spread, own.merged))
    return NativeStreams(spread, merged, own.active)


def _modalities(own: Alternation, x: Tensor) -> Tensor:
    routed = linear(normalised(own.norm, x) * own.scale, own.router.weight)
    return torch.tanh(routed.float()).to(x.dtype)  # (T, n)


def _as_large(x: Tensor, like: Tensor) -> Tensor:
    """Return rows with the mean square of other ones."""
    wanted = like.square().mean(dim=-1, keepdim=True) ** 0.5
    return x * wanted / x.square().mean(dim=-1, keepdim=True).clamp(min=_LEAST).sqrt()
