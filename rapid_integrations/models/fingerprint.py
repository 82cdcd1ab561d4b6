"""Fingerprints of models, so that KV caches of different models can share one folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor

from rapid_integrations.errors import CacheError

_BLOCKS = 64
_NOT_COMPUTED_WITH = {"transformers_version", "architectures", "dtype", "torch_dtype"}  # dtypes are in the weights


class Decoder(Protocol):
    """What identifies a decoder that has taken over a model's matrices."""

    def settings(self) -> dict[str, Any]:
        """Return what the logits depend on beside the weights, as JSON."""
        ...

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors that the model itself does not hold."""
        ...


def fingerprint(model: Any, decoder: Decoder | None = None) -> str:
    """Return a hexadecimal digest of a model's configuration and weights.

    A name is not enough, because a fine-tuned copy may have the same name. The digest covers the name, dtype and shape
    of each weight and buffer, and their bits (see `digest_weights`). All weights are read once, at memory speed.

    Args:
        model: a transformers model, or a `Skeleton`.
        decoder: computes in the model's place; then its settings count, not the model's configuration.

    Raises:
        CacheError: weights lie on several devices, or cannot be read (offloaded to disk).
    """
    tensors = dict(model.named_parameters())
    if decoder is None:
        tensors |= dict(model.named_buffers())
        counted = {
            key: value
            for key, value in model.config.to_dict().items()
            if not key.startswith("_") and key not in _NOT_COMPUTED_WITH
        }
    else:
        counted = decoder.settings()
    digest = hashlib.sha256(json.dumps(counted, sort_keys=True, default=str).encode())
    if len({tensor.device for tensor in tensors.values()}) != 1:
        raise CacheError("its weights lie on several devices, and saved caches are loaded to a single one")
    try:
        digest_weights(digest, chain(sorted(tensors.items()), () if decoder is None else decoder.named_weights()))
    except (RuntimeError, TypeError) as error:  # a weight lies on no device, or is of a packed type
        raise CacheError(f"its weights cannot be read: {error}") from error
    return digest.hexdigest()


def digest_weights(digest: Any, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Add names, dtypes, shapes and bits of tensors to a digest of hashlib.

    The bits enter as the sums (64-bit integers, modulo 2**64) of 64 blocks of each tensor, so a change of any single
    weight changes a sum.
    """
    for name, weight in tensors:
        tensor = weight.detach()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(_sums(tensor).cpu().numpy().tobytes())


def _sums(tensor: Tensor) -> Tensor:
    """Return (at most `_BLOCKS` + 1 + 7,) int64: the sums of the blocks, and what is left over."""
    raw = tensor.contiguous().reshape(-1).view(torch.uint8)
    block = len(raw) // (8 * _BLOCKS)
    whole = raw[: 8 * _BLOCKS * block]
    words = (whole if whole.storage_offset() % 8 == 0 else whole.clone()).view(torch.int64)
    return torch.cat([words.view(_BLOCKS, block).sum(dim=1), raw[8 * _BLOCKS * block :].long()])
