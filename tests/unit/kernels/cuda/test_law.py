"""p_hat at many positions, against the reference."""

import pytest
import torch

from rapid_integrations.kernels.cuda.law import p_hat_rows
from rapid_integrations.sampling import TorchOps
from tests.unit.kernels.cuda.waits import NoWaits

OPS = TorchOps()


def logits(rows, width, seed, spread=4.0):
    return spread * torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def pairs(rows, width, seed=0):
    """Return logits of both models: some alike, some contrary, some sure, some flat."""
    z, d = logits(rows, width, seed), logits(rows, width, seed + 1)
    d[1::4] = z[1::4] + 0.3 * d[1::4]
    z[2::4] *= 3
    d[3::4] *= 0.1
    return z, d


def check(z, d, temperature=1.0, block=64, atol=2e-6, **shift):
    given = {"eta": "auto", "relevance": 1.0, "trust": 0.0, "tail_rule": "mask", "tail_alpha": 0.1, **shift}
    found = p_hat_rows(z, d, temperature, **given, block=block)
    for row, own_z, own_d in zip(found, z, d, strict=True):
        torch.testing.assert_close(row, OPS.p_hat(own_z, own_d, temperature, **given), atol=atol, rtol=1e-3)


@pytest.mark.parametrize("tail_rule", ["mask", "restore"])
@pytest.mark.parametrize("eta", ["auto", "nearest", 0.0, 3.0, 30])
def test_every_eta_and_tail_rule(eta, tail_rule):
    check(*pairs(8, 150), eta=eta, tail_rule=tail_rule)


@pytest.mark.parametrize("shift", [{"relevance": 0.3}, {"trust": 0.4}, {"tail_alpha": 0.0}, {"tail_alpha": 1.0}])
def test_what_else_shifts(shift):
    check(*pairs(4, 150), **shift)


@pytest.mark.parametrize("temperature", [0.3, 2.0, 1e-30])
def test_temperatures(temperature):
    check(*pairs(4, 150), temperature)


@pytest.mark.parametrize(("width", "block"), [(3, 64), (64, 64), (65, 64), (700, 128), (500, 1024)])
def test_widths_and_blocks(width, block):
    check(*pairs(4, width), block=block)


def test_masked_tokens_stay_impossible():
    z, d = pairs(4, 150)
    z[:, ::3] = d[:, ::3] = float("-inf")
    check(z, d)
    assert (p_hat_rows(z, d, 1.0, eta="auto", block=64)[:, ::3] == 0).all()


def test_equal_distributions_are_left_alone():
    z, _ = pairs(4, 150)
    torch.testing.assert_close(p_hat_rows(z, z, 1.0, eta="auto", block=64), z.softmax(-1), atol=1e-6, rtol=1e-5)


def test_nothing_waits_for_the_device():
    z, d = pairs(2, 150)
    with NoWaits():
        p_hat_rows(z, d, 0.5, eta="auto", tail_rule="restore", block=64)


@pytest.mark.slow
def test_hundreds_of_random_positions():
    for seed in range(8):
        check(*pairs(100, 120, 10 * seed), (0.4, 1.0, 1.7)[seed % 3], tail_rule=("mask", "restore")[seed % 2])
