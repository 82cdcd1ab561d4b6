"""What is made for a processor against its twin in torch, which tests/unit/sampling checks against a slow reference."""

import pytest
import torch

from rapid_integrations.sampling import TorchOps
from tests.toys.ops import name_of, processor_ops
from tests.unit.kernels.cpu.rounding import rounding_decides

TWIN = TorchOps()
TEMPERATURES = (0.01, 0.7, 1.0, 3.0)
NO_EDGES = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
EDGES = (
    NO_EDGES | {"top_k": 3},
    NO_EDGES | {"top_p": 0.93},
    NO_EDGES | {"min_p": 0.021},
    NO_EDGES | {"top_k": 40, "top_p": 0.8},
)


def shift(eta="auto", tail_rule="mask", tail_alpha=0.1, relevance=1.0, trust=0.0):
    return {"eta": eta, "relevance": relevance, "trust": trust, "tail_rule": tail_rule, "tail_alpha": tail_alpha}


SHIFTS = (
    shift("auto"),
    shift("auto", relevance=0.4, trust=0.3),
    shift("nearest", tail_alpha=0.5),
    shift(0.0),
    shift(10.0, tail_alpha=0.013),
    shift(5.0, "restore"),  # from here on the kernels leave it to torch
    shift("auto", tail_alpha=0.0),
)

KINDS = ("random", "flat", "sharp", "ties", "minus infinity", "best only", "denormal", "strided")
SIZES = (2, 3, 15, 17, 256, 1000, 33_000, 150_000)


def vectors(kind, size):
    """Return two vectors of logits (V,) of a kind."""
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(2, size, generator=generator)
    if kind == "flat":
        x = 0.01 * x
    elif kind == "sharp":
        x = 30 * x
    elif kind == "ties":
        x = (2 * x).round()
    elif kind == "minus infinity":  # as a mask leaves them
        x[:, 1::2] = -torch.inf
    elif kind == "best only":  # as a drafter on another machine sends them, beside a whole target
        best = x[1].topk(min(20, size))
        x[1] = torch.full((size,), -torch.inf).scatter(0, best.indices, best.values)
    elif kind == "denormal":  # e^-90 is no normal number in single precision
        x[:, 1::2] -= 90 + x[:, 1::2].max()
    elif kind == "strided":
        x = strided(x)
    return x.unbind()


def strided(x):
    """Return the same (..., V), spread over three times its memory."""
    x = x.repeat_interleave(3, dim=-1)[..., ::3]
    assert x.stride(-1) == 3
    return x


def distributions(kind, size):
    laws = torch.stack(vectors(kind, size)).softmax(-1)
    return (strided(laws) if kind == "strided" else laws).unbind()


def agree(found, expected, rtol=1e-4, atol=1e-7):
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.double(), expected.double(), rtol=rtol, atol=atol)


def check_softmax(ops, *vectors):
    for x in vectors:
        for temperature in TEMPERATURES:
            agree(ops.softmax(x, temperature), TWIN.softmax(x.double(), temperature))


def check_p_hat(ops, z, y):
    for temperature in TEMPERATURES if len(z) < 2000 else (0.7,):
        for how in SHIFTS:
            if how["tail_alpha"] == 0.0 and temperature == 0.01:
                continue  # the search sees 64 tokens, and which of equal ones is left to chance
            expected = TWIN.p_hat(z.double(), y.double(), temperature, **how)
            agree(ops.p_hat(z, y, temperature, **how), expected, rtol=2e-3, atol=1e-5)


def check_best_of_p_hat(ops, z, y):
    for how in SHIFTS:
        expected = TWIN.p_hat(z.double(), y.double(), 1.0, **how)
        token = ops.best_of_p_hat(z, y, **how)
        assert float(expected[token]) >= float(expected.max()) * (1 - 1e-5)


def check_truncate(ops, *vectors):
    for probs in vectors:
        for edges in EDGES:
            if rounding_decides(probs, **edges):
                continue
            expected, found = TWIN.truncate(probs.double(), **edges), ops.truncate(probs.clone(), **edges)
            agree(found.sort().values, expected.sort().values)  # of equal ones, either may fill a nucleus
            agree(found[found > 0], (probs.double() / probs.double()[found > 0].sum())[found > 0])


def check_residual(ops, law, proposed):
    for factor in (0.3, 0.9, 1.0):
        (left, found), (expected, rest) = (
            each.residual(*args)
            for each, args in ((ops, (law, factor, proposed)), (TWIN, (law.double(), factor, proposed.double())))
        )
        assert left == pytest.approx(expected, rel=1e-3, abs=1e-6)
        if left:
            agree(found, rest, rtol=1e-3)
    assert ops.residual(law, 1.0, law)[0] == 0.0


def check_without(ops, *vectors):
    for law in vectors:
        for token in (0, len(law) // 2, int(law.argmax())):
            agree(ops.without(law, token), TWIN.without(law.double(), token), rtol=1e-3)
    point = TWIN.point_mass(1, law)
    assert ops.without(point, 1).equal(point) and ops.without(point, 0).equal(point)


def check_draw(ops, *vectors):
    for probs in vectors:
        running = probs.double().cumsum(-1)
        for share in (0.0, 5e-324, 0.1, 0.5, 0.77, 0.999, 1 - 2.0**-53):
            drawn = ops.draw(probs, share)
            assert probs[drawn] > 0
            on_an_edge = bool(((running - share * running[-1]).abs() < 1e-12).any())
            assert drawn == TWIN.draw(probs, share) or on_an_edge


def check_best(ops, *vectors):
    for x in vectors:
        assert ops.best(x) == TWIN.best(x)


def check_point_mass(ops, like, _):
    for token in (0, len(like) - 1):
        assert ops.point_mass(token, like).equal(TWIN.point_mass(token, like))


OF_LOGITS = {
    "softmax": check_softmax,
    "p_hat": check_p_hat,
    "best_of_p_hat": check_best_of_p_hat,
    "best": check_best,
    "point_mass": check_point_mass,
}
OF_DISTRIBUTIONS = {
    "truncate": check_truncate,
    "residual": check_residual,
    "without": check_without,
    "draw": check_draw,
}
CHECKS = OF_LOGITS | OF_DISTRIBUTIONS


@pytest.mark.in_turn(3)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("operation", CHECKS)
@pytest.mark.parametrize("ops", processor_ops(), ids=name_of)
def test_an_operation_is_its_twin_in_torch(ops, operation, size, kind):
    given = (vectors if operation in OF_LOGITS else distributions)(kind, size)
    before = [each.clone() for each in given]
    CHECKS[operation](ops, *given)
    assert all(x.equal(y) for x, y in zip(given, before, strict=True))


def test_no_operation_is_left_out():
    assert set(CHECKS) == {name for name in vars(TorchOps) if not name.startswith("_")}
