"""One model's text, on devices that are not there."""

from types import SimpleNamespace

import pytest
import torch

from rapid_integrations.cache import KVCache
from rapid_integrations.decoding.reader import (
    GPU_CHUNK,
    LARGE_GPU,
    LARGE_GPU_CHUNK,
    PREFILL_CHUNK,
    Reader,
    prefill_chunk,
)
from rapid_integrations.errors import ConfigurationError

MPS = torch.device("mps")


class Model:
    """A model on a device that is not there: the ids that are sent to it fail as they arrive."""

    name, vocab_size, device = "tiny", 300, torch.device("cuda", 0)

    def new_cache(self, capacity):
        return KVCache(1, capacity)


@pytest.mark.parametrize("wrong", [300, -1])
def test_an_id_that_the_model_does_not_have_never_reaches_the_device(wrong, monkeypatch):
    monkeypatch.setattr("rapid_integrations.decoding.reader.sent", lambda ids, device: f"{len(ids)} ids on {device}")
    reader = Reader(Model(), [1, 2], 8)
    with pytest.raises(ConfigurationError, match=f"token id {wrong} was given to tiny, whose ids are 0 to 299"):
        reader.wants([299, wrong], 1)
    assert reader.wants([299], 1).token_ids == "3 ids on cuda:0"


def test_pieces_of_a_prompt_are_longer_on_gpus(monkeypatch):
    assert prefill_chunk(torch.device("cpu")) == prefill_chunk(MPS) == PREFILL_CHUNK
    for size, expected in ((LARGE_GPU, LARGE_GPU_CHUNK), (LARGE_GPU - 1, GPU_CHUNK)):
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda device, size=size: SimpleNamespace(total_memory=size)
        )
        assert prefill_chunk(torch.device("cuda", 1)) == expected
