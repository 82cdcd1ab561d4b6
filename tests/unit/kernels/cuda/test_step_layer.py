"""Which decoders the kernels for GPUs compute."""

import dataclasses

import pytest
import torch

from rapid_integrations.kernels.cuda import StepLayer, StepModel, why_not_served
from rapid_integrations.kernels.layers import Norm, Rope


def product(x):
    return x


NORM = Norm(None, 1e-5)
LAYER = StepLayer(product, product, product, product, NORM, NORM, Rope(0, 4), 0.3)
MODEL = StepModel([LAYER], torch.zeros(5, 16), NORM, product, heads=2, kv_heads=1, head_dim=8, pairs=4)


def test_a_usual_decoder_is_served():
    assert why_not_served(MODEL) == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"embedding": torch.zeros(5, 16, dtype=torch.float64)}, "not torch.float64"),
        ({"embedding": torch.empty(0, 1 << 16)}, "rows of up to"),
        ({"head_dim": 512}, "heads of up to 256 numbers, not 512"),
        (
            {
                "layers": [
                    dataclasses.replace(
                        LAYER, rope=Rope(0, 4, norm_behind=True), query=Norm(None, 1e-5, scope="all heads")
                    )
                ]
            },
            "behind their rotation",
        ),
    ],
)
def test_what_is_not_served_is_said(change, reason):
    assert reason in why_not_served(dataclasses.replace(MODEL, **change))
