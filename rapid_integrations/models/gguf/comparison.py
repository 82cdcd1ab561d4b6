"""Compares a model in the blocks of a GGUF file with its family's forward pass in float32, on the weights dequantised.

`plain_pass` computes it for the families and settings that it knows, and transformers for all others. transformers
also has the last word: a model is never refused without it.

To dequantise all layers would take the memory and the time that the blocks save. So the comparison has one layer of
each kind that the file has (by the formats of its weights), and the first rows of the vocabulary. All layers of these
families compute the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.cache import Rows
from rapid_integrations.errors import ModelLoadError, NotANumberError, UnsupportedModelError
from rapid_integrations.models.advice import without_advice
from rapid_integrations.models.block_experts import StoredStack
from rapid_integrations.models.block_linear import StoredBlocks
from rapid_integrations.models.decoder_lm import DecoderLM
from rapid_integrations.models.gguf import plain_pass
from rapid_integrations.models.gguf.description import forms_of
from rapid_integrations.models.positions import UNBOUNDED
from rapid_integrations.models.skeleton import Skeleton, shape_of
from rapid_integrations.models.stored_model import TABLES, model_on_no_device, stored_model

_MOST_LAYERS = 3
_MOST_TOKENS = 4096  # of the vocabulary
_OF_A_LAYER = re.compile(r"(?P<before>(?:model|gpt_neox|backbone)\.layers\.)(?P<number>\d+)\.(?P<part>.+)")
_PARTS = [19, 3, 1, 1]  # tokens of the passes: a chunk of a prompt, a draft, single tokens
_MOST_KEYS = 7  # that a query of a sliding window sees
_FEW_EXPERTS = 8
# What configurations say of each layer, if it is a list.
_OF_LAYERS = (
    *("layer_types", "layers_block_type", "no_rope_layers", "activation_sparsity_pattern", "intermediate_size"),
    "mlp_layer_types",
)
_NUMBERS_OF_LAYERS = {"attn_layer_indices", "moe_layers", "mlp_only_layers"}
_LENGTHS = ("sliding_window", "attention_chunk_size", "floor_scale")
_COUNTS = {"num_experts", "num_local_experts", "n_routed_experts"}  # as configurations name the number of experts
_LEADING = {"first_k_dense_replace", "num_dense_layers", "moe_layer_start_index"}  # how many layers have no experts
# What has a number for each expert.
_OF_ROUTERS = (
    *(".gate.weight", ".router.weight", ".router.bias", ".e_score_correction_bias", ".expert_bias"),
    *("router.proj.weight", "router.per_expert_scale", ".gate.wg.weight"),
)
_OF_TOKENS = TABLES | {"lm_head.weight", "lm_head.bias"}
_TABLE, _PROJECTION = "model.embed_tokens_per_layer.weight", "model.per_layer_model_projection.weight"
_TOLERANCE = 0.1  # inputs of products are rounded to eight bits; a wrong order or scale is far beyond this


def transformers_model(
    config: Mapping[str, Any], skeleton: Any, dtype: torch.dtype, *, exact: bool = True, published: bool = False
) -> Any:
    """Return a model of transformers with the weights of ours: in float32 exactly those of the file.

    Args:
        config: of the model, under transformers' names.
        skeleton: holds its weights; see `model_of`.
        dtype: of the model.
        exact: let the gguf package dequantise the blocks. Otherwise the kernels do it, in bfloat16, in a tenth of the
            time.
        published: see `model_of`.
    """
    model = model_on_no_device(config, dtype)
    weights = {}
    for name, module in skeleton.named_modules():
        stored = getattr(module, "stored", None)
        for kind, parameter in module.named_parameters(recurse=False):
            held = parameter.data
            if kind == "weight" and stored is not None:
                held = stored.dense() if exact else stored.rounded()
            elif (stack := getattr(module, "stacks", {}).get(kind)) is not None:
                held = stack.numbers(exact=exact)
            weights[f"{name}.{kind}"] = held.to(dtype, copy=True)
    forms = None if published else forms_of(config)
    for name, weight in (weights if forms is None else forms.whole(config, weights)).items():
        owner, _, kind = name.rpartition(".")
        setattr(model.get_submodule(owner), kind, torch.nn.Parameter(weight, requires_grad=False))
    for name, module in skeleton.named_modules():
        for kind, held in module.named_buffers(recurse=False):
            if kind in model.get_submodule(name)._buffers:
                model.get_submodule(name)._buffers[kind] = held.clone()
    model.tie_weights()
    return model.eval()


def model_of(config: Mapping[str, Any], weights: Mapping[str, Any], *, published: bool = False) -> Any:
    """Return a model in bfloat16 that holds these weights: a `Skeleton`, or transformers' own of another family.

    `published`: they have the names and forms that transformers' models have, and not those of GGUF files.

    Raises:
        KeyError, ValueError, NotDescribedError: weights are missing, left over or of another shape, or the family is
            another one.
    """
    shape = shape_of(config)
    if shape is not None:
        return Skeleton(shape[0], weights, tied=shape[1]).to(torch.bfloat16)
    forms = forms_of(config)
    if forms is not None and not published:
        return forms.model(config, weights, torch.bfloat16)
    model = stored_model(config, weights, torch.bfloat16)
    if forms is not None:
        forms.keep_exact(model, weights)
    return model


def compare(name: str, config: Mapping[str, Any], weights: Mapping[str, Any], *, published: bool = False) -> None:
    """Compare passes of this engine with `plain_pass`, or with transformers' own eager attention.

    Args:
        name: for messages.
        config: of the model, under transformers' names.
        weights: by their names; see `weights_of`.
        published: see `model_of`.

    Raises:
        UnsupportedModelError: they differ.
        ModelLoadError: the model computes NaN.
    """
    small = _small(config, weights)
    built = model_of(*small, published=published)
    lm = DecoderLM(built, name, Path(), config.get("max_position_embeddings") or UNBOUNDED, None)
    ids = 7919 * torch.arange(1, sum(_PARTS) + 1) % lm.vocab_size
    try:
        computed = _passes(lm, ids)
    except NotANumberError as found:
        raise ModelLoadError(f"{name} could not be loaded: {found}") from None
    if plain_pass.knows(small[0]):
        with _on_one_thread():
            expected = plain_pass.logits_of(*small, ids)
        if _distance(computed, expected) <= _TOLERANCE:
            return
    # The engine has taken weights from the modules that it computes with.
    held = model_of(*small, published=published)
    model = transformers_model(small[0], held, torch.float32, exact=False, published=published)
    expected = _eager(model, ids)
    distance = _distance_of_most if _has_experts(config) else _distance
    error = distance(computed, expected)
    # Some weights blow up what is rounded: transformers' own error in bfloat16 was 17% for a real model. Inputs of
    # eight bits round three times as coarsely.
    if not error <= _TOLERANCE and not error <= 3 * distance(_eager(model.to(torch.bfloat16), ids), expected) < 0.6:
        raise UnsupportedModelError(
            f"{name}: what this engine computes with the file's weights differs from transformers by {error:.2%} "
            f"(allowed {_TOLERANCE:.0%}); RAPID_QUICK_START=0 lets transformers read the file"
        )


@contextmanager
def _on_one_thread() -> Iterator[None]:
    """Compute inside on one thread: on busy cores, threads wait for each other ten times as long as pieces take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode()
def _eager(model: Any, ids: Tensor) -> Tensor:
    """Return the logits (T, V) of tokens, by transformers' eager attention."""
    model.set_attn_implementation("eager")
    with without_advice():
        logits: Tensor = model(input_ids=ids[None], use_cache=False).logits[0].float()
    return logits


def _distance(computed: Tensor, expected: Tensor) -> float:
    return float((computed - expected).norm() / expected.norm())


def _distance_of_most(computed: Tensor, expected: Tensor) -> float:
    """Return the median of the tokens' distances. Rounding may send a token to another expert, but not half of them."""
    return float(((computed - expected).norm(dim=1) / expected.norm(dim=1)).median())


def _has_experts(config: Mapping[str, Any]) -> bool:
    return bool(config.get("num_experts_per_tok"))


def _passes(lm: DecoderLM, ids: Tensor) -> Tensor:
    cache = lm.new_cache(len(ids))
    return torch.cat([lm.forward([Rows(part, cache, len(part))])[0] for part in torch.split(ids, _PARTS)])


def _small(config: Mapping[str, Any], weights: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return configuration and weights of a model of a few of the layers and tokens."""
    by_layer: dict[int, dict[str, Any]] = {}
    outer, before = {}, ""
    kinds_of_layers = {name: config[name] for name in _OF_LAYERS if isinstance(config.get(name), list)}
    for name, weight in weights.items():
        if (found := _OF_A_LAYER.fullmatch(name)) is not None:
            before = found["before"]
            by_layer.setdefault(int(found["number"]), {})[found["part"]] = weight
        else:
            outer[name] = weight
    kinds: dict[tuple[str, ...], int] = {}
    firsts: dict[tuple[str, ...], int] = {}  # a file may have more mixtures of formats than are compared
    some = {*config.get("attn_layer_indices", ()), *config.get("moe_layers", ())}
    if period := config.get("attn_layer_period"):  # of Jamba, of which one layer that attends is taken
        some = set(range(config["attn_layer_offset"], config["num_hidden_layers"], period))
    reading = config["num_hidden_layers"] - (config.get("num_kv_shared_layers") or 0)  # others' keys from here
    for index, layer in sorted(by_layer.items()):
        formats = (f"{part}: {_format(weight)}" for part, weight in sorted(layer.items()))
        computed = (*(str(each[index]) for each in kinds_of_layers.values()), str(index >= reading), str(index in some))
        kinds.setdefault((*computed, *formats), index)
        firsts.setdefault(computed, index)
    taken = sorted(kinds.values(), key=lambda index: (index not in firsts.values(), index))
    taken = sorted(taken[: max(_MOST_LAYERS, len(firsts))])
    if period:
        taken = [index for index in taken if index not in some or index == min(some)]
    if "num_kv_shared_layers" in config:  # in this family the last layer has to see all keys
        taken.sort(key=lambda index: (index >= reading, config["layer_types"][index] == "full_attention", index))
    experts = _experts_of(config)
    kept = {
        f"{before}{n}.{part}": _first_experts(part, weight, experts) if experts else weight
        for n, index in enumerate(taken)
        for part, weight in by_layer[index].items()
    }
    count = min(_MOST_TOKENS, config["vocab_size"])
    for name, weight in outer.items():
        if name in (_TABLE, _PROJECTION):
            kept[name] = _of_layers(weight, taken, config, count if name == _TABLE else None)
            continue
        if name not in _OF_TOKENS:
            kept[name] = weight
            continue
        kept[name] = weight.first(count) if isinstance(weight, StoredBlocks) else weight[:count]
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    small = {**config, **ends, "num_hidden_layers": len(taken), "vocab_size": count}
    small |= {name: [each[index] for index in taken] for name, each in kinds_of_layers.items()}
    for name in _LENGTHS:
        if config.get(name):
            small[name] = min(_MOST_KEYS, config[name])
    rope = config.get("rope_parameters") or {}
    if "llama_4_scaling_beta" in rope:  # queries grow beyond this length
        small["rope_parameters"] = {**rope, "original_max_position_embeddings": _MOST_KEYS}
    if "num_kv_shared_layers" in config:
        small["num_kv_shared_layers"] = sum(index >= reading for index in taken)
        small["vocab_size_per_layer_input"] = count
    if period:
        small |= {"attn_layer_period": len(taken), "attn_layer_offset": taken.index(min(some))}
    for name in _LEADING & config.keys():
        small[name] = sum(index < config[name] for index in taken)
    for name in _NUMBERS_OF_LAYERS:
        if config.get(name):
            small[name] = [n for n, index in enumerate(taken) if index in config[name]]
    if "moe_layer_end_index" in config:
        small["moe_layer_end_index"] = len(taken) - 1
    return small | dict.fromkeys(_COUNTS & small.keys(), experts), kept


def _of_layers(weight: Any, layers: list[int], config: Mapping[str, Any], tokens: int | None) -> Tensor:
    """Return what a weight holds of the inputs of some layers.

    Args:
        weight: (V, layers * P), or (layers * P, E).
        layers: their numbers.
        config: of the model.
        tokens: take the first so many rows; None: the rows are those of the layers.
    """
    shape = config["num_hidden_layers"], config["hidden_size_per_layer_input"]
    if tokens is None:
        rows: Tensor = weight.view(*shape, -1)[layers]
        return rows.flatten(0, 1)
    short: Tensor = weight.first(tokens).rounded() if isinstance(weight, StoredBlocks) else weight[:tokens]
    return short.view(tokens, *shape)[:, layers].flatten(1)


def _experts_of(config: Mapping[str, Any]) -> int:
    """Return how many experts the comparison has, 0 if there are none."""
    if not _has_experts(config):
        return 0
    whole: int = next(config[name] for name in _COUNTS if name in config)
    return whole if config.get("n_group", 1) > 1 else min(whole, max(_FEW_EXPERTS, 2 * config["num_experts_per_tok"]))


def _first_experts(part: str, weight: Any, count: int) -> Any:
    """Return what a layer's weight holds of the first experts; others are returned as they are."""
    if isinstance(weight, StoredStack):
        return weight.first(count)
    if part.endswith(".moe_statics.e_score_correction_bias"):  # (1, N)
        return weight[:, :count]
    return weight[:count] if ".experts." in f".{part}" or part.endswith(_OF_ROUTERS) else weight


def _format(weight: Any) -> str:
    if isinstance(weight, StoredStack):
        return weight.formats
    return weight.form.name if isinstance(weight, StoredBlocks) else str(weight.dtype)
