"""The residual stream, its norms, and the embedding table, against the operators."""

import pytest
import torch

from rapid_integrations.kernels.cuda.norms import add_norm, embed
from rapid_integrations.kernels.layers import Norm
from rapid_integrations.models.norms import normalised

WIDTH = 37  # not a power of two


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


NORMS = {
    "rms": Norm(drawn(WIDTH, seed=1), 1e-5),
    "gemma": Norm(drawn(WIDTH, seed=1), 1e-6, offset=1.0),
    "layer": Norm(drawn(WIDTH, seed=1), 1e-5, bias=drawn(WIDTH, seed=2), centred=True),
    "no weight": Norm(None, 1e-5),
}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("factor", [1.0, 0.3])
def test_the_sum_is_written_back_and_normalised(name, factor):
    x, more = drawn(5, WIDTH), drawn(5, WIDTH, seed=3)
    out = torch.full((5, WIDTH), float("nan"))
    expected = x + factor * more
    found = add_norm(x, more, factor, NORMS[name], out)
    assert found is out
    torch.testing.assert_close(x, expected)
    torch.testing.assert_close(out, normalised(NORMS[name], expected))


def test_half_precision_is_rounded_once():
    x, more = (drawn(4, WIDTH, seed=seed).half() for seed in (1, 2))
    norm = Norm(drawn(WIDTH, seed=3).half(), 1e-5)
    expected = x + more
    out = add_norm(x, more, 1.0, norm, torch.empty_like(x))
    assert torch.equal(x, expected)
    exact = normalised(Norm(norm.weight.double(), 1e-5), expected.double())
    # Half a unit in the last place of eleven bits, and the rounding of float32 within.
    assert ((out.double() - exact).abs() <= exact.abs() * (2**-11 + 1e-6) + 2**-25).all()


def test_bfloat16():
    x, more = (drawn(4, WIDTH, seed=seed, dtype=torch.bfloat16) for seed in (1, 2))
    exact = x.double() + more.double()
    add_norm(x, more, 1.0, None, torch.empty_like(x))
    assert ((x.double() - exact).abs() <= exact.abs() * 2**-7).all()  # the interpreter cuts off what a GPU rounds


def test_without_a_norm_the_sum_itself_is_returned():
    x, more = drawn(3, WIDTH), drawn(3, WIDTH, seed=1)
    expected = x + more
    assert add_norm(x, more, 1.0, None, torch.empty_like(x)) is x
    torch.testing.assert_close(x, expected)
    assert add_norm(x, None, 1.0, None, torch.empty_like(x)) is x
    torch.testing.assert_close(x, expected)


def test_a_norm_may_be_of_a_part_of_each_row_in_place():
    whole = drawn(4, 3 * WIDTH)
    part, others = whole[:, WIDTH : 2 * WIDTH], whole.clone()
    expected = normalised(NORMS["rms"], part.clone())
    add_norm(part, None, 1.0, NORMS["rms"], part)
    torch.testing.assert_close(part, expected)
    assert torch.equal(whole[:, :WIDTH], others[:, :WIDTH])
    assert torch.equal(whole[:, 2 * WIDTH :], others[:, 2 * WIDTH :])


def test_an_id_that_is_no_token_becomes_nan_and_reads_nothing():
    table = drawn(9, WIDTH)
    ids = torch.tensor([8, 0, 9, -1, 1 << 40])
    out = embed(ids, table, 2.0, torch.zeros(5, WIDTH))
    assert torch.equal(out[:2], 2 * table[[8, 0]])
    assert out[2:].isnan().all()
