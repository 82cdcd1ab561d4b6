"""A GPU that is not there: tensors without numbers, which know their device.

To ask for a number raises, as it would make the host wait; so does a mixture of devices, and a copy from the host that
waits for what the device still has to do.
"""

import contextlib

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA, MPS = torch.device("cuda", 0), torch.device("mps", 0)
_WAITS = ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__iter__")


_begun = []  # GPUs that are there within a block, the innermost last


class HostWaitsError(Exception):
    """The host asked for a number, which only comes when the device has finished everything before it."""


class _Methods(TorchFunctionMode):
    """Calls operators in place of methods that enter the device, which PyTorch's build for processors does not have."""

    def __init__(self, device, may_wait):
        super().__init__()
        self._device, self.may_wait = device, may_wait

    def _is_there(self, given):
        """Whether a tensor is on such a device, or a device is one."""
        device = given if isinstance(given, torch.device) else getattr(given, "device", None)
        return device is not None and device.type == self._device.type

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if not self.may_wait and name in _WAITS and self._is_there(args[0]):
            raise HostWaitsError(name)
        if name == "pin_memory" and args[0].device.type == "cpu":
            pinned = args[0].clone()
            pinned.constant = None  # a single number is known, and would be copied in truth
            pinned.in_pinned_memory = True
            return pinned
        to_device = any(self._is_there(each) for each in (*args[1:], *(kwargs or {}).values()))
        if not self.may_wait and name == "to" and args[0].device.type == "cpu" and to_device:
            if not ((kwargs or {}).get("non_blocking") and hasattr(args[0], "in_pinned_memory")):
                raise HostWaitsError("a copy from the host")
        if not self.may_wait and name in ("tensor", "as_tensor") and self._is_there((kwargs or {}).get("device")):
            if not isinstance(args[0], torch.Tensor):
                raise HostWaitsError("numbers of the host")
        if name == "contiguous" and args[0].device.type == self._device.type:
            return args[0] if args[0].is_contiguous() else args[0].clone(memory_format=torch.contiguous_format)
        if name == "rms_norm" and args[0].device.type == self._device.type and not args[0].is_contiguous():
            args = (args[0].clone(memory_format=torch.contiguous_format), *args[1:])
        if name == "copy_" and args[0].device.type == self._device.type:
            return torch.ops.aten.copy_.default(*args)
        if name in ("__invert__", "bitwise_not") and args[0].device.type == self._device.type:
            return torch.ops.aten.bitwise_not(args[0])
        if function is torch.Tensor.__getitem__ and args[0].device.type == self._device.type:
            return _indexed(*args, may_wait=self.may_wait)
        if function is torch.Tensor.__setitem__ and args[0].device.type == self._device.type:
            place = _indexed(args[0], args[1], may_wait=self.may_wait)
            if isinstance(args[2], torch.Tensor):
                return torch.ops.aten.copy_.default(place, args[2])
            return torch.ops.aten.fill_.Scalar(place, args[2])
        return function(*args, **(kwargs or {}))


def _indexed(tensor, index, *, may_wait):
    parts = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in [each for each in parts if not isinstance(each, torch.Tensor)]:
        at = next(i for i, each in enumerate(parts) if each is Ellipsis)
        given = sum(each is not None and each is not Ellipsis for each in parts)
        parts[at : at + 1] = [slice(None)] * (tensor.ndim - given)
    dim = 0
    for part in parts:
        if part is None:
            tensor, dim = tensor.unsqueeze(dim), dim + 1
        elif isinstance(part, slice):
            begin, end, step = part.indices(tensor.shape[dim])
            tensor, dim = torch.ops.aten.slice.Tensor(tensor, dim, begin, max(begin, end), step), dim + 1
        elif isinstance(part, int):
            tensor = tensor.select(dim, part % tensor.shape[dim])
        else:
            here = not isinstance(part, torch.Tensor) or part.device.type == "cpu"
            if here and not may_wait:
                raise HostWaitsError("an index of the host")
            part = part if isinstance(part, torch.Tensor) else torch.tensor(part, device=tensor.device)
            assert part.dtype != torch.bool, "how many there are is known to the device alone"
            assert here or part.device == tensor.device
            tensor = torch.ops.aten.index.Tensor(tensor, [None] * dim + [part])
            dim += part.ndim
    return tensor


@contextlib.contextmanager
def fake_gpu(device=CUDA, may_wait=False):
    """Let tensors be made on a device within the block; `may_wait`: vectors may go to the processor."""
    methods = _Methods(device, may_wait)
    with FakeTensorMode(allow_non_fake_inputs=True), methods:
        _begun.append(methods)
        yield device
        _begun.remove(methods)


@contextlib.contextmanager
def while_it_loads():
    """Let the host wait within the block, which is within that of `fake_gpu`, as a model may do before it is used."""
    before, _begun[-1].may_wait = _begun[-1].may_wait, True
    yield
    _begun[-1].may_wait = before


class NoDoubles(TorchDispatchMode):
    """Raises AssertionError if a tensor in double precision is made on a device, as Apple's GPUs have none."""

    def __init__(self, device):
        super().__init__()
        self._device = device

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        made = operator(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            double = isinstance(each, torch.Tensor) and each.dtype == torch.float64
            assert not double or each.device != self._device, f"{operator} makes doubles"
        return made


def moved(model, dtype, device=CUDA):
    """Return a model, made before, whose weights are on a device and have no numbers; within `fake_gpu`."""
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                empty = torch.empty(weight.shape, dtype=dtype, device=device)
                module._parameters[name] = torch.nn.Parameter(empty, requires_grad=False)
        for name, buffer in module._buffers.items():
            own = dtype if name == "layer_scalar" else buffer.dtype  # Gemma 4's, which rows are multiplied with
            module._buffers[name] = torch.empty(buffer.shape, dtype=own, device=device)
    return model
