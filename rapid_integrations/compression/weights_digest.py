"""A digest that identifies an embedder with its weights and settings, for the keys of an embedding cache."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def weights_digest(settings: Iterable[str], weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of everything that a vector depends on, in hexadecimal digits.

    Each tensor enters as a CRC-32, which is fast. The digest tells models apart but does not protect from an attacker.

    Args:
        settings: everything else that a vector depends on (the configuration, the tokenizer, a prefix).
        weights: the model's `state_dict()`.
    """
    import torch  # compression can be imported without torch

    digest = hashlib.sha256()
    for part in settings:
        digest.update(part.encode() + b"\0")
    for name, tensor in weights.items():
        content: Any = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {zlib.crc32(content)}\0".encode())
    return digest.hexdigest()
