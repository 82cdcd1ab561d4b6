"""The logits of a loaded model, and what they should be."""

import torch

from tests.toys.models import tiny_model

IDS = torch.arange(3, 80)
MERGES = (("t", "h"),)


@torch.inference_mode()
def logits(loaded):
    return loaded.lm.forward(IDS, loaded.lm.new_cache(len(IDS)), len(IDS))


def expected(kind="llama", **config):
    with torch.inference_mode():
        return tiny_model(kind, 1, **config)(IDS[None]).logits[0]
