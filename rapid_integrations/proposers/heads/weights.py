"""The tensors of a head's checkpoint, taken one by one, so that what is missing, misshapen or unknown is named."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.errors import ModelLoadError, UnsupportedModelError
from rapid_integrations.models.linear import Linear, PackedLinear, PlainLinear

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
        self.bytes = 0

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

    def product(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        """Return the product with a weight (rows, columns) that was taken."""
        self.bytes += weight.nbytes
        return PackedLinear(weight, bias) if PackedLinear.serves(weight) else PlainLinear(weight, bias)

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
