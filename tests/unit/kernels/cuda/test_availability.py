"""Where the kernels for GPUs serve, and why not elsewhere."""

import importlib.util

import pytest
import torch

from rapid_integrations.kernels.cuda import availability
from rapid_integrations.kernels.cuda.availability import why_not_cuda

GPU, PROCESSOR = torch.device("cuda"), torch.device("cpu")


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    monkeypatch.delenv("RAPID_CUDA", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(availability, "_why_nothing_runs", lambda device: "")


def test_a_gpu_with_triton_is_served():
    assert why_not_cuda(GPU) == ""


def test_a_machine_on_which_triton_compiles_nothing_is_not_served(monkeypatch):
    """Triton needs a C compiler, which few images have; the model's steps are then the operators'."""
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.delenv("RAPID_CUDA", raising=False)
    availability._why_nothing_runs.cache_clear()
    reason = why_not_cuda(GPU)  # there is no GPU in truth, so that the launch fails
    availability._why_nothing_runs.cache_clear()
    assert reason.startswith("Triton cannot compile or launch kernels here: ")


def test_the_switch(monkeypatch):
    monkeypatch.setenv("RAPID_CUDA", "0")
    assert why_not_cuda(GPU) == "RAPID_CUDA=0 is set"


def test_without_triton_the_way_out_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'rapid-integrations[cuda]'" in why_not_cuda(GPU)


def test_a_device_that_is_not_there_is_not_served(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert why_not_cuda(GPU) == "PyTorch finds no GPU"


def test_old_gpus_are_not_served(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert why_not_cuda(GPU) == "the GPU has compute capability 7.5, and the kernels need 8.0"


@pytest.mark.parametrize(
    ("asked", "interpreter", "serves"), [("interpret", "1", True), ("interpret", "0", False), ("1", "1", False)]
)
def test_a_processor_is_served_only_for_tests(monkeypatch, asked, interpreter, serves):
    monkeypatch.setenv("RAPID_CUDA", asked)
    monkeypatch.setenv("TRITON_INTERPRET", interpreter)
    assert (why_not_cuda(PROCESSOR) == "") == serves
    assert availability.interpreted() == (interpreter == "1")


def test_other_devices_are_not_served(monkeypatch):
    monkeypatch.setenv("RAPID_CUDA", "interpret")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert "mps" in why_not_cuda(torch.device("mps"))
