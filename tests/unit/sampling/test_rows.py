"""All positions of a round at once, against the host's law, verification and randomness on thousands of rounds."""

from dataclasses import replace

import pytest
import torch

from rapid_integrations.sampling import Law, Randomness, TorchOps, verify
from rapid_integrations.sampling.rows import TorchRows
from tests.toys.fake_gpu import HostWaitsError, fake_gpu

ROWS = TorchRows()
LAWS = [
    Law("target"),
    Law("target", temperature=1.0, top_k=4),
    Law("target", temperature=0.6, top_p=0.8, min_p=0.05),
    Law("augmented", eta=10.0),
    Law("augmented", relevance=0.9, trust=0.3),
    Law("augmented", temperature=1.0, relevance=0.9, trust=0.3),
    Law("augmented", temperature=0.7, eta="nearest", top_p=0.9),
    Law("augmented", temperature=1.3, eta=3.0, tail_rule="restore"),
]
ON_DEVICE = [replace(law, ops=TorchOps(ROWS)) for law in LAWS]
IDS = [f"{law.kind} T={law.temperature} eta={law.eta}" for law in LAWS]


class Counted(Randomness):
    """Counts the uniform numbers that it gives."""

    used = 0

    def _uniform(self):
        self.used += 1
        return super()._uniform()


def logits(generator, rows, width):
    return torch.randn(rows, width, generator=generator) * torch.rand(1, generator=generator) * 8


def host_round(law, z, d, draft, proposed, seed):
    """Return what the host makes of a chain: accepted, the token behind them, uniform numbers used."""
    rng = Counted(seed)
    formed = [law.form(z[i], None if d is None else d[i]) for i in range(len(z))]
    found = verify(draft, proposed, lambda place: formed[place], rng)
    token = found.correction
    if token is None:
        token = rng.draw(formed[len(draft)])
    return found.accepted, token, rng.used


@pytest.mark.parametrize("law", LAWS, ids=IDS)
def test_a_law_of_each_row(law):
    generator = torch.Generator().manual_seed(1)
    for width in (3, 70, 1500):
        for _ in range(10):
            z, d = logits(generator, 4, width), logits(generator, 4, width)
            d = None if law.kind == "target" else d
            found = replace(law, ops=TorchOps(ROWS)).form_rows(z, d)
            expected = torch.stack([law.form(z[i], None if d is None else d[i]) for i in range(4)])
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.in_a_hurry(2)
@pytest.mark.in_turn(2)
@pytest.mark.parametrize("drawn", [True, False], ids=["drawn", "copied"])
@pytest.mark.parametrize("law", LAWS, ids=IDS)
def test_rounds_end_as_the_hosts_do(law, drawn):
    generator = torch.Generator().manual_seed(2)
    seen = set()
    for seed in range(130):
        width, count = (
            int(torch.randint(2, 9, (), generator=generator)),
            int(torch.randint(0, 6, (), generator=generator)),
        )
        z = logits(generator, count + 1, width)
        d = z + logits(generator, count + 1, width) / 4
        proposed = None if not drawn or law.greedy else [law.propose(row) for row in d[:count]]
        if proposed is None:
            draft = torch.randint(0, width, (count,), generator=generator).tolist()
            draft = [int(row.argmax()) if seed % 2 else each for row, each in zip(d[:count], draft, strict=True)]
        else:
            draft = [int(torch.multinomial(row, 1, generator=generator)) for row in proposed]
        length = count if seed % 3 or not count else 1 + seed % count
        d = None if law.kind == "target" else d
        cut = None if proposed is None else proposed[:length]
        expected = host_round(law, z[: length + 1], d, draft[:length], cut, seed)
        found = ROWS.verify(
            replace(law, ops=TorchOps(ROWS)).form_rows(z, d),
            torch.tensor(draft, dtype=torch.int64),
            None if proposed is None else torch.stack(proposed) if count else torch.empty(0, width),
            torch.tensor(Randomness(seed).ahead(count + 2), dtype=torch.float64),
            None if length == count else torch.tensor(length),
        )
        assert tuple(found.tolist()) == expected, seed
        seen.add((expected[0], expected[0] == length))
    assert len(seen) > 5


def test_a_draw_is_the_hosts():
    generator = torch.Generator().manual_seed(3)
    for seed in range(200):
        probs = torch.rand(50, generator=generator) * (torch.rand(50, generator=generator) > 0.5)
        probs[seed % 50] = 0.3
        share = torch.rand(1, generator=generator, dtype=torch.float64)
        assert int(ROWS.draw(probs, share)) == Randomness()._ops.draw(probs, float(share))


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize("law", ON_DEVICE, ids=IDS)
def test_nothing_makes_the_host_wait(law, drawn):
    with fake_gpu() as gpu:
        z, d = (torch.empty(6, 300, device=gpu) for _ in "zd")
        with pytest.raises(HostWaitsError):
            float(z.sum())
        formed = law.form_rows(z, None if law.kind == "target" else d)
        draft = torch.empty(5, dtype=torch.int64, device=gpu)
        uniforms = torch.empty(7, dtype=torch.float64, device=gpu)
        length = torch.empty((), dtype=torch.int64, device=gpu)
        found = ROWS.verify(formed, draft, torch.empty(5, 300, device=gpu) if drawn else None, uniforms, length)
        assert found.device == gpu and found.shape == (3,)
        assert law.propose_rows(z).shape == (6, 300)
