"""EAGLE heads: EAGLE-1 and 2 (one layer behind a fused input, the target's own head) and EAGLE-3 (three states, a
vocabulary of its own). EAGLE-2 differs from EAGLE-1 in its trees alone.

Layouts: SafeAILab/EAGLE (`midlayer.*` or `layers.0.*`, `fc`), what vLLM and SGLang load, and speculators
(`transformer_layer_config`, `layers.0.*`, `fusion_fc`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding

from rapid_integrations.cache.hidden_states import LAST
from rapid_integrations.errors import ModelLoadError
from rapid_integrations.models.causal_lm import GivesStates
from rapid_integrations.proposers.heads.blocks import Attention, GatedMlp, HeadCache, HeadNorm, Shape
from rapid_integrations.proposers.heads.recurrent import RecurrentHead
from rapid_integrations.proposers.heads.weights import HeadWeights, number

WINDOW = 2048
"""Tokens of a prompt that a head reads at most: published heads were trained on texts of this length."""

_RENAMED = {"fusion_fc.": "fc.", "transformer.": "layers.0.", "midlayer.": "layers.0.", "model.": ""}


def default_levels(layers: int) -> tuple[int, int, int]:
    """Return the states that an EAGLE-3 head reads if its configuration does not say which."""
    return 2, layers // 2, layers - 3


class _Eagle(RecurrentHead):
    """What both generations share."""

    def __init__(self, weights: HeadWeights, config: Mapping[str, Any], target: GivesStates, vocab_size: int) -> None:
        self.name = weights.name
        self.window = min(WINDOW, number(config, "max_position_embeddings", self.name, WINDOW))
        self._target = target
        self._shape = shape = Shape.of(config, self.name)
        self._embedding: Tensor | None = None
        if weights.has("embed_tokens.weight"):
            self._embedding = weights.take("embed_tokens.weight", vocab_size, shape.hidden_size)
        elif shape.hidden_size != target.hidden_size:
            raise ModelLoadError(
                f"draft_head={self.name!r} has hidden_size={shape.hidden_size} and no embedding table of its own, and "
                f"the target's rows have {target.hidden_size} numbers: it was made for another model"
            )
        self._norm = HeadNorm(
            weights.take("layers.0.post_attention_layernorm.weight", shape.hidden_size), shape.rms_norm_eps
        )
        inner = number(config, "intermediate_size", self.name)
        self._mlp = GatedMlp(weights, "layers.0.mlp", shape.hidden_size, inner, shape.hidden_act)

    def _embedded(self, token_ids: Tensor, like: Tensor) -> Tensor:
        table = self._embedding
        rows = self._target.embedded(token_ids) if table is None else embedding(token_ids, table)
        return rows.to(like.dtype)

    def _norm_of(self, weights: HeadWeights, name: str, width: int) -> HeadNorm:
        return HeadNorm(weights.take(name, width), self._shape.rms_norm_eps)


class Eagle(_Eagle):
    """EAGLE-1 and EAGLE-2: fc(embedding, state), then a layer; the target's own head reads the result.

    Args:
        weights: the checkpoint, with the names of `renamed`.
        config: its config.json.
        target: the model whose last states it reads.
        vocab_size: of the target.
    """

    kind = "eagle"
    levels = (LAST,)
    vocabulary = None

    def __init__(self, weights: HeadWeights, config: Mapping[str, Any], target: GivesStates, vocab_size: int) -> None:
        super().__init__(weights, config, target, vocab_size)
        width = self._shape.hidden_size
        if width != target.hidden_size:
            raise ModelLoadError(
                f"draft_head={self.name!r} has hidden_size={width}, and the target {target.hidden_size}: it was made "
                "for another model"
            )
        if (layers := config.get("num_hidden_layers", 1)) != 1:
            raise ModelLoadError(f"draft_head={self.name!r} has {layers} layers; EAGLE heads of one layer can be run")
        self._input_norms = None
        if config.get("add_para_norm") or weights.has("embedding_layernorm.weight"):
            names = ("embedding_layernorm.weight", "hidden_states_layernorm.weight")
            self._input_norms = [self._norm_of(weights, name, width) for name in names]
        self._before = None  # the published layer has no norm before its attention
        if weights.has("layers.0.input_layernorm.weight"):
            self._before = self._norm_of(weights, "layers.0.input_layernorm.weight", width)
        self._fc = weights.linear("fc", width, 2 * width)
        self._attention = Attention(weights, "layers.0.self_attn", self._shape, config, width)
        weights.ignore("lm_head.weight", "embed_tokens.weight")  # copies of the target's
        weights.require_all_taken()
        self.step_bytes = weights.bytes + vocab_size * width * weights.dtype.itemsize
        self.num_parameters = weights.parameters
        self._vocab_size, self._dtype = vocab_size, weights.dtype

    def fused(self, states: Tensor) -> Tensor:
        """Return the states as they are."""
        return states.to(self._dtype)

    def layer(
        self, states: Tensor, token_ids: Tensor, positions: Tensor, cache: HeadCache, seen: Tensor | None
    ) -> Tensor:
        """Return guessed states, (T, E)."""
        embedded = self._embedded(token_ids, states)
        if self._input_norms is not None:
            embedded, states = self._input_norms[0](embedded), self._input_norms[1](states)
        x = self._fc(torch.cat([embedded, states], dim=-1))
        x = x + self._attention(x if self._before is None else self._before(x), positions, cache, seen)
        return x + self._mlp(self._norm(x))

    def logits(self, states: Tensor) -> Tensor:
        """Return what the target's head makes of guessed states."""
        return self._target.logits_of(states)[:, : self._vocab_size]


class Eagle3(_Eagle):
    """EAGLE-3: three of the target's states in one, a layer that reads it beside the embedding, and a head of its own.

    Args:
        weights, config, target, vocab_size: as for `Eagle`.
    """

    kind = "eagle3"

    def __init__(self, weights: HeadWeights, config: Mapping[str, Any], target: GivesStates, vocab_size: int) -> None:
        super().__init__(weights, config, target, vocab_size)
        width, name = self._shape.hidden_size, self.name
        self.levels = self._levels(config, target)
        read = number(config, "target_hidden_size", name, target.hidden_size)
        if read != target.hidden_size:
            raise ModelLoadError(
                f"draft_head={name!r} reads states of {read} numbers, and the target's have {target.hidden_size}: it "
                "was made for another model"
            )
        self._fc = weights.linear("fc", width, len(self.levels) * read)
        self._embedding_norm = self._norm_of(weights, "layers.0.input_layernorm.weight", width)
        self._state_norm = self._norm_of(weights, "layers.0.hidden_norm.weight", width)
        self._final_norm = self._norm_of(weights, "norm.weight", width)
        self._norm_first = bool(config.get("norm_before_residual"))
        self._attention = Attention(weights, "layers.0.self_attn", self._shape, config, 2 * width)
        own = number(config, "draft_vocab_size", name, vocab_size)
        self._head = weights.linear("lm_head", own, width)
        self.vocabulary = self._own_tokens(weights, own, vocab_size)
        weights.ignore("t2d", "mask_hidden")
        weights.require_all_taken()
        self.step_bytes = weights.bytes
        self.num_parameters = weights.parameters
        self._dtype = weights.dtype

    def _levels(self, config: Mapping[str, Any], target: GivesStates) -> tuple[int, ...]:
        """Return the states that it reads, by its configuration."""
        asked = config.get("eagle_aux_hidden_state_layer_ids")
        if asked is None:
            asked = (config.get("eagle_config") or {}).get("eagle_aux_hidden_state_layer_ids")
        levels = default_levels(target.num_layers) if asked is None else tuple(asked)
        if not levels or not all(isinstance(each, int) and 0 <= each < target.num_layers for each in levels):
            raise ModelLoadError(
                f"draft_head={self.name!r} reads what the layers {list(levels)} read, and the target has the layers 0 "
                f"to {target.num_layers - 1}: it was made for another model"
            )
        return levels

    def _own_tokens(self, weights: HeadWeights, own: int, vocab_size: int) -> Tensor | None:
        if not weights.has("d2t"):
            if own != vocab_size:
                raise ModelLoadError(
                    f"draft_head={self.name!r} has {own:,} tokens of its own, the target {vocab_size:,}, and the "
                    "checkpoint has no tensor d2t, which says which ones they are"
                )
            return None
        offsets = weights.raw("d2t").to(weights.device, torch.int64)
        tokens = torch.arange(own, device=weights.device) + offsets if offsets.shape == (own,) else offsets
        if tokens.shape != (own,) or int(tokens.min()) < 0 or int(tokens.max()) >= vocab_size:
            raise ModelLoadError(
                f"draft_head={self.name!r}: d2t maps {tuple(offsets.shape)} tokens beyond the target's "
                f"{vocab_size:,}: it was made for another vocabulary"
            )
        return tokens

    def fused(self, states: Tensor) -> Tensor:
        """Return three states as one."""
        return self._fc(states.to(self._dtype))

    def layer(
        self, states: Tensor, token_ids: Tensor, positions: Tensor, cache: HeadCache, seen: Tensor | None
    ) -> Tensor:
        """Return guessed states, (T, E)."""
        normed = self._state_norm(states)
        embedded = self._embedding_norm(self._embedded(token_ids, states))
        both = torch.cat([embedded, normed], dim=-1)
        x = (normed if self._norm_first else states) + self._attention(both, positions, cache, seen)
        return x + self._mlp(self._norm(x))

    def logits(self, states: Tensor) -> Tensor:
        """Return the logits over the head's own vocabulary."""
        return self._head(self._final_norm(states)).float()


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of an EAGLE checkpoint under one layout's names."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name == "pre_lm_head_layernorm.weight":
            name = "hidden_states_layernorm.weight"
        for old, new in _RENAMED.items():
            if name.startswith(old):
                name = new + name[len(old) :]
                break
        found[name] = tensor
    return found
