"""Every implementation of `Ops` that this machine has."""

from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.kernels.cpu.numpy_ops import NumPyOps
from rapid_integrations.kernels.cpu.ops import NativeOps
from rapid_integrations.sampling import Ops, TorchOps


def processor_ops() -> list[Ops]:
    """Return those made for a processor: without a compiler, or with RAPID_NATIVE=0, there are no kernels."""
    library = native_library()
    return [NumPyOps()] if library is None else [NumPyOps(), NativeOps(library)]


def every_ops() -> list[Ops]:
    return [TorchOps(), *processor_ops()]


def name_of(ops: Ops) -> str:
    return type(ops).__name__
