"""A model from its kept description is the one that transformers has built, to the bit."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from rapid_integrations import CompressionConfig, Prompt, RapidEngine, SamplingParams, SpeculationConfig
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models import cache_layout, loader
from rapid_integrations.models.decoder_lm import DecoderLM
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.models.kept_model import NUMBERS, STRUCTURE, KeptModel
from tests.toys import gguf_families, gguf_hybrids, gguf_mixers
from tests.toys.embedder import HashEmbedder
from tests.toys.every_family import tiny
from tests.toys.gguf_experts import TOKENIZER, logits
from tests.toys.models import words

pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("home"),
    pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0"),
]
FAMILIES = [(gguf_families.made, gguf_families.write_family, name) for name in gguf_families.ARCHITECTURES]
FAMILIES += [(gguf_mixers.made, gguf_mixers.write_mixers, name) for name in gguf_mixers.FAMILIES]
FAMILIES += [(gguf_hybrids.made, gguf_hybrids.write_hybrid, "qwen3_5_text")]


OPTIONS = {"": {}, "int4": {"quantization": "int4"}, "float32": {"dtype": "float32"}}
QUICK = {("gemma3_text", ""), ("phi3", "int4"), ("granite", "float32"), ("cohere2", "")}
IN_FOLDERS = [
    pytest.param(family, options, id=f"{family}-{name}", marks=[] if (family, name) in QUICK else [pytest.mark.slow])
    for family in gguf_families.ARCHITECTURES
    for name, options in OPTIONS.items()
]


def load(path):
    return loader.load(path, dtype="bfloat16")


@pytest.mark.parametrize(
    ("made", "write", "name"),
    [
        pytest.param(
            *each, id=each[-1], marks=[] if each[-1] in ("gemma3_text", "granite4_moe", "lfm2") else pytest.mark.slow
        )
        for each in FAMILIES
    ],
)
def test_a_later_start_has_the_same_bits(tmp_path, made, write, name):
    path = write(tmp_path / "tiny.gguf", made(name))
    first, later = load(path), load(path)
    assert not isinstance(first.lm.model, KeptModel) and isinstance(later.lm.model, KeptModel)
    assert later.lm.fingerprint() == first.lm.fingerprint()
    assert later.lm.num_parameters == first.lm.num_parameters
    assert torch.equal(logits(later), logits(first))
    copies = [each.lm.transformers_copy(torch.float32).state_dict() for each in (first, later)]
    assert all(torch.equal(copies[0][key], copies[1][key]) for key in copies[0].keys() | copies[1].keys())


@pytest.mark.process
def test_a_later_start_needs_no_transformers(tmp_path, home, kernels):
    if kernels.exists():
        shutil.copytree(kernels, home / "kernels")
    path = gguf_families.write_family(tmp_path / "tiny.gguf", gguf_families.made("gemma3_text"))
    load(path)
    code = f"""
import sys
from rapid_integrations.models import loader
print(type(loader.load({str(path)!r}, dtype="bfloat16").lm.model).__name__)
print([name for name in ("transformers.modeling_utils", "transformers.models") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines() == ["KeptModel", "[]"], done.stdout + done.stderr


def damage_text(folder):
    (folder / STRUCTURE).write_text("{")


def damage_numbers(folder):
    (folder / NUMBERS).write_bytes(b"nothing")


def forget_a_weight(folder):
    written = json.loads((folder / STRUCTURE).read_text())
    written["tensors"].popitem()
    (folder / STRUCTURE).write_text(json.dumps(written))


def name_no_part(folder):
    text = (folder / STRUCTURE).read_text()
    (folder / STRUCTURE).write_text(text.replace('"is a": "Mlp"', '"is a": "os.system"'))


@pytest.mark.parametrize("damage", [damage_text, damage_numbers, forget_a_weight, name_no_part])
def test_a_damaged_description_is_not_used(tmp_path, home, damage):
    path = gguf_families.write_family(tmp_path / "tiny.gguf", gguf_families.made("olmo2"))
    first = load(path)
    (folder,) = (home / "gguf").iterdir()
    damage(folder)
    later = load(path)
    assert not isinstance(later.lm.model, KeptModel) and torch.equal(logits(later), logits(first))


def test_the_description_of_other_code_is_not_used(tmp_path, home, monkeypatch):
    path = gguf_families.write_family(tmp_path / "tiny.gguf", gguf_families.made("olmo2"))
    load(path)
    monkeypatch.setattr("rapid_integrations.models.gguf.stored.environment", lambda *settings: ("other code", settings))
    assert not isinstance(load(path).lm.model, KeptModel)


# --- folders of safetensors -------------------------------------------------------------------------------------------


def written(folder, family, dtype=torch.bfloat16, **changes):
    """Write a model and its tokenizer; return the folder."""
    gguf_families.made(family, **changes).to(dtype).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


def of_folder(folder, **options):
    return loader.load(folder, **options)


@pytest.mark.parametrize(("family", "options"), IN_FOLDERS)
def test_a_later_start_of_a_folder_has_the_same_bits(tmp_path, family, options):
    folder = written(tmp_path / "model", family)
    first, later = of_folder(folder, **options), of_folder(folder, **options)
    assert not isinstance(first.lm, DecoderLM) and isinstance(later.lm.model, KeptModel)
    for name in ("context_window", "vocab_size", "num_parameters", "num_layers", "dtype", "kernels", "has_parts"):
        assert getattr(later.lm, name) == getattr(first.lm, name), name
    assert later.lm.kv_bytes_per_token == first.lm.kv_bytes_per_token
    assert later.lm.fingerprint() == first.lm.fingerprint()
    assert later.vocabulary.eos_token_ids == first.vocabulary.eos_token_ids
    assert torch.equal(logits(later), logits(first))


def other_angles(folder):
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 1e6
    (folder / "config.json").write_text(json.dumps(config))


def other_weights(folder):
    written(folder, "olmo2", seed=7)


def other_ends(folder):
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(settings | {"eos_token_id": [2, 5]}))


@pytest.mark.parametrize("change", [other_angles, other_weights, other_ends])
def test_a_changed_folder_is_loaded_through_transformers_again(tmp_path, change):
    folder = written(tmp_path / "model", "olmo2")
    before = of_folder(folder)
    change(folder)
    first, later = of_folder(folder), of_folder(folder)
    assert not isinstance(first.lm, DecoderLM) and isinstance(later.lm.model, KeptModel)
    assert later.vocabulary.eos_token_ids == first.vocabulary.eos_token_ids
    assert torch.equal(logits(later), logits(first))
    assert change is other_ends or not torch.equal(logits(later), logits(before))


# Whose states are kept, whose files have matrices of single experts, or whose weights have other names in files.
DENSE = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
EXPERTS = DENSE | {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}
DELTA = EXPERTS | {"linear_key_head_dim": 32, "linear_value_head_dim": 32}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 32, "mamba_n_groups": 2, "mamba_d_ssm": 128}
LATENT = {"q_lora_rank": 32, "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 32, "v_head_dim": 32}
OTHERS = {
    **{"lfm2": DENSE, "falcon_h1": DENSE | MAMBA, "bamba": DENSE | MAMBA, "olmo_hybrid": DELTA, "qwen3_next": DELTA},
    "granitemoehybrid": DENSE | MAMBA | {"intermediate_size": 32, "shared_intermediate_size": 96},
    "nemotron_h": EXPERTS | {"mamba_num_heads": 4, "mamba_head_dim": 32, "ssm_state_size": 32},
    "kimi_linear": EXPERTS | LATENT | {"num_attention_heads": 4, "num_key_value_heads": 4, "linear_head_dim": 32},
    "deepseek_v3": EXPERTS | LATENT | {"num_attention_heads": 4, "num_key_value_heads": 4},
    "glm_moe_dsa": EXPERTS | LATENT | {"num_attention_heads": 4, "num_key_value_heads": 4, "index_head_dim": 64},
    "zamba2": {
        **{"hidden_size": 64, "intermediate_size": 96, "mamba_d_state": 32, "n_mamba_heads": 4, "adapter_rank": 32},
        "attention_head_dim": 32,
    },
    "jamba": DENSE | {"mamba_d_state": 16},
    "mamba": {"hidden_size": 64, "state_size": 16},
    "recurrent_gemma": {
        **{"hidden_size": 64, "intermediate_size": 192, "num_attention_heads": 2, "num_key_value_heads": 1},
        "attention_window_size": 64,
    },
    "gpt2": {"n_embd": 64, "n_inner": 96, "n_head": 2, "tie_word_embeddings": False},
    "opt": {"hidden_size": 64, "word_embed_proj_dim": 64, "ffn_dim": 96, "num_attention_heads": 2},
    "nanochat": DENSE,
    "phimoe": DENSE | {"sliding_window": None},
    **dict.fromkeys(("mixtral", "qwen3_moe", "glm4_moe", "gpt_oss", "lfm2_moe", "llama4_text"), EXPERTS),
}
SEEDS = dict.fromkeys(("deepseek_v3", "gpt_oss", "llama4_text"), 1)  # of others, rounding sends rows to other experts
ALWAYS = {"phimoe": 2}  # the same, whatever the weights are stored as
OTHER_QUICK = {
    *(("kimi_linear", ""), ("nemotron_h", "int4"), ("falcon_h1", ""), ("qwen3_next", "float32")),
    *(("qwen3_moe", "int4"), ("gpt_oss", ""), ("mixtral", "float32")),
    *(("zamba2", ""), ("gpt2", "int4"), ("opt", ""), ("glm_moe_dsa", "int4")),
    *(("jamba", ""), ("mamba", "int4"), ("recurrent_gemma", "")),
}
OTHERS_IN_FOLDERS = [
    pytest.param(family, opts, id=f"{family}-{name}", marks=[] if (family, name) in OTHER_QUICK else [pytest.mark.slow])
    for family in OTHERS
    for name, opts in OPTIONS.items()
]


def other(folder, family, seed=0):
    made = tiny(family, seed, vocab_size=len(TOKENIZER), **OTHERS[family])
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3)
    made.to(torch.bfloat16).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("family", "options"), OTHERS_IN_FOLDERS)
def test_states_and_experts_of_a_folder_have_the_same_bits_in_a_later_start(tmp_path, family, options):
    folder = other(tmp_path / "model", family, ALWAYS.get(family, 0 if options else SEEDS.get(family, 0)))
    first, later = of_folder(folder, **options), of_folder(folder, **options)
    assert not isinstance(first.lm, DecoderLM) and isinstance(later.lm.model, KeptModel)
    for name in ("context_window", "vocab_size", "num_parameters", "num_layers", "hidden_size", "dtype", "kernels"):
        assert getattr(later.lm, name) == getattr(first.lm, name), name
    for name in ("has_parts", "kv_bytes_per_token", "state_bytes", "reads_trees", "weight_bytes"):
        assert getattr(later.lm, name) == getattr(first.lm, name), name
    assert later.lm.fingerprint() == first.lm.fingerprint()
    assert torch.equal(logits(later), logits(first))
    copies = [each.lm.transformers_copy(torch.float32).state_dict() for each in (first, later)]
    assert copies[0].keys() == copies[1].keys()
    assert all(torch.equal(copies[0][key], copies[1][key]) for key in copies[0])


def test_a_model_that_was_wrong_on_trees_is_not_kept(tmp_path, monkeypatch):
    folder = other(tmp_path / "model", "qwen3_moe")
    monkeypatch.setattr(HuggingFaceLM, "reads_trees", False)
    of_folder(folder)
    assert not isinstance(of_folder(folder).lm, DecoderLM)


def test_another_expert_is_another_model(tmp_path):
    folder = other(tmp_path / "model", "qwen3_moe")
    first = of_folder(folder)
    assert isinstance(of_folder(folder).lm.model, KeptModel)
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = next(each for each in weights if each.endswith("experts.1.down_proj.weight"))
    weights[name][0, 0] += 1
    save_file(weights, path, metadata={"format": "pt"})
    second, later = of_folder(folder), of_folder(folder)
    assert not isinstance(second.lm, DecoderLM) and isinstance(later.lm.model, KeptModel)
    assert torch.equal(logits(later), logits(second)) and not torch.equal(logits(later), logits(first))


def of_another(files):
    return files.replace("experts.1.", "experts.7.")


def without_one(files):
    written = json.loads(files)
    del written["sources"]["model.norm.weight"]
    return json.dumps(written)


@pytest.mark.parametrize("damage", [lambda files: files[:-9], lambda files: "[]", of_another, without_one])
def test_damaged_names_are_not_used(tmp_path, home, damage):
    folder = other(tmp_path / "model", "qwen3_moe")
    first = of_folder(folder)
    (path,) = (home / "descriptions").glob("*/files.json")
    path.write_text(damage(path.read_text()))
    later = of_folder(folder)
    assert not isinstance(later.lm, DecoderLM) and torch.equal(logits(later), logits(first))


@pytest.mark.parametrize("family", ["falcon_h1", "kimi_linear", "mamba"])
def test_a_later_start_answers_from_the_states_that_the_first_one_left_on_disk(tmp_path, family, monkeypatch):
    monkeypatch.setattr(cache_layout, "spacing", lambda state_bytes, bytes_per_token: 16)  # as texts are short here
    folder = other(tmp_path / "model", family)
    prompt = Prompt.from_context(words(5, 60), words(55, 3))
    answers = []
    for kind in (HuggingFaceLM, DecoderLM):
        target = of_folder(folder, dtype="float32")
        assert isinstance(target.lm, kind)
        with RapidEngine(
            target,
            embedder=HashEmbedder(threshold=-1.0),
            compression=CompressionConfig(chunk_tokens=16, min_tokens=64, min_chunks=1),
            prefix_cache_dir=tmp_path / "prefixes",
        ) as engine:
            outcomes = [
                engine.generate(
                    prompt,
                    sampling=SamplingParams(max_new_tokens=16, temperature=0),
                    speculation=SpeculationConfig(proposer=proposer),
                )
                for proposer in ("tree_hybrid", "drafter", "none")
            ]
        answers += [outcome.token_ids for outcome in outcomes]
        assert (outcomes[0].stats.cached_prompt_tokens > 100) == (kind is DecoderLM)
    assert len(answers[0]) > 4 and all(answer == answers[0] for answer in answers)
