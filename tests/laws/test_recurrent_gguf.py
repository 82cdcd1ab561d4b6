"""GGUF files of recurrent models, dequantised: their states are kept as those of safetensors."""

import pytest
import torch
from transformers import Lfm2Config, Lfm2ForCausalLM, MambaConfig, MambaForCausalLM

from rapid_integrations.cache import Rows
from rapid_integrations.models import loader
from rapid_integrations.models.decoder_lm import DecoderLM
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.gguf_file import write_tensors
from tests.toys.model_folder import home  # noqa: F401 (fixture)
from tests.toys.models import BOS_ID, EOS_ID, byte_tokenizer, randomise

pytestmark = pytest.mark.usefixtures("home")

MERGES = (("t", "h"),)
TOKENIZER = byte_tokenizer(merges=MERGES)
SHAPE = {"vocab_size": len(TOKENIZER), "hidden_size": 32, "bos_token_id": BOS_ID, "eos_token_id": EOS_ID}
IDS = torch.arange(3, 40)
KEYS = {"context_length": 512, "embedding_length": 32, "vocab_size": len(TOKENIZER)}
OUTER = {
    "backbone.embeddings.weight": "token_embd.weight",
    "backbone.norm_f.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "model.embed_tokens.weight": "token_embd.weight",
    "model.embedding_norm.weight": "token_embd_norm.weight",
}
MAMBA = {
    "mixer.in_proj": "ssm_in",
    "mixer.conv1d": "ssm_conv1d",
    "mixer.x_proj": "ssm_x",
    "mixer.dt_proj": "ssm_dt",
    "mixer.out_proj": "ssm_out",
    "norm": "attn_norm",
}
LFM2 = {
    "conv.conv": "shortconv.conv",
    "conv.in_proj": "shortconv.in_proj",
    "conv.out_proj": "shortconv.out_proj",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
    "operator_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_output",
    "self_attn.q_layernorm": "attn_q_norm",
    "self_attn.k_layernorm": "attn_k_norm",
}


def in_files(model, names):
    """Yield tensors as llama.cpp's converter writes them."""
    for name, tensor in model.state_dict().items():
        if name in OUTER:
            if name == "lm_head.weight" and model.config.tie_word_embeddings:
                continue
            yield OUTER[name], tensor
            continue
        _, _, layer, rest = name.split(".", 3)
        if rest in ("mixer.A_log", "mixer.D"):
            yield f"blk.{layer}.ssm_{rest[6].lower()}", -tensor.exp() if rest == "mixer.A_log" else tensor
            continue
        stem, _, kind = rest.rpartition(".")
        yield f"blk.{layer}.{names[stem]}.{kind}", tensor.squeeze(1) if tensor.ndim == 3 else tensor


def mamba(folder):
    config = MambaConfig(**SHAPE, num_hidden_layers=2, state_size=8, tie_word_embeddings=False)
    model = randomise(MambaForCausalLM(config), 1).eval()
    keys = {"block_count": 2, "feed_forward_length": 0, "attention__head_count": 0}
    keys |= {"ssm__conv_kernel": config.conv_kernel, "ssm__inner_size": config.intermediate_size}
    keys |= {"ssm__state_size": 8, "ssm__time_step_rank": int(config.time_step_rank)}
    keys |= {"attention__layer_norm_rms_epsilon": config.layer_norm_epsilon}
    return write_tensors(
        folder / "m.gguf", "mamba", dict(in_files(model, MAMBA)), TOKENIZER, MERGES, **KEYS, **keys
    ), model


def lfm2(folder):
    config = Lfm2Config(
        **SHAPE,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        block_auto_adjust_ff_dim=False,
        layer_types=["conv", "full_attention", "conv"],
        pad_token_id=None,
    )
    model = randomise(Lfm2ForCausalLM(config), 1).eval()
    keys = {"block_count": 3, "feed_forward_length": 48, "attention__head_count": 4}
    keys |= {"attention__head_count_kv": [0, 2, 0], "shortconv__l_cache": config.conv_L_cache}
    keys |= {"rope__freq_base": config.rope_parameters["rope_theta"]}
    keys |= {"attention__layer_norm_rms_epsilon": config.norm_eps}
    return write_tensors(
        folder / "l.gguf", "lfm2", dict(in_files(model, LFM2)), TOKENIZER, MERGES, **KEYS, **keys
    ), model


@pytest.mark.parametrize("write", [mamba, lfm2])
@torch.inference_mode()
def test_a_file_computes_what_its_model_does(tmp_path, write):
    path, model = write(tmp_path)
    expected = model(IDS[None]).logits[0]
    # The second start is from the dequantised copy, and needs no transformers.
    for kind in (HuggingFaceLM, DecoderLM):
        loaded = loader.load(path, dtype="float32")
        assert type(loaded.lm) is kind
        cache = loaded.lm.new_cache(64)
        logits = [loaded.lm.forward([Rows(part, cache, len(part))])[0] for part in torch.split(IDS, [20, 1, 16])]
        assert torch.allclose(torch.cat(logits), expected, atol=1e-3, rtol=1e-3)
        cache.rollback(20)  # a rejected draft
        (again,) = loaded.lm.forward([Rows(IDS[20:24], cache, 4)])
        assert torch.allclose(again, expected[20:24], atol=1e-3, rtol=1e-3)
