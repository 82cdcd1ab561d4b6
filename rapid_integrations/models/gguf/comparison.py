"""Compares a model in the blocks of a GGUF file with transformers' own, on the weights dequantised.

To dequantise all layers would take the memory and the time that the blocks save. So the comparison has one layer of
each kind that the file has (by the formats of its weights), and the first rows of the vocabulary. All layers of these
families compute the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.cache import Rows
from rapid_integrations.errors import ModelLoadError, NotANumberError, UnsupportedModelError
from rapid_integrations.models.block_linear import StoredBlocks
from rapid_integrations.models.decoder_lm import DecoderLM
from rapid_integrations.models.skeleton import Skeleton, shape_of

_MOST_LAYERS = 3
_MOST_TOKENS = 4096  # of the vocabulary
_LAYER = "model.layers."
_PARTS = [19, 3, 1, 1]  # tokens of the passes: a chunk of a prompt, a draft, single tokens
_TOLERANCE = 0.1  # inputs of products are rounded to eight bits; a wrong order or scale is far beyond this


def transformers_model(config: Mapping[str, Any], skeleton: Skeleton, dtype: torch.dtype, *, exact: bool = True) -> Any:
    """Return a model of transformers with the weights of ours: in float32 exactly those of the file.

    Args:
        config: of the model, under transformers' names.
        skeleton: holds its weights.
        dtype: of the model.
        exact: let the gguf package dequantise the blocks. Otherwise the kernels do it, in bfloat16, in a tenth of the
            time.
    """
    import transformers

    model_class = getattr(transformers, config["architectures"][0])
    own = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        model = model_class._from_config(own, dtype=dtype)
    base = model.base_model
    base.rotary_emb = type(base.rotary_emb)(config=own)  # on no device it has computed nothing
    for name, module in skeleton.named_modules():
        stored = getattr(module, "stored", None)
        for kind, parameter in module.named_parameters(recurse=False):
            held = parameter.data
            if kind == "weight" and stored is not None:
                held = stored.dense() if exact else stored.rounded()
            setattr(model.get_submodule(name), kind, torch.nn.Parameter(held.to(dtype, copy=True), requires_grad=False))
    model.tie_weights()
    return model.eval()


def compare(name: str, config: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    """Compare passes of this engine with transformers' own eager attention.

    Args:
        name: for messages.
        config: of the model, under transformers' names.
        weights: by their names; see `weights_of`.

    Raises:
        UnsupportedModelError: they differ.
        ModelLoadError: the model computes NaN.
    """
    small = _small(config, weights)
    shape = shape_of(small[0])
    assert shape is not None
    skeleton = Skeleton(shape[0], small[1], tied=shape[1]).to(torch.bfloat16)
    lm = DecoderLM(skeleton, name, Path(), shape[0].max_position_embeddings, None)
    ids = 7919 * torch.arange(1, sum(_PARTS) + 1) % lm.vocab_size
    try:
        computed = _passes(lm, ids)
    except NotANumberError as found:
        raise ModelLoadError(f"{name} could not be loaded: {found}") from None
    model = transformers_model(small[0], skeleton, torch.float32, exact=False)
    expected = _eager(model, ids)
    error = _distance(computed, expected)
    # Some weights blow up what is rounded: transformers' own error in bfloat16 was 17% for a real model. Inputs of
    # eight bits round three times as coarsely.
    if not error <= _TOLERANCE and not error <= 3 * _distance(_eager(model.to(torch.bfloat16), ids), expected) < 0.6:
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
    small = {**config, **ends, "num_hidden_layers": len(taken), "vocab_size": count}
    small.pop("layer_types", None)  # one for each layer of the whole model, and all of one kind (`shape_of`)
    return small, some


def _format(weight: Any) -> str:
    return weight.form.name if isinstance(weight, StoredBlocks) else str(weight.dtype)
