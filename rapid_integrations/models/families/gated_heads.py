"""What the descriptions of families are made of whose heads have gates in a matrix of their own: LFM3 and Laguna."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from rapid_integrations.models.description import Attention


def with_gates(attention: Attention, gates: nn.Linear, *, of_head: bool, softplus: bool = False) -> Attention:
    """Return an attention with gates behind its values.

    Args:
        attention: without gates.
        gates: (H, E) if there is one for each head (`of_head`), and (H * D, E) otherwise.
        of_head: whether a gate is a factor on a whole head.
        softplus: whether the factors are the gates' softplus, and not their sigmoid.
    """
    qkv = (*attention.qkv, gates)
    return replace(attention, qkv=qkv, gated=True, gate_of_head=of_head, softplus_gates=softplus)
