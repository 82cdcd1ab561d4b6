"""Training a head: it computes what a loaded head does, it learns, and it goes on where it was interrupted."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.models import loader
from rapid_integrations.proposers.heads.eagle import Eagle3, renamed
from rapid_integrations.proposers.heads.loading import load_head
from rapid_integrations.proposers.heads.training.network import HeadNetwork, HeadShape
from rapid_integrations.proposers.heads.training.trainer import TrainingSettings, train_head
from rapid_integrations.proposers.heads.weights import HeadWeights
from rapid_integrations.proposers.suite.table_model import TableLM
from tests.toys.models import byte_tokenizer, tiny_model, words

SETTINGS = TrainingSettings(
    passages=4,
    prompt_tokens=24,
    answer_tokens=6,
    draft_vocab_size=64,
    epochs=3,
    steps=2,
    learning_rate=3e-3,
    held_out=0.2,
)
TEXTS = [words(1, 150)]


@pytest.fixture
def target():
    loaded = loader.wrap(tiny_model("llama", 0), byte_tokenizer(), name="tiny")
    yield loaded
    loaded.lm.close()


def test_the_network_that_learns_is_the_head_that_drafts():
    target = TableLM(1, 6)
    width, levels = target.hidden_size, (1, 2, 4)
    shape = HeadShape(width, 16, 2, 1, 4, levels, 6, 6, rope_theta=10000.0)
    draw = torch.Generator().manual_seed(3)
    scales = torch.rand(3 * width, generator=draw) + 0.5
    network = HeadNetwork(shape, 0, torch.randn(6, width, generator=draw), scales[:width], scales)
    config = {
        "hidden_size": width,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "rms_norm_eps": 1e-5,
        "eagle_aux_hidden_state_layer_ids": list(levels),
    }
    weights = HeadWeights("toy", renamed(network.named()), torch.float32, torch.device("cpu"))
    head = Eagle3(weights, config, target, 6)
    tokens, states = [3, 0, 5, 2, 2, 1], torch.randn(4, 3 * width, generator=draw)
    embedded = target.embedded(torch.tensor([0, 5, 2, 2, 1, 1]))[None]
    with torch.no_grad():
        steps = network(states[None], embedded, 2)
    for row in range(4):
        text = head.begin()
        text.follow(range(row + 1), tokens[1 : row + 2], states[: row + 1])
        (after,) = text.after([text.root()], [tokens[row + 2] if row < 4 else 1])
        torch.testing.assert_close(text.root().logits, steps[0][0, row], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(after.logits, steps[1][0, row], atol=1e-4, rtol=1e-4)


def test_it_learns_and_goes_on_where_it_was_interrupted(tmp_path, target):
    whole = train_head(target, TEXTS, tmp_path / "whole", SETTINGS)
    assert whole.losses[-1] < whole.losses[0] and whole.epoch == 3 and len(whole.acceptances[0]) == 2
    assert whole.written == 4

    def stop(state):
        if state.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_head(target, TEXTS, tmp_path / "parts", SETTINGS, on_epoch=stop)
    assert json.loads((tmp_path / "parts" / "training.json").read_text())["epoch"] == 1
    again = train_head(target, TEXTS, tmp_path / "parts", SETTINGS)
    assert again.losses == whole.losses and again.acceptances == whole.acceptances
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    shutil.rmtree(tmp_path / "whole" / "training")
    head = load_head(tmp_path / "whole", target.lm, 260)
    assert head.kind == "eagle3" and len(head.vocabulary) == 64


def test_other_texts_are_another_training(tmp_path, target):
    train_head(target, TEXTS, tmp_path, SETTINGS)
    with pytest.raises(ConfigurationError, match="on other texts"):
        train_head(target, [words(2, 150)], tmp_path, SETTINGS)
    state = json.loads((tmp_path / "training.json").read_text())
    del state["texts"]  # as an earlier version wrote it
    (tmp_path / "training.json").write_text(json.dumps(state))
    assert train_head(target, TEXTS, tmp_path, SETTINGS).epoch == 3


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Return the folder of a training that was stopped after its first epoch."""
    folder = tmp_path_factory.mktemp("stopped") / "head"

    def stop(state):
        raise KeyboardInterrupt

    loaded = loader.wrap(tiny_model("llama", 0), byte_tokenizer(), name="tiny")
    with pytest.raises(KeyboardInterrupt):
        train_head(loaded, TEXTS, folder, SETTINGS, on_epoch=stop)
    loaded.lm.close()
    return folder


@pytest.mark.parametrize(
    ("pattern", "damage", "said"),
    [
        ("checkpoint-*", lambda path: path.unlink(), "cannot go on"),
        ("checkpoint-*", lambda path: path.write_bytes(path.read_bytes()[:-9]), "cannot go on"),
        ("examples-*", lambda path: path.unlink(), "0 of 4 examples"),
        ("examples-*", lambda path: path.write_bytes(b""), "cannot go on"),
    ],
)
def test_a_training_of_which_something_is_damaged_or_gone_says_so(tmp_path, target, stopped, pattern, damage, said):
    folder = shutil.copytree(stopped, tmp_path / "head")
    damage(next((folder / "training").glob(pattern)))
    with pytest.raises(ConfigurationError, match=said):
        train_head(target, TEXTS, folder, SETTINGS)


def test_a_head_that_was_removed_is_written_again(tmp_path, target):
    train_head(target, TEXTS, tmp_path, SETTINGS)
    written = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").unlink()
    train_head(target, TEXTS, tmp_path, SETTINGS)
    assert (tmp_path / "model.safetensors").read_bytes() == written


def test_another_training_s_folder_is_refused(tmp_path, target):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("x")
    with pytest.raises(ConfigurationError, match="is not empty"):
        train_head(target, TEXTS, tmp_path / "full", SETTINGS)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "training.json").write_text('{"target": "tiny", "settings": {}}')
    with pytest.raises(ConfigurationError, match="with other settings"):
        train_head(target, TEXTS, tmp_path / "other", SETTINGS)
    (tmp_path / "other" / "training.json").write_text("{")
    with pytest.raises(ConfigurationError, match="is damaged"):
        train_head(target, TEXTS, tmp_path / "other", SETTINGS)
    with pytest.raises(ConfigurationError, match="at least two are needed"):
        train_head(target, ["short"], tmp_path / "little", SETTINGS)
