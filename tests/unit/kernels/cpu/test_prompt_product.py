"""Products of prompts, on matrix units and on vectors: right in every form, with the same bits in any company.

The number of threads does not change them either.
"""

from contextlib import contextmanager

import pytest
import torch
from torch.nn.functional import linear

from rapid_integrations.cache import Rows
from rapid_integrations.cache.arena import Arena
from rapid_integrations.kernels import cpu as native
from rapid_integrations.kernels.cpu import prefill
from rapid_integrations.kernels.cpu.blocks import FORMATS
from rapid_integrations.kernels.cpu.matrices import NativeMatrix, NativeParts, prompt_product
from rapid_integrations.models.block_linear import BlockLinear, StoredBlocks
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.models.linear import Int4Linear, Int8Linear, PlainLinear, multiplied, native_matrix
from tests.toys.attention_inputs import inputs as attention_inputs
from tests.toys.decoders import ids, model
from tests.toys.gguf_file import blocks as file_blocks

pytestmark = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
units_only = pytest.mark.skipif(
    native.native_library() is None or not native.native_library().rapid_uses_amx(),
    reason="this processor has no matrix units",
)
with_vectors = pytest.mark.skipif(
    native.native_library() is None or not native.native_library().rapid_fast_path(), reason="no code for vectors"
)
LEVELS = 0.012  # of the largest number: with AVX2, inputs of levels have eight bits
SHAPES = [(16, 32), (53, 512), (96, 1376), (300, 768)]  # whole panels or not; columns in one part or in several
FORMS = [
    PlainLinear,
    lambda weight: Int8Linear(weight, None, Arena()),
    lambda weight: Int4Linear(weight, None, Arena()),
]


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


@contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def blocks(form, rows, columns):
    from gguf import GGMLQuantizationType

    raw = torch.from_numpy(file_blocks(numbers(rows, columns).float().numpy(), GGMLQuantizationType(form.number)))
    return BlockLinear(StoredBlocks(form, raw, None, lambda: None))


def check(matrix, weight, bias=None, within=0.005):
    """Compare with a product in double precision, in which the sum is rounded once."""
    for rows in (1, 15, 16, 17, 33, 70):
        x = numbers(rows, weight.shape[1], seed=rows)
        found = prompt_product(matrix, x)
        expected = x.double() @ weight.double().T + (0 if bias is None else bias.double())
        assert found.shape == expected.shape
        torch.testing.assert_close(found.double(), expected, rtol=within, atol=within * float(expected.abs().max()))
        with threads(2):
            assert torch.equal(prompt_product(matrix, x), found)
        for some in (1, 8, 40):
            assert torch.equal(prompt_product(matrix, x[:some]), found[:some])
            assert torch.equal(prompt_product(matrix, x[-some:]), found[-some:])


@with_vectors
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_a_product_of_plain_weights(either, rows, columns, biased):
    weight, bias = numbers(rows, columns, seed=1), numbers(rows, seed=2) if biased else None
    check(NativeMatrix(weight, bias=bias), weight, bias)


@with_vectors
@pytest.mark.parametrize("form", [Int8Linear, Int4Linear])
@pytest.mark.parametrize(("rows", "columns"), [(16, 32), (96, 1376), (304, 768)])
def test_a_product_of_panels(either, form, rows, columns):
    product = form(numbers(rows, columns, seed=1), numbers(rows, seed=2), Arena())
    check(product.native(), product.dense(), numbers(rows, seed=2), LEVELS)


@with_vectors
@pytest.mark.parametrize("form", FORMATS.values(), ids=lambda form: form.name)
def test_a_product_of_the_blocks_of_a_file(either, form):
    product = blocks(form, 53, 1536)
    check(product.native(), product.dense(), within=LEVELS)


@with_vectors
def test_a_product_of_parts(either):
    parts = [blocks(FORMATS[8], 32, 256), blocks(FORMATS[2], 48, 256), blocks(FORMATS[14], 5, 256)]
    weight = torch.cat([part.dense() for part in parts])
    check(NativeParts(tuple(part.native() for part in parts)), weight, within=LEVELS)


@with_vectors
def test_more_inputs_than_pass_by_a_part_at_once(either):
    weight, x = numbers(80, 96), numbers(2100, 96, seed=1)
    found = prompt_product(NativeMatrix(weight), x)
    assert torch.equal(found[:5], prompt_product(NativeMatrix(weight), x[:5]))
    assert torch.equal(found[2050:], prompt_product(NativeMatrix(weight), x[2050:]))


@with_vectors
@pytest.mark.parametrize("form", FORMS)
def test_numbers_that_stand_out_leave_the_others_exact(either, form):
    """As in real inputs: few columns have numbers far above the others, and not the same ones in all rows."""
    product, x = form(numbers(48, 768, seed=1)), numbers(37, 768, seed=2)
    x[:, 70] = 60
    x[::3, 131] = -90
    expected = x.double() @ product.dense().double().T
    found = prompt_product(native_matrix(product), x)
    error = (found.double() - expected).norm(dim=1) / expected.norm(dim=1)
    assert error.max() < 0.005  # 0.012 and more if these groups had eight bits, too
    for first, last in ((0, 1), (1, 4), (2, 7), (30, 37)):
        assert torch.equal(prompt_product(native_matrix(product), x[first:last]), found[first:last])


@with_vectors
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrong", ["nan", "inf"])
def test_what_is_no_number_stays_in_its_row(either, form, wrong):
    matrix, x = native_matrix(form(numbers(48, 64))), numbers(20, 64, seed=1)
    expected = prompt_product(matrix, x)
    x[3, 5] = float(wrong)
    found = prompt_product(matrix, x)
    assert not found[3].isfinite().any()
    assert torch.equal(found[4:], expected[4:]) and torch.equal(found[:3], expected[:3])


@units_only
def test_others_go_on_with_the_units_of_a_thread():
    weight, x = numbers(576, 1536), numbers(300, 1536, seed=1)
    expected = linear(x, weight)
    for _ in range(3):
        prompt_product(NativeMatrix(numbers(64, 64)), numbers(3, 64))
        prefill.attend(*attention_of(20))
        assert torch.equal(linear(x, weight), expected)


def attention_of(new, before=100, width=64):
    query, key, value = attention_inputs(0, 2, 3, new, before + new, torch.bfloat16, width, width)
    return query, [(key, value)], width**-0.5, None


@pytest.mark.parametrize("width", [32, 64, 96, 128, 256])
def test_a_query_of_a_prompt_has_the_same_attention_in_any_company(either, width):
    query, segments, scale, window = attention_of(150, width=width)
    with threads(1):
        found = prefill.attend(query, segments, scale, window)
        for new in (1, 5, 40, 149):
            assert torch.equal(prefill.attend(query[:, :, -new:], segments, scale, window), found[:, -new:])


@pytest.mark.parametrize("rows", [1, 2, 31, 33, 64])
def test_a_row_of_bfloat16_has_the_same_bits_on_any_processor(rows):
    """The shapes are those of which oneDNN's products have other bits: on matrix units, and of one row on vectors."""
    for out, columns in ((576, 1536), (1536, 8960)):
        weight, x = numbers(out, columns), numbers(300, columns, seed=1)
        matrix = NativeMatrix(weight)
        whole = multiplied(x, matrix, lambda weight=weight: weight)
        assert torch.equal(multiplied(x[:rows], matrix, lambda weight=weight: weight), whole[:rows])


@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
def test_a_prompt_has_the_same_rows_in_whatever_pieces_it_is_read(quantization):
    shape = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}
    lm = HuggingFaceLM(model("llama", num_hidden_layers=2, **shape), take_over=True, quantization=quantization)

    def rows_of(*pieces):
        cache = lm.new_cache(400)
        for piece in ids(400).split(list(pieces)):
            lm.forward([Rows(piece, cache, 0, of_prompt=True)])
        return torch.cat([torch.stack(cache.layer(layer)).flatten() for layer in range(2)])

    whole = rows_of(400)
    assert torch.equal(rows_of(1, 32, 33, 34, 300), whole)
    with threads(2):
        assert torch.equal(rows_of(256, 144), whole)
