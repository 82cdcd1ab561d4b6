"""Integer levels of GPTQ, AWQ and compressed-tensors, unpacked from the words in which they are published.

Layouts, for a weight (O, K) with G groups of columns and words of 32 bits:

- GPTQ: `qweight` (K / levels of a word, O), `qzeros` (G, O / levels of a word), `scales` (G, O), `g_idx` (K,). Zero
  points are stored less one, but for "gptq_v2".
- AWQ: `qweight` (K, O / 8) and `qzeros` (G, O / 8), the outputs of a word in the order 0, 2, 4, 6, 1, 3, 5, 7.
- compressed-tensors: `weight_packed` (O, K / levels of a word) or `weight` int8 (O, K), `weight_scale` (O, G),
  `weight_zero_point` (O / levels of a word, G) or int8 (O, G), `weight_g_idx` (K,).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rapid_integrations.models.packed.scheme import Scheme

_AWQ_PLACES = [0, 4, 1, 5, 2, 6, 3, 7]  # where a word holds each of its outputs


@dataclass(frozen=True)
class Levels:
    """A weight (O, K) = number * scale.

    Attributes:
        numbers: (O, K) int16, levels less their zero points.
        scale: (O, G), of a dtype that floats have.
        group_of: (K,) int64, the group of each column; None: the groups lie side by side and are equally wide.
    """

    numbers: Tensor
    scale: Tensor
    group_of: Tensor | None

    def dense(self) -> Tensor:
        """Return the weights, (O, K) float32. The products are exact."""
        scale = self.scale.float()
        if self.group_of is not None:
            return self.numbers.float() * scale[:, self.group_of]
        rows, groups = scale.shape
        return (self.numbers.float().reshape(rows, groups, -1) * scale[..., None]).reshape(rows, -1)


def levels_of(parts: Mapping[str, Tensor], scheme: Scheme) -> Levels:
    """Return the levels of a weight.

    Args:
        parts: its tensors, by the names that they have in the files.
        scheme: how they are packed.

    Raises:
        KeyError: a tensor is missing.
        ValueError: the shapes of the tensors contradict each other.
    """
    bits = scheme.bits
    if scheme.layout == "gptq":
        levels = unpacked(parts["qweight"].t(), bits)
        zeros = unpacked(parts["qzeros"], bits).t() + int(scheme.stored_less_one)
        scale, order = parts["scales"].t(), parts.get("g_idx")
    elif scheme.layout == "awq":
        levels, zeros = (_in_order(unpacked(parts[name], bits)).t() for name in ("qweight", "qzeros"))
        scale, order = parts["scales"].t(), None
    else:
        levels, zeros, scale, order = _compressed(parts, bits)
    rows, columns = levels.shape
    if scale.shape[0] == 1 != rows:
        scale, zeros = scale.expand(rows, -1), zeros.expand(rows, -1)
    groups = scale.shape[1]
    if scale.shape != zeros.shape or len(scale) != rows:
        raise ValueError(
            f"its levels have the shape {tuple(levels.shape)}, its scales {tuple(scale.shape)} and its zero points "
            f"{tuple(zeros.shape)}, which do not belong together"
        )
    width = scheme.group or columns
    usual = torch.arange(columns, device=levels.device) // width
    # Files whose columns lie in their usual order have no list of groups, or one of -1.
    group_of = usual if order is None or int(order.min()) < 0 else order.long()
    if len(group_of) != columns or int(group_of.max()) >= groups:
        raise ValueError(f"it has {columns} columns in groups of {width}, but scales for {groups} groups")
    if torch.equal(group_of, usual) and groups * width == columns:
        numbers = levels.reshape(rows, groups, width) - zeros[..., None]
        return Levels(numbers.reshape(rows, columns).contiguous(), scale, None)
    return Levels(levels - zeros[:, group_of], scale, group_of)


def unpacked(words: Tensor, bits: int) -> Tensor:
    """Return (A, B * 32 / bits) int16 levels, 0 to 2^bits - 1, of words (A, B) int32, the lowest bits first."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int32, device=words.device)
    levels: Tensor = (words[..., None] >> shifts) & (2**bits - 1)
    return levels.to(torch.int16).flatten(1)


def _in_order(levels: Tensor) -> Tensor:
    ordered: Tensor = levels.view(len(levels), -1, 8)[..., _AWQ_PLACES]
    return ordered.flatten(1)


def _compressed(parts: Mapping[str, Tensor], bits: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    middle = 2 ** (bits - 1)  # what packed levels and zero points are stored above their values
    if "weight_packed" in parts:
        rows, columns = map(int, parts["weight_shape"])
        levels = unpacked(parts["weight_packed"], bits)[:, :columns] - middle
    else:
        levels = parts["weight"].to(torch.int16)
        rows = len(levels)
    scale = parts["weight_scale"]
    scale = scale.reshape(1, 1) if scale.numel() == 1 else scale.reshape(rows, -1)
    zeros = parts.get("weight_zero_point")
    if zeros is None:
        zeros = torch.zeros(scale.shape, dtype=torch.int16)
    elif zeros.dtype == torch.int32 and zeros.shape != scale.shape:
        zeros = unpacked(zeros.t(), bits).t()[:rows] - middle
    return levels, zeros.to(torch.int16).reshape(scale.shape), scale, parts.get("weight_g_idx")
