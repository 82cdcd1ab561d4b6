"""Which decoders are handed to the kernels for GPUs."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from rapid_integrations.models import gpu_steps as module
from rapid_integrations.models.description import Adapter
from rapid_integrations.models.fused_decoder import FusedDecoder
from tests.toys.models import tiny_model


def with_mlp(layer, **changes):
    return replace(layer, mlp=replace(layer.mlp, **changes))


def with_attention(layer, **changes):
    return replace(layer, attention=replace(layer.attention, **changes))


ADAPTER = Adapter((nn.Linear(4, 2),), (nn.Linear(2, 4),))


@pytest.mark.parametrize(
    "changed",
    [
        lambda layer: with_mlp(layer, factor=0.5),
        lambda layer: with_mlp(layer, gate_factor=0.5),
        lambda layer: with_mlp(layer, sparsity=0.9),
        lambda layer: with_mlp(layer, adapter=ADAPTER),
        lambda layer: with_attention(layer, factor=0.5),
        lambda layer: with_attention(layer, adapter=ADAPTER),
        lambda layer: replace(layer, with_embedding=True),
        lambda layer: replace(layer, aside=nn.Linear(4, 4)),
        lambda layer: replace(layer, mlp=None),
        lambda layer: layer,
    ],
)
def test_what_the_kernels_cannot_say_of_a_layer_is_left_to_the_operators(monkeypatch, changed):
    """A family may have any of these. What is not asked for here would be left out without a word."""
    fused = FusedDecoder(tiny_model("llama", 1))
    described = fused._described
    layers = [changed(layer) for layer in described.layers]
    monkeypatch.setattr(module, "why_not_cuda", lambda device: "")
    monkeypatch.setattr(module, "why_not_served", lambda model: "served so far")  # the kernels need Triton
    changed_one = replace(described, layers=layers)
    steps, reason = module.gpu_steps(changed_one, fused._layers, fused._head, 4)
    assert steps is None
    assert reason == ("served so far" if layers == list(described.layers) else changed_one.beyond_gpus or module._MORE)


def test_a_table_without_numbers_is_left_to_the_operators(monkeypatch):
    fused = FusedDecoder(tiny_model("llama", 1))
    asked = []
    monkeypatch.setattr(module, "why_not_cuda", lambda device: asked.append(device) or "no kernels")
    described = replace(fused._described, embedding=object())
    assert module.gpu_steps(described, fused._layers, fused._head, 4) == (None, "no kernels")
    assert asked == [torch.device("meta")]
