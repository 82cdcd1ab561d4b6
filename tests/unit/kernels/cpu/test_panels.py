"""Every width from 1 to 130, and models of widths that no block of any kernel divides."""

import sys

import pytest
import torch

from rapid_integrations.cache import Rows
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.budget import in_turn
from tests.toys.models import tiny_model

IDS = torch.arange(3, 83)


@pytest.mark.in_turn(2)
@pytest.mark.skipif(sys.platform != "linux", reason="pages are protected by Linux' call")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("quantization", ["int8", "int4", "None"])
def test_products_of_every_width_read_nothing_behind_their_weights(children, quantization, dtype):
    done = children.run_module("tests.unit.kernels.cpu.every_width", quantization, dtype, seconds=300)
    assert done.returncode == 0, f"died or differs ({done.returncode}): {done.stderr[-500:]}"


ODD = {
    "MLP of 100": {"hidden_size": 64, "intermediate_size": 100, "num_attention_heads": 4, "head_dim": 16},
    "312 and 1,092": {"hidden_size": 312, "intermediate_size": 1092, "num_attention_heads": 12, "head_dim": 26},
    "one layer": {"num_hidden_layers": 1},
    "an odd vocabulary": {"vocab_size": 307},
    "hidden 33, MLP 7": {
        "hidden_size": 33,
        "intermediate_size": 7,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 10,
    },
    "native widths, odd vocabulary": {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 333, "head_dim": 32},
    **{f"heads of {width}": {"head_dim": width} for width in (2, 20, 24, 36, 40, 96)},
    "native widths, heads of 24": {"hidden_size": 96, "intermediate_size": 96, "head_dim": 24},
    "native widths, heads of 96": {"hidden_size": 96, "intermediate_size": 96, "head_dim": 96},
    "native widths, heads of 40": {"hidden_size": 96, "intermediate_size": 96, "head_dim": 40},
}


FORMS = [(form, dtype) for dtype in (torch.bfloat16, torch.float32) for form in ("int8", "int4", None)]
CASES = [
    pytest.param("llama", shape, *form, marks=pytest.mark.long if form[1] == torch.float32 else ())
    for number, shape in enumerate(ODD)
    for form in in_turn(FORMS, number)
]
# Of a second family each shape in one form by day, and each form with several shapes.
CASES += [
    pytest.param("qwen3", shape, *form, marks=pytest.mark.long if number % 6 == place else pytest.mark.slow)
    for number, shape in enumerate(ODD)
    for place, form in enumerate(FORMS)
]


@pytest.mark.in_turn(2)
@pytest.mark.parametrize(("kind", "shape", "quantization", "dtype"), CASES)
def test_models_of_odd_widths_compute_what_their_weights_say(kind, shape, dtype, quantization):
    """Against transformers with the very weights (dequantised) in the same dtype, for a prefill, drafts and steps."""
    lm = HuggingFaceLM(tiny_model(kind, 2, **ODD[shape]).to(dtype), take_over=True, quantization=quantization)
    assert lm._fused is not None
    cache = lm.new_cache(len(IDS))
    parts = IDS.split([40, 3, 1, 1, 16, 17, 2])
    computed = torch.cat([lm.forward([Rows(part, cache, len(part))])[0] for part in parts])
    with torch.inference_mode():
        expected = lm.transformers_copy(torch.float32)(input_ids=IDS[None], use_cache=False).logits[0]
    # bfloat16 rounds differently in every kernel, and random weights this large blow it up; what is wrong is off by 1.
    error = ((computed - expected).norm() / expected.norm()).item()
    assert error < (0.15 if dtype == torch.bfloat16 else 1e-3)
