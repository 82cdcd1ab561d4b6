"""What the kernels multiply if weights have eight or four bits, worked out anew from what `interface.h` says."""

import torch

GROUP, PANEL = 32, 16


def rounded(x):
    """Return x (..., K), as bfloat16 and then with eight bits and a scale for each 32 columns, in its own dtype."""
    groups = x.bfloat16().float().unflatten(-1, (-1, GROUP))
    largest = groups.abs().amax(-1, keepdim=True)
    factor = torch.where(largest > 0, 127 / largest, 0.0)
    levels = (groups.double() * factor.double()).round()  # exact before it is rounded, as a fused multiply-add is
    return (levels * (largest / 127)).flatten(-2).to(x.dtype)


def round_inputs(model):
    """Make every matrix of a transformers model round what it multiplies."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(lambda _, given: (rounded(given[0]),))


def exact_weights(matrix):
    """Return the weights (O, K) of a NativeMatrix, float64, byte by byte."""
    panels, groups, size = matrix.data.shape
    out = torch.empty(panels * PANEL, groups * GROUP, dtype=torch.float64)
    row = torch.arange(PANEL)
    for c in range(GROUP):
        if matrix.scale is not None:
            column = matrix.data[:, :, c // 4 * 64 + 4 * row + c % 4].double() - 128  # (panels, groups, rows)
        else:
            both = matrix.data[:, :, c // 8 * 64 + 4 * row + c % 4]
            scale, zero = (matrix.data[:, :, at : at + 32].contiguous().view(torch.bfloat16) for at in (256, 288))
            column = ((both & 15 if c % 8 < 4 else both >> 4).double() - 8) * scale.double() + zero.double()
        out[:, c::GROUP] = column.transpose(1, 2).reshape(panels * PANEL, groups)
    return out[: matrix.rows] if matrix.scale is None else out[: matrix.rows] * matrix.scale.double()[:, None]
