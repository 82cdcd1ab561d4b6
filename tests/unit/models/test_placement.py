"""Devices and dtypes, for GPUs that are not there."""

import pytest
import torch

from rapid_integrations.models import placement
from rapid_integrations.models.placement import depends_on_kernels, dtype_of, has_bfloat16

CUDA = torch.device("cuda", 0)


@pytest.fixture(params=[(7, 0), (7, 5), (8, 0), (9, 0)], ids=["V100", "T4", "A100", "H100"])
def compute(request, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: request.param)
    return request.param


@pytest.mark.parametrize("own", [torch.bfloat16, torch.float16, torch.float32, None])
def test_bfloat16_where_the_gpu_has_it(compute, own):
    new = compute >= (8, 0)
    expected = (torch.float16 if own == torch.float16 else torch.bfloat16) if new else torch.float16
    assert dtype_of("auto", own, CUDA) == expected and has_bfloat16(CUDA) is new
    assert dtype_of("bfloat16", own, CUDA) == torch.bfloat16  # whoever asks for it gets it


def test_amds_gpus_count_as_cuda(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert dtype_of("auto", torch.bfloat16, CUDA) == torch.bfloat16


def test_apples_gpu_keeps_the_models_own_dtype():
    assert dtype_of("auto", torch.float16, torch.device("mps")) == torch.float16
    assert dtype_of("auto", torch.float32, torch.device("mps")) == torch.bfloat16


@pytest.mark.parametrize("pytorchs", [False, True])
@pytest.mark.parametrize("kernels", [False, True])
def test_bfloat16_where_pytorch_or_the_kernels_are_fast_at_it(monkeypatch, pytorchs, kernels):
    cpu = torch.device("cpu")
    monkeypatch.setattr(placement, "pytorch_has_bfloat16", lambda: pytorchs)
    monkeypatch.setattr(placement, "native_library", object)  # whether or not there is one here
    monkeypatch.setattr(placement, "multiplies_prompts", lambda: kernels)
    for own in (torch.bfloat16, torch.float32, None):
        assert dtype_of("auto", own, cpu) == (torch.bfloat16 if pytorchs else torch.float32)
        on_kernels = dtype_of("auto", own, cpu, on_kernels=True)
        assert on_kernels == (torch.bfloat16 if pytorchs or kernels else torch.float32)
        assert dtype_of("float32", own, cpu, on_kernels=True) == torch.float32  # whoever asks for it gets it
    assert depends_on_kernels("auto", cpu) is (kernels and not pytorchs)
    assert not depends_on_kernels("bfloat16", cpu) and not depends_on_kernels("auto", CUDA)
