"""The part of a quantised checkpoint that writes text, under the names that transformers' model has for it.

Files name weights as they were published. transformers knows which of them stand for which weights of a model, and is
asked for that. Of a model of text and pictures the language model is taken, as the model that its family has for text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rapid_integrations.models.packed.experts import joined_experts

IN_BLOCKS = frozenset(
    (
        *("afmoe", "arcee", "cohere", "cohere2", "dots1", "ernie4_5", "ernie4_5_moe", "exaone4", "exaone_moe", "gemma"),
        *("gemma2", "gemma3_text", "glm", "glm4", "glm4_moe", "gpt_oss", "granite", "helium", "hunyuan_v1_dense"),
        *("internlm3", "iquestcoder", "jais2", "llama", "minimax_m2", "ministral", "ministral3", "mistral", "mixtral"),
        *("nanochat", "nemotron", "olmo", "olmo2", "olmo3", "olmoe", "phi", "phi3", "qwen2", "qwen2_moe"),
        *("qwen3", "qwen3_moe", "seed_oss", "smollm3", "stablelm", "starcoder2", "vaultgemma"),
    )
)
"""Families, as configurations name them, whose matrices may lie in blocks. Others have layers in forms of their own."""

_LANGUAGE_MODEL = "model.language_model."
# Text has one position for what these models have three for, so they are the models of text of their families.
_OF_TEXT = {
    **{"qwen2_vl_text": "qwen2", "qwen2_5_vl_text": "qwen2", "qwen3_vl_text": "qwen3"},
    "qwen3_vl_moe_text": "qwen3_moe",
}
_OF_PICTURES = ("mrope_section", "mrope_interleaved", "type")  # of rotary embeddings


def text_configuration(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the configuration of the model that writes text, with every number that its file leaves out.

    Args:
        config: a parsed config.json without the settings of a quantisation.

    Returns:
        None if its matrices do not lie in blocks.
    """
    from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

    if config.get("auto_map") or config.get("model_type") not in CONFIG_MAPPING:
        return None
    own = AutoConfig.for_model(**config)
    text = own.get_text_config(decoder=True)
    written: dict[str, Any] = text.to_dict()
    if text is not own:  # whether the head is the table of tokens is said outside
        written["tie_word_embeddings"] = own.tie_word_embeddings
    if (kind := _OF_TEXT.get(text.model_type)) is not None:
        rope = {name: value for name, value in written["rope_parameters"].items() if name not in _OF_PICTURES}
        text = AutoConfig.for_model(**written | {"model_type": kind, "rope_parameters": rope})
        written = text.to_dict()
    if text.model_type not in IN_BLOCKS or written.get("decoder_sparse_step", 1) != 1:
        return None
    found = AutoModelForCausalLM._model_mapping[type(text)]
    return written | {"architectures": [(found[0] if isinstance(found, (list, tuple)) else found).__name__]}


def text_weights(config: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the weights of the model that writes text, with the matrices of experts in stacks.

    What reads pictures is left out, and so are further layers that the model does not have.

    Args:
        config: a parsed config.json without the settings of a quantisation.
        weights: by their names in the files, `Tensor`, `StoredBlocks` or `StoredStack`.

    Returns:
        None if the matrices of an expert are missing, or lie in blocks only in part.
    """
    from transformers import AutoConfig
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    from rapid_integrations.models.model_class import class_for

    own = AutoConfig.for_model(**config)
    _, model_class = class_for(str(config["model_type"]), own)
    with torch.device("meta"):
        model = model_class(own)
    renamings = [each for each in get_model_conversion_mapping(model) if isinstance(each, WeightRenaming)]
    expected, prefix = model.state_dict(), model.base_model_prefix
    named = {rename_source_key(name, renamings, [], prefix, expected)[0]: each for name, each in weights.items()}
    if own.get_text_config(decoder=True) is not own:
        inner = {name: weight for name, weight in named.items() if name.startswith((_LANGUAGE_MODEL, "lm_head."))}
        return joined_experts({name.replace(_LANGUAGE_MODEL, "model.", 1): each for name, each in inner.items()})
    joined = joined_experts(named)
    return None if joined is None else {name: each for name, each in joined.items() if name in expected}
