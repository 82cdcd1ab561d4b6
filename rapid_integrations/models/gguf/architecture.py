"""What a family is in GGUF files: what its tensors are called there, and how its metadata becomes a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, TypeAlias

from torch import Tensor

from rapid_integrations.models.gguf.forms import Forms
from rapid_integrations.models.gguf.header import GgufHeader, GgufTensor

Told: TypeAlias = Mapping[str, Any]
"""What a file says of its model, by names without the architecture's prefix."""

Tensors: TypeAlias = Mapping[str, GgufTensor]
OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
ATTENTION = dict(zip(("attn_q", "attn_k", "attn_v"), QKV, strict=True)) | {"attn_output": "self_attn.o_proj"}
MLP = {f"ffn_{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")}
NORMS_BEFORE = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
NORMS_AROUND = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
LLAMA = ATTENTION | MLP | NORMS_BEFORE
GRANITE_FACTORS = frozenset({"attention.scale", "embedding_scale", "residual_scale", "logit_scale"})
_COMMON = {
    *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
    *("block_count", "context_length", "embedding_length", "expert_count", "expert_used_count", "feed_forward_length"),
    *("rope.dimension_count", "rope.freq_base", "rope.scaling.attn_factor", "rope.scaling.factor"),
    *("rope.scaling.original_context_length", "rope.scaling.type", "vocab_size"),
}
_INTERLEAVED_EXPERTS = "interleave_moe_layer_step"
_OF_EXPERTS = {"expert_feed_forward_length", _INTERLEAVED_EXPERTS}
_MOST_LAYERS = 10_000  # `own` may make lists of so many
_MOST_OF_A_HEAD = 1 << 16  # numbers: angles are computed for all of them, before any tensor is compared
_OF_A_HEAD = ("attention.key_length", "attention.value_length", "rope.dimension_count")
_RMS = ("attention.layer_norm_rms_epsilon", "rms_norm_eps")
_NUMBERS = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size"),
)


@dataclass(frozen=True)
class Architecture:
    """A family in GGUF files.

    Attributes:
        class_name, model_type: as transformers has them.
        own: returns what its configuration has beside what all have, or None if it says something else.
        names: the modules of a layer, by what the file calls them; with ".weight" or ".bias" for one tensor.
        biases: modules that always have one, by the model's names without the layer.
        plain: the names, as the model has them, of matrices that never lie in blocks.
        experts: the module that holds them, "" if there are none.
        keys: what the file says beside what all say.
        epsilon: what the file and the configuration call that of the norms.
        interleaved: the file has the rows of queries and keys in another order, as llama.cpp rotates neighbours.
        partial: whether only a part of each head may be rotated.
        norm_offset: what llama.cpp's converter has added to the weights of norms.
        long_rope: whether the angles of some of its models follow the length of the text.
        scaled: whether a file may say a factor on cosines and sines; `own` compares it.
        forms: of a family with layers that have other forms in files than in models; None: there are none.
        by_layer: whether the file may have a number of heads of keys, and a width of the MLP, for each layer.
        proportional: whether layers that see all keys rotate a part of each head, which a tensor of the file says.
        some_attend: whether the file has a number of heads of keys for each layer, 0 for those that do not attend.
        latent: whether heads have keys and values that are computed from what all of them share.
        outer: the modules around the layers, by what the file calls them; with "{}" one for each matrix of a tensor.
        layers: what the names of the modules of layers begin with.
        left_out: returns which of `names` a model with a configuration has not.
        by_transformers: whether transformers reads all that a file says, so that it may dequantise the file.
        attends: whether there are attentions and MLPs, or else nothing but recurrences.
        of_metadata: returns weights that stand in the metadata, by transformers' names, for a configuration; None if
            they are left out. None: there are no such ones.
    """

    class_name: str
    model_type: str
    own: Callable[[Told, Tensors], dict[str, Any] | None]
    names: Mapping[str, str]
    biases: frozenset[str] = frozenset()
    plain: frozenset[str] = frozenset()
    experts: str = ""
    keys: frozenset[str] = frozenset()
    epsilon: tuple[str, str] = _RMS
    interleaved: bool = False
    partial: bool = False
    norm_offset: float = 0.0
    long_rope: bool = False
    scaled: bool = False
    forms: Forms | None = None
    by_layer: bool = False
    proportional: bool = False
    some_attend: bool = False
    latent: bool = False
    outer: Mapping[str, str] = field(default_factory=lambda: OUTER)
    layers: str = "model.layers."
    left_out: Callable[[Mapping[str, Any]], frozenset[str]] = lambda config: frozenset()
    by_transformers: bool = False
    attends: bool = True
    of_metadata: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Tensor] | None] | None = None

    def configuration(self, header: GgufHeader, tensors: Tensors) -> dict[str, Any] | None:
        """Return a configuration under transformers' names, or None if the file says what is not known here.

        Raises:
            KeyError, TypeError, ValueError, ZeroDivisionError: a number is left out, or is no number.
        """
        prefix = f"{header.architecture}."
        stated = header.metadata
        told = {key.removeprefix(prefix): value for key, value in stated.items() if key.startswith(prefix)}
        if not self.attends:  # what files say of attentions and MLPs is 0
            told |= {"attention.head_count": 1, "attention.head_count_kv": 1, "feed_forward_length": 1}
        heads, width = told["attention.head_count"], told["embedding_length"]
        head_dim = told.get("attention.key_length", width // heads)
        kv_heads = told.get("attention.head_count_kv", heads)
        if self.some_attend:
            kv_heads = max(kv_heads)
        elif self.by_layer:
            kv_heads = _of_first(kv_heads)
        turned = told.get("rope.dimension_count", head_dim)
        if self.latent:
            head_dim = turned
        table = tensors.get("token_embd.weight")
        rope = {"rope_type": "default", "rope_theta": told.get("rope.freq_base", 10000.0)}
        if self.partial:
            rope["partial_rotary_factor"] = turned / head_dim
        config = {
            "architectures": [self.class_name],
            "model_type": self.model_type,
            "hidden_act": "silu",
            "hidden_size": width,
            "num_hidden_layers": told["block_count"] - told.get("nextn_predict_layers", 0),
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head_dim,
            self.epsilon[1]: told[self.epsilon[0]],
            "max_position_embeddings": told["context_length"],
            "rope_parameters": rope,
            "tie_word_embeddings": "output.weight" not in tensors,
            "vocab_size": table.shape[1] if table is not None and len(table.shape) == 2 else 0,
            **{f"{name}_token_id": stated.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")},
            "pad_token_id": stated.get("tokenizer.ggml.padding_token_id"),
        }
        if self.experts:
            of_kind = {"num_experts_per_tok": told["expert_used_count"]}
            numbers = [told["expert_count"], told["expert_used_count"]]
        else:
            width_of_mlp = _of_first(told["feed_forward_length"]) if self.by_layer else told["feed_forward_length"]
            if self.some_attend and isinstance(width_of_mlp, list):  # blocks that attend have no MLP
                width_of_mlp = max(width_of_mlp)
            of_kind, numbers = {"intermediate_size": width_of_mlp}, [width_of_mlp]
        if (
            set(told) - _COMMON - (_OF_EXPERTS if self.experts else set()) - self.keys - {self.epsilon[0]}
            or not all(type(each) is int and each > 0 for each in (*numbers, *(config[name] for name in _NUMBERS)))
            or config["num_hidden_layers"] > _MOST_LAYERS
            or (turned != head_dim and not self.partial)
            or type(turned) is not int
            or not 0 < turned <= head_dim
            or any(type(n) is int and n > _MOST_OF_A_HEAD for key, n in told.items() if key.startswith(_OF_A_HEAD))
            or (told.get("attention.value_length", head_dim) != head_dim and not self.latent)
            or (told.get("rope.scaling.attn_factor", 1.0) != 1.0 and not (self.long_rope or self.scaled))
            or (told.get(_INTERLEAVED_EXPERTS, 1) != 1 and _INTERLEAVED_EXPERTS not in self.keys)
        ):
            return None
        own = self.own(told, tensors)
        if not self.attends:
            for name in ("num_attention_heads", "num_key_value_heads", "head_dim", "rope_parameters"):
                del config[name]
            of_kind = {}
        return None if own is None else config | of_kind | own

    def names_of_all_weights(self, config: Mapping[str, Any]) -> set[str]:
        """Return the names of all weights that a model has; one without a bias computes something else.

        It is for families without experts, whose layers are alike.
        """
        around, own = set(self.outer.values()), set(self.names.values()) - self.left_out(config)
        biases = self.biases | (set(QKV) if config.get("attention_bias") or config.get("use_qkv_bias") else set())
        names = {f"{module}.weight" for module in around} | {f"{module}.bias" for module in biases & around}
        if config["tie_word_embeddings"]:
            names.discard("lm_head.weight")
        parts = {f"{module}.weight" for module in own} | {f"{module}.bias" for module in biases & own}
        return names | {f"{self.layers}{n}.{part}" for n in range(config["num_hidden_layers"]) for part in parts}


def _of_first(number: Any) -> Any:
    """Return a number of the metadata, or that of the first layer if there is one for each."""
    return number[0] if isinstance(number, list) and number else number


def granite_factors(told: Told) -> dict[str, Any]:
    """Return what all Granites have beside Llama.

    Raises:
        KeyError, TypeError: a factor is left out, or none; logits are divided by theirs.
    """
    factors = {
        "attention_multiplier": told["attention.scale"],
        "embedding_multiplier": told["embedding_scale"],
        "residual_multiplier": told["residual_scale"],
        "logits_scaling": told["logit_scale"],
    }
    if not all(isinstance(each, int | float) and isfinite(each) for each in factors.values()):
        raise TypeError(f"factors are {factors}")
    if not factors["logits_scaling"]:
        raise TypeError("logits are divided by 0")
    return factors | {"attention_bias": False}


def whole_heads(told: Told) -> dict[str, Any]:
    """Return nothing, if the heads' width is the one that a class without a setting for it has.

    Raises:
        TypeError: it is another one.
    """
    heads, width = told["attention.head_count"], told["embedding_length"]
    if width % heads or told.get("attention.key_length", width // heads) != width // heads:
        raise TypeError(f"{heads} heads of another width than {width} / {heads}")
    return {}
