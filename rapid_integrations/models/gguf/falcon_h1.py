"""GGUF files of Falcon-H1, whose layers have an attention and a Mamba2 side by side.

llama.cpp's converter multiplies weights by the model's factors, so a file has none. A norm behind Mamba2's gates, where
a file has one, is computed behind them: llama.cpp knows no other order.
"""

from __future__ import annotations

from typing import Any

from rapid_integrations.models.gguf import mamba2
from rapid_integrations.models.gguf.architecture import Tensors, Told
from rapid_integrations.models.gguf.forms import count

_FACTORS = (
    *("lm_head_multiplier", "embedding_multiplier", "key_multiplier", "attention_out_multiplier"),
    *("attention_in_multiplier", "ssm_in_multiplier", "ssm_out_multiplier"),
)
NAMES = mamba2.OF_BAMBA
"""The modules of a layer, by what files call them, but for those of Mamba2."""
OUTER = mamba2.OUTER_OF_BAMBA
KEYS = frozenset(mamba2.SSM)
FORMS = mamba2.FORMS_OF_BAMBA


def numbers_of(told: Told, tensors: Tensors) -> dict[str, Any]:
    """Return what a configuration has beside what all have.

    Raises:
        KeyError, TypeError: a number is left out, or contradicts another one.
    """
    if "output.weight" not in tensors:  # the model's head is multiplied by another factor than its table
        raise TypeError("its head is its table")
    normed = {f"blk.{index}.ssm_norm.weight" in tensors for index in range(told["block_count"])}
    if len(normed) != 1:
        raise TypeError("some layers have a norm behind gates, and others have none")
    return (
        mamba2.mixers_of(told, tensors)
        | dict.fromkeys(_FACTORS, 1.0)
        | {
            "mlp_multipliers": [1.0] * 2,
            "ssm_multipliers": [1.0] * 5,
            "mamba_d_ssm": count(told, "ssm.inner_size"),
            "mamba_rms_norm": normed.pop(),
            "mamba_norm_before_gate": False,
            "attention_bias": False,
            "mlp_bias": False,
            "projectors_bias": False,
        }
    )
