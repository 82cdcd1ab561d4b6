"""Small random heads in the published layouts, as tensors and as folders."""

import json

import torch
from safetensors.torch import save_file

from rapid_integrations.proposers.heads.eagle import Eagle, renamed
from rapid_integrations.proposers.heads.weights import HeadWeights

NORMS = ("norm", "input_layernorm", "hidden_norm", "post_attention_layernorm", "enorm", "hnorm", "q_norm", "k_norm")


def config_of(hidden, vocab, **more):
    return {
        "hidden_size": hidden,
        "intermediate_size": hidden + 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "num_hidden_layers": 1,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100.0,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "vocab_size": vocab,
        **more,
    }


def drawn(sizes, seed=0):
    """Return random tensors; those of norms lie around 1."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, size in sizes.items():
        noise = torch.randn(size, generator=draw)
        norm = name.removesuffix(".weight").endswith(("norm", "norm_hidden", "norm_embedding", "layernorm"))
        tensors[name] = 1 + 0.3 * noise if norm else noise * size[-1] ** -0.5 * 1.5
    return tensors


def layer_sizes(prefix, config, width):
    """Return the sizes of a layer's matrices, whose attention reads `width` numbers."""
    hidden, dim, inner = config["hidden_size"], config["head_dim"], config["intermediate_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    return {
        f"{prefix}.self_attn.q_proj.weight": (heads * dim, width),
        f"{prefix}.self_attn.k_proj.weight": (kv_heads * dim, width),
        f"{prefix}.self_attn.v_proj.weight": (kv_heads * dim, width),
        f"{prefix}.self_attn.o_proj.weight": (hidden, heads * dim),
        f"{prefix}.mlp.gate_proj.weight": (inner, hidden),
        f"{prefix}.mlp.up_proj.weight": (inner, hidden),
        f"{prefix}.mlp.down_proj.weight": (hidden, inner),
        f"{prefix}.post_attention_layernorm.weight": (hidden,),
    }


def eagle3(hidden, vocab, own=None, layer="midlayer", seed=0, **more):
    """Return tensors and configuration of an EAGLE-3 head whose `own` tokens are every second one of the target's."""
    config = config_of(hidden, vocab, draft_vocab_size=own or vocab, **more)
    sizes = {
        "fc.weight": (hidden, 3 * hidden),
        **layer_sizes(layer, config, 2 * hidden),
        f"{layer}.input_layernorm.weight": (hidden,),
        f"{layer}.hidden_norm.weight": (hidden,),
        "norm.weight": (hidden,),
        "lm_head.weight": (own or vocab, hidden),
    }
    tensors = drawn(sizes, seed)
    if own is not None:
        tensors["d2t"] = torch.arange(own)  # 2 i - i
        tensors["t2d"] = torch.arange(vocab) % 2 == 0
    return tensors, config


def eagle1(hidden, vocab, seed=0, bias=True, **more):
    """Return tensors and configuration of an EAGLE-1 head."""
    config = config_of(hidden, vocab, **more)
    sizes = {"fc.weight": (hidden, 2 * hidden), **layer_sizes("layers.0", config, hidden)}
    sizes |= {"fc.bias": (hidden,)} if bias else {}
    return drawn(sizes, seed), config


def head_for(kind, own=None):
    """Return what makes an EAGLE head for a target with few tokens."""

    def made(target):
        hidden, vocab = target.hidden_size, target.vocab_size
        tensors, config = eagle1(hidden, vocab) if kind is Eagle else eagle3(hidden, vocab, own)
        return kind(HeadWeights("toy", renamed(tensors), target.dtype, target.device), config, target, vocab)

    return made


def write(folder, tensors, config, name="model.safetensors"):
    """Write a head's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def medusa(hidden, vocab, heads=3, layers=2, ours=False, bias=True, seed=0):
    """Return tensors and configuration of Medusa heads, in their authors' layout or vLLM's."""
    sizes = {}
    for head in range(heads):
        for layer in range(layers):
            name = f"blocks.{head}.layers.{layer}" if ours else f"{head}.{layer}.linear"
            sizes[f"{name}.weight"] = (hidden, hidden)
            sizes |= {f"{name}.bias": (hidden,)} if bias else {}
        sizes[f"lm_heads.{head}.weight" if ours else f"{head}.{layers}.weight"] = (vocab, hidden)
    return drawn(sizes, seed), {"medusa_num_heads": heads, "medusa_num_layers": layers}


def hydra(hidden, vocab, heads=3, layers=2, prefix=False, seed=0):
    """Return tensors and configuration of Hydra heads, with or without a layer before them."""
    config = config_of(hidden, vocab, hydra_num_heads=heads, hydra_num_layers=layers)
    sizes = {}
    for head in range(heads):
        for layer in range(layers):
            name, read = f"hydra_mlp.{head}.{1 + 2 * layer}", hidden if layer else (head + 2) * hidden
            sizes |= {f"{name}.linear.weight": (hidden, read), f"{name}.linear.bias": (hidden,)}
            if not layer:
                sizes |= {f"{name}.res_connection.weight": (hidden, read), f"{name}.res_connection.bias": (hidden,)}
        sizes |= {f"hydra_lm_head.{head}.1.weight": (vocab, hidden), f"hydra_lm_head.{head}.1.bias": (vocab,)}
    if prefix:
        sizes |= layer_sizes("prefix_embeding_layer.layers.0", config, hidden)
        sizes |= {"prefix_embeding_layer.layers.0.input_layernorm.weight": (hidden,)}
        sizes |= {
            "prefix_embeding_layer.norm.weight": (hidden,),
            "prefix_embeding_layer.embed_tokens.weight": (vocab, hidden),
        }
    return drawn(sizes, seed), config
