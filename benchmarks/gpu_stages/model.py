"""A random model of the shape that is measured."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.gpu_stages import DEVICE, DRY, HEADS, HIDDEN, INNER, KV_HEADS, LAYERS, SHAPE, VOCAB
from rapid_integrations.benchmarks.shapes import load_shape, random_model


def random_lm(quantization: str | None = None) -> Any:
    shape = load_shape("llama-3.1-8b" if DRY else SHAPE)
    if DRY:
        shape |= {"vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS}
        shape |= {"num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS}
    return random_model(SHAPE, shape, torch.bfloat16, torch.device(DEVICE), LAYERS, quantization)  # type: ignore[arg-type]
