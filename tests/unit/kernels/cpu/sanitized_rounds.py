"""Random rounds on kernels that were built with sanitizers.

python -m tests.unit.kernels.cpu.sanitized_rounds LIBRARY SECONDS

A sanitizer ends the process at the first wrong address or undefined operation; the last line says how many rounds there
were. test_sanitizers.py starts this.
"""

import random
import sys
import time
from pathlib import Path

import torch

from rapid_integrations.cache import Rows
from rapid_integrations.errors import UnsupportedModelError
from rapid_integrations.kernels.cpu import library, prefill
from rapid_integrations.kernels.cpu.interface import opened
from rapid_integrations.kernels.layers import ACTIVATIONS, Norm, Xielu
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.sampling.trees import path_to
from tests.toys.decoders import FAMILIES, model
from tests.toys.every_family import EXPERTS_BESIDE, tiny


def model_at_random(rng):
    """Return a model of a random shape, in bfloat16."""
    kind = rng.choice([*sorted(FAMILIES), "experts", "gated", "indexed", "latent", "learned", "recurrent", "streams"])
    if kind == "recurrent":
        return recurrent_at_random(rng)
    if kind == "streams":
        return streams_at_random(rng)
    if kind == "learned":
        return learned_at_random(rng)
    if kind == "gated":
        return gated_at_random(rng)
    if kind == "indexed":
        return indexed_at_random(rng)
    if kind == "latent":
        return latent_at_random(rng)
    if kind == "experts":
        return experts_at_random(rng)
    kv_heads = rng.choice([1, 2, 4])
    shape = {
        **FAMILIES[kind],
        "head_dim": rng.choice([32, 64, 96, 128, 160, 192, 224, 256]),
        "num_key_value_heads": kv_heads,
        "num_attention_heads": kv_heads * rng.choice([1, 2, 3, 7]),
        "intermediate_size": 32 * rng.randint(1, 9),
    }
    shape["hidden_size"] = 224 if shape["num_attention_heads"] % 7 == 0 else 96  # a multiple of the heads, for Llama
    if kind == "mistral":
        shape["sliding_window"] = rng.choice([1, 63, 64, 100, 600])
    return model(kind, **shape)


def experts_at_random(rng):
    """Return a model with experts beside an MLP, or in its place, with numbers so small that nothing explodes."""
    experts = rng.randint(2, 9)
    shape = {
        **{"hidden_size": 32 * rng.randint(1, 5), "intermediate_size": 32 * rng.randint(1, 9), "head_dim": 32},
        **{"moe_intermediate_size": 32 * rng.randint(1, 9), "num_experts": experts},
    }
    taken = rng.randint(1, experts)
    if rng.random() < 0.3:
        made = tiny("qwen3_moe", **shape, num_experts_per_tok=taken)
    else:
        shape["global_head_dim"] = rng.choice([64, 512])
        made = tiny("gemma4_text", **(EXPERTS_BESIDE | shape | {"top_k_experts": taken}))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3)
    return made.bfloat16()


def streams_at_random(rng):
    """Return a model with streams of states, augmented residuals and sparse gates, with small numbers."""
    streams = rng.choice([2, 3, 4, 8])
    made = tiny(
        "gemma3n_text",
        **{"hidden_size": 32 * rng.randint(1, 5), "intermediate_size": [32 * rng.randint(1, 9) for _ in range(5)]},
        **{"hidden_size_per_layer_input": 32 * rng.randint(1, 2), "laurel_rank": 32 * rng.randint(1, 2)},
        **{"head_dim": 32, "altup_num_inputs": streams, "altup_active_idx": rng.randrange(streams)},
        activation_sparsity_pattern=rng.choices([0.0, 0.5, 0.95], k=5),
    )
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3)
    return made.bfloat16()


def recurrent_at_random(rng):
    """Return a model with gated delta nets, Mamba2 or short convolutions, with small numbers."""
    kind = rng.choice(
        [
            *("falcon_h1", "granitemoehybrid", "kimi_linear", "lfm2", "nemotron_h", "olmo_hybrid", "qwen3_5_text"),
            *("qwen3_next", "zamba2", "jamba", "mamba", "recurrent_gemma", "lfm3", "mamba2", "minimax"),
        ]
    )
    keys, taps, heads = rng.choice([8, 16, 32, 48, 128]), rng.randint(2, 5), rng.choice([1, 2, 3])
    shape = {"hidden_size": 32 * rng.randint(2, 4), "intermediate_size": 96, "num_key_value_heads": 1}
    if kind == "falcon_h1":
        groups, inner = rng.choice([1, 2, 4]), 32 * rng.randint(1, 4)
        shape |= {"num_attention_heads": rng.choice([1, 2, 3]), "head_dim": 32, "mamba_d_conv": taps}
        shape |= {"mamba_n_heads": 4, "mamba_d_head": inner // 4, "mamba_d_ssm": inner, "mamba_d_state": keys}
        shape |= {"mamba_n_groups": groups, "mamba_rms_norm": rng.random() < 0.5, "projectors_bias": rng.random() < 0.5}
        shape |= {"mamba_norm_before_gate": rng.random() < 0.5}
    elif kind == "nemotron_h":
        shape |= {"num_attention_heads": rng.choice([1, 2, 3]), "head_dim": 32, "conv_kernel": taps}
        shape |= {"mamba_num_heads": 4, "mamba_head_dim": 32, "ssm_state_size": keys, "n_groups": rng.choice([1, 2, 4])}
        blocks = rng.choices(["linear_attention", "full_attention"], k=4)
        behind = [rng.choice([[], ["mlp"], ["moe"]]) for _ in blocks]
        shape["layers_block_type"] = [
            "full_attention",
            *(b for pair in zip(blocks, behind, strict=True) for b in (pair[0], *pair[1])),
        ]
        shape["moe_intermediate_size"] = 32
    elif kind == "zamba2":
        attends, several = rng.choice([1, 2, 3]), rng.random() < 0.5  # heads of twice the width, and adapters
        shape |= {"hidden_size": 64 * attends, "num_attention_heads": attends * 4, "num_key_value_heads": attends * 4}
        shape |= {
            "mamba_d_conv": taps,
            "mamba_d_state": keys,
            "n_mamba_heads": 4,
            "mamba_ngroups": rng.choice([1, 2, 4]),
        }
        shape |= {"adapter_rank": 32 * rng.randint(1, 3), "use_shared_attention_adapter": several}
        shape["attention_head_dim"] = 32
        shape |= {"num_mem_blocks": rng.choice([1, 2]), "add_bias_linear": rng.random() < 0.5}
        blocks = rng.choices(["linear_attention", "hybrid"], k=3)
        shape |= {"layers_block_type": ["hybrid", *blocks], "num_hidden_layers": 4}
    elif kind == "granitemoehybrid":
        shape |= {"hidden_size": 64, "num_attention_heads": 2, "shared_intermediate_size": 64, "mamba_d_conv": taps}
        shape |= {
            "mamba_n_heads": 4,
            "mamba_d_head": 32,
            "mamba_d_state": keys,
            "mamba_n_groups": rng.choice([1, 2, 4]),
        }
    elif kind == "kimi_linear":
        shape |= {"num_attention_heads": 4, "num_key_value_heads": 4, "linear_num_heads": heads}
        shape |= {"linear_head_dim": 32 * rng.randint(1, 4), "linear_conv_kernel_dim": taps, "q_lora_rank": None}
        shape |= {"kv_lora_rank": 64 * rng.randint(1, 3), "qk_nope_head_dim": 32, "qk_rope_head_dim": 32}
        shape |= {"v_head_dim": 32 * rng.randint(1, 2), "moe_intermediate_size": 32}
    elif kind == "jamba":
        shape |= {"num_attention_heads": shape["hidden_size"] // 32, "mamba_d_conv": taps, "mamba_d_state": keys}
        shape |= {"mamba_expand": rng.choice([1, 2, 3]), "mamba_dt_rank": rng.randint(1, 70)}
    elif kind == "recurrent_gemma":
        shape |= {"num_attention_heads": shape["hidden_size"] // 32, "conv1d_width": taps, "intermediate_size": 192}
        shape |= {"attention_window_size": rng.choice([20, 100])}
    elif kind == "mamba":
        shape |= {"conv_kernel": taps, "state_size": keys, "expand": rng.choice([1, 2, 3])}
        shape |= {"time_step_rank": rng.randint(1, 70), "use_conv_bias": rng.random() < 0.5}
    elif kind == "mamba2":
        groups = rng.choice([1, 2, 4])
        shape |= {"num_heads": 4, "head_dim": shape["hidden_size"] // 2, "state_size": keys, "n_groups": groups}
        shape |= {"conv_kernel": taps, "use_conv_bias": rng.random() < 0.5}
        shape["layer_norm_epsilon"] = rng.choice([1e-5, 0.1])
    elif kind == "minimax":
        shape |= {"num_attention_heads": rng.choice([1, 2, 3]), "head_dim": 32 * rng.randint(1, 4)}
        shape |= {"mlp_alpha_factor": 1.5, "linear_attn_beta_factor": rng.choice([0.5, 1.0])}
        shape["layer_types"] = ["full_attention", *rng.choices(["linear_attention", "full_attention"], k=2)]
    elif kind == "lfm3":
        shape |= {"num_attention_heads": heads, "head_dim": 32 * rng.randint(1, 4), "conv_L_cache": taps}
        shape |= {"use_attention_gate": rng.random() < 0.7, "use_sandwich_norm": rng.random() < 0.7}
    elif kind == "lfm2":
        shape |= {
            "num_attention_heads": shape["hidden_size"] // 32,
            "conv_L_cache": taps,
            "conv_bias": rng.random() < 0.5,
        }
    else:
        if kind == "olmo_hybrid":
            shape["num_attention_heads"] = shape["hidden_size"] // 32
        shape |= {"head_dim": 32, "linear_num_key_heads": heads, "linear_num_value_heads": heads * rng.choice([1, 2])}
        shape |= {"linear_key_head_dim": keys, "linear_value_head_dim": 32 * rng.randint(1, 4)}
        shape |= {"linear_conv_kernel_dim": taps, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}
    made = tiny(kind, **shape)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                # of few keys, rounding explodes sooner
                parameter.mul_(0.15 if kind.startswith(("qwen", "olmo")) else 0.3)
    return made.bfloat16()


def learned_at_random(rng):
    """Return a model with learned positions, or one whose embedded rows are normalised, with small numbers."""
    kind, width = rng.choice(["gpt2", "opt", "nanochat"]), 32 * rng.randint(1, 4)
    shape = {"num_attention_heads": width // 32, "num_key_value_heads": 1, "intermediate_size": 32 * rng.randint(1, 9)}
    if kind == "gpt2":
        shape = {"n_embd": width, "n_head": width // 32, "n_inner": 32 * rng.randint(1, 9)}
    elif kind == "opt":
        shape |= {"word_embed_proj_dim": width, "ffn_dim": shape.pop("intermediate_size")}
        del shape["num_key_value_heads"]
    made = tiny(kind, max_position_embeddings=2048, **shape, **({} if kind == "gpt2" else {"hidden_size": width}))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3)
    return made.bfloat16()


def gated_at_random(rng):
    """Return a model whose heads have gates, and whose layers have so many heads, or one with a learned activation."""
    if rng.random() < 0.4:
        width = 32 * rng.randint(1, 9)
        made = tiny("apertus", hidden_size=96, intermediate_size=width, num_attention_heads=3, num_key_value_heads=1)
    else:
        heads = [2 * rng.randint(1, 4) for _ in range(3)]
        made = tiny(
            "laguna",
            **{"hidden_size": 96, "intermediate_size": 64, "head_dim": 32 * rng.randint(1, 4)},
            **{"num_attention_heads": heads[0], "num_attention_heads_per_layer": heads},
            **{"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "gating": rng.random() < 0.5},
        )
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3)
    return made.bfloat16()


def latent_at_random(rng):
    """Return a model with latent attention, with numbers so small that nothing explodes."""
    heads = rng.choice([1, 2, 3, 48])
    made = tiny(
        "minicpm3",
        **{"hidden_size": 96, "intermediate_size": 64, "num_attention_heads": heads, "num_key_value_heads": heads},
        num_hidden_layers=1,  # of many heads and long latents, three would not be small
        **{"kv_lora_rank": 64 * rng.randint(1, 8), "q_lora_rank": rng.choice([None, 32, 800])},
        **{"qk_nope_head_dim": 32 * rng.randint(1, 4), "qk_rope_head_dim": 32 * rng.randint(1, 2)},
        **{"v_head_dim": 32 * rng.randint(1, 5)},
    )
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3)
    return made.bfloat16()


def indexed_at_random(rng):
    """Return a model whose rows choose keys, sometimes for two layers, with small numbers."""
    heads = rng.choice([1, 2, 3, 8])
    made = tiny(
        rng.choice(["deepseek_v32", "glm_moe_dsa"]),
        **{"hidden_size": 96, "intermediate_size": 64, "num_attention_heads": heads, "num_key_value_heads": heads},
        **{"kv_lora_rank": 64 * rng.randint(1, 4), "q_lora_rank": 32 * rng.randint(1, 4), "moe_intermediate_size": 32},
        **{"qk_nope_head_dim": 32 * rng.randint(1, 2), "qk_rope_head_dim": 32, "v_head_dim": 32 * rng.randint(1, 3)},
        **{"index_n_heads": rng.choice([1, 3, 8]), "index_head_dim": 64 * rng.randint(1, 2)},
        index_topk=rng.choice([1, 30, 64, 100, 511, 700]),
    )
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3)
    return made.bfloat16()


def read_at_random(rng):
    """Read a text in pieces of every length, with rollbacks, on a model of a random shape."""
    made, quantization = model_at_random(rng), rng.choice([None, "int8", "int4"])
    try:
        lm = HuggingFaceLM(made, take_over=True, quantization=quantization)
    except UnsupportedModelError as error:
        if "differs from the model's own" in str(error):
            return  # random experts make much of what is rounded off; the kernels have computed two texts by now
        raise
    assert lm.kernels == "sanitized", lm.kernels
    if rng.random() < 0.5:
        lm.store_in_eight_bits()
    torch.set_num_threads(rng.choice([1, 2, 3]))
    cache = lm.new_cache(rng.choice([700, 1200]))
    for _ in range(12):
        new = min(rng.choice([1, 1, 2, 5, 8, 17, 31, 32, 33, 130, 400]), cache.capacity - cache.length)
        if new == 0:
            break
        logits = lm.forward(
            [Rows(torch.tensor([rng.randrange(1, 200) for _ in range(new)]), cache, rng.randint(0, new))]
        )[0]
        assert logits.isfinite().all()
        if rng.random() < 0.4:
            cache.rollback(cache.reusable(rng.randint(1, cache.length)))
        if rng.random() < 0.3:
            cache.keep(cache.length, [])
    if lm.reads_trees:
        tree_at_random(rng, lm, cache)
    share_at_random(rng, lm, cache)


def tree_at_random(rng, lm, cache):
    """Read a random tree and one of its paths as a chain: bit for bit the same. Keep another path."""
    new = min(rng.randint(1, 32), cache.capacity - cache.length)
    if not new:
        return
    length, tokens = cache.length, torch.randint(1, 200, (new,))
    parents = tuple(rng.randint(-1, row - 1) if rng.random() < 0.5 else row - 1 for row in range(new))
    rows = path_to(parents, rng.randrange(new))
    (chain,) = lm.forward([Rows(tokens[rows], cache, len(rows))])
    cache.rollback(length)
    (tree,) = lm.forward([Rows(tokens, cache, new, parents=parents)])
    assert torch.equal(tree[rows], chain)
    cache.keep(length, path_to(parents, rng.randrange(new)))


def share_at_random(rng, lm, cache):
    """Let several readers go on from rows that they share, in one pass and each for itself."""
    caches = [cache]
    for _ in range(rng.randint(1, 5)):
        length = rng.randint(1, max(1, cache.length))
        of = rng.choice([each for each in caches if each.length >= length] or [cache])
        length = of.reusable(min(length, of.length))
        fork = of.fork(length, length + 100)
        if more := rng.choice([0, 0, 1, 40, 80]):
            lm.forward([Rows(torch.randint(1, 200, (more,)), fork, 0)])
        caches.append(fork)
    rows = []
    for each in caches:
        if each.length < each.capacity - 5:
            new = rng.randint(1, 5)
            parents = (
                rng.choice([None, tuple(rng.randint(-1, row - 1) for row in range(new))]) if lm.reads_trees else None
            )
            rows.append(Rows(torch.randint(1, 200, (new,)), each, 1, parents=parents))
    if rows:
        assert all(logits.isfinite().all() for logits in lm.forward(rows))


def draw_at_random(rng):
    """Form distributions of every size, and draw from them."""
    size = rng.choice([1, 2, 15, 16, 17, 63, 64, 65, 255, 256, 257, 5000, 151_936])
    z, y = 6 * torch.randn(2, size)
    kernels = library.loaded_library()
    out, scratch = torch.empty(2, size)
    factor, relevance, trust, alpha = rng.uniform(0.3, 3), rng.random(), rng.random(), rng.choice([0.05, 0.5, 1.0])
    for eta in (-1.0, 0.0, 2.5):
        for greedy in (0, 1):
            addresses = z.data_ptr(), y.data_ptr()
            found = kernels.rapid_p_hat(
                *addresses, size, factor, eta, relevance, trust, alpha, greedy, out.data_ptr(), scratch.data_ptr()
            )
            assert 0 <= found < size if greedy else found == -1
    kernels.rapid_softmax(z.data_ptr(), size, factor, out.data_ptr())
    kernels.rapid_residual(out.data_ptr(), 1.0, scratch.data_ptr(), size, scratch.data_ptr())
    kernels.rapid_truncate(
        out.data_ptr(), size, rng.choice([0, 1, 40]), rng.choice([0.5, 0.9, 1.0]), rng.choice([0, 0.1])
    )
    assert 0 <= kernels.rapid_draw(out.data_ptr(), size, rng.random()) < size


def prefill_at_random(rng):
    """Call what a prefill does between its products."""
    rows, columns = rng.randint(1, 300), 16 * rng.randint(1, 12)
    x, more = torch.randn(2, rows, columns).bfloat16()
    weight, bias = torch.rand(2, columns).bfloat16()
    norm = Norm(weight, 1e-5, rng.choice([None, bias]), rng.random() < 0.5, rng.choice([0.0, 1.0]))
    prefill.add_and_norm(x, rng.choice([None, more]), rng.choice([None, norm]), rng.choice([1.0, 0.2]))
    gate_up = torch.randn(rows, 2 * rng.randint(1, 400)).bfloat16()
    xielu = Xielu(0.8, 0.9, 0.5, -1e-6)
    prefill.activated(gate_up, rng.choice(ACTIVATIONS), rng.random() < 0.7, rng.choice([None, 0.0, 1.6]), xielu)


def main(path, seconds):
    """Run random rounds for some seconds."""
    library._outcome = library._Outcome(opened(Path(path)), "sanitized")
    end, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < end or rounds < 5:
        rng = random.Random(rounds)
        torch.manual_seed(rounds)
        read_at_random(rng)
        for _ in range(10):
            draw_at_random(rng)
            prefill_at_random(rng)
        rounds += 1
    print(f"{rounds} rounds", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
