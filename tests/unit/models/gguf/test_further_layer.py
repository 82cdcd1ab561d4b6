"""The layer of a GGUF file that predicts further tokens is the head that it is in safetensors."""

import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from rapid_integrations import RapidEngine, SamplingParams, SpeculationConfig
from rapid_integrations.errors import ModelLoadError, UnsupportedModelError
from rapid_integrations.models import loader
from rapid_integrations.proposers.heads.loading import load_head
from tests.toys.every_family import tiny
from tests.toys.gguf_experts import MERGES, SIZES, TOKENIZER, write_experts
from tests.toys.heads import write

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("home")]
E, V = SIZES["hidden_size"], len(TOKENIZER) + 1


class Tokens:
    """With the token that transformers gives every such tokenizer, so that an engine takes it."""

    chat_template, added_tokens_decoder = None, {}

    def get_vocab(self):
        return TOKENIZER.get_vocab() | {"<|endoftext|>": V - 1}


OWN = {
    **{"nextn.enorm": ("enorm", (E,)), "nextn.hnorm": ("hnorm", (E,)), "nextn.eh_proj": ("eh_proj", (E, 2 * E))},
    "nextn.shared_head_norm": ("shared_head.norm", (E,)),
}
TABLES = {
    "nextn.embed_tokens": ("embed_tokens", (V, E)),
    "nextn.shared_head_head": ("shared_head.head", (V, E)),
}


def files(folder, *, tables=False, formats=lambda name: None, leave_out=(), **metadata):
    """Write a model of GLM-4.5 of two layers and one that predicts; return its GGUF file and its folder."""
    fields = type(tiny("glm4_moe").config).__dataclass_fields__
    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    sizes = SIZES | {
        "vocab_size": V,
        "num_hidden_layers": 3,
        "use_qk_norm": True,
        "rope_parameters": rope,
        "routed_scaling_factor": 1.5,
    }
    model = tiny("glm4_moe", 1, **{key: value for key, value in sizes.items() if key in fields})
    draw = torch.Generator().manual_seed(3)
    own = {
        theirs: (ours, torch.randn(shape, generator=draw) * (0.3 if len(shape) == 1 else shape[-1] ** -0.5))
        for theirs, (ours, shape) in (OWN | (TABLES if tables else {})).items()
        if theirs not in leave_out
    }
    further = {f"blk.2.{theirs}.weight": tensor for theirs, (_, tensor) in own.items()}
    path = folder / "files" / "tiny.gguf"
    path.parent.mkdir()
    said = {"nextn_predict_layers": 1} | metadata
    with torch.no_grad():
        write_experts(path, model, Tokens(), MERGES, formats, further=further, **said)
    tensors = {f"model.layers.2.{ours}.weight": tensor for ours, tensor in own.values()}
    for name, tensor in model.state_dict().items():
        if not name.startswith("model.layers.2."):
            continue
        stem, _, part = name.rpartition(".experts.")
        for expert, matrix in enumerate(tensor if stem else ()):
            halves = matrix.chunk(2) if part == "gate_up_proj" else [matrix]
            for each, half in zip(("gate", "up") if len(halves) == 2 else ("down",), halves, strict=True):
                tensors[f"{stem}.experts.{expert}.{each}_proj.weight"] = half
        if not stem:
            tensors[name] = tensor
    return path, write(folder / "folder", tensors, model.config.to_dict() | {"num_hidden_layers": 2})


def guesses(head, states):
    """Return the logits behind a text and two tokens more."""
    text = head.begin()
    text.follow([0, 1, 2, 3], [3, 9, 5, 2], states)
    root = text.root()
    (first,) = text.after([root], [7])
    (second,) = text.after([first], [4])
    return torch.stack([root.logits, first.logits, second.logits])


def in_q8_0(name):
    return Kind.Q8_0 if name.startswith("blk.2.") and "gate_inp" not in name and not name.endswith("bias") else None


@pytest.mark.parametrize("options", [{}, {"tables": True}, {"formats": in_q8_0}], ids=["plain", "tables", "blocks"])
def test_the_head_is_that_of_the_safetensors(tmp_path, options):
    path, folder = files(tmp_path, **options)
    target = loader.load(path, dtype="float32").lm
    ours, theirs = load_head(path, target, V), load_head(folder, target, V)
    assert (ours.kind, ours.num_parameters) == ("mtp", theirs.num_parameters)
    states = torch.randn(4, E, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(guesses(ours, states), guesses(theirs, states), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_greedy_answers_with_the_head_are_those_without(tmp_path, dtype):
    path, _ = files(tmp_path)
    answers = []
    for head, proposer in ((None, "none"), (path, "draft_head")):
        asked = SpeculationConfig(proposer=proposer)
        sampling = SamplingParams(max_new_tokens=16, temperature=0.0)
        target = loader.load(path, dtype=dtype)
        with RapidEngine(target, embedder=None, sampling=sampling, speculation=asked, draft_head=head) as engine:
            answers.append(engine.generate("a b c d e f g").token_ids)
    assert answers[0] == answers[1]


def test_a_file_without_such_a_layer(tmp_path):
    path, _ = files(tmp_path, leave_out=("nextn.eh_proj",))
    target = loader.load(path, dtype="float32").lm
    with pytest.raises(ModelLoadError, match="no layer that predicts further tokens"):
        load_head(path, target, V)


def test_a_file_that_says_something_else(tmp_path):
    path, _ = files(tmp_path)
    target = loader.load(path, dtype="float32").lm
    (tmp_path / "other").mkdir()
    other, _ = files(tmp_path / "other", unheard_of=3)
    with pytest.raises(UnsupportedModelError, match="not known here"):
        load_head(other, target, V)
    with pytest.raises(ModelLoadError):
        load_head(tmp_path / "nowhere.gguf", target, V)
