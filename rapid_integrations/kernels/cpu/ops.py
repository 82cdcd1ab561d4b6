"""Operations on vectors as wide as a vocabulary, each in one call of the kernels; see distributions.cpp."""

from __future__ import annotations

import ctypes
from typing import Unpack

import torch
from torch import Tensor

from rapid_integrations.kernels.cpu.numpy_ops import NumPyOps
from rapid_integrations.sampling.ops import LEAST_SUM, Shift

_CHOSEN = -1.0  # the kernels' eta if they choose it at each position
_LEAST_ALPHA = 0.01  # of the tail rule, for which the kernels are made: few tokens move
_NO_MEMORY = -2  # the kernels' answer


class NativeOps(NumPyOps):
    """`Ops` by the kernels; what they are not made for is left to NumPy and torch.

    They are made for vectors of one length, in float32, on the processor. Models give such logits, but a proposer may
    report distributions of its own kind.

    Args:
        library: the kernels.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        super().__init__()
        self._library = library

    def softmax(self, logits: Tensor, temperature: float) -> Tensor:
        """Return softmax(logits / temperature)."""
        if not _served(logits):
            return super().softmax(logits, temperature)
        logits = logits.contiguous()
        out = torch.empty_like(logits)
        self._library.rapid_softmax(logits.data_ptr(), logits.numel(), 1.0 / temperature, out.data_ptr())
        return out

    def p_hat(self, z: Tensor, drafter_logits: Tensor, temperature: float, **shift: Unpack[Shift]) -> Tensor:
        """Return p_hat (V,).

        Raises:
            MemoryError: there was none left.
        """
        if not (_few_move(shift) and _served(z, drafter_logits)):
            return super().p_hat(z, drafter_logits, temperature, **shift)
        return self._p_hat(z, drafter_logits, temperature, shift, greedy=False)[1]

    def best_of_p_hat(self, z: Tensor, drafter_logits: Tensor, **shift: Unpack[Shift]) -> int:
        """Return the best token of `p_hat` at temperature 1, without forming it.

        Raises:
            MemoryError: there was none left.
        """
        if not (_few_move(shift) and _served(z, drafter_logits)):
            return super().best_of_p_hat(z, drafter_logits, **shift)
        return self._p_hat(z, drafter_logits, 1.0, shift, greedy=True)[0]

    def truncate(self, probs: Tensor, *, top_k: int, top_p: float, min_p: float) -> Tensor:
        """Return `probs` (V,) truncated, in place if it is contiguous.

        Raises:
            MemoryError: there was none left.
        """
        if not _served(probs):
            return super().truncate(probs, top_k=top_k, top_p=top_p, min_p=min_p)
        probs = probs.contiguous()
        if self._library.rapid_truncate(probs.data_ptr(), probs.numel(), top_k, top_p, min_p):
            raise MemoryError("truncating a distribution found no memory")
        return probs

    def residual(self, law: Tensor, factor: float, proposed: Tensor) -> tuple[float, Tensor]:
        """Return the sum of max(factor * law - proposed, 0), and that scaled to a sum of 1."""
        if not _served(law, proposed):
            return super().residual(law, factor, proposed)
        law, proposed = law.contiguous(), proposed.contiguous()
        out = torch.empty_like(law)
        left = self._library.rapid_residual(law.data_ptr(), factor, proposed.data_ptr(), law.numel(), out.data_ptr())
        if 0.0 < left < LEAST_SUM:  # the kernel scales by 1 / left, which may overflow
            return super().residual(law, factor, proposed)
        return left, out

    def draw(self, probs: Tensor, share: float) -> int:
        """Return the index at which the running sum of `probs` (V,) exceeds this share of its total."""
        if not _served(probs):
            return super().draw(probs, share)
        probs = probs.contiguous()
        return int(self._library.rapid_draw(probs.data_ptr(), probs.numel(), share))

    def _p_hat(
        self, z: Tensor, drafter_logits: Tensor, temperature: float, shift: Shift, *, greedy: bool
    ) -> tuple[int, Tensor]:
        z, drafter_logits = z.contiguous(), drafter_logits.contiguous()
        out, scratch = torch.empty_like(z), torch.empty_like(z)
        eta = shift["eta"]
        token = self._library.rapid_p_hat(
            z.data_ptr(),
            drafter_logits.data_ptr(),
            z.numel(),
            1.0 / temperature,
            _CHOSEN if isinstance(eta, str) else eta,
            shift["relevance"],
            1.0 if eta == "nearest" else shift["trust"],
            shift["tail_alpha"],
            greedy,
            out.data_ptr(),
            scratch.data_ptr(),
        )
        if token == _NO_MEMORY:
            raise MemoryError("forming a distribution found no memory")
        return token, out


def _served(first: Tensor, *others: Tensor) -> bool:
    """Whether the kernels are made for these vectors."""
    # Asked between two steps, which leave nothing in the caches: `len(x)` and `x.device.type` take 20 and 10 us there,
    # what is asked for here 2.
    if not (size := first.numel()):
        return False
    for each in (first, *others):
        if each.dim() != 1 or each.numel() != size or each.dtype != torch.float32 or not each.is_cpu:
            return False
    return True


def _few_move(shift: Shift) -> bool:
    return shift["tail_rule"] == "mask" and shift["tail_alpha"] >= _LEAST_ALPHA
