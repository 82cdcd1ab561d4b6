"""Weights of a model among the tensors of files with other names: found by their numbers, or not at all."""

import pytest
import torch
from torch import nn

from rapid_integrations.models.description import NotDescribedError
from rapid_integrations.models.file_names import sources_of, weights_from


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_up = nn.Parameter(torch.randn(3, 8, 4))
        self.down = nn.Parameter(torch.randn(3, 4, 4))
        self.register_buffer("correction", torch.randn(3))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
        self.head.weight = self.table.weight
        self.conv = nn.Conv1d(6, 6, 3, groups=6, bias=False)
        self.layers = nn.ModuleList([Experts(), Experts()])


def files(model):
    """The tensors as a family's files may have them: under other names, in parts, and some that nobody reads."""
    held = model.state_dict()
    tensors = {"words": held["table.weight"].clone(), "of another part": torch.randn(5, 4)}
    for part, name in enumerate(("q", "k", "v")):
        tensors[f"conv_{name}"] = held["conv.weight"][2 * part : 2 * part + 2].clone()
    for index in range(2):
        own = f"layers.{index}"
        tensors[f"{own}.bias"] = held[f"{own}.correction"].clone()
        for expert in range(3):
            whole = held[f"{own}.gate_up"][expert]
            tensors[f"{own}.{expert}.w1"], tensors[f"{own}.{expert}.w3"] = whole[:4].clone(), whole[4:].clone()
            tensors[f"{own}.{expert}.w2"] = held[f"{own}.down"][expert].clone()
    return tensors


def test_what_is_found_is_the_model():
    model = Model()
    tensors = files(model)
    sources = sources_of(model, tensors)
    assert "head.weight" not in sources or "table.weight" not in sources  # they are one
    assert sources["layers.1.gate_up"] == [[f"layers.1.{each}.w1", f"layers.1.{each}.w3"] for each in range(3)]
    assert sources["conv.weight"] == ["conv_q", "conv_k", "conv_v"]
    assert sources["layers.0.correction"] == "layers.0.bias"
    held = model.state_dict()
    weights = weights_from(sources, tensors)
    assert weights.keys() == sources.keys() and all(torch.equal(held[name], each) for name, each in weights.items())


def test_names_of_the_model_come_first():
    model = Model()
    tensors = model.state_dict()
    assert sources_of(model, tensors) == {name: name for name in tensors}


def test_numbers_of_another_dtype_are_compared_as_the_model_has_them():
    model = Model().bfloat16()
    wide = {name: each.float() for name, each in files(model).items()}
    assert sources_of(model, wide) == sources_of(model, files(model))


@pytest.mark.parametrize("lost", ["words", "conv_k", "layers.1.2.w3", "layers.0.0.w2", "layers.0.bias"])
def test_a_weight_of_which_a_part_is_missing_or_other_is_not_found(lost):
    model = Model()
    tensors = files(model)
    changed = tensors | {lost: tensors[lost] + 1}
    del tensors[lost]
    for each in (tensors, changed):
        with pytest.raises(NotDescribedError, match="is no tensor of the files"):
            sources_of(model, each)
