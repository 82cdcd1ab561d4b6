"""Every form of a weight gives the product of what `dense` says it holds, which is close to what it was made from."""

import pytest
import torch

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.models.linear import (
    Int4Linear,
    Int8Linear,
    PackedLinear,
    PlainLinear,
    make_linear,
)

# oneDNN packs bfloat16 for some processors only.
PLAIN = PackedLinear if PackedLinear.serves(torch.zeros(16, 32, dtype=torch.bfloat16)) else PlainLinear
FORMS = {None: PLAIN, "int8": Int8Linear, "int4": Int4Linear}
# Relative errors of normally distributed weights: one rounding to bfloat16, 255 levels a row, 16 levels for each 32.
LOSS = {None: 0.0, "int8": 0.02, "int4": 0.1}


def relative(found, expected):
    return ((found.float() - expected.float()).norm() / expected.float().norm()).item()


def weight(rows, columns, dtype=torch.bfloat16, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("rows", [1, 2, 7, 16, 17, 200])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("quantization", FORMS)
def test_the_product(quantization, with_bias, rows):
    held = weight(96, 64)
    bias = weight(1, 96, seed=1)[0] if with_bias else None
    made = make_linear(held, bias, quantization)
    assert isinstance(made, FORMS[quantization])
    x = weight(rows, 64, seed=2)
    expected = x.float() @ made.dense().float().T + (0 if bias is None else bias.float())
    found = made(x)
    assert found.shape == (rows, 96) and found.dtype == torch.bfloat16
    assert relative(found, expected) < 0.01
    assert relative(made.dense(), held) <= LOSS[quantization]


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_a_row_is_the_same_whatever_stands_beside_it(quantization):
    """Otherwise the law would depend on the draft length by more than a kernel's rounding."""
    made = make_linear(weight(96, 64), None, quantization)
    x = weight(40, 64, seed=2)
    assert relative(torch.cat([made(row[None]) for row in x]), made(x)) < 0.01


def test_fewer_bytes():
    sizes = {form: make_linear(weight(512, 512), None, form).step_bytes for form in FORMS}
    assert sizes["int8"] < 0.51 * sizes[None] and sizes["int4"] < 0.33 * sizes[None]


def test_few_rows_may_lie_apart():
    """As those of one head do, which latent attention multiplies with a matrix of its own."""
    product = Int4Linear(torch.randn(64, 32).bfloat16())
    rows = torch.randn(5, 3, 64).bfloat16()[:, 1, :32]
    assert not rows.is_contiguous() and torch.equal(product(rows), product(rows.contiguous()))


def test_a_shape_that_int4_does_not_take_is_int8():
    assert isinstance(make_linear(weight(96, 40), None, "int4"), Int8Linear)
    assert isinstance(make_linear(weight(90, 64), None, "int4"), Int8Linear)


def test_blocks_of_a_gguf_file_keep_their_levels():
    """Q4_1: 32 weights share a scale and a minimum."""
    generator = torch.Generator().manual_seed(3)
    levels = torch.randint(0, 16, (32, 4, 32), generator=generator)
    levels[..., 0], levels[..., 1] = 0, 15  # the minimum and the maximum are where the block's figures come from
    scale, low = torch.rand(32, 4, 1, generator=generator) + 0.1, -torch.rand(32, 4, 1, generator=generator)
    blocks = (levels * scale + low).view(32, 128).bfloat16()
    assert relative(make_linear(blocks, None, "int4").dense(), blocks) < 0.006


def test_float32_stays_as_it_is_or_is_quantised():
    held = weight(96, 64, torch.float32)
    plain = make_linear(held, None, None)
    assert isinstance(plain, PlainLinear) and plain.dense() is held
    x = weight(3, 64, torch.float32, seed=2)
    for quantization in ("int8", "int4"):
        made = make_linear(held, None, quantization)
        assert made(x).dtype == torch.float32 and relative(made(x), x @ made.dense().float().T) < 0.01


def test_another_quantisation_is_refused():
    with pytest.raises(ConfigurationError, match="'int3' is not one of int8, int4"):
        make_linear(weight(96, 64), None, "int3")
