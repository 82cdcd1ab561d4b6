"""Who computes a request's distributions."""

import pytest
import torch

from rapid_integrations.kernels.cpu import native_library, without_kernels
from rapid_integrations.kernels.cpu.numpy_ops import NumPyOps
from rapid_integrations.kernels.cpu.ops import NativeOps
from rapid_integrations.kernels.ops import ops_for
from rapid_integrations.sampling import TorchOps

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
def test_the_kernels_on_processors():
    assert type(ops_for(CPU)) is type(ops_for(CPU, CPU)) is NativeOps


def test_numpy_without_kernels():
    with without_kernels():
        assert type(ops_for(CPU, CPU)) is NumPyOps


def test_torch_if_any_model_is_elsewhere():
    assert type(ops_for(CUDA)) is type(ops_for(CPU, CUDA)) is type(ops_for(torch.device("mps"), CPU)) is TorchOps
