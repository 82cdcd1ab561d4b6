"""Streams of states in prompts, against the operators in double precision, on both paths of the kernels."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from rapid_integrations.kernels import cpu as native
from rapid_integrations.kernels.cpu import alternation, library
from rapid_integrations.kernels.layers import Norm
from rapid_integrations.models import alternating
from rapid_integrations.models.description import Alternation
from tests.toys.decoders import error

pytestmark = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")


@pytest.fixture(params=["fast", pytest.param("portable", marks=pytest.mark.process)])
def path(request, monkeypatch):
    if request.param == "portable":
        monkeypatch.setattr(library, "_outcome", library._Outcome(request.getfixturevalue("portable")))


def numbers(*shape, seed, factor=1.0):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * factor).bfloat16()


def made(streams, width, output=True):
    """Return how a layer alternates, for the kernels, and as the operators have it in double precision."""
    own = native.NativeAlternation(
        native.NativeMatrix(numbers(streams, width, seed=1)),
        Norm(1 + numbers(width, seed=2, factor=0.2), 1e-6),
        1 / width,
        numbers(streams * streams, streams, seed=3, factor=0.5),
        numbers(streams, streams, seed=4, factor=0.5),
        1 + numbers(width, seed=5, factor=0.2) if output else None,
    )
    matrices = [own.router.data, own.prediction, own.correction]
    linears = [nn.Linear(*each.shape[::-1], bias=False, dtype=torch.float64) for each in matrices]
    for linear, weight in zip(linears, matrices, strict=True):
        linear.weight.requires_grad_(False).copy_(weight)
    router, prediction, correction = linears
    norm = replace(own.norm, weight=own.norm.weight.double())
    exact = None if own.output is None else own.output.double()
    return own, Alternation(prediction, correction, router, norm, own.scale, exact)


@pytest.mark.parametrize(
    ("streams", "active", "width", "output"), [(4, 0, 96, True), (2, 1, 32, False), (8, 5, 64, True)]
)
def test_guesses_and_corrections_are_those_of_the_operators(path, streams, active, width, output):
    own, exact = made(streams, width, output)
    own = replace(own, scale=3 / width)  # so that the router says something
    exact = replace(exact, scale=own.scale)
    rows, computed = numbers(streams, 5, width, seed=6), numbers(5, width, seed=7)
    guesses = alternation.predicted(own, active, rows)
    assert error(guesses.double(), alternating.predicted(exact, active, rows.double())) < 0.004
    found, scaled = alternation.corrected(own, active, guesses, computed)
    expected = alternating.corrected(exact, active, guesses.double(), computed.double())
    assert error(found.double(), expected) < 0.004
    met = expected[active] if exact.output is None else expected[active] * exact.output
    assert error(scaled.double(), met) < 0.004


def test_a_row_has_the_same_bits_alone():
    own, _ = made(4, 96)
    rows, computed = numbers(4, 7, 96, seed=6), numbers(7, 96, seed=7)
    guesses = alternation.predicted(own, 0, rows)
    found, scaled = alternation.corrected(own, 0, guesses, computed)
    for t in range(7):
        alone = alternation.predicted(own, 0, rows[:, t : t + 1].contiguous())
        assert torch.equal(alone[:, 0], guesses[:, t])
        streams, met = alternation.corrected(own, 0, alone, computed[t : t + 1])
        assert torch.equal(streams[:, 0], found[:, t]) and torch.equal(met[0], scaled[t])
