"""Distributions of a request whose target is on a GPU: p_hat, draws and verdicts by kernels, the rest by PyTorch."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from rapid_integrations.kernels.cuda.law import p_hat_rows
from rapid_integrations.kernels.cuda.verdicts import draw_rows, verify_rounds
from rapid_integrations.sampling import TorchOps
from rapid_integrations.sampling.ops import Shift
from rapid_integrations.sampling.rows import TorchRows


class TritonRows(TorchRows):
    """`RowOps` by kernels; distributions without a shift are formed and truncated in torch."""

    def p_hat(self, z: Tensor, drafter_logits: Tensor, temperature: float, **shift: Unpack[Shift]) -> Tensor:
        """Return p_hat (R, V)."""
        return p_hat_rows(z, drafter_logits, temperature, **shift)

    def draw(self, probs: Tensor, share: Tensor) -> Tensor:
        """Return the index at which the running sum of `probs` (V,) exceeds this share of its total."""
        return draw_rows(probs[None], share)[0]

    def verify(
        self, laws: Tensor, draft: Tensor, proposed: Tensor | None, uniforms: Tensor, length: Tensor | None = None
    ) -> Tensor:
        """Return how many tokens of a draft stand, the token behind them, and how many uniform numbers were used."""
        drawn_from = None if proposed is None else proposed[None]
        lengths = None if length is None else length.view(1)
        return verify_rounds(laws[None], draft[None], drawn_from, uniforms[None], lengths)[0]


class TritonOps(TorchOps):
    """`Ops` that form p_hat without waiting for the device, and read one number of a draw instead of the whole law."""

    def __init__(self) -> None:
        super().__init__(TritonRows())

    def p_hat(self, z: Tensor, drafter_logits: Tensor, temperature: float, **shift: Unpack[Shift]) -> Tensor:
        """Return p_hat (V,); a drafter on another device than the target is heard, too."""
        return p_hat_rows(z[None], drafter_logits.to(z.device)[None], temperature, **shift)[0]

    def draw(self, probs: Tensor, share: float) -> int:
        """Return the index at which the running sum of `probs` (V,) exceeds this share of its total."""
        shares = torch.tensor([share], dtype=torch.float64, device=probs.device)
        return int(draw_rows(probs[None], shares))
