"""The weights of a quantised checkpoint, under the names that they have in a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from rapid_integrations.errors import ModelLoadError
from rapid_integrations.models.block_experts import StoredStack
from rapid_integrations.models.packed.experts import mxfp4_stack
from rapid_integrations.models.packed.floats import fp8_weights, mxfp4_weights
from rapid_integrations.models.packed.levels import Levels, levels_of
from rapid_integrations.models.packed.repacked import RepackedBlocks, held_in_half
from rapid_integrations.models.packed.scheme import Scheme
from rapid_integrations.models.skeleton import mapped_weights

T = TypeVar("T")

_FP8 = (torch.float8_e4m3fn,)
_INTEGER_PARTS = {
    "gptq": ("qweight", "qzeros", "scales", "g_idx"),
    "awq": ("qweight", "qzeros", "scales"),
    "pack-quantized": ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx"),
    "int-quantized": ("weight", "weight_scale", "weight_zero_point"),
}
# What concerns inputs or cached keys and values, which are not rounded here.
_NOT_WEIGHTS = ("input_scale", "activation_scale", "input_zero_point", "output_scale", "k_scale", "v_scale", "q_scale")


@dataclass(frozen=True)
class PackedWeight:
    """A quantised weight.

    Attributes:
        name: that it has in a model.
        shape: that it has in a model.
        parts: its tensors, by the last parts of their names.
        scheme: how it is quantised.
    """

    name: str
    shape: tuple[int, ...]
    parts: Mapping[str, Tensor]
    scheme: Scheme

    def dense(self) -> Tensor:
        """Return the weight, float32.

        Raises:
            ModelLoadError: its tensors do not belong together.
        """
        if self.scheme.layout == "fp8":
            return self._read(lambda: fp8_weights(self.parts["weight"], self.parts["scale"], self.scheme.block))
        if self.scheme.layout == "mxfp4":
            return self._read(lambda: mxfp4_weights(self.parts["blocks"], self.parts["scales"]))
        return self.levels().dense()

    def levels(self) -> Levels:
        """Return the levels of a weight of integers.

        Raises:
            ModelLoadError: its tensors do not belong together.
        """
        return self._read(lambda: levels_of(self.parts, self.scheme))

    def blocks(self) -> RepackedBlocks | StoredStack | None:
        """Return the weight in blocks for the kernels, or None if these would not hold it exactly.

        Raises:
            ModelLoadError: its tensors do not belong together.
        """
        return self._read(self._blocks)

    def _blocks(self) -> RepackedBlocks | StoredStack | None:
        form = self.scheme.form
        if form is not None and self.scheme.layout == "mxfp4":
            return mxfp4_stack(form, self.name, self.parts["blocks"], self.parts["scales"])
        scale = self.parts["scales" if self.scheme.layout in ("gptq", "awq") else "weight_scale"]
        if form is None or self.shape[1] % form.columns or not held_in_half(scale):
            return None
        rows, columns = self.shape
        return RepackedBlocks(self.name, form, (rows, columns), self.levels)

    def _read(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except (KeyError, ValueError, RuntimeError) as error:
            missing = f"its tensor {error} is missing" if isinstance(error, KeyError) else str(error)
            raise ModelLoadError(
                f"{self.name} could not be loaded: {missing}. The files are incomplete or of another format than "
                f"{self.scheme.name}; fetch them again"
            ) from error


class PackedTensors:
    """All weights of a checkpoint, mapped into memory.

    Args:
        folder: its safetensors files.
        scheme: how its weights are quantised.

    Raises:
        ModelLoadError: none of its weights is quantised so.
    """

    def __init__(self, folder: Path, scheme: Scheme) -> None:
        self.weights = dict(_weights(mapped_weights(folder), scheme))
        self.scheme = scheme
        if not any(isinstance(each, PackedWeight) for each in self.weights.values()):
            raise ModelLoadError(
                f"{folder} could not be loaded: its configuration says that its weights are quantised with "
                f"{scheme.name}, but none of them is. Remove quantization_config if they are not quantised"
            )

    @property
    def elements(self) -> int:
        """The number of elements of all weights in a model."""
        return sum(prod(each.shape) for each in self.weights.values())

    def blocks(self) -> dict[str, Tensor | RepackedBlocks | StoredStack] | None:
        """Return all weights, quantised ones in blocks, or None if these would not hold one of them exactly."""
        found: dict[str, Tensor | RepackedBlocks | StoredStack] = {}
        for name, weight in self.weights.items():
            kept = weight.blocks() if isinstance(weight, PackedWeight) else weight
            if kept is None:
                return None
            found[name] = kept
        return found

    def dense(self, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """Yield all weights by name, the floats among them in a dtype."""
        for name, weight in self.weights.items():
            numbers = weight.dense() if isinstance(weight, PackedWeight) else weight
            yield name, numbers.to(dtype) if numbers.is_floating_point() else numbers


def _require_dimensions(name: str, tensor: Tensor, dimensions: int) -> None:
    if tensor.ndim != dimensions:
        raise _wrong(name, f"it has the shape {tuple(tensor.shape)}, and {dimensions} dimensions are needed")


def _wrong(name: str, why: str) -> ModelLoadError:
    return ModelLoadError(
        f"{name} could not be loaded: {why}. The files are incomplete or of another format than their configuration "
        "says; fetch them again"
    )


def _weights(held: dict[str, Tensor], scheme: Scheme) -> Iterator[tuple[str, Tensor | PackedWeight]]:
    left = {name: tensor for name, tensor in held.items() if name.rpartition(".")[2] not in _NOT_WEIGHTS}
    find = {"fp8": _fp8, "mxfp4": _mxfp4}.get(scheme.layout, _integers)
    for weight in list(find(left, scheme)):
        yield weight.name, weight
    yield from left.items()


def _fp8(left: dict[str, Tensor], scheme: Scheme) -> Iterator[PackedWeight]:
    for name in [name for name, tensor in left.items() if tensor.dtype in _FP8]:
        weight = left.pop(name)
        found = next((end for end in ("_scale_inv", "_scale") if f"{name}{end}" in left), None)
        parts = {"weight": weight} if found is None else {"weight": weight, "scale": left.pop(f"{name}{found}")}
        yield PackedWeight(name, tuple(weight.shape), parts, scheme)


def _mxfp4(left: dict[str, Tensor], scheme: Scheme) -> Iterator[PackedWeight]:
    for first in [name for name in left if name.endswith("_blocks")]:
        name = first.removesuffix("_blocks")
        blocks = left.pop(first)
        parts = {"blocks": blocks}
        if f"{name}_scales" in left:
            parts["scales"] = left.pop(f"{name}_scales")
        _require_dimensions(first, blocks, 4)
        experts, rows, *columns = blocks.shape
        yield PackedWeight(name, (experts, 2 * prod(columns), rows), parts, scheme)


def _integers(left: dict[str, Tensor], scheme: Scheme) -> Iterator[PackedWeight]:
    names = _INTEGER_PARTS[scheme.layout]
    marks = [name for name in left if name.endswith(f".{names[0]}") and left[name].dtype in (torch.int32, torch.int8)]
    for mark in marks:
        module = mark.removesuffix(names[0])
        parts = {name: left.pop(f"{module}{name}") for name in names if f"{module}{name}" in left}
        first = parts[names[0]]
        _require_dimensions(mark, first, 2)
        of_a_word = 32 // scheme.bits
        shape = {
            "gptq": (first.shape[1], first.shape[0] * of_a_word),
            "awq": (first.shape[1] * of_a_word, first.shape[0]),
            "int-quantized": tuple(first.shape),
        }.get(scheme.layout)
        if shape is None:
            shape = tuple(map(int, parts["weight_shape"].flatten())) if "weight_shape" in parts else tuple(first.shape)
            if len(shape) != 2:
                raise _wrong(mark, f"its weight_shape has {len(shape)} numbers, and a matrix has 2")
        yield PackedWeight(f"{module}weight", shape, parts, scheme)
