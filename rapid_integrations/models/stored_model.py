"""transformers' model of a family that has no `Skeleton`, whose weights in blocks lie beside its modules.

Its modules have no memory for these weights. `FusedDecoder` takes the blocks over, as it does those of a `Skeleton`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from rapid_integrations.models.block_experts import StoredStack
from rapid_integrations.models.block_linear import BlockTable, StoredBlocks
from rapid_integrations.models.description import Decoder, Stack
from rapid_integrations.models.families import describe
from rapid_integrations.models.rows_when_read import TableWhenRead

_OF_ROWS = frozenset({"layer_scalar"})  # buffers in the dtype of the rows that they multiply: Gemma 4's
TABLES = frozenset(
    {"model.embed_tokens.weight", "model.embeddings.weight", "gpt_neox.embed_in.weight", "backbone.embeddings.weight"}
)
"""Names of the table of tokens."""


def _multipliers(config: Any) -> Tensor:
    from transformers.models.falcon_h1.modeling_falcon_h1 import compute_mup_vector

    found: Tensor = compute_mup_vector(config)
    return found


# What Gemma 3n and Falcon-H1 compute when they are built.
_FACTORS: dict[str, Callable[[Any], Tensor]] = {
    "router_input_scale": lambda config: torch.tensor(config.hidden_size**-1.0),
    "per_layer_projection_scale": lambda config: torch.tensor(config.hidden_size**-0.5),
    "mup_vector": _multipliers,
    "per_layer_input_scale": lambda config: torch.rsqrt(torch.tensor(2.0)),
}


def model_on_no_device(config: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """Return transformers' model without memory for its weights, with the angles of its rotary embeddings.

    Args:
        config: of the model, under transformers' names.
        dtype: of its weights.

    Raises:
        ValueError: transformers does not take the configuration.
    """
    import transformers

    model_class = getattr(transformers, config["architectures"][0])
    try:
        own = transformers.AutoConfig.for_model(**config)
        with torch.device("meta"):
            model = model_class._from_config(own, dtype=dtype)
        base = model.base_model
        for owner in (base, getattr(base, "model", None)):  # Llama 4 has no base model but its own class
            for name in ("rotary_emb", "pos_emb"):  # on no device they have computed nothing
                if (rotary := getattr(owner, name, None)) is not None:
                    setattr(owner, name, type(rotary)(config=own))
    except Exception as error:  # its classes check their numbers, with errors of several kinds
        raise ValueError(f"transformers does not take the configuration: {error}") from error
    for module in model.modules():
        if hasattr(module, "scalar_embed_scale"):  # of Gemma's tables
            module.embed_scale = torch.tensor(module.scalar_embed_scale)
        if type(module).__name__ == "FalconMambaWeightlessRMSNorm":  # which holds ones that nothing reads
            module._buffers["weight"] = torch.ones(module.weight.shape)
        for name, factor in _FACTORS.items():
            if name in module._buffers:
                module._buffers[name] = factor(own)
    return model.eval()


def stored_model(
    config: Mapping[str, Any],
    weights: Mapping[str, Any],
    dtype: torch.dtype,
    prepare: Callable[[Any], None] | None = None,
) -> Any:
    """Return transformers' model with these weights.

    Args:
        config: of the model, under transformers' names.
        weights: by transformers' names, `Tensor`, `StoredBlocks` or `StoredStack`. A stack is (N, O, K), a matrix for
            each expert, also in families that hold another form of it.
        dtype: of the weights that are tensors.
        prepare: changes the model's modules, before it has weights, to those that the names are of.

    Raises:
        ValueError: a weight is missing, left over, of another shape, or in a form that no product reads, or the model
            holds numbers that are in no file and not known here.
        NotDescribedError: the family is not described.
    """
    model = model_on_no_device(config, dtype)
    if prepare is not None:
        prepare(model)
    described = describe(model)
    stacks = {(id(each.module), each.name): each for each in stacks_of(described)}
    expected = set(model.state_dict())
    tied = bool(model.config.tie_word_embeddings)
    if tied:
        expected.discard("lm_head.weight")
    if expected != weights.keys():
        raise ValueError(f"weights are missing or left over, such as {min(expected ^ weights.keys())}")
    for name, weight in weights.items():
        module_name, _, kind = name.rpartition(".")
        module = model.get_submodule(module_name)
        stack = stacks.get((id(module), kind))
        held = module.get_buffer(kind) if kind in module._buffers else module.get_parameter(kind)
        whole = held if stack is None or stack.taken is None else stack.taken(held)
        if tuple(whole.shape) != tuple(weight.shape):
            raise ValueError(f"{name} has the shape {tuple(weight.shape)}, not {tuple(whole.shape)}")
        if stack is not None and isinstance(weight, Tensor) and stack.given is not None:
            weight = stack.given(weight).contiguous()
        _put(module, kind, weight, stack, dtype)
    if lost := next((name for name, held in model.named_buffers() if held.is_meta), None):
        raise ValueError(f"what {type(model).__name__} computes for {lost} when it is built is not known")
    table = weights[next(name for name in weights if name in TABLES)]
    if isinstance(table, StoredBlocks):
        model.set_input_embeddings(_scaled_as(model.get_input_embeddings(), BlockTable(table)))
    if isinstance(inputs := weights.get("model.embed_tokens_per_layer.weight"), StoredBlocks):
        base = model.base_model
        base.embed_tokens_per_layer = _scaled_as(base.embed_tokens_per_layer, TableWhenRead(inputs))
    if tied and isinstance(table, StoredBlocks):
        _put(model.lm_head, "weight", table, None, dtype)
    elif tied:
        model.lm_head.weight = model.get_input_embeddings().weight
    return model.requires_grad_(False)


def _scaled_as(module: Any, table: BlockTable) -> BlockTable:
    if (scale := getattr(module, "scalar_embed_scale", None)) is not None:
        table.scalar_embed_scale = scale
    return table


def stacks_of(described: Decoder) -> list[Stack]:
    """Return the stacks of all layers."""
    experts = [layer.experts for layer in described.layers]
    return [stack for each in experts if each is not None for stack in (each.gate_up, each.down)]


def parameters_of(model: Any) -> int:
    """Return the number of weights of a stored model, each once."""
    sizes = {id(each): each.numel() for each in model.parameters()}
    for module in model.modules():
        for stored in (getattr(module, "stored", None), *getattr(module, "stacks", {}).values()):
            if stored is not None:
                sizes[id(stored)] = prod(stored.shape)
    return sum(sizes.values())


def _put(module: Any, kind: str, weight: Any, stack: Stack | None, dtype: torch.dtype) -> None:
    nothing = nn.Parameter(torch.empty(0, dtype=dtype), requires_grad=False)
    if isinstance(weight, StoredStack) and stack is not None:
        module.stacks = {**getattr(module, "stacks", {}), kind: replace(weight, given=stack.given)}
        setattr(module, kind, nothing)
    elif isinstance(weight, StoredBlocks) and kind == "weight" and isinstance(module, (nn.Linear, nn.Embedding)):
        setattr(module, "stored", weight)  # noqa: B010 (a module of torch has no such attribute)
        setattr(module, kind, nothing)
    elif not isinstance(weight, Tensor):
        raise ValueError(f"{type(module).__name__}.{kind} is no matrix that the kernels multiply with")
    elif kind in module._buffers:  # such as corrections of the scores of experts, which are float32 in every model
        module._buffers[kind] = weight.to(dtype) if kind in _OF_ROWS else weight.float()
    else:
        setattr(module, kind, nn.Parameter(weight.to(dtype), requires_grad=False))
