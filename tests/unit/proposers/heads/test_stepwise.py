"""Medusa and Hydra heads compute what a slow reference computes, in every published layout."""

import pytest
import torch

from rapid_integrations.errors import ConfigurationError, ModelLoadError
from rapid_integrations.proposers.heads.loading import load_head
from rapid_integrations.proposers.suite import check_proposer
from rapid_integrations.proposers.suite.table_model import TableLM
from tests.toys import reference_heads as reference
from tests.toys.heads import hydra, medusa, write

HIDDEN, VOCAB = TableLM.hidden_size, 6
TOKENS = [3, 0, 5, 2]


@pytest.fixture
def target():
    return TableLM(1, VOCAB)


def _following(head):
    states = torch.randn(4, HIDDEN, generator=torch.Generator().manual_seed(5))
    text = head.begin()
    text.follow([3], TOKENS[:1], states[:1])
    text.follow([4, 5, 6], TOKENS[1:], states[1:])
    root = text.root()
    first, second = text.after([root, root], [2, 4])
    (third,) = text.after([second], [1])
    return list(zip(range(3, 7), TOKENS, states, strict=True)), (
        (root, []),
        (first, [2]),
        (second, [4]),
        (third, [4, 1]),
    )


@pytest.mark.parametrize("prefix", ["", "medusa_head."])
def test_medusa(tmp_path, target, prefix):
    tensors, config = medusa(HIDDEN, VOCAB)
    written = {prefix + name: each for name, each in tensors.items()}
    head = load_head(write(tmp_path / "head", written, config, "medusa_lm_head.safetensors"), target, VOCAB)
    assert (head.kind, head.most_tokens, head.levels) == ("medusa", 3, (-1,))
    pairs, nodes = _following(head)
    for node, drafted in nodes:
        expected = reference.medusa_logits(tensors, pairs[-1][2], len(drafted), 2)
        torch.testing.assert_close(node.logits.double(), expected, atol=1e-4, rtol=1e-4)


def test_medusa_of_vllm(tmp_path, target):
    tensors, config = medusa(HIDDEN, VOCAB, ours=True, bias=False)
    plain = {}
    for name, each in tensors.items():
        parts = name.split(".")
        plain[f"{parts[1]}.{parts[3]}.linear.weight" if parts[0] == "blocks" else f"{parts[1]}.2.weight"] = each
    head = load_head(write(tmp_path / "head", tensors, config), target, VOCAB)
    pairs, nodes = _following(head)
    for node, drafted in nodes:
        expected = reference.medusa_logits(plain, pairs[-1][2], len(drafted), 2)
        torch.testing.assert_close(node.logits.double(), expected, atol=1e-4, rtol=1e-4)
    some = {name: each[:3] if name.startswith("lm_heads") else each for name, each in tensors.items()}
    some["token_map"] = torch.tensor([1, 4, 5])
    assert load_head(write(tmp_path / "b", some, config), target, VOCAB).vocabulary.tolist() == [1, 4, 5]
    some["token_map"] = torch.tensor([1, 4, 6])
    with pytest.raises(ModelLoadError, match="token_map leads beyond"):
        load_head(write(tmp_path / "c", some, config), target, VOCAB)


@pytest.mark.parametrize("prefix", [False, True])
def test_hydra(tmp_path, target, prefix):
    tensors, config = hydra(HIDDEN, VOCAB, prefix=prefix)
    head = load_head(write(tmp_path / "head", tensors, config), target, VOCAB)
    assert (head.kind, head.most_tokens) == ("hydra", 3)
    pairs, nodes = _following(head)
    embedding = target.embedded(torch.arange(VOCAB))
    for node, drafted in nodes:
        expected = reference.hydra_logits(tensors, config, pairs, drafted, embedding)
        torch.testing.assert_close(node.logits.double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("proposer", ["draft_head", "draft_head_tree"])
@pytest.mark.parametrize("kind", [medusa, hydra])
def test_they_keep_the_law(tmp_path, kind, proposer):
    folder = write(tmp_path / "head", *kind(HIDDEN, 3, heads=2, layers=1))
    check_proposer(proposer, new_tokens=3, draft_lengths=(2,), draft_head=lambda target: load_head(folder, target, 3))


def test_heads_for_another_model_are_refused(tmp_path):
    folder = write(tmp_path / "head", *medusa(12, VOCAB))
    with pytest.raises(ModelLoadError, match=r"has the shape \(12,\)"):
        load_head(folder, TableLM(1, VOCAB), VOCAB)


def test_a_target_with_recurrent_layers_gives_no_states(tmp_path):
    target = TableLM(1, VOCAB)
    target.state_bytes = 64
    with pytest.raises(ConfigurationError, match="recurrent layers"):
        load_head(write(tmp_path / "head", *medusa(12, VOCAB)), target, VOCAB)
