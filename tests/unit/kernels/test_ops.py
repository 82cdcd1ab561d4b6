"""Who computes a request's distributions."""

import pytest
import torch

from rapid_integrations.kernels.cpu import native_library, without_kernels
from rapid_integrations.kernels.cpu.numpy_ops import NumPyOps
from rapid_integrations.kernels.cpu.ops import NativeOps
from rapid_integrations.kernels.ops import ops_for
from rapid_integrations.sampling import TorchOps
from rapid_integrations.sampling.rows import TorchRows

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
def test_the_kernels_on_processors():
    assert type(ops_for(CPU)) is type(ops_for(CPU, CPU)) is NativeOps


def test_numpy_without_kernels():
    with without_kernels():
        assert type(ops_for(CPU, CPU)) is NumPyOps


def test_rounds_are_decided_on_gpus_if_all_models_are_there():
    assert type(ops_for(CUDA, torch.device("cuda", 1)).rows) is TorchRows
    assert ops_for(CUDA, CPU).rows is ops_for(torch.device("mps")).rows is ops_for(CPU).rows is None


def test_torch_if_any_model_is_elsewhere():
    assert type(ops_for(CUDA)) is type(ops_for(CPU, CUDA)) is type(ops_for(torch.device("mps"), CPU)) is TorchOps
