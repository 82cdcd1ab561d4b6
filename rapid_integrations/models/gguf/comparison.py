"""Compares a model in the blocks of a GGUF file with transformers' own, on the weights dequantised.

To dequantise all layers would take the memory and the time that the blocks save. So the comparison has one layer of
each kind that the file has (by the formats of its weights), and the first rows of the vocabulary. All layers of these
families compute the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.cache import Rows
from rapid_integrations.errors import ModelLoadError, NotANumberError, UnsupportedModelError
from rapid_integrations.models.block_linear import BlockTable, StoredBlocks
from rapid_integrations.models.decoder_lm import DecoderLM
from rapid_integrations.models.skeleton import Skeleton, shape_of

_MOST_LAYERS = 3
_MOST_TOKENS = 4096  # of the vocabulary
_LAYER = "model.layers."
_PARTS = [19, 3, 1, 1]  # tokens of the passes: a chunk of a prompt, a draft, single tokens
_TOLERANCE = 0.1  # inputs of products are rounded to eight bits; a wrong order or scale is far beyond this


def transformers_model(
    config: Mapping[str, Any], skeleton: Skeleton, give_back: Callable[[Any], None], dtype: torch.dtype
) -> Any:
    """Return a model of transformers with the weights of ours, dequantised.

    Args:
        config: of the model, under transformers' names.
        skeleton: holds norms, biases and the embedding table.
        give_back: fills the matrices of transformers' model.
        dtype: of the model.
    """
    import transformers

    model_class = getattr(transformers, config["architectures"][0])
    own = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        model = model_class._from_config(own, dtype=dtype)
    model = model.to_empty(device="cpu")
    base = model.base_model
    base.rotary_emb = type(base.rotary_emb)(config=own)  # it had computed nothing
    table = skeleton.base_model.embed_tokens
    weights = table.stored.dense() if isinstance(table, BlockTable) else table.weight
    base.embed_tokens.weight = torch.nn.Parameter(weights.to(dtype), requires_grad=False)
    held = {name: parameter for name, parameter in skeleton.named_parameters() if parameter.numel()}
    give_back(model)
    if config["tie_word_embeddings"]:
        model.lm_head.weight = base.embed_tokens.weight
    for name, parameter in model.named_parameters():
        if name in held:
            parameter.data.copy_(held[name])
    return model.eval()


def compare(name: str, config: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    """Compare passes of this engine with transformers' own eager attention.

    Args:
        name: for messages.
        config: of the model, under transformers' names.
        weights: by their names; see `weights_of`.

    Raises:
        UnsupportedModelError: they differ.
        ModelLoadError: the model computes NaN, or weights are missing.
    """
    small = _small(config, weights)
    shape = shape_of(small[0])
    assert shape is not None
    try:
        skeleton = Skeleton(shape[0], small[1], tied=shape[1]).to(torch.bfloat16)
    except (KeyError, ValueError) as wrong:
        raise ModelLoadError(
            f"{name} could not be loaded: its weights are not those that its metadata describes ({wrong}). Fetch the "
            "file again, or convert the model again with llama.cpp"
        ) from wrong
    lm = DecoderLM(skeleton, name, Path(), shape[0].max_position_embeddings, None)
    ids = 7919 * torch.arange(1, sum(_PARTS) + 1) % lm.vocab_size
    try:
        computed = _passes(lm, ids)
    except NotANumberError as found:
        raise ModelLoadError(f"{name} could not be loaded: {found}") from None
    model = transformers_model(small[0], skeleton, lm.give_back, torch.float32)
    expected = _eager(model, ids)
    error = _distance(computed, expected)
    # A model's first tokens may blow up what is rounded: transformers' own error in bfloat16 was 17% for one.
    if not error <= _TOLERANCE and not error <= 2 * _distance(_eager(model.to(torch.bfloat16), ids), expected) < 0.5:
        raise UnsupportedModelError(
            f"{name}: what this engine computes with the file's weights differs from transformers by {error:.2%} "
            f"(allowed {_TOLERANCE:.0%}); RAPID_QUICK_START=0 lets transformers read the file"
        )


@torch.inference_mode()
def _eager(model: Any, ids: Tensor) -> Tensor:
    """Return the logits (T, V) of tokens, by transformers' eager attention."""
    model.set_attn_implementation("eager")
    logits: Tensor = model(input_ids=ids[None], use_cache=False).logits[0].float()
    return logits


def _distance(computed: Tensor, expected: Tensor) -> float:
    return float((computed - expected).norm() / expected.norm())


def _passes(lm: DecoderLM, ids: Tensor) -> Tensor:
    cache = lm.new_cache(len(ids))
    return torch.cat([lm.forward([Rows(part, cache, len(part))])[0] for part in torch.split(ids, _PARTS)])


def _small(config: Mapping[str, Any], weights: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return configuration and weights of a model of a few of the layers and tokens."""
    by_layer: dict[int, dict[str, Any]] = {}
    outer = {}
    for name, weight in weights.items():
        if name.startswith(_LAYER):
            number, _, part = name.removeprefix(_LAYER).partition(".")
            by_layer.setdefault(int(number), {})[part] = weight
        else:
            outer[name] = weight
    kinds: dict[tuple[str, ...], dict[str, Any]] = {}
    for _, layer in sorted(by_layer.items()):
        kinds.setdefault(tuple(f"{part}: {_format(weight)}" for part, weight in sorted(layer.items())), layer)
    taken = list(kinds.values())[:_MOST_LAYERS]
    some = {f"{_LAYER}{n}.{part}": weight for n, layer in enumerate(taken) for part, weight in layer.items()}
    count = min(_MOST_TOKENS, config["vocab_size"])
    for name, weight in outer.items():
        short = weight.first(count) if isinstance(weight, StoredBlocks) else weight[:count]
        some[name] = weight if len(weight.shape) == 1 else short
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    return {**config, **ends, "num_hidden_layers": len(taken), "vocab_size": count}, some


def _format(weight: Any) -> str:
    return weight.form.name if isinstance(weight, StoredBlocks) else str(weight.dtype)
