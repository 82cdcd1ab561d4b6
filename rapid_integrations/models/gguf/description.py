"""What a GGUF file says of its model: its configuration under transformers' names, and its weights.

The families are those of `families` and `experts_config`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.models.gguf import experts_config, families, mamba, mamba2
from rapid_integrations.models.gguf.architecture import Architecture
from rapid_integrations.models.gguf.experts import STACKS, experts_of_layer
from rapid_integrations.models.gguf.forms import Forms
from rapid_integrations.models.gguf.header import GgufHeader
from rapid_integrations.models.gguf.rope import FACTORS, LONG_FACTORS, long_rope_of, proportional_rope_of, rope_of
from rapid_integrations.models.gguf.tensors import MappedTensors

_BARE = ("ssm_a", "ssm_d", "ffn_norm")  # names of tensors without ".weight" or ".bias"; the last in Falcon-H1
_FACTORS = "scale"  # of a router, or on what experts give
_KINDS = ("weight", "bias", _FACTORS)
_CORRECTIONS = "exp_probs_b"  # of experts' scores: small differences decide which are taken, so they are float32
READ = frozenset({*families.ARCHITECTURES, *experts_config.ARCHITECTURES})
"""The architectures that are read here, as GGUF names them."""


def architecture_of(header: GgufHeader) -> Architecture | None:
    """Return the family of a file, or None if it is not known here.

    A file of "llama" is one of Mixtral if it says how many experts there are, one of "olmo2" is one of OLMo 3 if it
    says a window, one of "granitemoe" is another model if it says an MLP beside the experts, and one of "granitehybrid"
    is one of Bamba if it says that attentions know positions. One of "mamba" is one of Falcon-Mamba if it says that
    steps, keys and queries are normalised. One of "jamba" with a single expert has an MLP.
    """
    experts = header.metadata.get(f"{header.architecture}.expert_count")
    if header.architecture == "jamba" and experts == 1:
        experts = 0
    if header.metadata.get(f"{header.architecture}.{mamba.NORMALISED}"):
        return families.NORMALISED.get(header.architecture)
    if not experts and header.metadata.get(f"{header.architecture}.{mamba2.POSITIONS}"):
        return (families.ARCHITECTURES | families.WITH_POSITIONS).get(header.architecture)
    if not experts and f"{header.architecture}.attention.sliding_window" in header.metadata:
        table = families.ARCHITECTURES | families.WITH_WINDOWS
        return table.get(header.architecture)
    table = experts_config.ARCHITECTURES if experts else families.ARCHITECTURES
    if experts and f"{header.architecture}.expert_shared_feed_forward_length" in header.metadata:
        table = table | experts_config.WITH_SHARED
    return table.get(header.architecture)


def configuration_of(headers: Sequence[GgufHeader]) -> dict[str, Any] | None:
    """Return the configuration of a model, under transformers' names.

    None is returned for another family, if the file says something that is not known here, and if it leaves a number
    out. transformers may know better then.

    Args:
        headers: of the model's files.

    Raises:
        UnsupportedModelError: its rotary frequencies are of a kind that transformers has no name for.
    """
    architecture = architecture_of(headers[0])
    if architecture is None:
        return None
    tensors = {tensor.name: tensor for each in headers for tensor in each.tensors}
    try:
        config = architecture.configuration(headers[0], tensors)
        long = None
        if config is not None and architecture.long_rope:
            long = long_rope_of(headers, config, own_length=architecture.latent)
        if config is not None and architecture.proportional:
            ropes = config["rope_parameters"]
            whole = proportional_rope_of(headers, ropes["full_attention"], config["global_head_dim"])
            return config | {"rope_parameters": ropes | {"full_attention": whole}}
    except (KeyError, TypeError, ValueError, ZeroDivisionError):  # a number is left out, or is no number
        return None
    if config is None:
        return None
    if long is not None:
        original = {"original_max_position_embeddings": long["original_max_position_embeddings"]}
        return config | original | {"rope_parameters": long}
    if (rope := config.get("rope_parameters")) is None:  # no layer attends
        return config
    stretched = rope.get("full_attention", rope)  # some families have angles for each kind of layer
    found = rope_of(headers, SimpleNamespace(rope_parameters=stretched))
    if found is not None:
        config["rope_parameters"] = found if stretched is rope else rope | {"full_attention": found}
    return config


def forms_of(config: Mapping[str, Any]) -> Forms | None:
    """Return the forms of a model's layers, by its configuration; None if its family has none, or is not known here."""
    dense = [
        each
        for table in (
            families.ARCHITECTURES,
            families.WITH_WINDOWS,
            families.WITH_POSITIONS,
            families.NORMALISED,
        )
        for each in table.values()
    ]
    with_experts = (*experts_config.ARCHITECTURES.values(), *experts_config.WITH_SHARED.values())
    some = with_experts if config.get("num_experts_per_tok") else dense
    kind = "deepseek_v3" if config["model_type"] == "deepseek_v2" else config["model_type"]  # one name in files
    return next((each.forms for each in some if each.model_type == kind), None)


def weights_of(
    tensors: MappedTensors, config: Mapping[str, Any], dtype: torch.dtype, *, in_blocks: bool = True
) -> dict[str, Any] | None:
    """Return the weights by transformers' names, or None if a tensor is unknown, or missing in layers without experts.

    A matrix in blocks that the kernels compute with is a `StoredBlocks`, those of all experts are a `StoredStack`, any
    other tensor is a `Tensor` in `dtype`. Stacks are (N, O, K). In blocks, models with `Forms` have the names of the
    modules that these prepare.

    Args:
        tensors: of the files.
        config: from `configuration_of`.
        dtype: of the tensors that are not kept in blocks.
        in_blocks: False dequantises everything.
    """
    architecture = architecture_of(tensors.header)
    assert architecture is not None
    forms = architecture.forms
    predicts = "nextn_predict_layers" in architecture.keys  # further tokens, with layers behind the others
    weights: dict[str, Any] = {}
    for name in tensors.names():
        stem, _, kind = name.rpartition(".")
        if forms is not None and kind in _BARE:
            stem, kind = name, "weight"
        if name == FACTORS or (architecture.long_rope and name in LONG_FACTORS):
            continue
        if kind not in _KINDS:
            return None
        if stem in architecture.outer:
            module = architecture.outer[stem]
            kept = in_blocks and module not in architecture.plain
            found = _read(tensors, name, architecture, dtype, kept)
            if "{}" in module:  # several matrices in one tensor
                weights |= {f"{module.format(number)}.{kind}": own for number, own in enumerate(found)}
            else:
                weights[f"{module}.{kind}"] = found
            continue
        first, _, rest = stem.partition(".")
        number, _, part = rest.partition(".")
        if first != "blk" or not number.isdecimal():
            return None
        layer = f"{architecture.layers}{int(number)}."
        if predicts and int(number) >= config["num_hidden_layers"]:
            continue
        if forms is not None and (found := forms.part_of_layer(tensors, name, config, dtype, in_blocks)) is not None:
            named = {f"{layer}{own}": weight for own, weight in found.items()}
            if named.keys() & weights.keys():  # a file has one form of a matrix, not two
                return None
            weights |= named
            continue
        one = architecture.names.get(f"{part}.{kind}")
        if kind == _FACTORS and one is None:
            return None
        if architecture.experts and part in STACKS and one is None:
            named = experts_of_layer(tensors, stem, kind, f"{layer}{architecture.experts}", dtype, in_blocks)
            if named.keys() & weights.keys():
                return None
            weights |= named
            continue
        own = one or architecture.names.get(part)
        if own is None:
            return None
        order = None
        if architecture.interleaved and own.endswith(("q_proj", "k_proj")):
            heads = config["num_attention_heads" if own.endswith("q_proj") else "num_key_value_heads"]
            order = rows_of_heads(heads, config.get("head_dim") or config["hidden_size"] // heads)
            if tensors.tensors[name].shape[-1] != len(order):
                return None
        plain = one is not None or own in architecture.plain
        own_dtype = torch.float32 if part == _CORRECTIONS else dtype
        found = _read(tensors, name, architecture, own_dtype, in_blocks and not plain, order)
        target = f"{layer}{own}" if one else f"{layer}{own}.{kind}"
        weights[target] = found[None] if own.endswith("shared_expert_gate") and found.ndim == 1 else found
    if architecture.of_metadata is not None:
        if (told := architecture.of_metadata(tensors.header.metadata, config)) is None:
            return None
        weights |= told
    if forms is not None:  # layers differ, so the names are compared where the model is built
        return weights if in_blocks else forms.whole(config, weights)
    if not architecture.experts and weights.keys() != architecture.names_of_all_weights(config):
        return None
    return weights


def _read(
    tensors: MappedTensors,
    name: str,
    architecture: Architecture,
    dtype: torch.dtype,
    in_blocks: bool,
    order: Tensor | None = None,
) -> Any:
    blocks = tensors.blocks(name, order) if in_blocks else None
    if blocks is not None:
        return blocks
    if architecture.norm_offset and name.endswith("norm.weight"):
        # In float32, as the converter has added it. What was bfloat16 before is so again, but for weights below
        # 2**-16, which have lost their last bits in the file.
        return tensors.numbers(name, torch.float32).sub_(architecture.norm_offset).to(dtype)
    numbers = tensors.numbers(name, dtype)
    return numbers if order is None else numbers[order]


def rows_of_heads(heads: int, head_dim: int) -> Tensor:
    """Return which row of a file is row 0, 1, ... of queries or keys: of each head the even rows, then the odd."""
    return torch.arange(heads * head_dim).view(heads, head_dim // 2, 2).transpose(1, 2).reshape(-1)
