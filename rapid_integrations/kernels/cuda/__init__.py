"""Kernels in Triton for decode steps on GPUs, and CUDA graphs that replay a whole step.

The modules with kernels import Triton, so they are imported only once `why_not_cuda` says that nothing stands in the
way. Otherwise PyTorch's operators do the same work. docs/gpu-kernels.md says what was tested, and how.
"""

from rapid_integrations.kernels.cuda.availability import INTERPRET, SWITCH, interpreted, why_not_cuda
from rapid_integrations.kernels.cuda.linears import TritonInt4Linear, TritonInt8Linear, multiplied_by_triton
from rapid_integrations.kernels.cuda.step_layer import StepLayer, StepModel, why_not_served

__all__ = [
    "INTERPRET",
    "SWITCH",
    "StepLayer",
    "StepModel",
    "TritonInt4Linear",
    "TritonInt8Linear",
    "interpreted",
    "multiplied_by_triton",
    "why_not_cuda",
    "why_not_served",
]
