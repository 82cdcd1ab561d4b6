"""Experts and latent attention of heads that ship inside large checkpoints (DeepSeek-V3, GLM-4.5, Qwen3-Next)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.errors import UnsupportedModelError
from rapid_integrations.models.skeleton import Rotary
from rapid_integrations.proposers.heads.blocks import GatedMlp, HeadCache, HeadNorm, attended
from rapid_integrations.proposers.heads.weights import HeadWeights, number


class HeadExperts:
    """Experts of which each row takes a few, and one that all rows take.

    With `gate.e_score_correction_bias`, scores are sigmoids, and experts are chosen in groups (DeepSeek-V3, GLM-4.5).
    Otherwise scores are a softmax, and the shared expert has a gate of its own (Qwen3-Next).

    Args:
        weights, prefix: where `gate`, `experts.N.*` and the shared expert are taken from.
        config: the target's.
        hidden: E.
        act: the activation's name.
    """

    def __init__(self, weights: HeadWeights, prefix: str, config: Mapping[str, Any], hidden: int, act: str) -> None:
        name = weights.name
        count = number(config, "n_routed_experts", name, config.get("num_experts") or config.get("num_local_experts"))
        inner = number(config, "moe_intermediate_size", name)
        self._taken = number(config, "num_experts_per_tok", name)
        self._router = weights.take(f"{prefix}.gate.weight", count, hidden).float()
        self._correction: Tensor | None = None
        if weights.has(f"{prefix}.gate.e_score_correction_bias"):
            self._correction = weights.raw(f"{prefix}.gate.e_score_correction_bias").to(weights.device).float()
        self._groups = number(config, "n_group", name, 1)
        self._groups_taken = number(config, "topk_group", name, 1)
        self._scale = float(config.get("routed_scaling_factor") or 1.0) if self._correction is not None else 1.0
        self._normalised = bool(config.get("norm_topk_prob", True))
        self._experts = [GatedMlp(weights, f"{prefix}.experts.{each}", hidden, inner, act) for each in range(count)]
        self._shared: GatedMlp | None = None
        self._shared_gate: Tensor | None = None
        if weights.has(f"{prefix}.shared_experts.gate_proj.weight"):
            wide = inner * number(config, "n_shared_experts", name, 1)
            self._shared = GatedMlp(weights, f"{prefix}.shared_experts", hidden, wide, act)
        elif weights.has(f"{prefix}.shared_expert.gate_proj.weight"):
            wide = number(config, "shared_expert_intermediate_size", name)
            self._shared = GatedMlp(weights, f"{prefix}.shared_expert", hidden, wide, act)
            self._shared_gate = weights.take(f"{prefix}.shared_expert_gate.weight", 1, hidden)

    def __call__(self, x: Tensor) -> Tensor:
        """Return (T, E) of (T, E)."""
        shares, chosen = self._routes(x.float())
        out = torch.zeros_like(x)
        for expert in sorted(set(chosen.flatten().tolist())):
            rows, slots = torch.where(chosen == expert)
            out.index_add_(0, rows, self._experts[expert](x[rows]) * shares[rows, slots, None].to(x.dtype))
        if self._shared is None:
            return out
        more = self._shared(x)
        return out + (more if self._shared_gate is None else torch.sigmoid(x @ self._shared_gate.T) * more)

    def _routes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the shares and numbers of each row's experts, (T, taken) each."""
        scores = x @ self._router.T
        if self._correction is None:
            shares, chosen = scores.softmax(dim=-1).topk(self._taken, dim=-1)
        else:
            scores = scores.sigmoid()
            wanted = scores + self._correction
            by_group = wanted.view(len(x), self._groups, -1)
            best = by_group.topk(min(2, by_group.shape[2]), dim=-1).values.sum(dim=-1)
            open_groups = torch.zeros_like(best).scatter_(1, best.topk(self._groups_taken, dim=-1).indices, 1.0)
            wanted = by_group.masked_fill(open_groups[..., None] == 0, float("-inf")).view_as(wanted)
            chosen = wanted.topk(self._taken, dim=-1).indices
            shares = scores.gather(1, chosen)
        if self._normalised:
            shares = shares / (shares.sum(dim=-1, keepdim=True) + 1e-20)
        return shares * self._scale, chosen


class LatentAttention:
    """DeepSeek's multi-head latent attention. The cache holds the expanded keys and values.

    Args:
        weights, prefix: where `q_proj` or `q_a_proj` and `q_b_proj`, `kv_a_proj_with_mqa`, `kv_b_proj` and `o_proj` are
            taken from.
        config: the target's.
        hidden: E.

    Raises:
        UnsupportedModelError: the rotation is of a kind that is not known.
    """

    def __init__(self, weights: HeadWeights, prefix: str, config: Mapping[str, Any], hidden: int) -> None:
        name = weights.name
        self._heads = heads = number(config, "num_attention_heads", name)
        self._plain, self._turned = number(config, "qk_nope_head_dim", name), number(config, "qk_rope_head_dim", name)
        self._value, self._rank = number(config, "v_head_dim", name), number(config, "kv_lora_rank", name)
        wide = heads * (self._plain + self._turned)
        self._q_norm: HeadNorm | None = None
        if weights.has(f"{prefix}.q_a_proj.weight"):
            rank = number(config, "q_lora_rank", name)
            self._q_down = weights.linear(f"{prefix}.q_a_proj", rank, hidden)
            self._q_norm = HeadNorm(weights.take(f"{prefix}.q_a_layernorm.weight", rank), 1e-6)
            self._q = weights.linear(f"{prefix}.q_b_proj", wide, rank)
        else:
            self._q = weights.linear(f"{prefix}.q_proj", wide, hidden)
        self._kv_down = weights.linear(f"{prefix}.kv_a_proj_with_mqa", self._rank + self._turned, hidden)
        self._kv_norm = HeadNorm(weights.take(f"{prefix}.kv_a_layernorm.weight", self._rank), 1e-6)
        self._kv = weights.linear(f"{prefix}.kv_b_proj", heads * (self._plain + self._value), self._rank)
        self._out = weights.linear(f"{prefix}.o_proj", hidden, heads * self._value)
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if (kind := rope.get("rope_type") or rope.get("type") or "default") != "default":
            raise UnsupportedModelError(
                f"draft_head={name!r} has rotations of the kind {kind!r} in latent attention; default is supported"
            )
        theta = rope.get("rope_theta") or config.get("rope_theta") or 10000.0
        self._rotary = Rotary({"rope_theta": theta, "rope_type": "default"}, self._turned)
        self._interleaved = bool(config.get("rope_interleave", True))

    def __call__(self, x: Tensor, positions: Tensor, cache: HeadCache, seen: Tensor | None) -> Tensor:
        """Return what is attended to, (T, E); see `blocks.Attention`."""
        count = len(x)
        q = self._q(x if self._q_norm is None else self._q_norm(self._q_down(x))).view(count, self._heads, -1)
        q_plain, q_turned = torch.split(q, [self._plain, self._turned], dim=-1)
        latent, k_turned = torch.split(self._kv_down(x), [self._rank, self._turned], dim=-1)
        cos, sin = (each[0, :, None, : self._turned // 2] for each in self._rotary(x.new_empty(0), positions[None]))
        q = torch.cat([q_plain, self._turn(q_turned, cos, sin)], dim=-1)
        expanded = self._kv(self._kv_norm(latent)).view(count, self._heads, -1)
        k_plain, values = torch.split(expanded, [self._plain, self._value], dim=-1)
        k_turned = self._turn(k_turned[:, None], cos, sin).expand(-1, self._heads, -1)
        keys = torch.cat([k_plain, k_turned], dim=-1)
        mixed = attended(q, *cache.write(keys, values), seen)
        return self._out(mixed.reshape(count, -1))

    def _turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        first, second = (x[..., 0::2], x[..., 1::2]) if self._interleaved else x.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
