"""Zamba2: layers of Mamba2, some of which read what one of a few shared blocks of attention and MLP gives beside."""

from __future__ import annotations

from typing import Any

from rapid_integrations.models.description import Adapter, Attention, Decoder, Layer, Mlp, NotDescribedError
from rapid_integrations.models.families.mamba2 import mamba2
from rapid_integrations.models.families.parts import activation, rms_norm, rotation_of


def describe(model: Any) -> Decoder:
    """Describe a model. A hybrid layer is two here: the shared block, and the Mamba2 that reads what it gives."""
    config, base = model.config, model.base_model
    layers: list[Layer] = []
    modules: list[Any] = []
    blocks = 0
    for each in base.layers:
        hybrid = hasattr(each, "shared_transformer")
        if hybrid:
            layers.append(_block(each, blocks, config))
            modules.append(each)
            blocks += 1
        own = each.mamba_decoder if hybrid else each
        mixer = mamba2(own.mamba, rms_norm(own.mamba.norm))
        layers.append(Layer(mixer, None, rms_norm(own.input_layernorm)))
        modules.append(each)
    if not blocks:
        raise NotDescribedError("none of its layers attends")
    return Decoder(
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=config.attention_head_dim,
        embedding=base.embed_tokens,
        layers=layers,
        modules=modules,
        norm=rms_norm(base.final_layernorm),
        head=model.lm_head,
        rotations=[rotation_of(base.rotary_emb)] if config.use_mem_rope else [],
    )


def _block(layer: Any, number: int, config: Any) -> Layer:
    """Describe a shared block where it is used the `number`-th time, with the adapters of that place."""
    block = layer.shared_transformer
    own, mlp = block.self_attn, block.feed_forward
    adapters: Any = None
    if config.use_shared_attention_adapter:
        adapters = _adapter(*(getattr(own, f"linear_{name}_adapter_list")[number] for name in "qkv"))
    return Layer(
        attention=Attention(
            qkv=(own.q_proj, own.k_proj, own.v_proj),
            out=own.o_proj,
            scale=own.scaling,
            rotation=0 if config.use_mem_rope else None,
            adapter=adapters,
        ),
        mlp=Mlp(
            (mlp.gate_up_proj,),
            mlp.down_proj,
            activation(config.hidden_act),
            adapter=_adapter(mlp.gate_up_proj_adapter_list[number]),
        ),
        before_attention=rms_norm(block.input_layernorm),
        before_mlp=rms_norm(block.pre_ff_layernorm),
        aside=layer.linear,
        with_embedding=True,
    )


def _adapter(*pairs: Any) -> Adapter:
    """Describe adapters that are a narrow matrix and the one behind it each."""
    return Adapter(tuple(each[0] for each in pairs), tuple(each[1] for each in pairs))


CLASSES = {"Zamba2ForCausalLM": describe}
