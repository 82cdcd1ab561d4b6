"""The experts of a layer in a GGUF file.

A file has one tensor for the gates of all experts of a layer, one for what stands beside the gates, and one for what
lies behind both. Some have the first two in one, the gates of an expert before what stands beside them, and some have
no gates.
"""

from __future__ import annotations

from typing import Any

import torch

from rapid_integrations.models.block_experts import StoredStack
from rapid_integrations.models.gguf.tensors import MappedTensors

STACKS = frozenset({"ffn_gate_exps", "ffn_up_exps", "ffn_down_exps", "ffn_gate_up_exps"})
"""What a file calls the parts of a layer that hold experts."""


def experts_of_layer(
    tensors: MappedTensors, stem: str, kind: str, experts: str, dtype: torch.dtype, in_blocks: bool
) -> dict[str, Any]:
    """Return the weights or biases of all experts of a layer: of gates with what stands beside them, or behind both.

    Nothing is returned for what stands beside the gates, because it is read with them.

    Args:
        tensors: of the files.
        stem: of the tensor's name; its part is one of `STACKS`.
        kind: "weight" or "bias".
        experts: the module that holds them.
        dtype: of what is not kept in blocks.
        in_blocks: False dequantises everything.
    """
    up = stem.endswith("ffn_up_exps")
    if up and f"{stem.replace('_up_', '_gate_')}.{kind}" in tensors.tensors:
        return {}
    down, one = stem.endswith("ffn_down_exps"), up or stem.endswith("ffn_gate_up_exps")
    names = [f"{stem}.{kind}"] if down or one else [f"{stem}.{kind}", f"{stem.replace('_gate_', '_up_')}.{kind}"]
    target = f"{experts}.{'down_proj' if down else 'up_proj' if up else 'gate_up_proj'}"
    if kind == "bias" and not one:
        biases = [tensors.numbers(name, dtype) for name in names]
        # GPT-OSS, the only family with biases, has those of gates and of what stands beside them in turn.
        return {f"{target}_bias": biases[0] if down else torch.stack(biases, dim=2).flatten(1)}
    parts = [tensors.stack(name) if in_blocks else None for name in names]
    kept = [part for part in parts if part is not None]
    if len(kept) == len(parts):
        return {target: StoredStack(tuple(kept))}
    return {target: torch.cat([tensors.numbers(name, dtype) for name in names], dim=1)}
