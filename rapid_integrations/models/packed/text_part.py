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
        *("apertus", "cohere2_moe", "gpt_neox", "kolibri1", "laguna", "llama4_text"),
    )
)
"""Families, as configurations name them, whose matrices may lie in blocks. Others have layers in forms of their own."""
IN_PART = frozenset(
    (
        *("axk1", "bamba", "deepseek_v2", "deepseek_v3", "falcon_h1", "falcon_mamba", "glm4_moe_lite", "jamba"),
        *("granitemoehybrid", "lfm2", "lfm2_moe", "lfm3", "mamba", "mamba2", "minicpm3", "mistral4"),
        *("nemotron_h", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next", "youtu"),
    )
)
"""Families of which some matrices are never in blocks: what steps and decays of states are computed from, and what
makes keys and values of latents. They become bfloat16 if a checkpoint has them quantised."""

# What the names of a language model begin with, and what they begin with in the model of text alone.
_LANGUAGE_MODELS = {"model.language_model.": "model.", "language_model.": "", "lm_head.": "lm_head."}
# Text has one position for what these models have three for, so they are the models of text of their families.
_OF_TEXT = {
    **{"qwen2_vl_text": "qwen2", "qwen2_5_vl_text": "qwen2", "qwen3_vl_text": "qwen3"},
    "qwen3_vl_moe_text": "qwen3_moe",
}
_OF_PICTURES = ("mrope_section", "mrope_interleaved", "type")  # of rotary embeddings


def _configuration(config: Mapping[str, Any]) -> Any:
    """Return transformers' configuration; it writes an infinite step as {"__float__": "Infinity"}."""
    from transformers import AutoConfig, PreTrainedConfig

    return AutoConfig.for_model(**PreTrainedConfig._decode_special_floats(dict(config)))


def text_configuration(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the configuration of the model that writes text, with every number that its file leaves out.

    Args:
        config: a parsed config.json without the settings of a quantisation.

    Returns:
        None if its matrices do not lie in blocks.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    from rapid_integrations.models.model_class import class_for

    if config.get("auto_map") or config.get("model_type") not in CONFIG_MAPPING:
        return None
    own = _configuration(config)
    text = own.get_text_config(decoder=True)
    written: dict[str, Any] = text.to_dict()
    if text is not own:  # whether the head is the table of tokens is said outside
        written["tie_word_embeddings"] = own.tie_word_embeddings
    if (kind := _OF_TEXT.get(text.model_type)) is not None:
        rope = {name: value for name, value in written["rope_parameters"].items() if name not in _OF_PICTURES}
        text = AutoConfig.for_model(**written | {"model_type": kind, "rope_parameters": rope})
        written = text.to_dict()
    if text.model_type not in IN_BLOCKS | IN_PART or written.get("decoder_sparse_step", 1) != 1:
        return None
    _, found = class_for(text.model_type, text)
    return written | {"architectures": [found.__name__], "num_hidden_layers": text.num_hidden_layers}


def text_weights(config: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the weights of the model that writes text, with the matrices of experts in stacks.

    What reads pictures is left out, and so are further layers that the model does not have.

    Args:
        config: a parsed config.json without the settings of a quantisation.
        weights: by their names in the files, `Tensor`, `StoredBlocks` or `StoredStack`.

    Returns:
        None if the matrices of an expert are missing, or lie in blocks only in part.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    from rapid_integrations.models.model_class import class_for

    own = _configuration(config)
    _, model_class = class_for(str(config["model_type"]), own)
    with torch.device("meta"):
        model = model_class(own)
    renamings = [each for each in get_model_conversion_mapping(model) if isinstance(each, WeightRenaming)]
    expected, prefix = model.state_dict(), model.base_model_prefix
    named = {rename_source_key(name, renamings, [], prefix, expected)[0]: each for name, each in weights.items()}
    if own.get_text_config(decoder=True) is not own:
        inner = {}
        for name, weight in named.items():
            if (begins := next((each for each in _LANGUAGE_MODELS if name.startswith(each)), None)) is not None:
                inner[_LANGUAGE_MODELS[begins] + name.removeprefix(begins)] = weight
        return joined_experts(inner)
    joined = joined_experts(named)
    return None if joined is None else {name: each for name, each in joined.items() if name in expected}
