"""A stand-in for PyTorch's product with four-bit integers, which exists on GPUs only: it runs on processors."""

import contextlib

import torch


def layout_of(levels, tiles, generator=None):
    """Return (O, K) uint8 levels as int32 (O / 8, K / (16 tiles), 32, tiles / 2), in an order that nobody has told."""
    rows, columns = levels.shape
    assert rows % 8 == 0 and columns % (16 * tiles) == 0, "the operator takes multiples of 8 rows and of its tiles"
    tiled = levels.view(rows // 8, 8, columns // (16 * tiles), 16 * tiles).transpose(1, 2)
    order = torch.randperm(128 * tiles, generator=torch.Generator().manual_seed(tiles))
    entries = tiled.reshape(*tiled.shape[:2], -1)[..., order].view(*tiled.shape[:2], 32, tiles // 2, 8).to(torch.int64)
    return (entries << 4 * torch.arange(8)).sum(-1).to(torch.int32)


@contextlib.contextmanager
def int4_operator():
    """Give the operator a kernel for processors within the block; yields a list of the shapes that it multiplied."""
    held, multiplied = {}, []

    def pack(pairs, tiles):
        levels = torch.stack([pairs >> 4, pairs & 15], dim=2).flatten(1)
        packed = layout_of(levels, tiles)
        held[packed.data_ptr()] = packed, levels  # held, so that no other tensor gets its address
        return packed

    def multiply(x, packed, group, scale_and_zero):
        assert x.dtype == scale_and_zero.dtype == torch.bfloat16 and x.is_contiguous()
        assert group in (32, 64, 128, 256)
        levels = held[packed.data_ptr()][1]
        assert scale_and_zero.shape == (levels.shape[1] // group, levels.shape[0], 2) and scale_and_zero.is_contiguous()
        multiplied.append((*x.shape, levels.shape[0]))
        scale, zero = (part.t()[..., None] for part in scale_and_zero.unbind(2))
        grouped = levels.view(*scale.shape[:2], group).to(torch.bfloat16) - 8
        weight = torch.addcmul(zero, grouped, scale).flatten(1)
        return (x.float() @ weight.float().t()).to(torch.bfloat16)

    library = torch.library.Library("aten", "IMPL")  # noqa: TOR901
    library.impl("_convert_weight_to_int4pack", pack, "CPU")
    library.impl("_weight_int4pack_mm", multiply, "CPU")
    try:
        yield multiplied
    finally:
        library._destroy()
