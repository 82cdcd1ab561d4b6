"""A described model without transformers: its description, kept from an earlier start, and its weights by name.

A class of transformers says in Python what its layers compute, and importing it takes seconds. The kernels compute from
data. So the first start of a model, which builds it with transformers, writes the description to two files: its
structure, in which modules and weights have names, and the numbers that no weight holds (angles, factors). Later starts
read it, and put the weights of the model's own file under these names.

A description is kept only if what is read back is the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from rapid_integrations.kernels import layers
from rapid_integrations.models import description
from rapid_integrations.models.block_experts import StoredStack
from rapid_integrations.models.block_linear import BlockTable, StoredBlocks
from rapid_integrations.models.description import Decoder, NotDescribedError
from rapid_integrations.models.families import describe
from rapid_integrations.models.rows_when_read import TableWhenRead
from rapid_integrations.models.skeleton import SkeletonLinear, SkeletonTable
from rapid_integrations.models.stack_forms import FORMS
from rapid_integrations.models.stored_model import parameters_of

STRUCTURE, NUMBERS = "description.json", "description.safetensors"
_PARTS = {
    name: each
    for module in (description, layers)
    for name, each in vars(module).items()
    if isinstance(each, type) and is_dataclass(each) and f"{each.__module__}.".startswith(f"{module.__name__}.")
}
# What an object of the structure stands for. No field of a part has such a name.
_PART, _MODULE, _WEIGHT, _NUMBERS, _FORM = "is a", "is module", "is weight", "is numbers", "is form"
_DTYPES = {str(dtype): dtype for dtype in (torch.bfloat16, torch.float32)}


class KeptModel(nn.Module):
    """The modules of a description, with a model's weights.

    Args:
        structure: what `keep` has written.
        numbers: by the names in `structure`.
        weights: all of the model's, by transformers' names: `Tensor`, `StoredBlocks` or `StoredStack`.
        config: of the model, under transformers' names.

    Attributes:
        described: what the kernels compute.

    Raises:
        KeyError, ValueError, TypeError, AttributeError: the structure is damaged, or is that of other weights.
    """

    def __init__(
        self,
        structure: Mapping[str, Any],
        numbers: Mapping[str, Tensor],
        weights: Mapping[str, Any],
        config: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.config = SimpleNamespace(**config)
        if structure["tensors"].keys() != weights.keys():
            raise ValueError("other weights than those that were described")
        by_module: dict[str, dict[str, Any]] = {}
        for name, weight in weights.items():
            owner, _, kind = name.rpartition(".")
            by_module.setdefault(owner, {})[kind] = weight
        for owner, own in by_module.items():
            dtypes = {kind: structure["tensors"][f"{owner}.{kind}"] for kind in own}
            self._add(owner, _module(structure["modules"][owner], own, dtypes))
        if (tied := structure["tied"]) is not None:
            table: Any = self.get_submodule(structure["table"])
            self._add(tied, SkeletonLinear(table.stored if isinstance(table, BlockTable) else table.weight))
        described = self._read(structure["description"], numbers)
        self.described: Decoder = replace(described, modules=[self._named(each) for each in structure["layers"]])
        self.requires_grad_(False)

    @property
    def lm_head(self) -> nn.Linear:
        """The matrix of the logits."""
        return self.described.head

    @property
    def num_parameters(self) -> int:
        """The number of weights, each once."""
        return parameters_of(self)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype to compute in; that of a table in blocks is bfloat16."""
        dtype: torch.dtype = self.described.embedding.weight.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return torch.device("cpu")

    def _add(self, name: str, module: nn.Module) -> None:
        owner: nn.Module = self
        *path, last = name.split(".")
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        owner.add_module(last, module)

    def _named(self, names: str | Sequence[str]) -> Any:
        return self.get_submodule(names) if isinstance(names, str) else tuple(map(self.get_submodule, names))

    def _read(self, written: Any, numbers: Mapping[str, Tensor]) -> Any:
        if isinstance(written, list):
            return tuple(self._read(each, numbers) for each in written)
        if not isinstance(written, dict):
            return written
        if _MODULE in written:
            return self.get_submodule(written[_MODULE])
        if _WEIGHT in written:
            owner, _, kind = written[_WEIGHT].rpartition(".")
            return getattr(self.get_submodule(owner), kind)
        if _NUMBERS in written:
            return numbers[written[_NUMBERS]]
        if _FORM in written:
            return FORMS[written[_FORM]]
        own = {name: self._read(each, numbers) for name, each in written.items() if name != _PART}
        return _PARTS[written[_PART]](**own)


def _module(kind: str, weights: Mapping[str, Any], dtypes: Mapping[str, tuple[str, bool]]) -> nn.Module:
    """Return a module with its weights, of whose names `dtypes` says the dtype and whether it is a buffer."""
    own = {name: _in(weight, _DTYPES[dtypes[name][0]]) for name, weight in weights.items()}
    if kind == "linear":
        return SkeletonLinear(own["weight"], own.get("bias"))
    if kind == "table when read":
        return TableWhenRead(own["weight"])
    if kind == "table":
        table = own["weight"]
        return BlockTable(table) if isinstance(table, StoredBlocks) else SkeletonTable(table)
    module = nn.Module()
    for name, weight in own.items():
        if isinstance(weight, StoredStack):
            setattr(module, "stacks", {**getattr(module, "stacks", {}), name: weight})  # noqa: B010
            weight = nn.Parameter(torch.empty(0, dtype=torch.bfloat16), requires_grad=False)
        if dtypes[name][1]:
            module.register_buffer(name, weight.data)
        else:
            module.register_parameter(name, weight)
    return module


def _in(weight: Any, dtype: torch.dtype) -> Any:
    return nn.Parameter(weight.to(dtype), requires_grad=False) if isinstance(weight, Tensor) else weight


def keep(folder: Path, model: nn.Module, weights: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Write a model's description, unless it cannot be written, or would not be read back as it is.

    An older one is removed in any case.

    Args:
        folder: of the model's files; it may be one that cannot be written.
        model: transformers', before its weights are taken over.
        weights: as in `KeptModel`; `model` has them.
        config: as in `KeptModel`.

    Returns:
        Whether it is there.
    """
    from safetensors.torch import save_file

    described, numbers = describe(model), dict[str, Tensor]()
    try:
        (folder / STRUCTURE).unlink(missing_ok=True)
        structure = json.loads(json.dumps(_structure_of(model, described, weights, numbers)))
        read = KeptModel(structure, numbers, weights, config)
        again = dict[str, Tensor]()
        # Written once more, it has to be the same, and so have to be the numbers and weights that it names.
        if _structure_of(read, read.described, weights, again) != structure or not _equal(numbers, again):
            return False
        if not _equal(dict(model.named_parameters()), dict(read.named_parameters())):
            return False
        save_file(numbers, folder / NUMBERS)
        (folder / STRUCTURE).write_text(json.dumps(structure))
    except (NotDescribedError, KeyError, ValueError, TypeError, AttributeError, OSError):
        return False
    return True


def kept_model(folder: Path, weights: Mapping[str, Any], config: Mapping[str, Any]) -> KeptModel | None:
    """Return a model whose description `keep` has written; None if there is none, or it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return KeptModel(json.loads((folder / STRUCTURE).read_text()), load_file(folder / NUMBERS), weights, config)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RecursionError, SafetensorError):
        return None


def _structure_of(
    model: nn.Module, described: Decoder, weights: Mapping[str, Any], numbers: dict[str, Tensor]
) -> dict[str, Any]:
    """Return all of a description that JSON can hold, and put its numbers that are no weights into `numbers`.

    Raises:
        NotDescribedError: it has a part that cannot be written.
    """
    modules = {id(module): name for name, module in model.named_modules()}
    held = [*model.named_buffers(remove_duplicate=False), *model.named_parameters(remove_duplicate=False)]
    names = {id(tensor): name for name, tensor in held if name in weights}
    of_all = dict(held)
    buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    head = modules[id(described.head)]
    owners = dict.fromkeys(name.rpartition(".")[0] for name in weights)
    for module in model.modules():  # of those that share a weight, the one that has it in the files is read
        if isinstance(module, nn.Linear) and module is not described.head and id(module.weight) in names:
            modules[id(module)] = names[id(module.weight)].rpartition(".")[0]
    return {
        "tensors": {name: [str(of_all[name].dtype), name in buffers] for name in weights},
        "modules": {owner: _kind(model.get_submodule(owner)) for owner in owners},
        "table": modules[id(described.embedding)],
        "tied": None if head in owners else head,
        "description": _written(described, modules, names, numbers),
        "layers": [
            [modules[id(own)] for own in each] if isinstance(each, tuple) else modules[id(each)]
            for each in described.modules
        ],
    }


def _kind(module: nn.Module) -> str:
    if isinstance(module, (nn.Linear, SkeletonLinear)):
        return "linear"
    if isinstance(module, TableWhenRead):
        return "table when read"
    return "table" if isinstance(module, (nn.Embedding, BlockTable, SkeletonTable)) else "part"


def _written(part: Any, modules: Mapping[int, str], names: Mapping[int, str], numbers: dict[str, Tensor]) -> Any:
    if isinstance(part, nn.Module):
        return {_MODULE: modules[id(part)]}
    if isinstance(part, Tensor):
        if id(part) in names:
            return {_WEIGHT: names[id(part)]}
        name = str(len(numbers))
        numbers[name] = part.detach().clone().contiguous()
        return {_NUMBERS: name}
    if isinstance(part, (list, tuple)):
        return [_written(each, modules, names, numbers) for each in part]
    if is_dataclass(part) and type(part).__name__ in _PARTS:
        own = {field.name: getattr(part, field.name) for field in fields(part) if field.name != "modules"}
        written = {name: _written(each, modules, names, numbers) for name, each in own.items()}
        if isinstance(part, Decoder):
            written["modules"] = []
        return {_PART: type(part).__name__} | written
    if part is None or isinstance(part, (bool, int, float, str)):
        return part
    if (name := getattr(part, "__name__", "")) in FORMS and FORMS[name] is part:
        return {_FORM: name}
    raise NotDescribedError(f"{type(part).__name__} is not written")


def _equal(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    if some.keys() != others.keys():
        return False
    pairs = ((tensor, others[name]) for name, tensor in some.items())
    return all(one.dtype == other.dtype and torch.equal(one, other) for one, other in pairs)
