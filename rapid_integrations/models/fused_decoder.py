"""The Llama family's forward pass in a few large operations that work directly on this package's cache.

A transformers layer makes some forty small calls per token. Each costs microseconds, whatever the model's size. Here a
layer makes a dozen. One matrix product gives query, key and value, and another gives gate and up. Rotary embedding is
applied to queries and keys at once, and weights are stored in the fastest form (`linear.py`). The last layer skips rows
whose logits are not requested.

Only architectures whose every step is known are taken over. `HuggingFaceLM` compares the result with the model's own
eager forward pass before it is used.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm

from rapid_integrations.cache import Rows
from rapid_integrations.cache.arena import Arena
from rapid_integrations.config import Quantization
from rapid_integrations.errors import SharedResource
from rapid_integrations.kernels.cpu import (
    MAX_ROWS,
    NativeDecoder,
    NativeLayer,
    native_library,
    native_variant,
    prefill,
    why_not_native,
)
from rapid_integrations.kernels.cpu.matrices import AnyMatrix
from rapid_integrations.models.attention import attend
from rapid_integrations.models.block_linear import BlockLinear, BlockTable, bits_of
from rapid_integrations.models.linear import Linear, PlainLinear, make_linear
from rapid_integrations.models.not_a_number import numbers
from rapid_integrations.models.taken_weights import empty, fill, fuse, lent

FAMILIES = frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"})
HEAD_QUANTIZATION: Final[Quantization] = "int8"
_LEAST_ROTATIONS = 2048  # positions whose cosines are computed at once
_LAYER_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_ATTENTION_PARTS = {"q_proj", "k_proj", "v_proj", "o_proj"}
_QK_NORMS = {"q_norm", "k_norm"}
_MLP_PARTS = {"gate_proj", "up_proj", "down_proj", "act_fn"}


@dataclass(frozen=True)
class _Norm:
    weight: Tensor
    eps: float

    @classmethod
    def of(cls, module: Any) -> _Norm:
        return cls(module.weight, module.variance_epsilon)

    def __call__(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight.shape, self.weight, self.eps)


@dataclass(frozen=True)
class _Layer:
    before_attention: _Norm
    qkv: Linear
    q_norm: _Norm | None
    k_norm: _Norm | None
    out: Linear
    scale: float
    window: int | None
    before_mlp: _Norm
    gate_up: Linear
    activation: Any
    down: Linear


class FusedDecoder(SharedResource):
    """Computes the same logits as the model it was built from.

    The decoder takes over the model's matrices. If they are packed or quantised, the model is left without them.
    Otherwise the model keeps views of the fused ones.

    `kernels` says which kernels compute its decode steps, "none (reason)" if PyTorch's operators do.

    Args:
        model: a transformers model that `serves` accepts.
        quantization: applies to every matrix but the embedding table. The head keeps at least eight bits, because four
            raise SmolLM2's perplexity by 7%.
    """

    def __init__(self, model: Any, quantization: Quantization | None = None) -> None:
        base, config = model.base_model, model.config
        head_dim = base.layers[0].self_attn.head_dim
        self._heads: int = config.num_attention_heads
        self._kv_heads: int = config.num_key_value_heads
        self._head_dim: int = head_dim
        self._settings = settings_of(model)
        self._embed = base.embed_tokens
        self._rotary = base.rotary_emb
        library = native_library() if self._suits_kernels(model) else None
        native = library is not None and NativeDecoder.serves(library, self._columns(config), head_dim)
        self.kernels = native_variant() if native else f"none ({self._why_not_native(model)})"
        arena = Arena() if native else None
        self._layers = [_take_layer(layer, quantization, arena) for layer in base.layers]
        self._norm = _Norm.of(base.norm)
        self._head = self._take_head(model, quantization, arena)
        self._turned: tuple[Tensor, Tensor] | None = None
        self._native = self._native_decoder(library) if library is not None and native else None

    @staticmethod
    def serves(model: Any) -> bool:
        """Return whether this decoder can compute every part of the model."""
        if type(model).__name__ not in FAMILIES or len({p.device for p in model.parameters()}) != 1:
            return False
        base = model.base_model
        return (
            all(_is_known(layer) for layer in base.layers)
            and type(model.lm_head) is nn.Linear
            and model.lm_head.bias is None
            and hasattr(base.norm, "variance_epsilon")
            and not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        )

    @property
    def windows(self) -> list[int | None]:
        """The number of keys that a query sees in each layer; None means all."""
        return [layer.window for layer in self._layers]

    @property
    def weight_bytes(self) -> int:
        """Bytes that one decode step reads: every matrix once, and one row of the embedding table."""
        matrices = [m for layer in self._layers for m in (layer.qkv, layer.out, layer.gate_up, layer.down)]
        return sum(matrix.step_bytes for matrix in (*matrices, self._head))

    def settings(self) -> dict[str, Any]:
        """Return what the logits depend on beside the weights and the rotation, as JSON."""
        return self._settings

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that one token's keys and values take in all layers."""
        itemsize: int = self._embed.weight.dtype.itemsize
        return 2 * len(self._layers) * self._kv_heads * self._head_dim * itemsize

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield, one by one, the matrices that the model itself no longer holds, and the rotation of two positions."""
        start = torch.empty(1, dtype=torch.float32, device=self._embed.weight.device)
        yield "fused.rotation", torch.cat([*self._rotation(start, 1, 1), *self._rotation(start, 8191, 1)])
        for index, layer in enumerate(self._layers):
            for name in ("qkv", "out", "gate_up", "down"):
                yield f"fused.{index}.{name}", bits_of(getattr(layer, name))
        yield "fused.head", bits_of(self._head)
        if isinstance(self._embed, BlockTable):
            yield "fused.embedding", self._embed.stored.raw
            self._embed.stored.release()

    def give_back(self, model: Any) -> None:
        """Fill a copy of the model with the weights that were taken over, with the values used in products here."""
        for layer, module in zip(self._layers, model.base_model.layers, strict=True):
            for fused, linears in _matrices(layer, module):
                fill(linears, fused)
        fill([model.lm_head], self._head)

    def lend(self, model: Any) -> AbstractContextManager[None]:
        """Let the model itself compute within the block, with the weights as they take part in the products here.

        Each layer has its weights only while it runs, so that little memory is needed.
        """
        parts = [
            (module, _matrices(layer, module))
            for layer, module in zip(self._layers, model.base_model.layers, strict=True)
        ]
        return lent([*parts, (model.lm_head, [(self._head, [model.lm_head])])])

    def forward(self, rows: Sequence[Rows]) -> list[Tensor]:
        """Read further tokens of one or several texts; see `CausalLM.forward`.

        The caches are written, and their lengths left for the caller to advance.

        Raises:
            FloatingPointError: a logit is NaN.
        """
        filled = all(each.cache.filled_layers == each.cache.layers for each in rows)
        few = sum(each.count for each in rows) <= MAX_ROWS and not any(each.of_prompt for each in rows)
        if self._native is not None and filled and few:
            longest = max(each.cache.length + each.count for each in rows)
            return self._native.forward(rows, *self._rotations(longest))
        return self._read(rows)

    @torch.inference_mode()
    def _read(self, rows: Sequence[Rows]) -> list[Tensor]:
        """Do `forward` with PyTorch's products."""
        heads, kv_heads, head_dim = self._heads, self._kv_heads, self._head_dim
        counts = [each.count for each in rows]
        kept = [each.keep for each in rows]
        x: Tensor = self._embed(_joined([each.token_ids for each in rows]))  # (T of all, E)
        kernels = self._native is not None and prefill.serves_prefill(x)
        cos, sin = self._rotation_of(x, rows, kernels)
        trees = [each for each in rows if each.parents is not None]
        masks = {each: {window: each.visible(window) for window in set(self.windows)} for each in trees}
        more: Tensor | None = None  # what the layer before adds to x
        for index, layer in enumerate(self._layers):
            x, normed = _add_and_norm(x, more, layer.before_attention, kernels)
            qkv = layer.qkv(normed).view(-1, heads + 2 * kv_heads, head_dim)
            qk = self._rotated(qkv, layer, cos, sin, kernels)
            last = index == len(self._layers) - 1
            attended = []  # of each text (T, H, D)
            v = qkv[:, heads + kv_heads :]
            for each, own_qk, own_v in zip(rows, torch.split(qk, counts), torch.split(v, counts), strict=True):
                by_head = own_qk.transpose(0, 1)[None]  # (1, H + H_kv, T, D)
                segments = each.cache.write(index, by_head[:, heads:], own_v.transpose(0, 1)[None])
                first = each.count - each.keep if last else 0  # of the last layer only what is asked for
                if first < each.count:
                    seen = masks[each][layer.window][first:] if each.parents is not None else None
                    attended.append(attend(by_head[:, :heads, first:], segments, layer.scale, layer.window, seen)[0])
            if last:
                if not attended:
                    break
                x = _joined([own[len(own) - keep :] for own, keep in zip(torch.split(x, counts), kept, strict=True)])
            more = layer.out(_joined(attended).reshape(x.shape[0], heads * head_dim))
            x, normed = _add_and_norm(x, more, layer.before_mlp, kernels)
            gate_up = layer.gate_up(normed)
            more = layer.down(prefill.gated(gate_up) if kernels else _gated(gate_up, layer.activation))
        else:
            return list(torch.split(numbers(self._head(_add_and_norm(x, more, self._norm, kernels)[1])), kept))
        return [x.new_empty(0, 0, dtype=torch.float32) for _ in rows]

    def _rotation_of(self, x: Tensor, rows: Sequence[Rows], kernels: bool) -> tuple[Tensor, Tensor]:
        """Return cosine and sine of every row's position, as `prefill.rotate` or `_rotated` wants them."""
        if not kernels:
            turned = [self._rotation(x, each.cache.length, each.count) for each in rows]
        else:
            tables = self._rotations(max(each.cache.length + each.count for each in rows))
            turned = [
                (tables[0][each.cache.length :][: each.count], tables[1][each.cache.length :][: each.count])
                for each in rows
            ]
        for at, each in enumerate(rows):
            if each.parents is not None:
                turned[at] = turned[at][0][each.depths], turned[at][1][each.depths]
        return _joined([cos for cos, _ in turned]), _joined([sin for _, sin in turned])

    def _rotated(self, qkv: Tensor, layer: _Layer, cos: Tensor, sin: Tensor, kernels: bool) -> Tensor:
        """Return normalised and rotated queries and keys, (T, H + H_kv, D), of `qkv`, (T, H + 2 H_kv, D)."""
        if kernels:
            norms = None
            if layer.q_norm is not None and layer.k_norm is not None:
                norms = layer.q_norm.weight, layer.k_norm.weight, layer.q_norm.eps
            return prefill.rotate(qkv, self._heads, self._kv_heads, norms, cos, sin)
        qk = qkv[:, : self._heads + self._kv_heads]
        if layer.q_norm is not None and layer.k_norm is not None:
            qk = torch.cat([layer.q_norm(qk[:, : self._heads]), layer.k_norm(qk[:, self._heads :])], dim=1)
        return torch.addcmul(qk * cos, qk.roll(self._head_dim // 2, -1), sin)

    def _rotation(self, x: Tensor, start: int, new: int) -> tuple[Tensor, Tensor]:
        """Return cosine and signed sine, (T, 1, D): x cos + roll(x, D / 2) sin is the rotated x."""
        positions = torch.arange(start, start + new, device=x.device)[None]
        cos, sin = self._rotary(x[None], positions)
        sin = sin[0].clone()
        sin[:, : self._head_dim // 2].neg_()
        return cos[0][:, None], sin[:, None]

    def shifted(self, keys: Tensor, by: int) -> Tensor:
        """Return rotated keys (1, H_kv, T, D) as they are `by` positions further on; see `MovesKeys`."""
        if by == 0:
            return keys
        cos, sin = self._rotations(abs(by) + 1)
        # Some models scale both tables. A difference of positions must not scale keys once more.
        turn, lift = cos[abs(by)] / cos[0], sin[abs(by)] / cos[0] * (1 if by > 0 else -1)
        x = keys.float()
        return torch.addcmul(x * turn, x.roll(self._head_dim // 2, -1), lift).to(keys.dtype)

    def _rotations(self, length: int) -> tuple[Tensor, Tensor]:
        """Return `_rotation` of at least the first `length` positions, (T, D) float32; cached for every step."""
        if self._turned is None or self._turned[0].shape[0] < length:
            # dtype and device are explicit, because a process may have other defaults while a model is being loaded.
            start = torch.empty(1, dtype=torch.float32, device=self._embed.weight.device)
            cos, sin = self._rotation(start, 0, max(_LEAST_ROTATIONS, 2 * length))
            self._turned = cos[:, 0].contiguous(), sin[:, 0].contiguous()
        return self._turned

    @staticmethod
    def _suits_kernels(model: Any) -> bool:
        return bool(model.dtype == torch.bfloat16 and model.device.type == "cpu" and model.config.hidden_act == "silu")

    def _why_not_native(self, model: Any) -> str:
        if not self._suits_kernels(model):
            return f"they serve bfloat16 on the processor and SiLU, not {model.dtype} on {model.device}"
        return why_not_native() or "its matrices or heads have widths that they do not serve"

    def _columns(self, config: Any) -> tuple[int, ...]:
        return config.hidden_size, config.intermediate_size, self._heads * self._head_dim

    def _native_decoder(self, library: ctypes.CDLL) -> NativeDecoder:
        return NativeDecoder(
            library,
            [_native_layer(layer) for layer in self._layers],
            self._embed.native() if isinstance(self._embed, BlockTable) else self._embed.weight.data,
            self._norm.weight.data,
            self._norm.eps,
            _native_matrix(self._head),
            heads=self._heads,
            kv_heads=self._kv_heads,
            head_dim=self._head_dim,
        )

    def _take_head(self, model: Any, quantization: Quantization | None, arena: Arena | None) -> Linear:
        if (stored := getattr(model.lm_head, "stored", None)) is not None:
            return BlockLinear(stored, None, arena)
        tied = model.lm_head.weight is model.base_model.embed_tokens.weight
        head = make_linear(model.lm_head.weight.data, None, quantization and HEAD_QUANTIZATION, arena=arena)
        if isinstance(head, PlainLinear):
            model.lm_head.weight.data = head.dense()  # this also sets the embedding table if it is tied to the head
        elif not tied:
            empty(model.lm_head)
        return head


def settings_of(model: Any) -> dict[str, Any]:
    """Return what a model's logits depend on beside the weights and the rotation, as JSON.

    Args:
        model: a model that `FusedDecoder.serves` accepts, or a `Skeleton`.
    """
    config, base = model.config, model.base_model
    norms = [base.norm]
    layers = []
    for layer in base.layers:
        attention = layer.self_attn
        layers.append([attention.head_dim, attention.scaling, _window(attention)])
        own = [layer.input_layernorm, layer.post_attention_layernorm]
        norms += own + [getattr(attention, name) for name in sorted(_QK_NORMS) if hasattr(attention, name)]
    return {
        "heads": [config.num_attention_heads, config.num_key_value_heads],
        "activation": config.hidden_act,
        "layers": layers,
        "eps": [norm.variance_epsilon for norm in norms],
    }


def _is_known(layer: Any) -> bool:
    attention, mlp = getattr(layer, "self_attn", None), getattr(layer, "mlp", None)
    if attention is None or mlp is None or set(dict(layer.named_children())) != _LAYER_PARTS:
        return False
    parts = set(dict(attention.named_children()))
    linears = [getattr(attention, name, None) for name in _ATTENTION_PARTS]
    linears += [getattr(mlp, name, None) for name in _MLP_PARTS - {"act_fn"}]
    return (
        parts in (_ATTENTION_PARTS, _ATTENTION_PARTS | _QK_NORMS)
        and set(dict(mlp.named_children())) == _MLP_PARTS
        and all(type(module) is nn.Linear for module in linears)
        and hasattr(layer.input_layernorm, "variance_epsilon")
        and hasattr(layer.post_attention_layernorm, "variance_epsilon")
    )


def _take_layer(layer: Any, quantization: Quantization | None, arena: Arena | None) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    normed = hasattr(attention, "q_norm")
    return _Layer(
        before_attention=_Norm.of(layer.input_layernorm),
        qkv=fuse([attention.q_proj, attention.k_proj, attention.v_proj], quantization, arena),
        q_norm=_Norm.of(attention.q_norm) if normed else None,
        k_norm=_Norm.of(attention.k_norm) if normed else None,
        out=fuse([attention.o_proj], quantization, arena),
        scale=attention.scaling,
        window=_window(attention),
        before_mlp=_Norm.of(layer.post_attention_layernorm),
        gate_up=fuse([mlp.gate_proj, mlp.up_proj], quantization, arena),
        activation=mlp.act_fn,
        down=fuse([mlp.down_proj], quantization, arena),
    )


def _matrices(layer: _Layer, module: Any) -> list[tuple[Linear, list[nn.Linear]]]:
    """Return each matrix of a layer with the model's own modules whose weights it holds, one below the other."""
    attention, mlp = module.self_attn, module.mlp
    return [
        (layer.qkv, [attention.q_proj, attention.k_proj, attention.v_proj]),
        (layer.out, [attention.o_proj]),
        (layer.gate_up, [mlp.gate_proj, mlp.up_proj]),
        (layer.down, [mlp.down_proj]),
    ]


def _native_layer(layer: _Layer) -> NativeLayer:
    return NativeLayer(
        qkv=_native_matrix(layer.qkv),
        out=_native_matrix(layer.out),
        gate_up=_native_matrix(layer.gate_up),
        down=_native_matrix(layer.down),
        attention_norm=layer.before_attention.weight.data,
        attention_eps=layer.before_attention.eps,
        mlp_norm=layer.before_mlp.weight.data,
        mlp_eps=layer.before_mlp.eps,
        q_norm=None if layer.q_norm is None else layer.q_norm.weight.data,
        k_norm=None if layer.k_norm is None else layer.k_norm.weight.data,
        qk_eps=0.0 if layer.q_norm is None else layer.q_norm.eps,
        scale=layer.scale,
        window=layer.window,
    )


def _native_matrix(weight: Linear) -> AnyMatrix:
    matrix = weight.native()
    assert matrix is not None  # every weight was made for the kernels
    return matrix


def _window(attention: Any) -> int | None:
    if hasattr(attention, "sliding_window"):
        window: int | None = attention.sliding_window
        return window
    # Mistral reads its configuration in every layer. Other families ignore this key if it is set.
    return attention.config.sliding_window if type(attention).__name__ == "MistralAttention" else None


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _add_and_norm(x: Tensor, more: Tensor | None, norm: _Norm, kernels: bool) -> tuple[Tensor, Tensor]:
    """Return x with `more` added (x itself may be changed), and the normalised sum."""
    if kernels:
        return x, prefill.add_and_norm(x, more, norm.weight, norm.eps)
    x = x if more is None else x + more
    return x, norm(x)


def _gated(gate_up: Tensor, activation: Any) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    gated: Tensor = activation(gate) * up
    return gated
