"""Blocks of GGUF files: the gguf package says what they stand for, in panels too, and what a product with them is."""

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from rapid_integrations.kernels import cpu as native
from rapid_integrations.kernels.cpu import blocks, library
from rapid_integrations.kernels.cpu.blocks import FORMATS
from rapid_integrations.kernels.cpu.matrices import NativeBlocks, NativeMatrix, NativeParts, product
from tests.toys.gguf_file import blocks as file_blocks
from tests.unit.kernels.cpu.eight_bits import rounded

pytestmark = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
ROWS, COLUMNS = 53, 512  # the last panel has fewer rows


@pytest.fixture(params=["fast", pytest.param("portable", marks=pytest.mark.process)])
def path(request, monkeypatch):
    if request.param == "portable":
        monkeypatch.setattr(library, "_outcome", library._Outcome(request.getfixturevalue("portable")))


@pytest.fixture(params=FORMATS.values(), ids=lambda form: form.name)
def form(request):
    return request.param


def raw_blocks(form, rows=ROWS, columns=COLUMNS):
    weights = np.random.default_rng(rows).standard_normal((rows, columns)).astype(np.float32)
    return torch.from_numpy(file_blocks(weights, GGMLQuantizationType(form.number)))


def numbers(form, raw):
    return torch.from_numpy(dequantize(raw.numpy(), GGMLQuantizationType(form.number)))


def panels_of(form, raw, order=None):
    panels = torch.full(blocks.panels_shape(form, *raw.shape), 255, dtype=torch.uint8)
    blocks.pack(form, raw, panels, order)
    return panels


def inputs(rows=9, columns=COLUMNS):
    """Return numbers of which some stand out, in some rows other ones, and in some none."""
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)).bfloat16()
    x[::2, 70] = 40
    x[::3, 131] = -25
    x[4::5, columns - 7] = 90
    return x


def error(found, expected):
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def test_panels_stand_for_the_numbers_of_the_file(path, form):
    raw = raw_blocks(form)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))
    expected, panels = numbers(form, raw)[order], panels_of(form, raw, order)
    exact = blocks.weights_of(form, panels, torch.float32)
    assert torch.equal(exact[:ROWS], expected)
    assert not exact[ROWS:].any()
    assert torch.equal(blocks.weights_of(form, panels, torch.bfloat16)[:ROWS], expected.bfloat16())


def test_operators_read_the_same_panels(form):
    raw = raw_blocks(form)
    panels = panels_of(form, raw)
    with native.without_kernels():
        for dtype in (torch.float32, torch.bfloat16):
            assert torch.equal(blocks.weights_of(form, panels, dtype)[:ROWS], numbers(form, raw).to(dtype))


def test_rows_of_a_table(path, form):
    raw, ids = raw_blocks(form), torch.tensor([52, 0, 7, 7])
    expected = numbers(form, raw)[ids].bfloat16()
    assert torch.equal(blocks.rows_of(form, raw, ids), expected)
    with native.without_kernels():
        assert torch.equal(blocks.rows_of(form, raw, ids), expected)
    with pytest.raises(IndexError, match="rows from 0 to 52"):
        blocks.rows_of(form, raw, torch.tensor([53]))


def test_the_product_is_that_of_the_rounded_inputs(path, form):
    raw, x = raw_blocks(form), inputs()
    bias = torch.randn(ROWS).bfloat16()
    matrix = NativeBlocks(form, panels_of(form, raw), ROWS, bias)
    found = product(matrix, x)
    exact = rounded(x.float()).double() @ numbers(form, raw).double().T + bias.double()
    assert error(found, exact) < 1e-5
    assert error(found, x.double() @ numbers(form, raw).double().T + bias.double()) < 0.01


def test_a_row_has_the_same_bits_in_company(path, form):
    matrix, x = NativeBlocks(form, panels_of(form, raw_blocks(form)), ROWS), inputs(32)
    together = product(matrix, x)
    for count in (*range(1, 10), 17):
        assert torch.equal(product(matrix, x[:count]), together[:count])
    for row in range(32):
        assert torch.equal(product(matrix, x[row : row + 1]), together[row : row + 1])


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_has_no_levels_becomes_nan(path, form, value):
    x = inputs(2)
    x[1, 300] = value
    found = product(NativeBlocks(form, panels_of(form, raw_blocks(form)), ROWS), x)
    assert found[1].isnan().all() and not found[0].isnan().any()


def test_parts_of_several_formats_are_one_weight(path):
    parts, weights = [], []
    for form, rows in ((FORMATS[12], 48), (FORMATS[14], 16), (FORMATS[8], 32), (FORMATS[2], 21)):
        raw = raw_blocks(form, rows)
        parts.append(NativeBlocks(form, panels_of(form, raw), rows, torch.randn(rows).bfloat16()))
        weights.append(numbers(form, raw))
    plain = torch.randn(32, COLUMNS).bfloat16()
    parts.insert(2, NativeMatrix(plain))
    x = inputs(3)
    found = product(NativeParts(tuple(parts)), x)
    assert found.shape == (3, 149)
    assert torch.equal(found, torch.cat([product(part, x) for part in parts], dim=1))
    assert error(found[:, 64:96], x.double() @ plain.double().T) < 1e-5


def test_several_threads_compute_the_same(form):
    raw, x, before = raw_blocks(form), inputs(), torch.get_num_threads()
    alone = panels_of(form, raw)
    expected = product(NativeBlocks(form, alone, ROWS), x)
    try:
        torch.set_num_threads(3)
        assert torch.equal(panels_of(form, raw), alone)
        assert torch.equal(product(NativeBlocks(form, alone, ROWS), x), expected)
        exact = blocks.weights_of(form, alone, torch.float32)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(exact, blocks.weights_of(form, alone, torch.float32))


def test_both_sides_agree_on_the_size_of_a_block(form):
    assert native.native_library().rapid_block_bytes(form.kind) == form.panel_bytes
    assert native.native_library().rapid_block_bytes(form.kind + 100) == 0
