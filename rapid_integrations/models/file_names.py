"""Which tensors of a folder's files a model's weights are, where the files have other names than the model.

A family's files may hold a matrix for each expert, of which transformers stacks those of a layer, gates above what they
are multiplied with. Others only have other names. Which tensors become which weight is found by their numbers, so that
nothing has to be known of the family: what is found is proven. It holds for these numbers alone; whoever uses it later
has made sure that the files are the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from rapid_integrations.models.description import NotDescribedError

Sources: TypeAlias = dict[str, Any]
"""By the name of a weight: the name of a tensor, or a list of names of those that lie in it, one below the other, or
such a list for each matrix of a stack."""

_SAMPLE = 64  # numbers that are compared first
_NUMBER = re.compile(r"\d+")


def sources_of(model: nn.Module, tensors: Mapping[str, Tensor]) -> Sources:
    """Return which tensors of a model's files its weights are.

    Args:
        model: as transformers has loaded it.
        tensors: all of its files, by name.

    Raises:
        NotDescribedError: a weight is none of the tensors, nor made of them.
    """
    weights = model.state_dict(keep_vars=True)
    sources: Sources = {name: name for name, own in weights.items() if name in tensors and _same(own, tensors[name])}
    left = {name: tensor for name, tensor in tensors.items() if name not in sources}
    groups = _groups(left)
    held = {weights[name].data_ptr() for name in sources}
    for name, own in weights.items():
        if name in sources or own.data_ptr() in held:  # a head that is the embedding table has no tensor
            continue
        found = next((other for other, tensor in left.items() if _same(own, tensor)), None)
        source = found or _below_each_other(own, left) or _stack(own, groups, left)
        if source is None:
            raise NotDescribedError(f"{name} is no tensor of the files")
        sources[name] = source
        held.add(own.data_ptr())
    return sources


def weights_from(sources: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a model's weights by their own names.

    Raises:
        KeyError, TypeError, ValueError, IndexError, RuntimeError: these are the sources of other files.
    """
    return {name: _weight(source, tensors) for name, source in sources.items()}


def _weight(source: Any, tensors: Mapping[str, Tensor]) -> Tensor:
    if isinstance(source, str):
        return tensors[source]
    if isinstance(source[0], str):
        return torch.cat([tensors[name] for name in source])
    first = [tensors[name] for name in source[0]]
    whole = torch.empty(len(source), sum(map(len, first)), *first[0].shape[1:], dtype=first[0].dtype, device="cpu")
    for into, names in zip(whole, source, strict=True):
        torch.cat([tensors[name] for name in names], out=into)
    return whole


def _same(weight: Tensor, tensor: Tensor) -> bool:
    if weight.shape != tensor.shape or weight.is_meta:
        return False
    own, sample = weight.detach(), slice(0, _SAMPLE)
    begin = own.flatten()[sample], tensor.flatten()[sample].to(own.dtype)
    return torch.equal(*begin) and torch.equal(own, tensor.to(own.dtype))


def _groups(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """Return the names of matrices that differ in one number, which counts them from 0, in that order."""
    found: dict[tuple[str, str], dict[int, str]] = {}
    for name, tensor in tensors.items():
        for number in _NUMBER.finditer(name) if tensor.ndim == 2 else ():
            found.setdefault((name[: number.start()], name[number.end() :]), {})[int(number.group())] = name
    return [[own[index] for index in range(len(own))] for own in found.values() if set(own) == set(range(len(own)))]


def _below_each_other(weight: Tensor, tensors: Mapping[str, Tensor]) -> list[str] | None:
    parts: list[str] = []
    begin = 0
    while weight.ndim and begin < len(weight):
        fitting = (each for each, own in tensors.items() if own.ndim == weight.ndim and len(own) and each not in parts)
        found = next((each for each in fitting if _lies_in(weight, begin, tensors[each])), None)
        if found is None:
            return None
        parts.append(found)
        begin += len(tensors[found])
    return parts or None


def _stack(weight: Tensor, groups: Sequence[Sequence[str]], tensors: Mapping[str, Tensor]) -> list[list[str]] | None:
    parts: list[Sequence[str]] = []
    begin = 0
    while weight.ndim == 3 and begin < weight.shape[1]:
        found = next((each for each in groups if each not in parts and _lies(each, weight, begin, tensors)), None)
        if found is None:
            return None
        parts.append(found)
        begin += len(tensors[found[0]])
    return [list(each) for each in zip(*parts, strict=True)] or None


def _lies(group: Sequence[str], weight: Tensor, begin: int, tensors: Mapping[str, Tensor]) -> bool:
    """Return whether the matrices of a group lie in those of a stack, from a row on."""
    if len(group) != len(weight) or not len(tensors[group[0]]):
        return False
    return all(_lies_in(own, begin, tensors[name]) for own, name in zip(weight, group, strict=True))


def _lies_in(weight: Tensor, begin: int, tensor: Tensor) -> bool:
    return _same(weight[begin : begin + len(tensor)], tensor)
