"""The EAGLE-3 head as it learns: the same computation as `eagle.Eagle3`, with gradients and its own guesses as input.

A head is trained on what it will read (arXiv 2503.01840, "training-time test"): its first guess is made from the
target's states, the second one from the first guess, and so on. At its step j, the guess at row i stands for position
i + j. It sees the target's rows up to i, and the row's own earlier guesses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm, silu

from rapid_integrations.models.skeleton import Rotary

_SMALL = 0.2  # of what is added to the states that are passed on at first
_UNSURE = 0.25  # first guesses are wrong, so they are less sharp than the target's


@dataclass(frozen=True)
class HeadShape:
    """The numbers of a head that is trained.

    Attributes:
        hidden_size, intermediate_size, num_attention_heads, num_key_value_heads, head_dim: as in configurations.
        levels: states that it reads.
        vocab_size: of the target.
        draft_vocab_size: tokens that it can guess.
        rms_norm_eps, rope_theta: as in configurations.
    """

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    levels: tuple[int, ...]
    vocab_size: int
    draft_vocab_size: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0


class HeadNetwork(nn.Module):
    """The weights of a head, by the names of the published layout.

    Args:
        shape: its numbers.
        seed: of the first weights.
        head: (D, E), the target's head for the tokens that it can guess, from which its own starts.
        spread: (E,), the root mean square of each number that the target's head reads.
        scales: (levels * E,), the same of the states. At first the head passes those of the last level on, each number
            divided by its scale: a few numbers of most models' states are a thousand times the others.
    """

    def __init__(self, shape: HeadShape, seed: int, head: Tensor, spread: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.shape = shape
        width, dim = shape.hidden_size, shape.head_dim
        draw = torch.Generator().manual_seed(seed)
        sizes = {
            "fc.weight": (width, len(shape.levels) * width),
            "midlayer.self_attn.q_proj.weight": (shape.num_attention_heads * dim, 2 * width),
            "midlayer.self_attn.k_proj.weight": (shape.num_key_value_heads * dim, 2 * width),
            "midlayer.self_attn.v_proj.weight": (shape.num_key_value_heads * dim, 2 * width),
            "midlayer.self_attn.o_proj.weight": (width, shape.num_attention_heads * dim),
            "midlayer.mlp.gate_proj.weight": (shape.intermediate_size, width),
            "midlayer.mlp.up_proj.weight": (shape.intermediate_size, width),
            "midlayer.mlp.down_proj.weight": (width, shape.intermediate_size),
            "lm_head.weight": (shape.draft_vocab_size, width),
        }
        norms = ("midlayer.input_layernorm", "midlayer.hidden_norm", "midlayer.post_attention_layernorm", "norm")
        weights = {name: torch.randn(size, generator=draw) * size[1] ** -0.5 for name, size in sizes.items()}
        weights |= {f"{name}.weight": torch.ones(width) for name in norms}
        weights["lm_head.weight"], weights["norm.weight"] = head.float().clone(), _UNSURE * spread.float()
        for name in ("fc", "midlayer.self_attn.o_proj", "midlayer.mlp.down_proj"):
            weights[f"{name}.weight"] *= _SMALL
        weights["fc.weight"][:, -width:] += torch.eye(width)
        weights["fc.weight"] /= scales
        self._names = list(weights)
        self._weights = nn.ParameterList(weights.values())
        self._rotary = Rotary({"rope_theta": shape.rope_theta, "rope_type": "default"}, dim)

    def named(self) -> dict[str, Tensor]:
        """Return the weights by their published names."""
        return dict(zip(self._names, (each.detach() for each in self._weights), strict=True))

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take weights over."""
        with torch.no_grad():
            for name, own in zip(self._names, self._weights, strict=True):
                own.copy_(tensors[name])

    def forward(self, states: Tensor, embedded: Tensor, steps: int) -> list[Tensor]:
        """Return the logits of each step, (B, T, D). Row i of step j guesses the token at i + j + 2.

        Args:
            states: (B, T, levels * E).
            embedded: (B, T + steps, E), of the tokens from the second one on, and zeros behind the last one.
            steps: guesses in a row.
        """
        shape, weights = self.shape, dict(zip(self._names, self._weights, strict=True))
        batch, count, _ = states.shape

        def norm(x: Tensor, name: str) -> Tensor:
            weight = weights[f"{name}.weight"]
            return rms_norm(x.float(), weight.shape, weight, shape.rms_norm_eps)

        def product(x: Tensor, name: str) -> Tensor:
            return linear(x, weights[f"{name}.weight"])

        guessed = product(states, "fc").float()
        causal = torch.ones(count, count, dtype=torch.bool, device=states.device).tril()
        keys: list[Tensor] = []
        values: list[Tensor] = []
        logits = []
        for step in range(steps):
            both = torch.cat(
                [
                    norm(embedded[:, step : step + count], "midlayer.input_layernorm"),
                    norm(guessed, "midlayer.hidden_norm"),
                ],
                dim=-1,
            )
            q, k, v = (
                product(both, f"midlayer.self_attn.{name}_proj").view(batch, count, -1, shape.head_dim).transpose(1, 2)
                for name in "qkv"
            )
            positions = torch.arange(step, step + count, device=states.device)[None]
            cos, sin = (each[:, None] for each in self._rotary(q.float(), positions))
            q, k = _turned(q.float(), cos, sin), _turned(k.float(), cos, sin)
            groups = shape.num_attention_heads // shape.num_key_value_heads
            keys.append(k.repeat_interleave(groups, dim=1))
            values.append(v.float().repeat_interleave(groups, dim=1))
            mixed = _mixed(q, keys, values, causal).transpose(1, 2).reshape(batch, count, -1)
            x = guessed + product(mixed, "midlayer.self_attn.o_proj").float()
            normed = norm(x, "midlayer.post_attention_layernorm")
            inner = silu(product(normed, "midlayer.mlp.gate_proj")) * product(normed, "midlayer.mlp.up_proj")
            guessed = x + product(inner, "midlayer.mlp.down_proj").float()
            logits.append(product(norm(guessed, "norm"), "lm_head"))
        return logits


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def _mixed(q: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], causal: Tensor) -> Tensor:
    """Attend to the target's rows up to each row, and to the row's own guesses."""
    scale = q.shape[-1] ** -0.5
    scores = [(q @ keys[0].transpose(2, 3) * scale).masked_fill(~causal, float("-inf"))]
    scores += [(q * own).sum(dim=-1, keepdim=True) * scale for own in keys[1:]]
    shares = torch.cat(scores, dim=-1).softmax(dim=-1)
    count = causal.shape[0]
    mixed = shares[..., :count] @ values[0]
    for number, own in enumerate(values[1:]):
        mixed = mixed + shares[..., count + number, None] * own
    return mixed
