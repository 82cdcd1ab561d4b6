"""The logits of a loaded model, and what they should be."""

import torch

from rapid_integrations.cache import Rows
from tests.toys.models import tiny_model

IDS = torch.arange(3, 80)
MERGES = (("t", "h"),)


@torch.inference_mode()
def logits(loaded):
    return loaded.lm.forward([Rows(IDS, loaded.lm.new_cache(len(IDS)), len(IDS))])[0]


def expected(kind="llama", **config):
    with torch.inference_mode():
        return tiny_model(kind, 1, **config)(IDS[None]).logits[0]
