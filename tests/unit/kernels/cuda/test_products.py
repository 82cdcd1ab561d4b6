"""Products with weights of eight and four bits, against the dequantised weights."""

import pytest
import torch

from rapid_integrations.kernels.cuda import TritonInt4Linear, TritonInt8Linear
from rapid_integrations.kernels.cuda.products import int4_product, int8_product, packed_int4, unpacked_int4
from rapid_integrations.models.linear import int4_levels, int8_levels


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def products(outputs, columns, dtype=torch.float32, bias=True):
    weight, added = drawn(outputs, columns, seed=1, dtype=dtype), drawn(outputs, seed=2, dtype=dtype) if bias else None
    levels, scale = int8_levels(weight)
    yield TritonInt8Linear(levels, scale.to(dtype), added), added
    if columns % 32 == 0:
        levels, scale, zero = int4_levels(weight)
        yield TritonInt4Linear(levels.flatten(1), scale, zero, added, dtype), added


@pytest.mark.parametrize(("outputs", "columns"), [(5, 7), (40, 96), (33, 576)])
@pytest.mark.parametrize("rows", [1, 32, 70])
@pytest.mark.parametrize("bias", [True, False])
def test_products(outputs, columns, rows, bias):
    x = drawn(rows, columns, seed=3)
    for product, added in products(outputs, columns, bias=bias):
        expected = x.double() @ product.dense().double().T + (added.double() if bias else 0)
        torch.testing.assert_close(product(x).double(), expected, atol=1e-4, rtol=1e-4)


def test_half_precision():
    x = drawn(3, 96, seed=3, dtype=torch.bfloat16)
    for product, added in products(40, 96, torch.bfloat16):
        expected = x.double() @ product.dense().double().T + added.double()
        assert (product(x).double() - expected).norm() < 0.01 * expected.norm()


def test_a_row_has_the_same_bits_in_each_company():
    x = drawn(32, 96, seed=3)
    for product, _ in products(40, 96):
        whole = product(x)
        moved = torch.cat([x[20:], x[:20]])
        assert torch.equal(product(moved), torch.cat([whole[20:], whole[:20]]))
        assert torch.equal(product(x[7:8]), whole[7:8])


def test_rows_that_are_no_numbers_touch_no_other():
    x = drawn(4, 64, seed=3)
    levels, scale = int8_levels(drawn(16, 64, seed=1))
    expected = int8_product(x, levels, scale, None)
    x[2] = float("nan")
    found = int8_product(x, levels, scale, None)
    assert found[2].isnan().all() and torch.equal(found[[0, 1, 3]], expected[[0, 1, 3]])


def test_levels_are_packed_without_loss():
    levels = torch.arange(16, dtype=torch.uint8).repeat(3, 8)[:, torch.randperm(128)]
    assert torch.equal(unpacked_int4(packed_int4(levels)), levels)
    ones = torch.ones(3, 4)
    product = int4_product(torch.eye(128), packed_int4(levels), ones, 8 * ones, None)
    assert torch.equal(product, levels.T.float())
