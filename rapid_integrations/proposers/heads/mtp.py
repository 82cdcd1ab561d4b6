"""Layers that predict further tokens and ship inside a checkpoint: DeepSeek-V3, GLM-4.5, Qwen3-Next and MiMo.

They read the embedding of a token and the target's last state before it, and feed on their own output as EAGLE heads
do. If a checkpoint has several, the first is used for every further token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import embedding

from rapid_integrations.cache.hidden_states import LAST
from rapid_integrations.errors import ModelLoadError
from rapid_integrations.models.causal_lm import GivesStates
from rapid_integrations.proposers.heads.blocks import Attention, GatedMlp, HeadCache, HeadNorm, Shape
from rapid_integrations.proposers.heads.experts import HeadExperts, LatentAttention
from rapid_integrations.proposers.heads.recurrent import RecurrentHead
from rapid_integrations.proposers.heads.weights import HeadWeights, number

_WINDOW = 2048  # tokens of a prompt that are read

Attends: TypeAlias = Callable[[Tensor, Tensor, HeadCache, "Tensor | None"], Tensor]


@dataclass(frozen=True)
class Layout:
    """Where a checkpoint keeps the parts of its further layer.

    Attributes:
        embedding_norm, state_norm, joined, final_norm: names of the parts before and behind the layer.
        layer: the prefix of the layer.
        state_first: the state comes before the embedding in what `joined` reads.
        table, head: names of an embedding table and a head of its own; the target's are used if they are missing.
        offset: added to the weights of norms.
        gated: queries have gates beside them.
        passes_normed: what is read again is the state behind the final norm, not before it.
        hides_first: the layer was trained without the embedding of a text's second token.
    """

    embedding_norm: str
    state_norm: str
    joined: str
    final_norm: str
    layer: str
    state_first: bool = False
    table: str = ""
    head: str = ""
    offset: float = 0.0
    gated: bool = False
    passes_normed: bool = False
    hides_first: bool = True


def layout_of(names: Iterable[str], config: Mapping[str, Any]) -> Layout | None:
    """Return where the tensors of a checkpoint lie; None if it has no further layers."""
    names = set(names)
    beyond = f"model.layers.{config.get('num_hidden_layers')}"
    if f"{beyond}.eh_proj.weight" in names:
        return Layout(
            f"{beyond}.enorm",
            f"{beyond}.hnorm",
            f"{beyond}.eh_proj",
            f"{beyond}.shared_head.norm",
            beyond,
            table=f"{beyond}.embed_tokens.weight",
            head=f"{beyond}.shared_head.head.weight",
        )
    if "mtp.fc.weight" in names:
        before = ("mtp.pre_fc_norm_embedding", "mtp.pre_fc_norm_hidden", "mtp.fc")
        return Layout(
            *before, "mtp.norm", "mtp.layers.0", offset=1.0, gated=True, passes_normed=True, hides_first=False
        )
    if "model.mtp_layers.0.input_proj.weight" in names:
        own = "model.mtp_layers.0"
        before = (f"{own}.token_layernorm", f"{own}.hidden_layernorm", f"{own}.input_proj")
        return Layout(*before, f"{own}.final_layernorm", own, state_first=True, passes_normed=True)
    return None


def belongs(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a tensor of a whole checkpoint belongs to its first further layer."""
    return name.startswith((f"model.layers.{config.get('num_hidden_layers')}.", "model.mtp_layers.0.")) or bool(
        re.match(r"mtp\.(?!layers\.)|mtp\.layers\.0\.", name)
    )


class FurtherLayer(RecurrentHead):
    """A layer that predicts further tokens.

    Args:
        weights: its tensors, as `belongs` picks them.
        layout: where they lie.
        config: the checkpoint's config.json.
        target: the model whose last states it reads.
        vocab_size: of the target.

    Raises:
        ModelLoadError: the target's rows have another width.
    """

    kind = "mtp"
    levels = (LAST,)
    vocabulary = None

    def __init__(
        self,
        weights: HeadWeights,
        layout: Layout,
        config: Mapping[str, Any],
        target: GivesStates,
        vocab_size: int,
    ) -> None:
        self.name, self.window = weights.name, _WINDOW
        self._layout, self._target, self._vocab_size, self._dtype = layout, target, vocab_size, weights.dtype
        width = number(config, "hidden_size", self.name)
        if (width, config.get("num_hidden_layers")) != (target.hidden_size, target.num_layers):
            raise ModelLoadError(
                f"draft_head={self.name!r} belongs to a model of {config.get('num_hidden_layers')} layers and rows of "
                f"{width} numbers, and the target has {target.num_layers} layers and rows of {target.hidden_size}: "
                "give the target's own folder"
            )
        eps = float(config.get("rms_norm_eps") or 1e-6)

        def norm(name: str) -> HeadNorm:
            return HeadNorm(weights.take(f"{name}.weight", width) + layout.offset, eps)

        self._embedding_norm, self._state_norm = norm(layout.embedding_norm), norm(layout.state_norm)
        self._final_norm = norm(layout.final_norm)
        self._joined = weights.linear(layout.joined, width, 2 * width)
        self._table = self._rows(weights, layout.table, vocab_size, width)
        own_head = self._rows(weights, layout.head, vocab_size, width)
        self._head = None if own_head is None else weights.product(own_head)
        self._before = norm(f"{layout.layer}.input_layernorm")
        self._between = norm(f"{layout.layer}.post_attention_layernorm")
        attention = f"{layout.layer}.self_attn"
        self._attention: Attends
        if weights.has(f"{attention}.kv_b_proj.weight"):
            self._attention = LatentAttention(weights, attention, config, width)
            # An indexer chooses as many keys as there are tokens in the window, or more: the head sees them all.
            weights.ignore(*(each for each in weights.names() if each.startswith(f"{attention}.indexer.")))
        else:
            shape = Shape.of(config, self.name)
            self._attention = Attention(
                weights, attention, shape, config, width, offset=layout.offset, gated=layout.gated
            )
        act, mlp = str(config.get("hidden_act") or "silu"), f"{layout.layer}.mlp"
        self._mlp: Callable[[Tensor], Tensor]
        if weights.has(f"{mlp}.gate.weight"):
            self._mlp = HeadExperts(weights, mlp, config, width, act)
        else:
            self._mlp = GatedMlp(weights, mlp, width, number(config, "intermediate_size", self.name), act)
        weights.require_all_taken()
        self.num_parameters = weights.parameters
        self.step_bytes = weights.bytes
        if self._head is None:
            self.step_bytes += vocab_size * width * weights.dtype.itemsize

    @staticmethod
    def _rows(weights: HeadWeights, name: str, vocab_size: int, width: int) -> Tensor | None:
        """Take a table with a row for each token; some have padding behind them."""
        if not name or not weights.has(name):
            return None
        rows = weights.raw(name)
        if rows.ndim != 2 or rows.shape[1] != width or rows.shape[0] < vocab_size:
            raise ModelLoadError(
                f"draft_head={weights.name!r}: {name!r} has the shape {tuple(rows.shape)}, and the target has "
                f"{vocab_size:,} tokens and rows of {width} numbers: it was made for another model"
            )
        return rows[:vocab_size].to(weights.device, weights.dtype)

    def fused(self, states: Tensor) -> Tensor:
        """Return the states as they are."""
        return states.to(self._dtype)

    def layer(
        self, states: Tensor, token_ids: Tensor, positions: Tensor, cache: HeadCache, seen: Tensor | None
    ) -> Tensor:
        """Return guessed states, (T, E)."""
        table = self._table
        embedded = self._target.embedded(token_ids) if table is None else embedding(token_ids, table)
        embedded = embedded.to(states.dtype)
        if self._layout.hides_first:
            embedded = embedded.masked_fill((positions == 0)[:, None], 0)
        parts = [self._embedding_norm(embedded), self._state_norm(states)]
        x = self._joined(torch.cat(parts[::-1] if self._layout.state_first else parts, dim=-1))
        x = x + self._attention(self._before(x), positions, cache, seen)
        x = x + self._mlp(self._between(x))
        return self._final_norm(x) if self._layout.passes_normed else x

    def logits(self, states: Tensor) -> Tensor:
        """Return what the head makes of guessed states: its own, or the target's."""
        normed = states if self._layout.passes_normed else self._final_norm(states)
        if self._head is not None:
            return self._head(normed).float()
        return self._target.logits_of(normed)[:, : self._vocab_size]
