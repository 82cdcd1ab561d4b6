"""EAGLE heads compute what a slow reference computes, in every published layout, and refuse what does not fit."""

import pytest
import torch

from rapid_integrations.errors import ModelLoadError, UnsupportedModelError
from rapid_integrations.proposers.heads.loading import load_head
from rapid_integrations.proposers.suite.table_model import TableLM
from tests.toys import reference_heads as reference
from tests.toys.heads import eagle1, eagle3, write

HIDDEN, VOCAB = TableLM.hidden_size, 6


@pytest.fixture
def target():
    return TableLM(1, VOCAB)


def compared(head, step, levels, target):
    """Compare a head that follows a text in two parts, and drafts twice, with the reference."""
    draw = torch.Generator().manual_seed(5)
    count = 7
    states = torch.randn(count, levels * HIDDEN, generator=draw)
    tokens = [3, 0, 5, 2, 2, 1, 4]
    embedding = target.embedded(torch.arange(VOCAB))
    text = head.begin()
    assert text.root() is None
    text.follow(range(3, 7), tokens[:4], states[:4])
    (wrong,) = text.after([text.root()], [5])  # a draft that is given up
    text.after([wrong], [1])
    text.follow(range(7, 10), tokens[4:], states[4:])
    pairs = list(zip(range(3, 10), tokens, states, strict=True))
    root = text.root()
    first, second = text.after([root, root], [2, 4])
    (third,) = text.after([second], [1])
    for node, drafted in ((root, []), (first, [2]), (second, [4]), (third, [4, 1])):
        expected = reference.guesses(step, pairs, drafted, embedding)[-1]
        torch.testing.assert_close(node.logits.double(), expected, atol=1e-4, rtol=1e-4)
        assert node.depth == len(drafted)


@pytest.mark.parametrize("layer", ["midlayer", "layers.0"])
@pytest.mark.parametrize("own", [None, 3])
@pytest.mark.parametrize("norm_first", [False, True])
def test_eagle3(tmp_path, target, layer, own, norm_first):
    tensors, config = eagle3(HIDDEN, VOCAB, own, layer, norm_before_residual=norm_first)
    head = load_head(write(tmp_path / "head", tensors, config), target, VOCAB)
    assert (head.kind, head.levels) == ("eagle3", (2, 3, 3))
    assert head.vocabulary is None if own is None else head.vocabulary.tolist() == [0, 2, 4]
    compared(head, reference.eagle3_step(tensors, config, layer), 3, target)


def test_eagle3_of_speculators(tmp_path, target):
    tensors, config = eagle3(HIDDEN, VOCAB, 3, "layers.0")
    tensors["embed_tokens.weight"] = target.embedded(torch.arange(VOCAB)).clone()
    outer = {"speculators_model_type": "eagle3", "draft_vocab_size": 3, "eagle_aux_hidden_state_layer_ids": [1, 2, 4]}
    head = load_head(write(tmp_path / "head", tensors, {**outer, "transformer_layer_config": config}), target, VOCAB)
    assert head.levels == (1, 2, 4)
    compared(head, reference.eagle3_step(tensors, config, "layers.0"), 3, target)


@pytest.mark.parametrize("bias", [True, False])
def test_eagle1(tmp_path, target, bias):
    tensors, config = eagle1(HIDDEN, VOCAB, bias=bias)
    head = load_head(write(tmp_path / "head", tensors, config), target, VOCAB)
    assert (head.kind, head.levels, head.vocabulary) == ("eagle", (-1,), None)
    compared(head, reference.eagle1_step(tensors, config, target.embedded(torch.arange(VOCAB))), 1, target)


def test_eagle1_of_speculators(tmp_path, target):
    tensors, config = eagle1(HIDDEN, VOCAB)
    renamed = {
        name.replace("fc.", "fusion_fc.").replace("layers.0.", "transformer."): each for name, each in tensors.items()
    }
    outer = {"speculators_model_type": "eagle", "transformer_layer_config": config}
    head = load_head(write(tmp_path / "head", renamed, outer), target, VOCAB)
    compared(head, reference.eagle1_step(tensors, config, target.embedded(torch.arange(VOCAB))), 1, target)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 12}, "made for another model"),
        ({"eagle_aux_hidden_state_layer_ids": [2, 3, 9]}, "layers 0 to 5"),
        ({"draft_vocab_size": 5}, r"'lm_head.weight' has the shape \(3, 8\)"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rotations of the kind 'yarn'"),
        ({"hidden_act": "tanh"}, "activation 'tanh'"),
        ({"num_attention_heads": 0}, "num_attention_heads=0"),
    ],
)
def test_a_head_for_another_model_is_refused(tmp_path, target, change, message):
    tensors, config = eagle3(HIDDEN, VOCAB, 3)
    with pytest.raises(ModelLoadError, match=message):
        load_head(write(tmp_path / "head", tensors, {**config, **change}), target, VOCAB)


def test_incomplete_and_unknown_checkpoints_are_refused(tmp_path, target):
    tensors, config = eagle3(HIDDEN, VOCAB, 3)
    without = {name: each for name, each in tensors.items() if name != "norm.weight"}
    with pytest.raises(ModelLoadError, match=r"no tensor 'norm.weight'"):
        load_head(write(tmp_path / "a", without, config), target, VOCAB)
    with pytest.raises(UnsupportedModelError, match="'extra.weight'"):
        load_head(write(tmp_path / "b", tensors | {"extra.weight": torch.ones(2)}, config), target, VOCAB)
    with pytest.raises(ModelLoadError, match="beyond the target's 6"):
        load_head(write(tmp_path / "c", tensors | {"d2t": torch.full((3,), 7)}, config), target, VOCAB)
    with pytest.raises(ModelLoadError, match="no tensor d2t"):
        pruned = {name: each for name, each in tensors.items() if name != "d2t"}
        load_head(write(tmp_path / "d", pruned, config), target, VOCAB)
    with pytest.raises(ModelLoadError, match="of no layout that is known"):
        load_head(write(tmp_path / "e", {"something": torch.ones(2)}, config), target, VOCAB)
