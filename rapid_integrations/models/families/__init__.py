"""The families that are described by data, by the names of their classes in transformers.

A family is one module here, with a function that describes a model and `CLASSES`, which says of which classes it does.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from torch import nn

from rapid_integrations.models.description import Decoder, NotDescribedError, matrices, parameters
from rapid_integrations.models.families import (
    afmoe,
    apertus,
    aria,
    bamba,
    cohere,
    cohere2_moe,
    deepseek,
    falcon,
    falcon_h1,
    gemma,
    gemma3n,
    gemma4,
    glm,
    glm_moe,
    gpt2,
    gpt_bigcode,
    gpt_neox,
    gpt_oss,
    granite,
    granite_hybrid,
    granite_swa,
    hunyuan,
    jamba,
    kimi_linear,
    kolibri,
    laguna,
    lara_mini,
    lfm2,
    lfm3,
    llama,
    llama4,
    mamba,
    mamba2,
    mellum,
    mimo_v2,
    minimax,
    mistral4,
    mixtral,
    nanochat,
    nemotron,
    nemotron_h,
    olmo,
    olmo_hybrid,
    opt,
    phi,
    phimoe,
    qwen_next,
    recurrent_gemma,
    starcoder,
    zamba2,
)
from rapid_integrations.models.skeleton import Skeleton, SkeletonLinear

_MODULES = (
    *(afmoe, apertus, aria, bamba, cohere, cohere2_moe, deepseek, falcon, falcon_h1, gemma, gemma3n, gemma4, glm),
    *(glm_moe, gpt2, gpt_bigcode, gpt_neox, gpt_oss, granite, granite_hybrid, granite_swa, hunyuan, jamba),
    *(kimi_linear, kolibri, laguna, lara_mini, lfm2, lfm3, llama, llama4, mamba, mamba2, mellum, mimo_v2, minimax),
    *(mistral4, mixtral, nanochat, nemotron, nemotron_h, olmo, olmo_hybrid, opt, phi, phimoe, qwen_next),
    *(recurrent_gemma, starcoder, zamba2),
)
FAMILIES: dict[str, Callable[[Any], Decoder]] = {
    name: describe for module in _MODULES for name, describe in module.CLASSES.items()
}


_LIKE_LINEAR = ("FalconLinear",)  # adds its bias in a step of its own, and does nothing else
# The language models inside models of text and pictures, and the families that they are of.
_TEXT_PARTS = {
    "LlamaModel": "LlamaForCausalLM",
    "Apertus1p5TextModel": "ApertusForCausalLM",
    "AriaTextModel": "AriaTextForCausalLM",
    "Mistral4Model": "Mistral4ForCausalLM",
    "MistralModel": "MistralForCausalLM",
    "Ministral3Model": "Ministral3ForCausalLM",
    **dict.fromkeys(("Qwen2Model", "Qwen2VLTextModel", "Qwen2_5_VLTextModel"), "Qwen2ForCausalLM"),
    **dict.fromkeys(("Qwen3Model", "Qwen3VLTextModel"), "Qwen3ForCausalLM"),
    "Gemma3TextModel": "Gemma3ForCausalLM",
    "DeepseekV3Model": "DeepseekV3ForCausalLM",  # of Kimi K2.5
    "Gemma3nTextModel": "Gemma3nForCausalLM",
    "Gemma4TextModel": "Gemma4ForCausalLM",
    "Gemma4UnifiedTextModel": "Gemma4UnifiedForCausalLM",
    "Llama4ForCausalLM": "Llama4ForCausalLM",
    "Lfm2Model": "Lfm2ForCausalLM",
    "Qwen3_5TextModel": "Qwen3_5ForCausalLM",
    "Qwen3_5MoeTextModel": "Qwen3_5MoeForCausalLM",
}


def describe(model: Any) -> Decoder:
    """Describe a model of a known family. Of a model of text and pictures this is its language model.

    A `KeptModel` brings its description.

    Raises:
        NotDescribedError: the family is not known, or a part of the model is not.
    """
    if isinstance(brought := getattr(model, "described", None), Decoder):
        return brought
    name, text = _text_of(model)
    if name not in FAMILIES:
        raise NotDescribedError(f"{type(model).__name__} has no description")
    try:
        described = FAMILIES[name](text)
    except (AttributeError, ZeroDivisionError) as error:  # other parts of another version, or a factor of 0
        raise NotDescribedError(f"{type(model).__name__} is not as its description expects it: {error}") from error
    linear = SkeletonLinear if isinstance(model, Skeleton) else nn.Linear
    others = (each for each in matrices(described) if type(each) is not linear)
    if other := next((each for each in others if type(each).__name__ not in _LIKE_LINEAR), None):
        raise NotDescribedError(f"{type(model).__name__} has a {type(other).__name__} where a plain matrix is expected")
    return described


def left_over(model: Any, described: Decoder) -> list[str]:
    """Return the names of the parameters that a description does not name, but for those that read pictures."""
    known = {id(each) for each in parameters(described)}
    _, text = _text_of(model)
    read = model if text is model else text.base_model
    return [name for name, each in read.named_parameters() if id(each) not in known]


def _text_of(model: Any) -> tuple[str, Any]:
    """Return the name of the family that describes a model, and the model or what stands for its text part."""
    inner = getattr(model.base_model, "language_model", None)
    if inner is None:
        return type(model).__name__, model
    text = SimpleNamespace(base_model=inner, config=inner.config, lm_head=model.get_output_embeddings())
    return _TEXT_PARTS.get(type(inner).__name__, ""), text
