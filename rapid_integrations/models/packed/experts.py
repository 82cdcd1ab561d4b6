"""Experts of quantised checkpoints as stacks of blocks. No number is rounded.

Most checkpoints have a matrix for each expert under a name of its own. GPT-OSS has one tensor for all of them, in which
rows of the gate and rows of what stands beside it take turns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.kernels.cpu.blocks import BlockFormat, file_weights
from rapid_integrations.models.block_experts import StoredStack
from rapid_integrations.models.block_linear import StoredBlocks

_OF_AN_EXPERT = re.compile(r"(?P<module>.*\.experts)\.(?P<index>\d+)\.(?P<part>[a-z0-9_]+)\.weight")
_OF_GRANITE = (".router.", ".experts.gate_up_proj", ".experts.down_proj")  # whose module has the published name
_PARTS = {"gate_proj": 0, "w1": 0, "up_proj": 1, "w3": 1, "down_proj": 2, "w2": 2}


class Mxfp4Blocks(StoredBlocks):
    """A weight of MXFP4 as GPT-OSS publishes it, put into the order of GGUF files each time that it is asked for.

    Args:
        form: MXFP4.
        blocks: (O, K / 32, 16) uint8, two numbers a byte, the first in its low half.
        scales: (O, K / 32) uint8.
    """

    _own: tuple[Tensor, Tensor]

    def __init__(self, form: BlockFormat, blocks: Tensor, scales: Tensor) -> None:
        for key, value in {"form": form, "order": None, "release": lambda: None, "_own": (blocks, scales)}.items():
            object.__setattr__(self, key, value)

    @property
    def raw(self) -> Tensor:
        """(O, bytes of a row) uint8. In GGUF the low halves of a block's bytes have its first sixteen numbers."""
        blocks, scales = self._own
        numbers = torch.stack([blocks & 15, blocks >> 4], dim=-1).flatten(2)  # (O, K / 32, 32)
        halves = numbers[..., :16] | numbers[..., 16:] << 4
        return torch.cat([scales[..., None], halves], dim=-1).flatten(1)

    @property
    def shape(self) -> tuple[int, int]:
        """(O, K)."""
        rows, groups, size = self._own[0].shape
        return rows, 2 * groups * size

    def dense(self) -> Tensor:
        """Return the weights, (O, K) float32."""
        return file_weights(self.form, self.raw)


def mxfp4_stack(form: BlockFormat, name: str, blocks: Tensor, scales: Tensor) -> StoredStack:
    """Return a tensor of all experts as a stack, gates first.

    Args:
        form: MXFP4.
        name: of the weight in a model.
        blocks: (N, O, K / 32, 16) uint8.
        scales: (N, O, K / 32) uint8.
    """
    turns = 2 if name.endswith("gate_up_proj") else 1
    parts = [
        [Mxfp4Blocks(form, own[turn::turns], scale[turn::turns]) for own, scale in zip(blocks, scales, strict=True)]
        for turn in range(turns)
    ]
    return StoredStack(tuple(parts))


def joined_experts(weights: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return weights with the matrices of experts in stacks, under the names that transformers' models have for them.

    Routers and gates of shared experts become numbers, because no product reads their blocks.

    Args:
        weights: by their names in the files, `Tensor`, `StoredBlocks` or `StoredStack`.

    Returns:
        None if the matrices of an expert are missing, or lie in blocks only in part.
    """
    found: dict[str, Any] = {}
    stacks: dict[str, tuple[dict[int, Any], dict[int, Any], dict[int, Any]]] = {}
    for name, weight in weights.items():
        own = name if any(part in name for part in _OF_GRANITE) else name.replace(".block_sparse_moe.", ".mlp.")
        match = _OF_AN_EXPERT.fullmatch(own)
        if match is None:
            routes = own.endswith(("gate.weight", "router.weight")) and isinstance(weight, StoredBlocks)
            found[own] = weight.dense() if routes else weight
            continue
        if match["part"] not in _PARTS or not isinstance(weight, StoredBlocks):
            return None
        stacks.setdefault(match["module"], ({}, {}, {}))[_PARTS[match["part"]]][int(match["index"])] = weight
    for module, parts in stacks.items():
        numbers, gated = list(range(len(parts[1]))), bool(parts[0])
        if any(sorted(part) != numbers for part in (parts if gated else parts[1:])):
            return None
        gate, up, down = ([part[index] for index in numbers if index in part] for part in parts)
        if gated:
            found[f"{module}.gate_up_proj"] = StoredStack((gate, up))
        else:
            found[f"{module}.up_proj"] = StoredStack((up,))
        found[f"{module}.down_proj"] = StoredStack((down,))
    return found
