"""Layers whose tensors have other forms in GGUF files than in models, and what the families that have them share.

llama.cpp's converter gives recurrent layers other shapes, orders and numbers. A family with such layers is one module
here, which says how a tensor is read (`Forms`). A matrix whose rows are taken in parts is a module for each part: files
have some of these parts as tensors of their own, in other formats, and rows of blocks are put in order on the way into
the panels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from rapid_integrations.errors import ModelLoadError
from rapid_integrations.models.gguf.tensors import MappedTensors
from rapid_integrations.models.stored_model import stored_model

FULL, SLIDING = "full_attention", "sliding_attention"
WINDOW, PATTERN = "attention.sliding_window", "attention.sliding_window_pattern"

PartOfLayer: TypeAlias = Callable[[MappedTensors, str, Mapping[str, Any], torch.dtype, bool], "dict[str, Any] | None"]
"""Returns the weights that a tensor holds, by names within their layer; None if it has no form of its own.

Its arguments are the tensors of the files, the name of one ("blk.N.…"), the model's configuration, the dtype of
matrices that are not kept in blocks, and whether blocks are kept at all. It raises a `ModelLoadError` for a tensor of
another shape than the metadata says, or with numbers that are none of this family.
"""


def no_part(
    tensors: MappedTensors, name: str, config: Mapping[str, Any], dtype: torch.dtype, in_blocks: bool
) -> dict[str, Any] | None:
    """Return None: no tensor has a form of its own. See `PartOfLayer`."""
    return None


def _as_they_are(config: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    return dict(weights)


@dataclass(frozen=True)
class Forms:
    """How a family's tensors are read, and what its models are.

    Attributes:
        part_of_layer: reads a tensor.
        exact: ends of the names of weights that are float32 in files and in kernels.
        prepare: changes the modules of transformers' model to those that the weights are of; None: they are these.
        whole: returns weights, all of them numbers, under transformers' names, and in its order.
    """

    part_of_layer: PartOfLayer
    exact: tuple[str, ...]
    prepare: Callable[[Any], None] | None = None
    whole: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]] = _as_they_are

    def model(self, config: Mapping[str, Any], weights: Mapping[str, Any], dtype: torch.dtype) -> Any:
        """Return a model with these weights, of which those that are exact are float32.

        Raises:
            ValueError, NotDescribedError: see `stored_model`.
        """
        model = stored_model(config, weights, dtype, self.prepare)
        self.keep_exact(model, weights)
        return model

    def keep_exact(self, model: Any, weights: Mapping[str, Any]) -> None:
        """Give a model those of its weights in float32 that are exact."""
        for name, weight in weights.items():
            if name.endswith(self.exact) and isinstance(weight, Tensor):
                owner, _, kind = name.rpartition(".")
                setattr(model.get_submodule(owner), kind, nn.Parameter(weight.float(), requires_grad=False))


def matrices_of(
    tensors: MappedTensors, name: str, rows: Mapping[str, Tensor], dtype: torch.dtype, kept: bool
) -> dict[str, Any]:
    """Return the matrices, by modules' names with ".weight", whose rows are those of one tensor.

    Args:
        tensors: of the files.
        name: of the tensor.
        rows: which of them belong to which module; together all of them.
        dtype: of matrices that are not kept in blocks.
        kept: whether blocks are kept, of all of these modules.
    """
    blocks = tensors.blocks(name) if kept else None
    if blocks is not None:
        return {f"{module}.weight": blocks.some(own) for module, own in rows.items()}
    numbers = tensors.numbers(name, dtype)
    return {f"{module}.weight": numbers[own] for module, own in rows.items()}


def exact_numbers(tensors: MappedTensors, name: str, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor in float32.

    Raises:
        ModelLoadError: it has another shape.
    """
    require_shape(tensors, name, shape)
    return tensors.numbers(name, torch.float32)


def log_of_decays(tensors: MappedTensors, name: str, shape: tuple[int, ...]) -> Tensor:
    """Return the logarithms of the numbers that a file has with a minus, in float32.

    Raises:
        ModelLoadError: the tensor has another shape, or a state would grow.
    """
    decays = exact_numbers(tensors, name, shape)
    if not bool((decays < 0).all()):
        raise ModelLoadError(
            f"{tensors.path} could not be loaded: {name} has a number that is not below 0, and a state would grow "
            "without end; fetch the file again"
        )
    return (-decays).log()


def require_shape(tensors: MappedTensors, name: str, shape: tuple[int, ...]) -> None:
    """Refuse a tensor of another shape than the metadata says, before anything is made of the latter's size.

    Raises:
        ModelLoadError: the message has both, in GGUF's order.
    """
    found = tensors.tensors[name].shape
    if tuple(reversed(found)) != shape:
        raise ModelLoadError(
            f"{tensors.path} could not be loaded: its tensor {name} is {_by(found)}, and its metadata says "
            f"{_by(tuple(reversed(shape)))}; fetch it again, or convert it again with llama.cpp"
        )


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(each) for each in shape)


def count(told: Mapping[str, Any], key: str) -> int:
    """Return a number of the metadata that has to be a whole one above 0.

    Raises:
        KeyError, TypeError: it is left out, or something else.
    """
    value = told[key]
    if type(value) is not int or value <= 0:
        raise TypeError(f"{key} is {value!r}")
    return value


def attends(told: Mapping[str, Any]) -> list[bool]:
    """Return whether each layer attends: the others have no heads of keys in the file.

    Raises:
        KeyError, TypeError: the file says it in another way, or no layer attends.
    """
    heads = told["attention.head_count_kv"]
    if not isinstance(heads, list) or len(heads) != told["block_count"] or {type(each) for each in heads} != {int}:
        raise TypeError(f"attention.head_count_kv is {heads!r}")
    if len(set(heads) - {0}) != 1:
        raise TypeError("no layer attends, or layers have several numbers of heads")
    return [bool(each) for each in heads]


def layer_types(told: Mapping[str, Any], every: int | None) -> list[str]:
    """Return the kind of each layer: of `every` layers the last sees all keys, if the file says nothing else.

    Raises:
        TypeError: the file says it in a way that is not known here, or not at all where `every` is None.
    """
    layers, pattern = told["block_count"], told.get(PATTERN, every)
    if type(pattern) is int and pattern > 0 and every is not None:
        pattern = [index % pattern < pattern - 1 for index in range(layers)]
    if not isinstance(pattern, list) or len(pattern) != layers or {type(each) for each in pattern} != {bool}:
        raise TypeError(f"{PATTERN} is {pattern!r}")
    return [SLIDING if each else FULL for each in pattern]


def like(linear: nn.Linear, rows: int) -> nn.Linear:
    """Return a matrix of so many rows with the inputs, dtype and device of another one."""
    weight = linear.weight
    return nn.Linear(linear.in_features, rows, bias=False, dtype=weight.dtype, device=weight.device)


def take(weights: dict[str, Any], stem: str, *names: str) -> list[Tensor] | None:
    """Take weights out; None if one is not there, which is said where all names are compared."""
    if not all(f"{stem}{name}" in weights for name in names):
        return None
    return [weights.pop(f"{stem}{name}") for name in names]
