"""Weights that are taken from a model's modules into products of our own, and lent back to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from rapid_integrations.cache.arena import Arena
from rapid_integrations.config import Quantization
from rapid_integrations.models.block_linear import BlockLinear, JoinedLinear
from rapid_integrations.models.description import ColumnsOf, OneMatrix, RowsOf, Stack, Transposed
from rapid_integrations.models.linear import Linear, PlainLinear, make_linear


class Holder(Protocol):
    """Modules of a model from which weights were taken."""

    def fill(self, fused: Any) -> None:
        """Give the modules parameters of their own with the numbers that a product multiplies with."""
        ...

    def weights(self) -> dict[tuple[nn.Module, str], Any]:
        """Return the parameters that the modules hold now, by module and name."""
        ...


class Linears:
    """Modules whose weights lie in one product, one below the other."""

    def __init__(self, linears: Sequence[OneMatrix | RowsOf]) -> None:
        self.linears = linears

    def fill(self, fused: Linear) -> None:
        """See `Holder`."""
        fill(self.linears, fused)

    def weights(self) -> dict[tuple[nn.Module, str], Any]:
        """See `Holder`."""
        parts = (RowsOf, Transposed, ColumnsOf)
        modules = [linear.module if isinstance(linear, parts) else linear for linear in self.linears]
        return {(module, "weight"): module.weight for module in modules}


class StackHolder:
    """A parameter that has one matrix for each expert, each in a product of its own."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def fill(self, fused: Sequence[Linear]) -> None:
        """See `Holder`."""
        held = getattr(self.stack.module, self.stack.name)
        whole = torch.stack([each.dense() for each in fused]).to(held.dtype)
        whole = whole if self.stack.given is None else self.stack.given(whole)
        setattr(self.stack.module, self.stack.name, nn.Parameter(whole.contiguous(), requires_grad=False))

    def weights(self) -> dict[tuple[nn.Module, str], Any]:
        """See `Holder`."""
        return {(self.stack.module, self.stack.name): getattr(self.stack.module, self.stack.name)}


Matrices: TypeAlias = Sequence[tuple[Any, Holder]]
"""Products of ours (of experts: lists of them), each with the modules whose weights it holds."""


def take_stack(stack: Stack, quantization: Quantization | None, arena: Arena | None) -> list[Linear]:
    """Return a product for each expert, and take the weights from the module if they are not used as they lie."""
    held = getattr(stack.module, stack.name)
    stored = getattr(stack.module, "stacks", {}).get(stack.name)
    if stored is not None:
        return list(stored.products(_biases(stack), arena))
    whole = held.data if stack.taken is None else stack.taken(held.data)
    own = _biases(stack)
    biases: Any = [None] * len(whole) if own is None else own
    if quantization is None and stack.taken is None:
        return [PlainLinear(weight, bias) for weight, bias in zip(whole, biases, strict=True)]
    taken = [
        make_linear(weight.contiguous(), bias, quantization, arena=arena)
        for weight, bias in zip(whole, biases, strict=True)
    ]
    held.data = held.data.new_empty(0)
    return taken


def _biases(stack: Stack) -> Tensor | None:
    if stack.bias is None:
        return None
    own: Tensor = getattr(stack.module, stack.bias).data
    return (own if stack.taken_bias is None else stack.taken_bias(own)).contiguous()


class SharedProducts:
    """The products of weights that several layers share: each is taken once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], Linear] = {}

    def fuse(
        self, linears: Sequence[OneMatrix | RowsOf], quantization: Quantization | None, arena: Arena | None
    ) -> Linear:
        """Do `fuse`, once for the same parameters, which the model holds."""
        key = tuple(
            id(each.module if isinstance(each, (ColumnsOf, RowsOf, Transposed)) else each.weight) for each in linears
        )
        if key not in self._known:
            self._known[key] = fuse(linears, quantization, arena)
        return self._known[key]


def fuse(
    linears: Sequence[OneMatrix | RowsOf],
    quantization: Quantization | None,
    arena: Arena | None,
    *,
    keep: bool = False,
    biases_apart: bool = False,
    numbers: bool = False,
) -> Linear:
    """Return one product for several of the same input, and take the weights from the modules.

    `keep`: modules of which only some rows are taken keep theirs, as another product takes the others. `biases_apart`:
    somebody else adds their biases. `numbers`: weights in blocks become bfloat16: nothing multiplies with the blocks.
    """
    stored = [getattr(linear, "stored", None) for linear in linears]
    if any(each is not None for each in stored) and not numbers:
        return _joined(linears, arena)
    weights = [
        linear.weight.data.contiguous() if own is None else own.rounded()
        for linear, own in zip(linears, stored, strict=True)
    ]
    biases = [None if biases_apart else linear.bias for linear in linears]
    bias = None
    if any(each is not None for each in biases):
        bias = torch.cat(
            [
                each.data if each is not None else weight.new_zeros(len(weight))
                for weight, each in zip(weights, biases, strict=True)
            ]
        )
    if arena is not None and quantization is None:
        fused: Linear = PlainLinear(arena.joined(weights), bias)
    else:
        fused = make_linear(weights[0] if len(weights) == 1 else torch.cat(weights), bias, quantization, arena=arena)
    start = 0
    for linear, own_blocks in zip(linears, stored, strict=True):
        if own_blocks is not None:
            pass  # the file has them
        elif isinstance(linear, (RowsOf, ColumnsOf)):
            if not keep:
                empty(linear.module)
        elif isinstance(linear, Transposed):
            own = linear.module.weight
            plain = isinstance(fused, PlainLinear)
            own.data = fused.dense()[start : start + linear.out_features].t() if plain else own.new_empty(0)
        elif isinstance(fused, PlainLinear):
            linear.weight.data = fused.dense()[start : start + linear.out_features]
        else:
            empty(linear)
        start += linear.out_features
    return fused


def _joined(linears: Sequence[Any], arena: Arena | None) -> Linear:
    """Return one product for modules of which some have their weights in the blocks of a file.

    The kernels serve only widths of whole panels, so each weight begins with a panel.
    """
    parts: list[Linear] = []
    for linear in linears:
        bias = None if linear.bias is None else linear.bias.data
        if (stored := getattr(linear, "stored", None)) is not None:  # others are numbers: Q3_K beside Q5_K
            parts.append(BlockLinear(stored, bias, arena))
            continue
        if arena is not None:
            linear.weight.data = arena.copy(linear.weight.data)
        parts.append(PlainLinear(linear.weight.data, bias))
    return parts[0] if len(parts) == 1 else JoinedLinear(parts)


def fill(linears: Sequence[OneMatrix | RowsOf], fused: Linear) -> None:
    """Give modules parameters of their own with the numbers that a product multiplies with."""
    parts = torch.split(fused.dense(), [linear.out_features for linear in linears])
    gathered: dict[nn.Linear, Tensor] = {}  # of modules of which rows are given, by several products perhaps
    for linear, weight in zip(linears, parts, strict=True):
        if isinstance(linear, RowsOf):
            module, shape = linear.module, (linear.module.out_features, weight.shape[1])
            held = module.weight.data if module.weight.shape == shape else module.weight.new_empty(shape)
            whole = gathered.setdefault(module, held)
            rows = linear.rows.to(whole.device)
            whole[rows[rows >= 0]] = weight[rows >= 0].to(whole.dtype)
        elif isinstance(linear, ColumnsOf):
            columns = linear.columns.to(weight.device)
            narrow = weight.new_empty(len(weight), linear.module.in_features)
            narrow[:, columns[columns >= 0]] = weight[:, columns >= 0]
            linear.module.weight = nn.Parameter(narrow.to(linear.module.weight.dtype), requires_grad=False)
        elif isinstance(linear, Transposed):
            own = weight.to(linear.module.weight.dtype).t().contiguous()
            linear.module.weight = nn.Parameter(own, requires_grad=False)
        else:
            linear.weight = nn.Parameter(weight.to(linear.weight.dtype).clone(), requires_grad=False)
    for module, whole in gathered.items():
        module.weight = nn.Parameter(whole, requires_grad=False)


def empty(linear: nn.Linear) -> None:
    """Take the weight from a module; its shape stays known from its features."""
    linear.weight.data = linear.weight.new_empty(0)


@contextmanager
def lent(parts: Sequence[tuple[nn.Module, Matrices]]) -> Iterator[None]:
    """Let modules compute within the block with the numbers that our products multiply with.

    Args:
        parts: modules whose forward is called, each with the matrices that it needs. It has them only while it runs.
    """
    with ExitStack() as hooks:
        for module, matrices in parts:
            before = {place: weight for _, holder in matrices for place, weight in holder.weights().items()}
            hooks.callback(module.register_forward_pre_hook(partial(_fill_all, matrices)).remove)
            hooks.callback(module.register_forward_hook(partial(_restore, before)).remove)
            hooks.callback(_restore, before)  # if its forward fails
        yield


def _fill_all(matrices: Matrices, *_: Any) -> None:
    for fused, holder in matrices:
        holder.fill(fused)


def _restore(weights: dict[tuple[nn.Module, str], Any], *_: Any) -> None:
    for (module, name), weight in weights.items():
        setattr(module, name, weight)
