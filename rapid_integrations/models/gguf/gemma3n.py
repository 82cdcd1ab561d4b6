"""GGUF files of Gemma 3n: streams of states, augmented residuals, sparse gates, and inputs of every layer.

What streams are made of, and what becomes one of them at the end, is a tensor of several matrices each. Shares of gates
that become 0 are said as the numbers of deviations beyond which a gate stays. Keys of the last layers are those of
others, as in Gemma 4. All norms are stored as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from rapid_integrations.models.gguf import gemma4
from rapid_integrations.models.gguf.architecture import ATTENTION, HEAD_NORMS, MLP, NORMS_AROUND, Tensors, Told
from rapid_integrations.models.gguf.forms import FULL, SLIDING, WINDOW, Forms, count, layer_types

OUTER = gemma4.OUTER | {
    "altup_proj": "model.altup_projections.{}",
    "altup_unembd_proj": "model.altup_unembed_projections.{}",
}
NAMES = (
    ATTENTION
    | HEAD_NORMS
    | MLP
    | NORMS_AROUND
    | {
        "inp_gate": "per_layer_input_gate",
        "proj": "per_layer_projection",
        "post_norm": "post_per_layer_input_norm",
        "altup_correct_coef": "altup.correction_coefs",
        "altup_correct_scale.weight": "altup.correct_output_scale",
        "altup_predict_coef": "altup.prediction_coefs",
        "altup_router": "altup.modality_router",
        "altup_router_norm": "altup.router_norm",
        "laurel_l": "laurel.linear_left",
        "laurel_r": "laurel.linear_right",
        "laurel_post_norm": "laurel.post_laurel_norm",
    }
)
"""The modules of a layer, by what files call them."""
PLAIN = gemma4.PLAIN | {
    *("model.altup_projections.{}", "model.altup_unembed_projections.{}", "laurel.linear_left", "laurel.linear_right"),
    *("altup.correction_coefs", "altup.prediction_coefs", "altup.modality_router"),
}
"""Small matrices, which llama.cpp never puts into blocks, and the kernels take as numbers."""
_STREAMS, _ACTIVE, _SPARSE = "altup.num_inputs", "altup.active_idx", "activation_sparsity_scale"
KEYS = (gemma4.KEYS | {_STREAMS, _ACTIVE, _SPARSE}) - {f"attention.{each}_length_swa" for each in ("key", "value")}
_EVERY = 5  # the last of so many layers sees all keys, if the file says nothing else
_CAP, _LOCAL_BASE = 30.0, 10000.0  # which llama.cpp takes for granted
_DIGITS = 9  # of shares, of which the first that gives the file's number is taken


def numbers_of(told: Told, tensors: Tensors) -> dict[str, Any]:
    """Return what a configuration has beside what all have.

    Raises:
        KeyError, TypeError: a number is left out, contradicts another one, or is one of another model.
    """
    kinds, shared = layer_types(told, _EVERY), told[gemma4.SHARED]
    if type(shared) is not int or not 0 <= shared < len(kinds):
        raise TypeError(f"{gemma4.SHARED} is {shared!r}")
    if not set(kinds) <= set(kinds[: len(kinds) - shared]):
        raise TypeError(f"layers are {kinds!r}, of which {shared} read the keys of others, and some have no others")
    if stretched := [key for key in told if key.startswith("rope.scaling.")]:
        raise TypeError(f"its angles are stretched: {stretched!r}")
    streams, active = count(told, _STREAMS), told[_ACTIVE]
    if streams < 2 or type(active) is not int or not 0 <= active < streams:
        raise TypeError(f"{streams} streams, of which {active!r} is computed")
    for name in ("altup_proj", "altup_unembd_proj"):
        if tensors[f"{name}.weight"].shape != (*[told["embedding_length"]] * 2, streams - 1):
            raise TypeError(f"{name} is {tensors[f'{name}.weight'].shape}")
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": count(told, WINDOW),
        "layer_types": kinds,
        "num_kv_shared_layers": shared,
        "rope_parameters": {
            FULL: {"rope_type": "default", "rope_theta": told["rope.freq_base"]},
            SLIDING: {"rope_type": "default", "rope_theta": told.get("rope.freq_base_swa", _LOCAL_BASE)},
        },
        "final_logit_softcapping": told.get(gemma4.CAP, _CAP),
        "attention_bias": False,
        "altup_num_inputs": streams,
        "altup_active_idx": active,
        "altup_correct_scale": True,
        "laurel_rank": tensors["blk.0.laurel_l.weight"].shape[-1],
        "intermediate_size": _each(told["feed_forward_length"], len(kinds)),
        "activation_sparsity_pattern": [_share(each) for each in _list(told[_SPARSE], len(kinds))],
        **gemma4.inputs(told, tensors),
    }


def _each(widths: Any, layers: int) -> list[int]:
    """Return the width of every layer's MLP.

    Raises:
        TypeError: one is no whole number above 0, or they are others than so many.
    """
    found = widths if isinstance(widths, list) else [widths] * layers
    return [count({"feed_forward_length": each}, "feed_forward_length") for each in _list(found, layers)]


def _list(found: Any, layers: int) -> Sequence[Any]:
    if not isinstance(found, list) or len(found) != layers:
        raise TypeError(f"{found!r} is not what {layers} layers have")
    return found


def _share(deviations: Any) -> float:
    """Return the share of numbers of a normal distribution that are below so many deviations, as models state it.

    Raises:
        TypeError: it is no such number, or one of which transformers would make another number again.
    """
    if deviations == -torch.inf:
        return 0.0
    if type(deviations) is not float:
        raise TypeError(f"{_SPARSE} has {deviations!r}")
    normal: Any = torch.distributions.Normal(0.0, 1.0)
    wanted = torch.tensor(deviations)
    if not wanted.isfinite():
        raise TypeError(f"{_SPARSE} has {deviations!r}")
    near = float(normal.cdf(wanted.double()))
    for share in (*(round(near, digits) for digits in range(1, _DIGITS)), near):
        if 0 < share < 1 and torch.equal(normal.icdf(torch.tensor(share)), wanted):
            return share
    if 0 < near < 1 and bool((normal.icdf(torch.tensor(near)) - wanted).abs() < 1e-5):
        return near
    raise TypeError(f"{_SPARSE} has {deviations!r}")


FORMS = Forms(gemma4.part_of_layer, ())
