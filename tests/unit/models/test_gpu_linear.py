"""Integers on NVIDIA's GPUs: which operator takes a weight, and that its layout is the only copy."""

import pytest
import torch

from rapid_integrations.models import gpu_linear, linear
from rapid_integrations.models.gpu_linear import (
    FEW_ROWS,
    GpuInt4Linear,
    GpuInt8Linear,
    Nibbles,
    integers_multiplied,
    joined_tiles,
)
from rapid_integrations.models.linear import Int4Linear, Int8Linear, int4_levels, int8_levels, make_linear
from tests.toys.fake_gpu import fake_gpu
from tests.toys.int4_operator import int4_operator

LOSS = {"int8": 0.02, "int4": 0.1}


def weight(rows, columns, dtype=torch.bfloat16, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(dtype)


def relative(found, expected):
    return ((found.float() - expected.float()).norm() / expected.float().norm()).item()


@pytest.fixture
def operator(monkeypatch):
    gpu_linear._order.cache_clear()
    monkeypatch.setattr(linear, "integers_multiplied", lambda held: joined_tiles(*held.shape) is not None)
    with int4_operator() as multiplied:
        yield multiplied
    gpu_linear._order.cache_clear()


@pytest.fixture
def ampere(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))


@pytest.mark.parametrize(
    ("rows", "columns", "tiles"),
    [(96, 64, 4), (1536, 576, 4), (960, 960, 4), (4096, 4096, 8), (96, 96, 2), (96, 40, None), (90, 64, None)],
)
def test_which_layout_takes_a_shape(rows, columns, tiles):
    """SmolLM2's 576 columns are a multiple of 32, and not of the 128 that the largest layout needs."""
    assert joined_tiles(rows, columns) == tiles


def test_which_device_and_dtype_multiply_integers(monkeypatch, ampere):
    with fake_gpu():
        held = {dtype: torch.empty(96, 64, dtype=dtype, device="cuda") for dtype in (torch.bfloat16, torch.float32)}
        assert integers_multiplied(held[torch.bfloat16]) and not integers_multiplied(held[torch.float32])
        assert not integers_multiplied(torch.empty(96, 64, dtype=torch.bfloat16))
        assert not integers_multiplied(torch.empty(96, 40, dtype=torch.bfloat16, device="cuda"))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))  # T4
        assert not integers_multiplied(held[torch.bfloat16])
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 4))
        monkeypatch.setattr(torch.version, "hip", "7.0")
        assert not integers_multiplied(held[torch.bfloat16])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 16, 17, FEW_ROWS, FEW_ROWS + 1])
@pytest.mark.parametrize(("out", "columns"), [(96, 64), (48, 576), (16, 96), (24, 256)])
@pytest.mark.parametrize("form", ["int8", "int4"])
def test_a_product(operator, form, out, columns, rows, dtype):
    held, bias = weight(out, columns, dtype), weight(1, out, dtype, seed=1)[0]
    made = make_linear(held, bias, form)
    assert isinstance(made, {"int8": GpuInt8Linear, "int4": GpuInt4Linear}[form]) and made.native() is None
    assert made.dense().dtype == dtype and relative(made.dense(), held) < LOSS[form]
    x = weight(rows, columns, dtype, seed=2)
    found = made(x)
    assert found.dtype == dtype
    assert relative(found, x.float() @ made.dense().float().T + bias.float()) < 0.01
    assert len(operator) == (0 if rows > FEW_ROWS else 2 if form == "int8" else 1)  # 17 rows are few, too


def test_the_levels_are_exact(operator):
    held = weight(48, 576)
    levels, scale = int8_levels(held)
    assert torch.equal(make_linear(held, None, "int8").dense(), levels.bfloat16() * scale.bfloat16()[:, None])
    levels, scale, zero = int4_levels(held)
    assert torch.equal(Nibbles(levels.flatten(1), scale, zero).levels(), levels.flatten(1))
    assert torch.equal(make_linear(held, None, "int4").dense(), Int4Linear(held).dense())


def test_one_copy_is_held(operator):
    def bytes_of(made):
        seen, todo = {}, [made]
        while todo:
            each = todo.pop()
            if isinstance(each, torch.Tensor):
                seen[each.untyped_storage().data_ptr()] = each.untyped_storage().nbytes()
            else:
                todo += [value for value in vars(each).values() if isinstance(value, (torch.Tensor, Nibbles))]
        return sum(seen.values())

    held = weight(512, 512)
    for form, bits in (("int4", 5), ("int8", 8.3)):
        made = make_linear(held, None, form)
        assert bytes_of(made) <= bits / 8 * held.numel() + 1024
        assert made.step_bytes == bytes_of(made)


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("form", ["int8", "int4"])
@pytest.mark.parametrize(("out", "columns"), [(1536, 576), (960, 960), (96, 64), (96, 40)])
def test_products_on_a_device_that_is_not_there_mix_no_devices(ampere, form, out, columns):
    gpu_linear._order.cache_clear()
    with fake_gpu():
        made = make_linear(torch.empty(out, columns, dtype=torch.bfloat16, device="cuda"), None, form)
        for rows in (1, 17, 200):
            found = made(torch.empty(rows, columns, dtype=torch.bfloat16, device="cuda"))
            assert found.shape == (rows, out) and found.device.type == "cuda"
    gpu_linear._order.cache_clear()


def test_other_gpus_dequantise(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    with fake_gpu():
        held = torch.empty(96, 64, dtype=torch.float16, device="cuda")
        for form, kind in (("int8", Int8Linear), ("int4", Int4Linear)):
            made = make_linear(held, None, form)
            assert isinstance(made, kind)
            assert made(torch.empty(3, 64, dtype=torch.float16, device="cuda")).shape == (3, 96)
