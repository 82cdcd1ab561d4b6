"""Products with weights of every width, each tensor at the end of a page behind which nothing may be read.

Run by test_widths.py in a process of its own: a kernel that reads too far dies there.
"""

import ctypes
import itertools
import mmap
import sys

import torch

from rapid_integrations.models.linear import make_linear
from tests.toys.budget import in_turn

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
WIDTHS = range(1, 131)
SHAPES = [
    *((out, width) for width in WIDTHS for out in in_turn((1, 3, 16, 100), width)),  # (out, in)
    *itertools.product(WIDTHS, (32, 33)),
    (100, 64),
    (64, 100),
    (312, 1092),
    (1092, 312),
]
ROWS = (1, 4, 16, 17)
LIMITS = {torch.bfloat16: 0.03, torch.float32: 1e-5}


def at_page_end(tensor):
    """Return a copy of a tensor whose last byte is followed by a page that cannot be read."""
    size = max(1, tensor.nbytes)
    whole = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, whole + mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert LIBC.mprotect(address + whole, mmap.PAGESIZE, 0) == 0
    copied = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=whole - tensor.nbytes)
    return copied.view(tensor.shape).copy_(tensor)


def guard(made):
    """Move what a product reads to the ends of pages."""
    for name, value in vars(made).items():
        if isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_mkldnn:
            setattr(made, name, at_page_end(value.contiguous()))
    if (few := getattr(made, "_few", None)) is not None:
        guard(few)


def worst(quantization, dtype):
    """Return the largest relative error over all shapes and numbers of rows, and where it is."""
    generator = torch.Generator().manual_seed(0)
    found = (0.0, None)
    for out, columns in SHAPES:
        held = torch.randn(out, columns, generator=generator).to(dtype)
        bias = torch.randn(out, generator=generator).to(dtype) if out % 2 else None
        made = make_linear(held, bias, quantization)
        guard(made)
        dense = made.dense()
        assert dense.shape == held.shape
        for rows in in_turn(ROWS, out + columns):  # by day each width meets each number of rows, with another height
            x = torch.randn(rows, columns, generator=generator).to(dtype)
            expected = x.float() @ dense.float().T + (0 if bias is None else bias.float())
            size = (x.float().square() @ dense.float().square().T).sum().sqrt()  # without what cancels out
            error = ((made(at_page_end(x)).float() - expected).norm() / size).item()
            found = max(found, (error, (out, columns, rows)), key=lambda each: each[0])
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    kind = None if sys.argv[1] == "None" else sys.argv[1]
    of_type = getattr(torch, sys.argv[2])
    with torch.inference_mode():
        error, where = worst(kind, of_type)
    sys.exit(0 if error < LIMITS[of_type] else f"{error} at {where}")
