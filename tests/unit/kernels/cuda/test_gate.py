"""The activation of an MLP's gate, against the operators."""

import pytest
import torch

from rapid_integrations.kernels.cuda.gate import gate
from rapid_integrations.kernels.layers import ACTIVATIONS
from rapid_integrations.models.activation import activate


@pytest.mark.parametrize("activation", sorted(set(ACTIVATIONS) - {"xielu"}))
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("width", [7, 1300])
def test_every_activation(activation, gated, width):
    if activation == "clipped_swiglu" and not gated:
        pytest.skip("this activation needs both halves")
    x = 4 * torch.randn(3, width * (2 if gated else 1), generator=torch.Generator().manual_seed(width))
    torch.testing.assert_close(gate(x, activation, gated), activate(x, activation, gated), atol=1e-5, rtol=2e-6)


def test_extremes_stay_finite():
    x = torch.tensor([[-1e30, 1e30, 0.0, -0.0, 2.0, 2.0, 2.0, 2.0]])
    assert torch.equal(gate(x, "silu", True), activate(x, "silu", True))
