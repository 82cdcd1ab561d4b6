"""What the descriptions of families with multi-head latent attention are made of, with or without indexers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rapid_integrations.models.description import Attention, Indexer, Latent, Layer, NotDescribedError
from rapid_integrations.models.families.parts import layer_norm, rms_norm


def latent_attention(module: Any, interleaved: bool) -> Attention:
    """Describe an attention with `q_proj` or `q_a_proj` and `q_b_proj`, `kv_a_proj_with_mqa` and `kv_b_proj`."""
    compressed = module.q_lora_rank is not None
    return Attention(
        qkv=(module.q_a_proj if compressed else module.q_proj, module.kv_a_proj_with_mqa),
        out=module.o_proj,
        scale=module.scaling,
        interleaved=interleaved,
        latent=Latent(
            rank=module.kv_lora_rank,
            plain=module.qk_nope_head_dim,
            rotated=module.qk_rope_head_dim,
            value=module.v_head_dim,
            norm=rms_norm(module.kv_a_layernorm),
            up=module.kv_b_proj,
            query_norm=rms_norm(module.q_a_layernorm) if compressed else None,
            query_up=module.q_b_proj if compressed else None,
        ),
    )


def with_choice(attention: Attention, module: Any, before: Sequence[Layer]) -> Attention:
    """Return an attention that sees the keys which its indexer chooses, or has chosen in a layer before it.

    Raises:
        NotDescribedError: no layer before it has an indexer.
    """
    assert attention.latent is not None
    if (own := module.indexer) is not None:
        indexer = Indexer(
            query=own.wq_b,
            key=own.wk,
            key_norm=layer_norm(own.k_norm),
            weights=own.weights_proj,
            heads=own.n_heads,
            dim=own.head_dim,
            rotated=own.qk_rope_head_dim,
            interleaved=type(own).__name__.startswith("GlmMoeDsa"),  # DeepSeek's rotates halves
        )
        return replace(attention, latent=replace(attention.latent, indexer=indexer, chosen=own.index_topk))
    latents = [each.attends.latent for each in before if each.attends is not None]
    choosing = [index for index, each in enumerate(latents) if each is not None and each.indexer is not None]
    if not choosing:
        raise NotDescribedError("its first layers take a choice of keys that no layer before them makes")
    source = latents[choosing[-1]]
    assert source is not None
    return replace(attention, latent=replace(attention.latent, choice_of=choosing[-1], chosen=source.chosen))
