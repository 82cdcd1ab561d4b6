"""The tensors of a head's checkpoint, taken one by one, so that what is missing, misshapen or unknown is named."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.cache.arena import Arena
from rapid_integrations.errors import ModelLoadError, UnsupportedModelError
from rapid_integrations.kernels.cpu import MAX_ROWS, NativeMatrix
from rapid_integrations.kernels.cpu.decoder import COLUMNS
from rapid_integrations.kernels.cpu.library import loaded_library
from rapid_integrations.kernels.cpu.matrices import product
from rapid_integrations.models.linear import Int8Linear, Linear, PackedLinear, PlainLinear

_COMPUTED = ("rotary_emb.inv_freq",)  # written by some tools, and computed here


class HeadWeights:
    """The tensors of a checkpoint by name.

    Args:
        name: of the checkpoint, for messages.
        tensors: all of them.
        dtype: of the computation.
        device: of the computation.
    """

    def __init__(self, name: str, tensors: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device) -> None:
        self.name = name
        self.dtype, self.device = dtype, device
        self._left = {each: tensor for each, tensor in tensors.items() if not each.endswith(_COMPUTED)}
        self.bytes = self.parameters = 0  # of products, and of their weights
        self._arena = Arena()

    def names(self) -> Collection[str]:
        """Return the names of the tensors that nobody has taken yet."""
        return self._left.keys()

    def has(self, name: str) -> bool:
        """Whether there is such a tensor."""
        return name in self._left

    def ignore(self, *names: str) -> None:
        """Drop tensors that are not needed, if there are any."""
        for name in names:
            self._left.pop(name, None)

    def raw(self, name: str) -> Tensor:
        """Take a tensor as it is.

        Raises:
            ModelLoadError: there is no such tensor.
        """
        if name not in self._left:
            raise ModelLoadError(
                f"draft_head={self.name!r} has no tensor {name!r}: the checkpoint is incomplete, or of another layout. "
                "docs/heads.md lists the layouts"
            )
        return self._left.pop(name)

    def take(self, name: str, *shape: int) -> Tensor:
        """Take a tensor of this shape, in the dtype of the computation.

        Raises:
            ModelLoadError: there is no such tensor, or its shape is another one.
        """
        tensor = self.raw(name)
        if tuple(tensor.shape) != shape:
            raise ModelLoadError(
                f"draft_head={self.name!r}: {name!r} has the shape {tuple(tensor.shape)}, and its configuration and "
                f"the target ask for {shape}: it was made for another model"
            )
        return tensor.to(self.device, self.dtype)

    def linear(self, name: str, rows: int, columns: int) -> Linear:
        """Take the product of `name`.weight (rows, columns), with its bias if it has one."""
        bias = self.take(f"{name}.bias", rows) if self.has(f"{name}.bias") else None
        return self.product(self.take(f"{name}.weight", rows, columns), bias)

    def beside(self, names: Sequence[str], rows: Sequence[int], columns: int) -> Linear:
        """Take several products of the same input as one, their outputs side by side."""
        weights, biases = [], []
        for name, own in zip(names, rows, strict=True):
            weights.append(self.take(f"{name}.weight", own, columns))
            known = self.has(f"{name}.bias")
            biases.append(self.take(f"{name}.bias", own) if known else weights[-1].new_zeros(own))
        return self.product(torch.cat(weights), torch.cat(biases) if any(map(torch.any, biases)) else None)

    def product(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        """Return the product with a weight (rows, columns) that was taken.

        If the target runs on this package's kernels, so does the head, with eight bits a weight: a head only guesses.
        """
        self.parameters += weight.numel()
        made: Linear
        if KernelLinear.serves(weight):
            made = KernelLinear(weight, bias, self._arena)
        elif PackedLinear.serves(weight):
            made = PackedLinear(weight, bias)
        else:
            made = PlainLinear(weight, bias)
        self.bytes += made.step_bytes
        return made

    def require_all_taken(self) -> None:
        """Refuse a checkpoint with tensors that are not known: it computes something else.

        Raises:
            UnsupportedModelError: there are some.
        """
        if self._left:
            raise UnsupportedModelError(
                f"draft_head={self.name!r} has {len(self._left)} tensors that are not known, such as "
                f"{min(self._left)!r}: it computes something that is not supported. docs/heads.md lists the layouts"
            )


class KernelLinear:
    """A product of few rows on this package's kernels, with weights (O, K) of eight bits."""

    def __init__(self, weight: Tensor, bias: Tensor | None, arena: Arena) -> None:
        self._many = Int8Linear(weight, bias, arena)
        matrix = self._many.native()
        assert matrix is not None  # it was made for the kernels
        self._matrix = matrix
        self.step_bytes = self._many.step_bytes

    @staticmethod
    def serves(weight: Tensor) -> bool:
        """Whether the kernels are loaded, and multiply by this weight."""
        fit = weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and weight.shape[1] % COLUMNS == 0
        return fit and loaded_library() is not None

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply."""
        return product(self._matrix, x).to(x.dtype) if len(x) <= MAX_ROWS else self._many(x)

    def dense(self) -> Tensor:
        """Return the dequantised weights."""
        return self._many.dense()

    def native(self) -> NativeMatrix:
        """Return the weights for the kernels."""
        return self._matrix


def number(config: Mapping[str, Any], key: str, name: str, default: int | None = None) -> int:
    """Return a whole number above 0 of a configuration.

    Raises:
        ModelLoadError: it is missing or something else.
    """
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelLoadError(
            f"draft_head={name!r}: its config.json has {key}={value!r}, and a number above 0 is needed"
        )
    return value
