"""Gated short convolutions in place of attentions (LFM2), by PyTorch's operators."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rapid_integrations.cache import StatePass, StateShape
from rapid_integrations.kernels.cpu import NativeRecurrence
from rapid_integrations.models.description import ShortConvolution


@dataclass(frozen=True)
class TakenConvolution:
    """A short convolution whose weights were taken over; those of its inputs and its output are the layer's.

    Attributes:
        described: the convolution.
        taps: (W, E) float32, its factors.
        tap_bias: (E,) float32, or None.
    """

    described: ShortConvolution
    taps: Tensor
    tap_bias: Tensor | None
    rates: None = None  # of a recurrence with matrices

    @classmethod
    def of(cls, convolution: ShortConvolution) -> TakenConvolution:
        """Take the weights from their modules."""
        bias = convolution.convolution_bias
        taps = convolution.convolution.detach()[:, 0].float().t().contiguous()
        return cls(convolution, taps, None if bias is None else bias.detach().float().contiguous())

    @cached_property
    def native(self) -> NativeRecurrence:
        """The convolution for the kernels."""
        return NativeRecurrence(channels=self.taps.shape[1], taps=self.taps, tap_bias=self.tap_bias)

    def read(self, index: int, inputs: Tensor, rates: Tensor | None, done: StatePass, kernels: bool) -> Tensor:
        """Return what the convolution gives for the new rows of a text, (T, E), and fill in its pass.

        Args:
            index: number of the convolution among the model's.
            inputs: (T, 3 E), the product's rows.
            rates: there are none.
            done: the pass over this text's state.
            kernels: changes nothing: sums of a few rows are quick.
        """
        before_gate, behind_gate, values = inputs.chunk(3, dim=1)
        new = (before_gate * values).float()
        if done.rows is not None:
            done.rows[index, -len(new) :] = new
        joined = torch.cat([done.before.inputs[index], done.recorded[index], new])
        width = len(self.taps)
        for stop, into in zip(done.stops, done.states, strict=True):
            into.inputs[index] = joined[stop : stop + width - 1]
        first = done.recorded.shape[1]
        sums = torch.zeros_like(new) if self.tap_bias is None else self.tap_bias.expand_as(new)
        for tap in range(width):  # in one order for every row, so that it has the same bits in any company
            sums = sums + self.taps[tap] * joined[first + tap : first + tap + len(new)]
        return (behind_gate.float() * sums).to(inputs.dtype)


def shape_of_convolutions(count: int, own: ShortConvolution, device: torch.device) -> StateShape:
    """Return the shape of the state of a model with so many short convolutions: their last inputs alone."""
    channels, _, taps = own.convolution.shape
    return StateShape(count, heads=0, key_dim=0, value_dim=0, channels=channels, rates=0, taps=taps, device=device)
