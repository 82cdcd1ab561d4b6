from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rapid_integrations.sampling import Ops, Randomness
from tests.toys.distributions import chi_square_p_value
from tests.toys.ops import every_ops, name_of
from tests.unit.sampling.strategies import distributions

RUNS = 20_000
ALPHA = 1e-4


@pytest.fixture(params=every_ops(), ids=name_of)
def ops(request) -> Ops:
    return request.param


class ScriptedUniform(Randomness):
    """Gives the uniform numbers that it is told."""

    def __init__(self, ops: Ops, *numbers: float) -> None:
        super().__init__(0, ops)
        self._numbers = list(numbers)

    def _uniform(self) -> float:
        return self._numbers.pop(0)


def test_a_seed_repeats_the_decisions(ops):
    probs = torch.tensor([0.1, 0.2, 0.3, 0.4])

    def decisions(rng: Randomness) -> list[int]:
        return [rng.draw(probs) if i % 2 else int(rng.accept(0.5)) for i in range(60)]

    assert decisions(Randomness(5, ops)) == decisions(Randomness(5, ops))
    assert decisions(Randomness(5, ops)) != decisions(Randomness(6, ops))
    assert decisions(Randomness(ops=ops)) != decisions(Randomness(ops=ops))  # a fresh seed each: equal once in 10^27


def test_a_seed_means_the_same_whoever_computes(ops):
    point, flat = torch.tensor([0.0, 1.0, 0.0]), torch.full((1000,), 1e-3)

    def drawn(rng: Randomness) -> list[int]:
        return [rng.draw(point), *(rng.draw(flat) for _ in range(5))]

    assert drawn(Randomness(0, ops)) == drawn(Randomness(0))


def test_the_global_generator_is_neither_read_nor_written():
    probs = torch.tensor([0.1, 0.2, 0.3, 0.4])
    torch.manual_seed(0)
    before = torch.get_rng_state()
    drawn = [Randomness(1).draw(probs) for _ in range(3)]
    Randomness().accept(0.5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert [Randomness(1).draw(probs) for _ in range(3)] == drawn


@pytest.mark.parametrize(
    ("probability", "numbers"), [(0.0, 0), (-0.5, 0), (1e-12, 1), (1 - 1e-7, 1), (1.0, 1), (1.5, 1)]
)
def test_only_what_is_impossible_draws_nothing(probability, numbers):
    """Whether it is 1 or all but 1 can hang on the rounding of a pass, and a seed must not."""
    probs = torch.full((1000,), 1e-3)
    rng, other = Randomness(3), Randomness(3)
    rng.skip(numbers)
    assert other.accept(probability) is (probability > 0.5)
    assert [rng.draw(probs) for _ in range(20)] == [other.draw(probs) for _ in range(20)]


def test_frequencies_of_draws(ops):
    probs = torch.tensor([0.0, 0.02, 0.5, 0.0, 0.3, 0.18, 0.0])
    rng = Randomness(11, ops)
    counts = Counter(rng.draw(probs) for _ in range(RUNS))
    assert chi_square_p_value(counts, {i: float(p) for i, p in enumerate(probs) if p > 0}) > ALPHA


@pytest.mark.parametrize("probability", [0.03, 0.5, 0.9])
def test_frequencies_of_accepts(probability):
    rng = Randomness(12)
    counts = Counter(rng.accept(probability) for _ in range(RUNS))
    assert chi_square_p_value(counts, {True: probability, False: 1 - probability}) > ALPHA


def test_the_frequency_test_can_fail():
    rng = Randomness(13)
    counts = Counter(rng.draw(torch.tensor([0.53, 0.47])) for _ in range(RUNS))
    assert chi_square_p_value(counts, {0: 0.5, 1: 0.5}) < ALPHA


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    probs=distributions(7),
    uniform=st.one_of(st.sampled_from([0.0, 5e-324, 1 - 2.0**-53, 1.0]), st.floats(0, 1, exclude_max=True)),
)
def test_a_zero_entry_is_never_drawn_and_the_right_one_is(ops, probs, uniform):
    drawn = ScriptedUniform(ops, uniform).draw(probs)
    assert probs[drawn] > 0
    values = probs.double()
    below, total = float(values[:drawn].sum()), float(values.sum())
    assert below - 1e-12 <= uniform * total <= below + float(values[drawn]) + 1e-12


def test_weights_need_not_sum_to_one(ops):
    # Float32 distributions never do exactly; the error must not fall on one token.
    third = torch.tensor([1.0, 1.0, 1.0])
    assert [ScriptedUniform(ops, u).draw(third) for u in (0.0, 0.33, 0.34, 0.66, 0.67, 0.999)] == [0, 0, 1, 1, 2, 2]


def test_improbable_tokens_at_the_end_are_not_lost_to_rounding(ops):
    # Behind a cumulative probability of 1, float32 has no room for entries of 1e-9.
    probs = torch.tensor([0.75, 0.25, *[1e-9] * 100])
    assert ScriptedUniform(ops, 1 - 50.5e-9).draw(probs) == 51


@pytest.mark.parametrize("drawn", [0, 1, 60, 64, 65])
@pytest.mark.parametrize("ahead", [0, 1, 10, 64, 200])
def test_what_is_looked_at_is_drawn_next(drawn, ahead):
    weights = torch.full((1000,), 0.001, dtype=torch.float64)
    looking, plain = Randomness(7), Randomness(7)
    assert [looking.draw(weights) for _ in range(drawn)] == [plain.draw(weights) for _ in range(drawn)]
    shares = looking.ahead(ahead)
    assert len(shares) == ahead and looking.ahead(ahead) == shares
    expected = [int(share * 1000) for share in shares]
    drawn_next = [looking.draw(weights) for _ in range(ahead)]
    assert all(abs(one - other) <= 1 for one, other in zip(drawn_next, expected, strict=True))
    assert drawn_next == [plain.draw(weights) for _ in range(ahead)]
    assert looking.draw(weights) == plain.draw(weights)
