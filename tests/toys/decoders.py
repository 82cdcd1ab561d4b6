"""Small decoders that the C++ kernels serve, and the same weights in float32."""

import torch

from rapid_integrations.cache import Rows
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.models import VOCAB_SIZE, tiny_model

SHAPE = {
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
}


def ids(count, seed=0):
    return torch.randint(0, VOCAB_SIZE, (count,), generator=torch.Generator().manual_seed(seed))


def model(kind="llama", **config):
    made = tiny_model(kind, 1, **{**SHAPE, **config})
    with torch.no_grad():  # so large that everything matters, so small that rounding does not explode
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.4)
    return made.bfloat16()


def pair(kind="llama", quantization=None, **config):
    """Return a model on the kernels, and one with the same weights in float32 on PyTorch's operators."""
    ours = HuggingFaceLM(model(kind, **config), take_over=True, quantization=quantization)
    assert ours._fused._native is not None
    return ours, HuggingFaceLM(ours.transformers_copy(torch.float32))


def in_eight_bits(kind="llama", **config):
    """Return a model on the kernels that stores keys and values in eight bits."""
    lm = HuggingFaceLM(model(kind, **config), take_over=True)
    lm.store_in_eight_bits()
    return lm


def read(lm, text, *lengths):
    """Return the logits of the whole text, read in pieces."""
    cache = lm.new_cache(len(text))
    return torch.cat([lm.forward([Rows(piece, cache, len(piece))])[0] for piece in text.split(list(lengths))])


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


FAMILIES = {
    "llama": {},
    "qwen2": {"num_attention_heads": 12},  # biases; six heads share a key's, so steps may attend in integers
    "qwen3": {},  # norms of queries and keys
    "mistral": {"sliding_window": 90},
}
