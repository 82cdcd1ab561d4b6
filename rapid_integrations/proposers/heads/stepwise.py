"""Heads with a network for each further token: Medusa's and Hydra's."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from rapid_integrations.cache.hidden_states import LAST
from rapid_integrations.errors import ModelLoadError
from rapid_integrations.models.causal_lm import GivesStates
from rapid_integrations.models.linear import Linear
from rapid_integrations.proposers.heads.blocks import Attention, GatedMlp, HeadCache, HeadNorm, Shape
from rapid_integrations.proposers.heads.head import DraftHead, HeadText, Node
from rapid_integrations.proposers.heads.weights import HeadWeights, number

_HYDRA_WINDOW = 2048  # tokens of a prompt that Hydra's prefix layer reads


class StepwiseHead(DraftHead):
    """A head whose k-th network guesses the k-th further token from the last state that the target gave."""

    levels = (LAST,)
    most_tokens: int

    @abstractmethod
    def read(self, states: Tensor, positions: Tensor, cache: HeadCache) -> Tensor:
        """Return the row (E,) that guesses are made from, of committed states (T, E)."""

    @abstractmethod
    def extended(self, x: Tensor, token_ids: Tensor) -> Tensor:
        """Return what the next network reads: x (N, width) with tokens (N,) behind it."""

    @abstractmethod
    def logits(self, step: int, x: Tensor) -> Tensor:
        """Return the logits (N, D) float32 of network `step` (from 0 on)."""

    def begin(self) -> HeadText:
        """Return a new text."""
        return _StepwiseText(self)


class _StepwiseText(HeadText):
    def __init__(self, head: StepwiseHead) -> None:
        self._head = head
        self._cache = HeadCache()
        self._root: Node | None = None

    @torch.inference_mode()
    def follow(self, positions: Sequence[int], token_ids: Sequence[int], states: Tensor) -> None:
        """Read committed tokens."""
        device = states.device
        row = self._head.read(states, torch.tensor(list(positions), device=device), self._cache)
        x = self._head.extended(row[None], torch.tensor(list(token_ids[-1:]), device=device))
        self._root = Node(self._head.logits(0, x)[0], 0, x[0])

    def root(self) -> Node | None:
        """Return the place behind the last committed token."""
        return self._root

    @torch.inference_mode()
    def after(self, nodes: Sequence[Node], token_ids: Sequence[int]) -> list[Node]:
        """Return the places behind draft tokens, which all have the same depth."""
        x = torch.stack([node.held for node in nodes])
        x = self._head.extended(x, torch.tensor(list(token_ids), device=x.device))
        depth = nodes[0].depth + 1
        logits = self._head.logits(depth, x)
        return [Node(logits[row], depth, x[row]) for row in range(len(nodes))]


class Medusa(StepwiseHead):
    """Medusa: x + silu(linear(x)), once or more often, and a head over the vocabulary. It sees no draft tokens.

    Args:
        weights: a checkpoint of FasterDecoding/Medusa (`0.0.linear`), or as vLLM keeps them (`blocks.0.layers.0`).
        target: the model whose last states it reads.
        vocab_size: of the target.
    """

    kind = "medusa"

    def __init__(self, weights: HeadWeights, target: GivesStates, vocab_size: int) -> None:
        self.name, self.window, self._dtype = weights.name, 1, weights.dtype
        width = target.hidden_size
        self.vocabulary = None
        if weights.has("token_map"):
            self.vocabulary = weights.raw("token_map").to(weights.device, torch.int64)
            if int(self.vocabulary.min()) < 0 or int(self.vocabulary.max()) >= vocab_size:
                raise ModelLoadError(
                    f"draft_head={self.name!r}: token_map leads beyond the target's {vocab_size:,} tokens: it was made "
                    "for another vocabulary"
                )
        own = vocab_size if self.vocabulary is None else len(self.vocabulary)
        self.most_tokens = _count(weights.names(), r"blocks\.(\d+)\.") or _count(weights.names(), r"(\d+)\.\d+\.")
        self._blocks: list[list[Linear]] = []
        self._heads: list[Linear] = []
        for head in range(self.most_tokens):
            ours = weights.has(f"blocks.{head}.layers.0.weight")
            start = f"blocks.{head}.layers." if ours else f"{head}."
            end = "" if ours else ".linear"
            layers = _count(weights.names(), re.escape(start) + r"(\d+)" + re.escape(end) + r"\.weight")
            self._blocks.append([weights.linear(f"{start}{layer}{end}", width, width) for layer in range(layers)])
            if not ours:
                self._heads.append(weights.linear(f"{head}.{layers}", own, width))
            elif weights.has(f"lm_heads.{head}.weight"):
                self._heads.append(weights.linear(f"lm_heads.{head}", own, width))
            elif head == 0:
                self._heads.append(weights.linear("lm_head", own, width))
            else:
                self._heads.append(self._heads[0])  # one head for all
        weights.require_all_taken()
        self.num_parameters = weights.parameters
        self.step_bytes = weights.bytes // self.most_tokens

    def read(self, states: Tensor, positions: Tensor, cache: HeadCache) -> Tensor:
        """Return the last state."""
        return states[-1].to(self._dtype)

    def extended(self, x: Tensor, token_ids: Tensor) -> Tensor:
        """Return x: the tokens are not seen."""
        return x

    def logits(self, step: int, x: Tensor) -> Tensor:
        """Return the logits of network `step`."""
        for layer in self._blocks[step]:
            x = x + silu(layer(x))
        return self._heads[step](x).float()


class Hydra(StepwiseHead):
    """Hydra: each network also reads the embeddings of the tokens before its own. Hydra++ has a layer before them.

    Args:
        weights: a checkpoint of zankner/Hydra.
        config: its config.json. With a layer before the networks it has that layer's numbers, which are the target's.
        target: the model whose last states it reads.
        vocab_size: of the target.
    """

    kind = "hydra"
    vocabulary = None

    def __init__(self, weights: HeadWeights, config: Mapping[str, Any], target: GivesStates, vocab_size: int) -> None:
        self.name, self._dtype, self._target = weights.name, weights.dtype, target
        width = target.hidden_size
        weights.ignore("prefix_embeding_layer.embed_tokens.weight")  # it is not read
        self._prefix = None
        if weights.has("prefix_embeding_layer.norm.weight"):
            self._prefix = _PrefixLayer(weights, config, width)
        self.window = 1 if self._prefix is None else _HYDRA_WINDOW
        self.most_tokens = _count(weights.names(), r"hydra_mlp\.(\d+)\.")
        first = weights.names()
        self._grounded = any(re.match(r"hydra_mlp\.0\.\d+\.res_connection\.", each) for each in first)
        self._networks: list[list[tuple[Linear, Linear | None]]] = []
        self._heads: list[Linear] = []
        for head in range(self.most_tokens):
            read = (head + 2) * width if self._grounded else width
            places = sorted(
                {
                    int(found[1])
                    for each in first
                    if (found := re.match(rf"hydra_mlp\.{head}\.(\d+)\.linear\.weight", each))
                }
            )
            layers: list[tuple[Linear, Linear | None]] = []
            for place in places:
                name = f"hydra_mlp.{head}.{place}"
                columns = read if not layers else width
                product = weights.linear(f"{name}.linear", width, columns)
                passed = None
                if weights.has(f"{name}.res_connection.weight"):
                    passed = weights.linear(f"{name}.res_connection", width, columns)
                layers.append((product, passed))
            self._networks.append(layers)
            self._heads.append(weights.linear(f"hydra_lm_head.{head}.1", vocab_size, width))
        weights.require_all_taken()
        self.num_parameters = weights.parameters
        self.step_bytes = weights.bytes // self.most_tokens

    def read(self, states: Tensor, positions: Tensor, cache: HeadCache) -> Tensor:
        """Return the last state, as the layer before the networks leaves it."""
        states = states.to(self._dtype)
        return states[-1] if self._prefix is None else self._prefix(states, positions, cache)

    def extended(self, x: Tensor, token_ids: Tensor) -> Tensor:
        """Return x with the tokens' embeddings behind it."""
        if not self._grounded:
            return x
        return torch.cat([x, self._target.embedded(token_ids).to(x.dtype)], dim=-1)

    def logits(self, step: int, x: Tensor) -> Tensor:
        """Return the logits of network `step`."""
        for product, passed in self._networks[step]:
            x = (x if passed is None else passed(x)) + silu(product(x))
        return self._heads[step](x).float()


class _PrefixLayer:
    """A decoder layer over the target's last states, with a norm behind it."""

    def __init__(self, weights: HeadWeights, config: Mapping[str, Any], width: int) -> None:
        shape = Shape.of(config, weights.name)
        prefix = "prefix_embeding_layer.layers.0"

        def norm(name: str) -> HeadNorm:
            return HeadNorm(weights.take(f"{name}.weight", width), shape.rms_norm_eps)

        self._before, self._between = norm(f"{prefix}.input_layernorm"), norm(f"{prefix}.post_attention_layernorm")
        self._final = norm("prefix_embeding_layer.norm")
        self._attention = Attention(weights, f"{prefix}.self_attn", shape, config, width)
        inner = number(config, "intermediate_size", weights.name)
        self._mlp = GatedMlp(weights, f"{prefix}.mlp", width, inner, shape.hidden_act)

    def __call__(self, states: Tensor, positions: Tensor, cache: HeadCache) -> Tensor:
        """Return the last row (E,) of states (T, E), and keep the keys and values of all."""
        x = states + self._attention(self._before(states), positions, cache, None)
        x = x[-1:]
        return self._final(x + self._mlp(self._between(x)))[0]


def medusa_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return the tensors of a Medusa checkpoint without their prefix; None if it is none."""
    found = {re.sub(r"^medusa_heads?\.", "", name): tensor for name, tensor in tensors.items()}
    known = any(re.fullmatch(r"\d+\.\d+\.linear\.weight|blocks\.\d+\.layers\.\d+\.weight", name) for name in found)
    return found if known else None


def hydra_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return the tensors of a Hydra checkpoint without their prefix; None if it is none."""
    found = {re.sub(r"^hydra_head\.", "", name): tensor for name, tensor in tensors.items()}
    return found if any(name.startswith("hydra_mlp.") for name in found) else None


def _count(names: Collection[str], pattern: str) -> int:
    """Return how many numbers from 0 on a pattern finds in names."""
    found = {int(match[1]) for each in names if (match := re.match(pattern, each))}
    return max(found) + 1 if found else 0
