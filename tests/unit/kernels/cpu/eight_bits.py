"""What the kernels multiply if weights have eight or four bits, worked out anew from what `interface.h` says."""

import torch

GROUP, PANEL = 32, 16
STANDS_OUT = 3  # a scale is above so many times the mean of its row's: what eight bits leave has eight of its own


def rounded(x):
    """Return x (..., K), as bfloat16 and then as the levels and scales of `panels.h` say, in its own dtype."""
    groups = x.bfloat16().float().unflatten(-1, (-1, GROUP))
    largest = groups.abs().amax(-1, keepdim=True)
    factor = torch.where(largest > 0, 127 / largest, 0.0)
    levels = (groups.double() * factor.double()).round()  # exact before it is rounded, as a fused multiply-add is
    scale = (largest / 127).double()
    rest = (groups.double() - levels * scale).float().double()
    levels_of_rest = (rest * torch.where(scale > 0, 254 / scale.float(), 0.0).double()).round()
    stands_out = scale > STANDS_OUT * scale.mean(-2, keepdim=True)
    more = torch.where(stands_out, levels_of_rest * (scale.float() / 254).double(), 0.0)
    return (levels * scale + more).flatten(-2).to(x.dtype)


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
