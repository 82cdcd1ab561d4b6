"""Small random transformers models, and a tokenizer of bytes to go with them: no files, no downloads."""

import string

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

# Threads wait for one another far longer than matrices of this size take to multiply (30 times, measured).
torch.set_num_threads(1)

BOS, EOS, IM_START, IM_END = "<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (BOS, EOS, IM_START, IM_END)
BOS_ID, EOS_ID, IM_START_ID, IM_END_ID = range(256, 260)
VOCAB_SIZE = 260

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_SHAPE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
    "bos_token_id": BOS_ID,
    "eos_token_id": [EOS_ID, IM_END_ID],
    "pad_token_id": None,
    "tie_word_embeddings": False,
}
SHALLOW = {"num_hidden_layers": 1}  # where the model is not what is tested: most of a request is layers' forward passes
_FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": 24}),
    "gemma3": (
        Gemma3TextConfig,
        Gemma3ForCausalLM,
        {
            "num_hidden_layers": 3,
            "sliding_window": 16,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "query_pre_attn_scalar": 16,
        },
    ),
    "phi3": (Phi3Config, Phi3ForCausalLM, {"sliding_window": 20}),
}
KINDS = ("llama", "qwen2", "qwen3", "mistral", "gemma3", "phi3")  # those that the engine runs


def _rope(kind, rope_type, **settings):
    """The family with rotary frequencies that are scaled for texts longer than 64 tokens."""
    config_class, model_class, defaults = _FAMILIES[kind]
    rope = {"rope_type": rope_type, "rope_theta": 10000.0, "original_max_position_embeddings": 64, **settings}
    if kind == "gemma3":  # each kind of layer has its own
        rope = {"full_attention": rope, "sliding_attention": {"rope_type": "default", "rope_theta": 1000.0}}
    return config_class, model_class, {**defaults, "rope_parameters": rope}


# The ways of stretching rotary embeddings that are fixed for a model, by what published models use them.
ROPES = {
    "llama, linear rope": _rope("llama", "linear", factor=4.0),
    "llama, llama3 rope": _rope("llama", "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0),
    "llama, yarn rope": _rope("llama", "yarn", factor=4.0),
    "qwen2, yarn rope": _rope("qwen2", "yarn", factor=4.0),
    "qwen3, yarn rope": _rope("qwen3", "yarn", factor=4.0, beta_fast=16.0, beta_slow=2.0),
    "mistral, yarn rope": _rope("mistral", "yarn", factor=8.0, mscale=1.0, mscale_all_dim=0.5),
    "gemma3, linear rope": _rope("gemma3", "linear", factor=8.0),
    "phi3, partial rope": _rope("phi3", "default", partial_rotary_factor=0.5),
}
_FAMILIES |= ROPES


def tiny_model(kind, seed, **config):
    """Return a random model: the same one for the same arguments. `config` goes over the family's defaults."""
    config_class, model_class, defaults = _FAMILIES[kind]
    model = model_class(config_class(**{**_SHAPE, **defaults, **config}))
    return randomise(model, seed).eval()


@torch.no_grad()
def randomise(model, seed):
    """Give every parameter large random values, so that each of them matters to the output."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.copy_(0.4 * noise)
        else:  # norms (Gemma stores them minus one) and biases
            parameter.copy_(parameter + 0.2 * noise)
    return model


def byte_tokenizer(*, merges=(), add_bos=False, chat_template=CHATML, extra_tokens=()):
    """Return a fast tokenizer: a token per UTF-8 byte, four control tokens, and what `merges` makes of the bytes.

    `merges`: pairs of strings, as in ("t", "h"); their products get ids behind the control tokens. `extra_tokens`:
    further control tokens behind those. `add_bos`: put the bos token before each text, as Llama's tokenizers do.
    """
    vocabulary = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary |= {token: index for index, token in enumerate(SPECIAL_TOKENS, start=256)}
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    backend = Tokenizer(BPE(vocabulary, list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    if add_bos:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, BOS_ID)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        additional_special_tokens=[IM_START, IM_END, *extra_tokens],
        model_max_length=2048,
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def words(seed, count):
    """Return `count` random words of the alphabet: a text without repetitions to speak of."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 8, (count,), generator=generator).tolist()
    letters = torch.randint(0, 26, (sum(lengths),), generator=generator).tolist()
    text = iter(string.ascii_lowercase[letter] for letter in letters)
    return " ".join("".join(next(text) for _ in range(length)) for length in lengths)
