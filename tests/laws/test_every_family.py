"""Every causal language model of transformers: equal to its own `generate`, or refused with a reason. Nothing else.

A few of them in the normal run, all of them with `-m slow`. Prompts are longer than every window.
"""

import pytest
import torch

from rapid_integrations.errors import ModelLoadError
from rapid_integrations.models.loader import wrap
from tests.toys.every_family import decoded, families, generated, ids, tiny
from tests.toys.models import byte_tokenizer

# Made of several models, or too large in their smallest form.
NOT_SMALL = frozenset(
    {"blt", "emu3", "fuyu", "gemma3", "gemma3n", "gemma4", "gemma4_unified", "gemma4_unified_assistant"}
    | {"git", "got_ocr2", "llama4", "mllama", "moshi", "moss_transcribe_diarize", "musicgen", "musicgen_melody"}
    | {"phi4_multimodal", "whisper"}
)
RUN = (
    "afmoe",
    "cohere2",
    "deepseek_v3",
    "exaone4",
    "gemma2",
    "gemma3_text",
    "glm4",
    "gpt2",
    "gpt_bigcode",
    "gpt_oss",
    "granitemoehybrid",
    "llama4_text",
    "ministral",
    "mixtral",
    "olmo3",
    "opt",
    "phi3",
    "phimoe",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "smollm3",
    "starcoder2",
)
REFUSED = {
    "bart": "neither causal nor a sliding window nor chunks",
    "bloom": "ALiBi",
    "falcon": "attention cannot be replaced: FalconForCausalLM computes it in code of its own",
    "deepseek_v32": "indexed_attention",
    "mpt": "ALiBi",
    "rwkv": "recurrent state",
    "xlm": "cannot be run: XLMWithLMHeadModel's own code fails",
}


@pytest.mark.parametrize("family", RUN)
def test_what_runs_is_equal(family):
    expected = generated(tiny(family))
    assert decoded(wrap(tiny(family), byte_tokenizer()).lm) == expected


@pytest.mark.parametrize("family", ["phimoe", "qwen2_moe", "qwen2", "qwen3", "ministral", "cohere2", "starcoder2"])
def test_the_toys_windows_matter(family):
    """Or the test above would say nothing of them."""
    with torch.inference_mode():
        narrow = tiny(family)(ids()[None]).logits
        wide = tiny(family, sliding_window=1000)(ids()[None]).logits
    assert not torch.allclose(narrow, wide, atol=0.1)


@pytest.mark.parametrize("family", REFUSED)
def test_what_does_not_run_is_refused_with_the_reason(family):
    model = tiny(family)
    own = model.config._attn_implementation
    with pytest.raises(ModelLoadError, match=REFUSED[family]):
        wrap(model, byte_tokenizer(), name="it")
    assert model.config._attn_implementation == own


@pytest.mark.slow
@pytest.mark.parametrize("family", [family for family in families() if family not in NOT_SMALL])
def test_every_family_is_equal_or_refused(family):
    try:
        model, reference = tiny(family), tiny(family)
    except Exception as error:
        pytest.skip(f"cannot be made small: {type(error).__name__}: {str(error)[:100]}")
    try:
        lm = wrap(model, byte_tokenizer(), name=family).lm
    except ModelLoadError as refused:
        assert family in str(refused) or type(model).__name__ in str(refused)
        return
    assert decoded(lm) == generated(reference)


def test_one_more_window_that_no_configuration_sets_is_refused():
    """A model whose masks have a window of their own."""
    import transformers.models.llama.modeling_llama as llama
    from transformers.masking_utils import create_causal_mask

    def windowed(**arguments):
        return create_causal_mask(**arguments, and_mask_function=lambda b, h, query, key: key > query - 5)

    model = tiny("llama")
    own, llama.create_causal_mask = llama.create_causal_mask, windowed
    try:
        with pytest.raises(ModelLoadError, match="it: .*neither causal nor a sliding window nor chunks"):
            wrap(model, byte_tokenizer(), name="it")
    finally:
        llama.create_causal_mask = own
