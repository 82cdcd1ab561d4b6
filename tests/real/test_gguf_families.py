"""llama.cpp reads the made GGUF files and computes the same, so their form is the one that its converter gives them.

`pip install xllamacpp` brings llama.cpp.
"""

import json

import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from tests.toys import gguf_gemma3n, gguf_gemma4, gguf_hybrids, gguf_latent, gguf_mixers
from tests.toys.every_family import tiny
from tests.toys.gguf_experts import IDS, MERGES, OF_A_FAMILY, SIZES, TOKENIZER, write_experts
from tests.toys.gguf_families import ARCHITECTURES, LONG_PHI, OF_PICTURES, made, write_family
from tests.toys.gguf_file import named

pytestmark = pytest.mark.slow
LENGTHS = (5, 18, 40, 80)  # windows are 20
NO_WINDOW = {"sliding_window": None}
MOST = 100  # tokens whose probabilities are compared
ALLOWED = 0.15  # of a logarithm: llama.cpp rounds keys and values to float16
ROUGH = 0.3  # LFM2 multiplies numbers with each other that come from inputs with eight bits
NEAR = 0.03  # llama.cpp rounds inputs of Gemma 4's activations, too; vectors in another order are off by 0.06 and more
CLOSE = 0.01  # few layers attend, and a wrong order of some vectors changes little

# What llama.cpp computes of a family: it ignores the window of Phi-3's files, and norms of Command R's heads unless it
# has 64 layers.
OF_LLAMA_CPP = {"phi3": NO_WINDOW, "cohere": {"use_qk_norm": False}}
# dots.llm1's heads share no keys there. With four layers no token is so near two experts that rounding decides.
OF_LLAMA_CPP_EXPERTS = {
    "dots1": {"num_key_value_heads": 4},
    "exaone_moe": {"num_hidden_layers": 4, "layer_types": None},
}
WINDOWED = ["sliding_attention"] * 3 + ["full_attention"]  # of EXAONE 4; llama.cpp has them for 64 layers only
SIXTY_FOUR = {"num_hidden_layers": 64, "hidden_size": 64, "intermediate_size": 64, "head_dim": 16}

STRETCHED = {
    **{"rope_type": "yarn", "rope_theta": 1e5, "partial_rotary_factor": 0.25, "factor": 4.0},
    "original_max_position_embeddings": 64,
}
IN_FILES = {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0, "rope__scaling__original_context_length": 64}


@pytest.fixture
def served():
    """Return a function that starts llama.cpp's server on a file."""
    xllamacpp = pytest.importorskip("xllamacpp")

    def start(path):
        settings = xllamacpp.CommonParams()
        settings.model.path, settings.port = str(path), 0
        settings.n_parallel, settings.n_ctx, settings.fit_params = 1, 256, False
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
        settings.warmup, settings.cache_ram_mib, settings.verbosity = False, 0, 0
        return xllamacpp.Server(settings)

    return start


def probabilities(server, ids):
    """Return the logarithms of the likeliest tokens behind a text, by their ids."""
    letter = TOKENIZER.convert_tokens_to_ids("a")  # bytes that are no text would have no probabilities
    said = []
    asked = {"prompt": ids.tolist(), "n_predict": 1, "logprobs": MOST, "n_probs": MOST, "logit_bias": [[letter, 1000]]}
    server.handle_completions(json.dumps(asked | {"cache_prompt": False, "stream": False}), said.append)
    answer = json.loads(said[-1]) if isinstance(said[-1], str) else said[-1]
    (content,) = answer["choices"][0]["logprobs"]["content"]
    return {each["id"]: each["logprob"] for each in content["top_logprobs"]}


@pytest.mark.parametrize(
    ("family", "sizes", "lengths"),
    [
        *((family, OF_LLAMA_CPP.get(family, {}), LENGTHS) for family in (*ARCHITECTURES, *OF_PICTURES)),
        ("cohere", SIXTY_FOUR, LENGTHS),
        ("exaone4", SIXTY_FOUR | {"sliding_window": 20, "layer_types": WINDOWED * 16}, LENGTHS),
        ("phi3", NO_WINDOW | LONG_PHI, (70, 80)),  # the server's capacity is beyond the original length
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_llama_cpp_computes_the_same(tmp_path, served, family, sizes, lengths):
    model = made(family, scale=0.5, **sizes)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(0.1)  # so that many tokens are likely
    said = {"tokenizer__ggml__pre": "gpt-2"}
    if family == "qwen3":  # of one that sees pictures; llama.cpp's layers for them want pictures
        said["n_deepstack_layers"] = 0
    compare(served(write_family(tmp_path / "tiny.gguf", model, lambda name: None, **said)), model, lengths)


@pytest.mark.parametrize(
    "rope",
    [None, {"rope_type": "yarn", "rope_theta": 1e5, "factor": 8.0, "original_max_position_embeddings": 16}],
    ids=str,
)
def test_llama_cpp_computes_the_same_of_olmo_3(tmp_path, served, rope):
    of_windows = {"rope_type": "default", "rope_theta": 1e5}
    ropes = {"sliding_attention": of_windows, "full_attention": rope or of_windows}
    model = made("olmo3", scale=0.5, rope_parameters=ropes)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(0.1)
    path = write_family(tmp_path / "tiny.gguf", model, lambda name: None, tokenizer__ggml__pre="gpt-2")
    compare(served(path), model, LENGTHS, CLOSE)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        *((family, {}) for family in gguf_hybrids.ARCHITECTURES),
        ("qwen3_5_text", {"sizes": {"linear_num_value_heads": 2}}),  # nothing is tiled
        ("qwen3_5_text", {"sizes": {"linear_num_value_heads": 8}, "formats": gguf_hybrids.mixed}),
        ("qwen3_5_text", {"attention__recurrent_layers": [True, True, True, False]}),
        ("qwen3_next", {"earlier": True, "formats": gguf_hybrids.mixed}),
        ("qwen3_5_moe_text", {"fused": True}),
        ("qwen3_5_text", {"sizes": {"rope_parameters": STRETCHED}, **IN_FILES}),
    ],
    ids=str,
)
def test_llama_cpp_computes_the_same_of_gated_delta_nets(tmp_path, served, family, options):
    options = dict(options)
    model = gguf_hybrids.made(family, scale=0.5, **options.pop("sizes", {}))
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(0.1)
    formats = options.pop("formats", lambda name: None)
    metadata = {"tokenizer__ggml__pre": "gpt-2"} | options
    path = gguf_hybrids.write_hybrid(tmp_path / "tiny.gguf", model, formats, **metadata)
    compare(served(path), model, LENGTHS, ALLOWED if formats is gguf_hybrids.mixed else CLOSE)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {"sizes": gguf_mixers.WHOLE} if name == "bamba" else {}) for name in gguf_mixers.FAMILIES),
        ("falcon_h1", {"sizes": {"mamba_rms_norm": True}, "scale": 0.3}),
        # Rounding sends tokens of LFM2's experts to others, so it is left out.
        *((name, {"formats": gguf_mixers.mixed, "scale": 0.3}) for name in ("lfm2", "granite4", "granite4_moe")),
        ("lfm2", {"sizes": {"conv_L_cache": 4, "tie_word_embeddings": False}}),
        ("lfm2_moe", {"sizes": {"num_dense_layers": 2, "num_experts_per_tok": 3}}),
        ("granite4", {"sizes": {"mamba_n_groups": 2, "mamba_d_state": 128}}),
        ("granite4_moe", {"sizes": {"mamba_n_groups": 4, "tie_word_embeddings": False}}),
    ],
    ids=str,
)
def test_llama_cpp_computes_the_same_of_convolutions_and_mamba2(tmp_path, served, name, options):
    """Of Bamba it turns other pairs than the model where only a part of each head is rotated."""
    options = dict(options)
    model = gguf_mixers.made(name, scale=options.pop("scale", 0.5), **options.pop("sizes", {}))
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(0.1)
    formats = options.pop("formats", lambda name: None)
    path = gguf_mixers.write_mixers(tmp_path / "tiny.gguf", model, formats, tokenizer__ggml__pre="gpt-2")
    compare(served(path), model, LENGTHS, ROUGH if formats is gguf_mixers.mixed else CLOSE)


def in_q8_0(name):
    """All of Gemma 4 in one format, but for what llama.cpp keeps as it is."""
    return None if gguf_gemma4.mixed(name) is None else Kind.Q8_0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in gguf_gemma4.MODELS),
        ("shared", {"unread": True, "sizes": gguf_gemma4.WIDE}),
        ("shared", {"sizes": {"hidden_size_per_layer_input": 64, "final_logit_softcapping": None}}),
        ("experts", {"sizes": {"attention_k_eq_v": False, "num_global_key_value_heads": None}}),
        # Rounding sends tokens of experts to others, so they are left out.
        *((name, {"formats": gguf_gemma4.mixed}) for name in ("shared", "large")),
        *((name, {"formats": in_q8_0}) for name in ("shared", "large")),
    ],
    ids=named,
)
def test_llama_cpp_computes_the_same_of_gemma_4(tmp_path, served, name, options):
    options = dict(options)
    model = gguf_gemma4.made(name, scale=0.5, **options.pop("sizes", {}))
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(0.1)
    formats = options.pop("formats", None)
    metadata = {"tokenizer__ggml__pre": "gpt-2"} | options
    path = gguf_gemma4.write_gemma4(tmp_path / "tiny.gguf", model, formats or (lambda name: None), **metadata)
    compare(served(path), model, LENGTHS, ROUGH if formats else NEAR)


def gemma3n_in_q8_0(name):
    return None if gguf_gemma3n.mixed(name) is None else Kind.Q8_0


@pytest.mark.parametrize("formats", [None, gguf_gemma3n.mixed, gemma3n_in_q8_0], ids=named)
def test_llama_cpp_computes_the_same_of_gemma_3n(tmp_path, served, formats, monkeypatch):
    """llama.cpp takes numbers of layers, streams and inputs for granted.

    It divides squares of a gate's deviations by one number less than transformers, which matters for narrow gates.
    """
    deviation = torch.std
    monkeypatch.setattr(torch, "std", lambda gate, dim, keepdim, unbiased: deviation(gate, dim=dim, keepdim=keepdim))
    model = gguf_gemma3n.made(scale=0.5, **gguf_gemma3n.OF_LLAMA_CPP)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(0.1)
        for layer in model.model.layers:
            layer.post_feedforward_layernorm.weight.mul_(0.25)  # cut gates blow up what is rounded
    path = tmp_path / "tiny.gguf"
    gguf_gemma3n.write_gemma3n(path, model, formats or (lambda name: None), unread=True, tokenizer__ggml__pre="gpt-2")
    compare(served(path), model, LENGTHS, ROUGH if formats else CLOSE)


@pytest.mark.parametrize("family", ["granitemoe", "granitemoeshared"])
def test_llama_cpp_computes_the_same_of_granite_with_experts(tmp_path, served, family):
    factors = {"attention_multiplier": 0.1, "embedding_multiplier": 2.0, "logits_scaling": 4.0}
    sizes = factors | {"residual_multiplier": 0.5, "rope_parameters": {"rope_type": "default", "rope_theta": 5e4}}
    fields = type(tiny(family).config).__dataclass_fields__
    chosen = {key: value for key, value in (SIZES | sizes).items() if key in fields}
    model = tiny(family, 1, **chosen)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(0.1)
    path = write_experts(tmp_path / "tiny.gguf", model, TOKENIZER, MERGES)
    compare(served(path), model, LENGTHS, CLOSE)


@pytest.mark.parametrize(
    "family",
    ["ernie4_5_moe", "minimax_m2", "llama4_text", "dots1", "exaone_moe", "hunyuan_v1_moe", "afmoe"],
)
def test_llama_cpp_computes_the_same_of_experts_that_corrected_scores_choose(tmp_path, served, family):
    rope = {"rope_type": "default", "rope_theta": 5e4}
    sizes = SIZES | OF_A_FAMILY.get(family, {}) | OF_LLAMA_CPP_EXPERTS.get(family, {})
    sizes |= {
        "tie_word_embeddings": False,
        "rope_parameters": rope | ({"partial_rotary_factor": 0.5} if family == "minimax_m2" else {}),
    }
    fields = type(tiny(family).config).__dataclass_fields__
    model = tiny(family, 1, **{key: value for key, value in sizes.items() if key in fields})
    held = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(0.1)
        for key, each in held.items():
            if key.endswith(("correction_bias", "expert_bias")):
                each.copy_(torch.randn(each.shape, generator=torch.Generator().manual_seed(1)) / 8)
        path = write_experts(tmp_path / "tiny.gguf", model, TOKENIZER, MERGES)
    compare(served(path), model, LENGTHS, NEAR)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("deepseek_v3", {}),
        ("deepseek_v2", {"attention__q_lora_rank": 0}),  # which llama.cpp wants of models with other numbers of layers
        ("deepseek_v2", {"sizes": {"q_lora_rank": 64}}),
        ("deepseek_v3", {"sizes": {"rope_parameters": gguf_latent.YARN}}),
        ("deepseek_v3", {"sizes": {"n_group": 4, "topk_group": 2}}),
        ("minicpm3", {}),
        ("minicpm3", {"sizes": {"rope_parameters": gguf_latent.LONG}}),
        ("kimi_linear", {}),
    ],
    ids=named,
)
def test_llama_cpp_computes_the_same_of_latents(tmp_path, served, family, options):
    options = dict(options)
    model = gguf_latent.made(family, scale=0.5, **options.pop("sizes", {}))
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(0.1)
    path = tmp_path / "tiny.gguf"
    gguf_latent.write_latent(path, model, lambda name: None, tokenizer__ggml__pre="gpt-2", **options)
    compare(served(path), model, LENGTHS, CLOSE)


def compare(server, model, lengths, allowed=ALLOWED):
    for length in lengths:
        theirs = probabilities(server, IDS[:length])
        with torch.inference_mode():
            ours = torch.log_softmax(model(IDS[None, :length]).logits[0, -1].float(), dim=-1)
        assert len(theirs) == MOST
        assert max(abs(float(ours[token]) - theirs[token]) for token in theirs) < allowed
