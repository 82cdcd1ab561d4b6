"""Fingerprints of models, so that KV caches of different models can share one folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.errors import CacheError

_BLOCKS = 64
_NOT_COMPUTED_WITH = {"transformers_version", "architectures", "dtype", "torch_dtype"}  # dtypes are in the weights


def fingerprint(model: Any, others: Iterable[tuple[str, Tensor]] = ()) -> str:
    """Return a hexadecimal digest of a transformers model's configuration and weights.

    A name is not enough, because a fine-tuned copy may have the same name. The digest covers the name, dtype and shape
    of each weight and buffer. It also covers the sums (64-bit integers, modulo 2**64) of the bits of 64 blocks of each,
    so a change of any single weight changes a sum. All weights are read once, at memory speed.

    Args:
        model: a transformers model.
        others: named weights that the model itself does not hold.

    Raises:
        CacheError: weights lie on several devices, or cannot be read (offloaded to disk).
    """
    config = {
        key: value
        for key, value in model.config.to_dict().items()
        if not key.startswith("_") and key not in _NOT_COMPUTED_WITH
    }
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    if len({tensor.device for tensor in tensors.values()}) != 1:
        raise CacheError("its weights lie on several devices, and saved caches are loaded to a single one")
    try:
        for name, weight in chain(sorted(tensors.items()), others):
            tensor = weight.detach()
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
            digest.update(_sums(tensor).cpu().numpy().tobytes())
    except (RuntimeError, TypeError) as error:  # a weight lies on no device, or is of a packed type
        raise CacheError(f"its weights cannot be read: {error}") from error
    return digest.hexdigest()


def _sums(tensor: Tensor) -> Tensor:
    """Return (at most `_BLOCKS` + 1 + 7,) int64: the sums of the blocks, and what is left over."""
    raw = tensor.contiguous().reshape(-1).view(torch.uint8)
    block = len(raw) // (8 * _BLOCKS)
    whole = raw[: 8 * _BLOCKS * block]
    words = (whole if whole.storage_offset() % 8 == 0 else whole.clone()).view(torch.int64)
    return torch.cat([words.view(_BLOCKS, block).sum(dim=1), raw[8 * _BLOCKS * block :].long()])
