"""Distributions of a request whose target is on a GPU: p_hat and draws by kernels, the rest by PyTorch."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from rapid_integrations.kernels.cuda.law import p_hat_rows
from rapid_integrations.kernels.cuda.verdicts import draw_rows
from rapid_integrations.sampling import TorchOps
from rapid_integrations.sampling.ops import Shift


class TritonOps(TorchOps):
    """`Ops` that form p_hat without waiting for the device, and read one number of a draw instead of the whole law."""

    def p_hat(self, z: Tensor, drafter_logits: Tensor, temperature: float, **shift: Unpack[Shift]) -> Tensor:
        """Return p_hat (V,); a drafter on another device than the target is heard, too."""
        return p_hat_rows(z[None], drafter_logits.to(z.device)[None], temperature, **shift)[0]

    def draw(self, probs: Tensor, share: float) -> int:
        """Return the index at which the running sum of `probs` (V,) exceeds this share of its total."""
        shares = torch.tensor([share], dtype=torch.float64, device=probs.device)
        return int(draw_rows(probs[None], shares))
