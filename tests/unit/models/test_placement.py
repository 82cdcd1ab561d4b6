"""Devices and dtypes, for GPUs that are not there."""

import pytest
import torch

from rapid_integrations.models.placement import dtype_of, has_bfloat16

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
